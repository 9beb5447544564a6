"""Data of a given shape for models that are timed: batches from memory, as the model sees data."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ganzoo.data import Batch, GANDataModule


class Noise(GANDataModule):
    """Uniform in [-1, 1], with random labels: what is timed does not depend on what the numbers are."""

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
        return Endless(self.batch_size // accumulate, self._shape, self.num_classes)

    def prepare(self, batch: Any, device: torch.device) -> tuple[Tensor, Tensor | None]:
        data, labels = batch
        return data.to(device), None if labels is None else labels.to(device)


class Endless:
    """A loader of a few micro-batches and their labels, again and again."""

    def __init__(self, num: int, shape: tuple[int, ...], num_classes: int) -> None:
        self.batches = [
            (torch.rand(num, *shape) * 2 - 1, torch.randint(num_classes, (num,)) if num_classes else None)
            for _ in range(4)
        ]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        yield from cycle(self.batches)
