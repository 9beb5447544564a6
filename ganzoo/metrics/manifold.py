"""Precision and recall (Kynkaanniemi 2019), density and coverage (Naeem 2020): whose nearest neighbours hold whom.

The neighbourhood of a sample is the ball that reaches to its k-th nearest neighbour within its own set. Distances come
from matrix products in float32, block by block. Where their rounding could change an answer, they are computed again in
float64 by differences: all four numbers are those of exact distances.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ganzoo.errors import UserError
from ganzoo.metrics.extractors.base import exact

_COLUMNS = 8192  #: of a block of distances
_SPARE = 4  #: candidates beyond the k-th neighbour, whose order float32 may confuse
_MANY = 1 / 64  #: of a block in doubt: then it is cheaper to multiply it in float64


def prdc(real: Tensor, fake: Tensor, *, k: int, block: int = 1024) -> dict[str, float]:
    """Precision, recall, density and coverage; all but the density are in [0, 1], which is 1 of a perfect sampler.

    Precision is the share of generated samples inside some real ball, recall the share of real ones inside some
    generated ball, coverage the share of real balls that hold a generated sample. Density is the mean number of real
    balls around a generated sample, divided by k. Balls are closed for the first two, as in torch-fidelity, and open
    for the others, as Naeem's: a set compared with itself gives 1 in all four.

    Args:
        real: Features (N, D); numbers depend on N, M and k.
        fake: Features (M, D).
        k: Of the k-th nearest neighbour, the sample itself not counted. Published with 3 by Kynkaanniemi, 5 by Naeem.
        block: Rows of a block of distances: memory is 0.4 GB for 1,024, in 2,048 dimensions.

    Raises:
        UserError: When a set has no k-th neighbour.
    """
    if k < 1 or k >= min(len(real), len(fake)):
        raise UserError(
            f"The {k}-th nearest neighbour was asked for among {len(real)} real and {len(fake)} generated samples: k "
            "must be 1 or more, and less than their number."
        )
    real, fake = real.float(), fake.to(real.device).float()
    with exact(real.device):
        return _compare(_Distances(real.mean(0), block), real, fake, k)


def _compare(distances: _Distances, real: Tensor, fake: Tensor, k: int) -> dict[str, float]:
    real_radius, fake_radius = (distances.neighbour(points, k) for points in (real, fake))
    recalled = torch.zeros(len(real), dtype=torch.bool, device=real.device)
    covered, inside = recalled.clone(), torch.zeros(len(fake), dtype=torch.bool, device=real.device)
    balls = 0
    for block in distances.blocks(real, fake, torch.float32):
        rows, columns = block.rows, block.columns
        in_open, in_closed = block.compare(real_radius[rows, None])
        balls += int(in_open.sum())
        covered[rows] |= in_open.any(1)
        inside[columns] |= in_closed.any(0)
        recalled[rows] |= block.compare(fake_radius[None, columns])[1].any(1)
    return {
        "precision": float(inside.double().mean()),
        "recall": float(recalled.double().mean()),
        "density": balls / (k * len(fake)),
        "coverage": float(covered.double().mean()),
    }


@dataclass
class _Block:
    """Squared distances of some points to some others, (n, m), as good as a matrix product gives them."""

    rows: slice
    columns: slice
    x: Tensor  #: the points themselves, (n, D)
    y: Tensor  #: (m, D)
    centre: Tensor  #: (D,): points are centred, so that products are small and lose few digits
    dtype: torch.dtype

    def __post_init__(self) -> None:
        x, y = (points.to(self.dtype) - self.centre.to(self.dtype) for points in (self.x, self.y))
        self.sizes = x.square().sum(1, keepdim=True) + y.square().sum(1)
        self.squared = torch.addmm(self.sizes, x, y.T, alpha=-2)

    def compare(self, radius: Tensor) -> tuple[Tensor, Tensor]:
        """Whether exact squared distances are below the squared radius, and whether they are not above it, (n, m).

        Args:
            radius: Squared, float64, (n, 1) or (1, m).
        """
        limit = radius.to(self.dtype)
        doubtful = (self.squared - limit).abs_() <= _rounding(self.dtype, self.x.shape[1]) * self.sizes
        num = int(doubtful.sum())
        if num > _MANY * doubtful.numel() and self.dtype != torch.float64:
            return replace(self, dtype=torch.float64).compare(radius)
        below, reached = self.squared < limit, self.squared <= limit
        if num:
            i, j = doubtful.nonzero(as_tuple=True)
            squared, of_pair = _exact(self.x, self.y, i, j), radius.expand_as(doubtful)[i, j]
            below[i, j], reached[i, j] = squared < of_pair, squared <= of_pair
        return below, reached


@dataclass
class _Distances:
    """How distances are computed: around which centre, and how many rows at a time."""

    centre: Tensor
    num_rows: int

    def blocks(self, x: Tensor, y: Tensor, dtype: torch.dtype) -> Iterator[_Block]:
        """All distances of x (N, D) to y (M, D), rows first."""
        for i in range(0, len(x), self.num_rows):
            for j in range(0, len(y), _COLUMNS):
                rows, columns = slice(i, i + self.num_rows), slice(j, j + _COLUMNS)
                yield _Block(rows, columns, x[rows], y[columns], self.centre, dtype)

    def neighbour(self, points: Tensor, k: int) -> Tensor:
        """Exact squared distances to the k-th nearest neighbours, (N,), float64."""
        largest = max(float((block - self.centre).square().sum(1).max()) for block in torch.split(points, _COLUMNS))
        found = [
            self._neighbour(rows, points, k, largest, torch.float32) for rows in torch.split(points, self.num_rows)
        ]
        return torch.cat(found)

    def _neighbour(self, rows: Tensor, points: Tensor, k: int, largest: float, dtype: torch.dtype) -> Tensor:
        """The same for some rows (n, D) of the points, from candidates of a precision."""
        num = min(k + 1 + _SPARE, len(points))  # the point itself is one of them
        best = torch.empty(len(rows), 0, dtype=dtype, device=rows.device)
        which = torch.empty(len(rows), 0, dtype=torch.int64, device=rows.device)
        for block in self.blocks(rows, points, dtype):
            near = block.squared.topk(min(num, block.squared.shape[1]), largest=False)
            best = torch.cat([best, near.values], 1)
            which = torch.cat([which, near.indices + block.columns.start], 1)
            best, order = best.topk(min(num, best.shape[1]), largest=False)
            which = which.gather(1, order)
        i = torch.arange(len(rows), device=rows.device).repeat_interleave(num)
        radius = _exact(rows, points, i, which.flatten()).view(-1, num).sort(1).values[:, k].contiguous()
        if num == len(points) or dtype == torch.float64:
            return radius
        sizes = (rows - self.centre).square().sum(1) + largest
        beyond = best.max(1).values - _rounding(dtype, rows.shape[1]) * sizes
        doubtful = (radius > beyond) & (radius > 0)  # a point that was left out may be nearer
        if doubtful.any():
            radius[doubtful] = self._neighbour(rows[doubtful], points, k, largest, torch.float64)
        return radius


def _exact(x: Tensor, y: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """Squared distances of x[i] to y[j], (P,), in float64 and by differences: the same for the same two points."""
    found = [
        (x[a].double() - y[b].double()).square_().sum(1)
        for a, b in zip(torch.split(i, 4096), torch.split(j, 4096), strict=True)
    ]
    return torch.cat(found)


def _rounding(dtype: torch.dtype, dim: int) -> float:
    """How far a squared distance may be off, relative to the squared norms: errors of a product add up like noise."""
    return 8 * math.sqrt(dim) * torch.finfo(dtype).eps
