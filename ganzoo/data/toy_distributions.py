"""The mathematics of the toys: how points are drawn, and densities, modes and quantiles where they are closed form."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor


class Points(ABC):
    """A distribution of points that can be drawn."""

    @abstractmethod
    def draw(self, num: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Points (num, d), float32, and the number of the part that each comes from (num,), int64."""

    def log_prob(self, points: Tensor) -> Tensor | None:
        """Logarithm of the density at points (N, d), shape (N,); None where it has no closed form."""
        return None


@dataclass(frozen=True)
class Normals(Points):
    """A mixture of isotropic normal distributions, its modes."""

    means: Tensor  #: (n, d)
    stds: Tensor  #: (n,)
    weights: Tensor  #: (n,), their sum is 1

    def draw(self, num: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        shares = torch.rand(num, generator=generator)
        modes = torch.bucketize(shares, self.weights.cumsum(0)[:-1], right=True)
        normals = torch.randn(num, self.means.shape[1], generator=generator)
        return self.means[modes] + self.stds[modes, None] * normals, modes

    def log_prob(self, points: Tensor) -> Tensor:
        """Logarithm of the density at points (N, d), shape (N,)."""
        squares = (self._distances(points) / self.stds).square()
        factors = self.weights.log() - points.shape[1] / 2 * (2 * math.pi * self.stds.square()).log()
        return (factors - squares / 2).logsumexp(1)

    def cdf(self, points: Tensor) -> Tensor:
        """Probability of a value below each of ``points`` (N,), of a distribution on the line; float64."""
        z = (points.double()[:, None] - self.means[:, 0].double()) / self.stds.double()
        below: Tensor = torch.special.ndtr(z) @ self.weights.double()
        return below

    def quantile(self, shares: Tensor) -> Tensor:
        """The inverse of :meth:`cdf` for ``shares`` (N,) in (0, 1), by bisection to the last digit; float64."""
        low = (self.means[:, 0] - 12 * self.stds).min().double().expand(len(shares))
        high = (self.means[:, 0] + 12 * self.stds).max().double().expand(len(shares))
        for _ in range(60):
            middle = (low + high) / 2
            below = self.cdf(middle) < shares
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2

    def _distances(self, points: Tensor) -> Tensor:
        """Of every point from every mean, (N, n): by differences, as products would lose what small stds need."""
        return torch.cdist(points, self.means.to(points), compute_mode="donot_use_mm_for_euclid_dist")


@dataclass(frozen=True)
class Arms(Points):
    """Spirals from the centre, whose radius grows with the angle, with about as many points on every piece of them."""

    num_arms: int
    turns: float
    radius: float
    std: float

    def draw(self, num: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        arms = torch.randint(self.num_arms, (num,), generator=generator)
        share = torch.rand(num, generator=generator).sqrt()
        angle = 2 * math.pi * (self.turns * share + arms / self.num_arms)
        return _around(self.radius * share, angle, self.std, generator), arms


@dataclass(frozen=True)
class Moons(Points):
    """Two half circles of radius 1 around (0, 0) and (1, 1/2), the second upside down."""

    std: float

    def draw(self, num: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        moons = torch.randint(2, (num,), generator=generator)
        angle = math.pi * (torch.rand(num, generator=generator) + moons)
        centres = moons[:, None] * torch.tensor([1.0, 0.5])
        return centres + _around(torch.ones(num), angle, self.std, generator), moons


@dataclass(frozen=True)
class Roll(Points):
    """The spiral (t cos t, t sin t) with t uniform in [1.5 pi, 4.5 pi], scaled so that it ends at ``radius``."""

    radius: float
    std: float

    def draw(self, num: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        t = 1.5 * math.pi * (1 + 2 * torch.rand(num, generator=generator))
        points = _around(self.radius * t / (4.5 * math.pi), t, self.std, generator)
        return points, torch.zeros(num, dtype=torch.int64)


def _around(radius: Tensor, angle: Tensor, std: float, generator: torch.Generator) -> Tensor:
    """Points (N, 2) at polar coordinates, with normal noise."""
    exact = radius[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)
    return exact + std * torch.randn(len(exact), 2, generator=generator)
