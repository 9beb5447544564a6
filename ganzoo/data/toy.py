"""Points in the plane from known distributions, drawn without end."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ganzoo import streams
from ganzoo.data.base import GANDataModule
from ganzoo.data.batch import Batch


class Ring(GANDataModule):
    """Points around equal modes on a circle: the toy that shows whether a GAN drops modes."""

    def __init__(self, *, num_modes: int = 8, radius: float = 2.0, std: float = 0.02, **options: Any) -> None:
        """
        Args:
            num_modes: Normal distributions, equally spaced; the first lies on the positive x axis.
            radius: Of the circle of their means.
            std: Of each, in both directions.
            **options: Of the base.
        """
        super().__init__(**options)
        self.num_modes, self.radius, self.std = num_modes, radius, std

    @property
    def shape(self) -> tuple[int]:
        return (2,)

    @property
    def class_names(self) -> list[str]:
        return [f"mode {i}" for i in range(self.num_modes)]

    @property
    def num(self) -> None:
        """Points are drawn without end."""

    @cached_property
    def content_hash(self) -> str:
        facts = [type(self).__name__, self.num_modes, self.radius, self.std]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    @cached_property
    def dataset(self) -> RingPoints:
        return RingPoints(self.num_modes, self.radius, self.std, self.num_classes > 0)

    def prepare(self, batch: Batch, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """The points as they are, float32 (N, 2), on the device."""
        return batch.data.to(device), None if batch.labels is None else batch.labels.to(device)


class RingPoints(Dataset[Batch]):
    """The point at each place of an endless stream; the same place always holds the same point."""

    def __init__(self, num_modes: int, radius: float, std: float, labels: bool) -> None:
        self.num_modes, self.radius, self.std, self.labels = num_modes, radius, std, labels

    def __getitem__(self, places: npt.ArrayLike) -> Batch:
        modes, normals = zip(*(self._draw(place) for place in np.asarray(places).tolist()), strict=True)
        mode, angle = torch.tensor(modes), torch.tensor(modes) * (2 * torch.pi / self.num_modes)
        means = self.radius * torch.stack([angle.cos(), angle.sin()], dim=1)
        return Batch(means + self.std * torch.stack(normals), mode if self.labels else None)

    def _draw(self, place: int) -> tuple[int, Tensor]:
        generator = streams.generator("ring", place)
        return int(torch.randint(self.num_modes, (), generator=generator)), torch.randn(2, generator=generator)
