"""Data of a given shape for models that are timed without a recipe."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ganzoo.data import Batch, GANDataModule


class Noise(GANDataModule):
    """Facts of a shape; batches come from :mod:`benchmarks.speed`."""

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

    def prepare(self, batch: Batch, device: torch.device) -> tuple[Tensor, Tensor | None]:
        raise TypeError("Noise has a shape, but no examples.")
