"""Data sets with a name: Digits (no download), MNIST, Fashion-MNIST and CIFAR-10."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ganzoo.data.arrays import ArrayPictures
from ganzoo.data.cache import cache_root
from ganzoo.data.framing import Resample
from ganzoo.data.images import ImageData
from ganzoo.data.pictures import Labels
from ganzoo.errors import UserError

Split = Literal["train", "test"]


class Digits(ImageData):
    """1,797 handwritten digits of 8x8 pixels, resized; part of scikit-learn, so nothing is downloaded."""

    def __init__(
        self,
        *,
        image_size: int | tuple[int, int] = 32,
        channels: int = 1,
        resample: Resample = "bilinear",
        **options: Any,
    ) -> None:
        """
        Args:
            image_size: Side of a square, or height and width.
            channels: 1 for gray, 3 for RGB, 4 to keep transparency.
            resample: Filter for resizing.
            **options: Of the base.
        """
        super().__init__(image_size=image_size, channels=channels, resample=resample, **options)

    @cached_property
    def pictures(self) -> ArrayPictures:
        return _Digits("Digits", self.framing)


class _Digits(ArrayPictures):
    def stamp(self) -> Any:
        return "scikit-learn digits"

    @cached_property
    def images(self) -> npt.NDArray[np.uint8]:
        from sklearn.datasets import load_digits

        levels = load_digits().images  # (1797, 8, 8), 0 to 16
        return np.rint(levels * (255 / 16)).astype(np.uint8)[..., None]

    @cached_property
    def labels(self) -> Labels:
        from sklearn.datasets import load_digits

        return Labels(load_digits().target.astype(np.int64), [str(i) for i in range(10)])
