"""Toys: points of known distributions on the line and in the plane, drawn without end."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from abc import abstractmethod
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
from ganzoo.data.toy_distributions import Arms, Moons, Normals, Points, Roll
from ganzoo.errors import UserError


class Toy(GANDataModule):
    """Base of the toys: points of a known distribution, drawn without end."""

    @property
    @abstractmethod
    def distribution(self) -> Points:
        """What is drawn: its density, modes and quantiles where they are closed form."""

    @property
    def shape(self) -> tuple[int]:
        """Of one point."""
        return (2,)

    @property
    def class_names(self) -> list[str]:
        """Names of the parts that the distribution consists of."""
        return []

    @property
    def num(self) -> None:
        """Points are drawn without end."""

    @property
    def class_counts(self) -> list[int]:
        """One for each part, as all are equally likely; empty without labels."""
        return [1] * self.num_classes

    def draw(self, num: int, seed: int = 0) -> Tensor:
        """Points (num, d) that are in no batch, to compare samples with."""
        return self.distribution.draw(num, streams.generator("toy", "compare", seed))[0]

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of what says all about the points."""
        facts = {name: value for name, value in self.config()["init_args"].items() if name not in _NO_FACTS}
        return hashlib.sha256(json.dumps([type(self).__name__, _FORMAT, facts]).encode()).hexdigest()

    @cached_property
    def dataset(self) -> EndlessPoints:
        """The stream."""
        return EndlessPoints(self.distribution, self.num_classes > 0)

    def prepare(self, batch: Batch, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """The points as they are, float32 (N, d), on the device."""
        return batch.data.to(device), None if batch.labels is None else batch.labels.to(device)


_FORMAT = 2  # of the stream: raised when a place comes to hold another point
_NO_FACTS = ("batch_size", "num_workers", "labels", "on_device")


class _Modes(Toy):
    """Normal distributions, each of them a class."""

    @property
    @abstractmethod
    def distribution(self) -> Normals:
        """The modes."""

    @property
    def shape(self) -> tuple[int]:
        return (self.distribution.means.shape[1],)

    @property
    def class_names(self) -> list[str]:
        return [f"mode {i}" for i in range(len(self.distribution.means))]

    @property
    def class_counts(self) -> list[int]:
        """Number of points of each mode in a million, as there is no end of them; empty without labels."""
        return [round(1e6 * share) for share in self.distribution.weights.tolist()] if self.labels else []


class Mixture(_Modes):
    """Normal distributions on the line: small enough to see densities and the optimal discriminator."""

    def __init__(
        self,
        *,
        means: list[float] = [-3.0, 0.0, 4.0],  # noqa: B006  never changed; a tuple would not be a list in YAML
        stds: list[float] = [0.5, 0.8, 0.3],  # noqa: B006
        weights: list[float] | None = None,
        **options: Any,
    ) -> None:
        """
        Args:
            means: Of the normal distributions.
            stds: Of each.
            weights: Share of each, in any unit; none: equal shares.
            **options: Of the base.
        """
        super().__init__(**options)
        weights = [1.0] * len(means) if weights is None else weights
        if not (len(means) == len(stds) == len(weights) >= 1):
            raise UserError(
                f"A mixture of {len(means)} means, {len(stds)} stds and {len(weights)} weights was asked for; give as "
                "many of each."
            )
        _check_positive(type(self).__name__, stds=min(stds), weights=min(weights))
        self.means, self.stds, self.weights = means, stds, weights

    @cached_property
    def distribution(self) -> Normals:
        means, stds, weights = (torch.tensor(x, dtype=torch.float32) for x in (self.means, self.stds, self.weights))
        return Normals(means[:, None], stds, weights / weights.sum())


class Ring(_Modes):
    """Points around equal modes on a circle: the toy that shows whether a GAN drops modes."""

    def __init__(self, *, num_modes: int = 8, radius: float = 2.0, std: float = 0.02, **options: Any) -> None:
        """
        Args:
            num_modes: Normal distributions, equally spaced; the first lies on the positive x axis.
            radius: Of the circle of their means (VEEGAN and PacGAN: 1).
            std: Of each, in both directions (VEEGAN and PacGAN: 0.01).
            **options: Of the base.
        """
        super().__init__(**options)
        _check_positive(type(self).__name__, num_modes=num_modes, radius=radius, std=std)
        self.num_modes, self.radius, self.std = num_modes, radius, std

    @cached_property
    def distribution(self) -> Normals:
        angle = torch.arange(self.num_modes) * (2 * math.pi / self.num_modes)
        return _equal(self.radius * torch.stack([angle.cos(), angle.sin()], dim=1), self.std)


class Grid(_Modes):
    """Points around equal modes on a square grid: 25 of them in VEEGAN (Srivastava 2017) and PacGAN (Lin 2018)."""

    def __init__(self, *, side: int = 5, spacing: float = 2.0, std: float = 0.05, **options: Any) -> None:
        """
        Args:
            side: Modes per side of the grid, which lies around (0, 0).
            spacing: Distance of neighbours.
            std: Of each mode, in both directions.
            **options: Of the base.
        """
        super().__init__(**options)
        _check_positive(type(self).__name__, side=side, spacing=spacing, std=std)
        self.side, self.spacing, self.std = side, spacing, std

    @cached_property
    def distribution(self) -> Normals:
        places = [self.spacing * (i - (self.side - 1) / 2) for i in range(self.side)]
        return _equal(torch.tensor(list(itertools.product(places, places))), self.std)


class Spiral(Toy):
    """Points along spiral arms: thin, curved and long, with no modes to count."""

    def __init__(
        self, *, num_arms: int = 2, turns: float = 1.0, radius: float = 2.0, std: float = 0.05, **options: Any
    ) -> None:
        """
        Args:
            num_arms: Spirals around the same centre; each is a class.
            turns: Of each arm around the centre.
            radius: At the end of an arm.
            std: Of the noise around it, in both directions.
            **options: Of the base.
        """
        super().__init__(**options)
        _check_positive(type(self).__name__, num_arms=num_arms, turns=turns, radius=radius, std=std)
        self.num_arms, self.turns, self.radius, self.std = num_arms, turns, radius, std

    @property
    def class_names(self) -> list[str]:
        return [f"arm {i}" for i in range(self.num_arms)]

    @cached_property
    def distribution(self) -> Arms:
        return Arms(self.num_arms, self.turns, self.radius, self.std)


class TwoMoons(Toy):
    """Two half circles that reach into each other, each of them a class."""

    def __init__(self, *, std: float = 0.1, **options: Any) -> None:
        """
        Args:
            std: Of the noise around the half circles, whose radius is 1, in both directions.
            **options: Of the base.
        """
        super().__init__(**options)
        _check_positive(type(self).__name__, std=std)
        self.std = std

    @property
    def class_names(self) -> list[str]:
        return ["upper moon", "lower moon"]

    @cached_property
    def distribution(self) -> Moons:
        return Moons(self.std)


class SwissRoll(Toy):
    """A spiral of one and a half turns, in the plane: the swiss roll of WGAN-GP (Gulrajani 2017, fig. 1)."""

    def __init__(self, *, radius: float = 2.0, std: float = 0.05, **options: Any) -> None:
        """
        Args:
            radius: At the outer end; the inner one is at a third of it.
            std: Of the noise around the spiral, in both directions.
            **options: Of the base.
        """
        super().__init__(**options)
        _check_positive(type(self).__name__, radius=radius, std=std)
        self.radius, self.std = radius, std

    @cached_property
    def distribution(self) -> Roll:
        return Roll(self.radius, self.std)


class EndlessPoints(Dataset[Batch]):
    """The point at each place of an endless stream; the same place always holds the same point.

    Points are drawn by blocks of neighbours, and the last blocks are kept: a generator for each point would cost more
    than the networks that learn from it.
    """

    size = 1024  #: places per block
    num_kept = 8

    def __init__(self, distribution: Points, labels: bool) -> None:
        self.distribution, self.labels = distribution, labels
        self._blocks: dict[int, tuple[Tensor, Tensor]] = {}

    def __getitem__(self, places: npt.ArrayLike) -> Batch:
        numbers, within = np.divmod(np.asarray(places), self.size)
        if numbers[0] == numbers[-1] and (numbers == numbers[0]).all():
            points, labels = self._block(int(numbers[0]))
        else:
            unique, which = np.unique(numbers, return_inverse=True)
            points, labels = map(torch.cat, zip(*(self._block(number) for number in unique.tolist()), strict=True))
            within = which * self.size + within
        rows = torch.from_numpy(within)
        return Batch(points[rows], labels[rows] if self.labels else None)

    def _block(self, number: int) -> tuple[Tensor, Tensor]:
        if number not in self._blocks:
            if len(self._blocks) >= self.num_kept:
                del self._blocks[next(iter(self._blocks))]
            self._blocks[number] = self.distribution.draw(self.size, streams.generator("toy", number))
        return self._blocks[number]


def _equal(means: Tensor, std: float) -> Normals:
    """Modes of equal weight."""
    return Normals(means, torch.full((len(means),), std), torch.full((len(means),), 1 / len(means)))


def _check_positive(toy: str, **values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise UserError(f"{name} of {toy} was {value}, but must be above 0.")
