"""Data of a given shape for models that are timed: what a cycle takes does not depend on what the numbers are.

:class:`Noise` is batches in the memory of the device, as the model sees data; :class:`NoiseImages` images as ganzoo
keeps them, which take the way of any other images to the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property, partial
from itertools import cycle
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ganzoo.data import Batch, GANDataModule
from ganzoo.data.arrays import ArrayPictures
from ganzoo.data.framing import Framing, Pixels
from ganzoo.data.images import ImageData
from ganzoo.data.pictures import Labels


class Noise(GANDataModule):
    """Uniform in [-1, 1], with random labels."""

    def __init__(self, shape: list[int], *, classes: int = 0, **options: Any) -> None:
        """
        Args:
            shape: (C, H, W) of images, or (d,) of points.
            classes: How many; 0: none.
            **options: Of the base.
        """
        super().__init__(labels=classes > 0, **options)
        self._shape, self._classes = tuple(shape), classes

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def channels(self) -> int:
        return self._shape[0]

    @property
    def image_size(self) -> int:
        return self._shape[-1]

    @property
    def class_names(self) -> list[str]:
        return [str(i) for i in range(self._classes)]

    @property
    def num(self) -> int | None:
        return None

    @property
    def content_hash(self) -> str:
        return "none"

    @property
    def dataset(self) -> Dataset[Batch]:
        raise TypeError("Noise has a shape, but no examples.")

    def train_dataloader(self) -> Any:
        accumulate = getattr(getattr(self.trainer, "lightning_module", None), "accumulate", 1)
        device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
        return Endless(self.batch_size // accumulate, self._shape, self.num_classes, device)

    def prepare(self, batch: Any, device: torch.device) -> tuple[Tensor, Tensor | None]:
        data, labels = batch
        return data.to(device), None if labels is None else labels.to(device)


class Endless:
    """A loader of a few micro-batches and their labels on a device, again and again."""

    def __init__(self, num: int, shape: tuple[int, ...], num_classes: int, device: torch.device) -> None:
        self.batches = [
            (
                torch.rand(num, *shape, device=device) * 2 - 1,
                torch.randint(num_classes, (num,), device=device) if num_classes else None,
            )
            for _ in range(4)
        ]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        yield from cycle(self.batches)


class NoiseImages(ImageData):
    """Images of random levels, cached like any others."""

    def __init__(self, shape: list[int], *, classes: int = 0, num: int, **options: Any) -> None:
        """
        Args:
            shape: (C, H, W).
            classes: How many; 0: none.
            num: Of images.
            **options: Of the base.
        """
        channels, height, width = shape
        super().__init__(image_size=(height, width), channels=channels, labels=classes > 0, **options)
        self._num, self._classes = num, classes

    @cached_property
    def pictures(self) -> NoisePictures:
        return NoisePictures(self._num, self._classes, self.framing)


class NoisePictures(ArrayPictures):
    """What such a cache is made from."""

    def __init__(self, num: int, classes: int, framing: Framing) -> None:
        super().__init__("noise", framing)
        self._num, self._classes = num, classes

    @property
    def num(self) -> int:
        return self._num

    @cached_property
    def labels(self) -> Labels:
        if not self._classes:
            return Labels(None, [])
        return Labels(np.arange(self._num) % self._classes, [str(i) for i in range(self._classes)])

    def stamp(self) -> Any:
        return ["noise", self._num, self._classes]

    def blocks(self, step: int) -> Iterator[Callable[[], Pixels]]:
        for start in range(0, self._num, step):
            yield partial(self._block, start, min(step, self._num - start))

    def _block(self, start: int, num: int) -> Pixels:
        shape = num, self.framing.height, self.framing.width, self.framing.channels
        return np.random.default_rng(start).integers(0, 256, shape, np.uint8)
