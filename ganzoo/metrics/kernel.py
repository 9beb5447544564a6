"""The kernel distance: the unbiased estimate of a squared maximum mean discrepancy (Binkowski 2018, sec. 4 and app. D).

With Inception's features and the cubic kernel it is the KID. It has no bias, so it is of use with few samples, too, and
may be below 0 where the two distributions are nearly the same.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ganzoo.errors import UserError

_BLOCK = 2048  #: rows and columns of the kernel's matrix that are in memory at a time
_QUANTILE = 1.959963984540054  #: of the normal distribution, at 97.5 %


class KernelDistance(NamedTuple):
    """The distance and how sure it is."""

    mean: float  #: over subsets
    std: float  #: over subsets, divided by their number as published; 0 of a single one
    interval: tuple[float, float]  #: nominally of 95 % confidence, over other samples of the two distributions


class Kernel(NamedTuple):
    """(gamma x.y + coef0)^degree."""

    degree: int
    gamma: float
    coef0: float

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T).mul_(self.gamma).add_(self.coef0).pow_(self.degree)


def kernel_distance(
    fake: Tensor,
    real: Tensor,
    *,
    subsets: int = 100,
    subset_size: int | None = 1000,
    degree: int = 3,
    gamma: float | None = None,
    coef0: float = 1.0,
    generator: np.random.RandomState | None = None,
) -> KernelDistance:
    """The mean over random subsets of the squared discrepancy, or its one value for all samples.

    Subsets are drawn as torch-fidelity draws them, the generated ones first. The interval is Wilson's: it holds each
    truth from which the estimate is no further than 1.96 of the standard errors that it would have if that were so. The
    squared error is A truth + B (Sutherland 2017, arXiv:1611.04488, eq. 2), where A is of the linear part, by its
    variance in the direction of the difference, and B of the quadratic one, all that is left of equal distributions. To
    both is added what is due to the subsets. A normal interval at the estimate lies too low where few features are
    skewed: there the error is underestimated whenever the distance is.

    Args:
        fake: Features of generated samples, (N1, D).
        real: Features of real ones, (N2, D).
        subsets: How many.
        subset_size: Samples of either side in each; None: one subset of all samples, and the sides may differ in size.
        degree: Of the polynomial kernel.
        gamma: Factor of the inner product; None: 1/D.
        coef0: Added to it.
        generator: Of the draws; None: numpy's ``RandomState(2020)``, torch-fidelity's default.

    Raises:
        UserError: When there are fewer samples than a subset takes.
    """
    kernel = Kernel(degree, 1 / fake.shape[1] if gamma is None else gamma, coef0)
    fewest = min(len(fake), len(real))
    size = fewest if subset_size is None else subset_size
    if size > fewest or size < 2:
        raise UserError(
            f"A subset of the kernel distance has {size} samples, and there are {len(fake)} generated and {len(real)} "
            "real ones: make subsets smaller (2 at least), or take more samples."
        )
    if subset_size is None:
        return _result([_sums(fake, real, kernel)], len(fake), len(real))
    draw, found = generator or np.random.RandomState(2020), list[_Sums]()
    for _ in range(subsets):
        rows = [torch.from_numpy(draw.choice(len(x), size, replace=False)).to(x.device) for x in (fake, real)]
        found.append(_sums(fake[rows[0]], real[rows[1]], kernel))
    return _result(found, len(fake), len(real))


class _Sums(NamedTuple):
    """What the kernel's matrices say of two sets; spreads are of the kernel's features, which are never formed."""

    num_x: int
    num_y: int
    distance: float  #: unbiased
    along_x: float  #: variance of x in the direction of the difference, times its squared length
    along_y: float
    spread_x: float  #: trace of the covariance
    spread_y: float
    square_x: float  #: trace of its square
    square_y: float
    square_across: float  #: trace of the product of both


def _result(found: list[_Sums], num_x: int, num_y: int) -> KernelDistance:
    values = np.array([sums.distance for sums in found])
    mean = float(values.mean())
    linear, constant = _error(_Sums(*np.mean(found, 0)), mean, num_x, num_y, len(found))
    half = _QUANTILE**2 * linear / 2
    reach = _QUANTILE * math.sqrt(max(0.0, linear * mean + constant + (half / _QUANTILE) ** 2))
    return KernelDistance(mean, float(values.std()), (mean + half - reach, mean + half + reach))


def _error(one: _Sums, distance: float, num_x: int, num_y: int, subsets: int) -> tuple[float, float]:
    """A and B of the squared standard error A d + B where the distance is d.

    Args:
        one: Means over subsets.
        distance: The estimate.
        num_x: Samples of which subsets were drawn.
        num_y: The same of the other set.
        subsets: How many.
    """

    def noise(square: float, x: float, y: float) -> float:
        """What chance adds to a variance along the difference of two means."""
        return square / x + one.square_across / y

    # In all samples the difference is known better than in a subset.
    along_x = noise(one.square_x, num_x, num_y) + max(0.0, one.along_x - noise(one.square_x, one.num_x, one.num_y))
    along_y = noise(one.square_y, num_y, num_x) + max(0.0, one.along_y - noise(one.square_y, one.num_y, one.num_x))
    length = max(distance, 0.0) + one.spread_x / num_x + one.spread_y / num_y

    def parts(x: float, y: float) -> npt.NDArray[np.float64]:
        linear = 4 * (along_x / x + along_y / y) / length if length > 0 else 0.0
        constant = 2 * (one.square_x / x**2 + one.square_y / y**2 + 2 * one.square_across / (x * y))
        return np.array([linear, constant])

    whole = parts(num_x, num_y)
    linear, constant = whole + (parts(one.num_x, one.num_y) - whole) / subsets
    return float(linear), float(constant)


def _sums(x: Tensor, y: Tensor, kernel: Kernel) -> _Sums:
    rows_x, diagonal_x, squares_x = _within(x, kernel)
    rows_y, diagonal_y, squares_y = _within(y, kernel)
    rows, columns, squares = _across(x, y, kernel)
    n, m = len(x), len(y)
    total = rows.sum()
    distance = (rows_x - diagonal_x).sum() / (n * (n - 1)) + (rows_y - diagonal_y).sum() / (m * (m - 1))
    centred = squares - rows.square().sum() / m - columns.square().sum() / n + total.square() / (n * m)
    along = [(a / len(a) - b / c).var() for a, b, c in ((rows_x, rows, m), (rows_y, columns, n))]
    spreads = [_spread(*given) for given in ((rows_x, diagonal_x, squares_x), (rows_y, diagonal_y, squares_y))]
    (spread_x, square_x), (spread_y, square_y) = spreads
    return _Sums(
        *(n, m, float(distance - 2 * total / (n * m)), float(along[0]), float(along[1])),
        *(spread_x, spread_y, square_x, square_y, float(centred) / (n * m)),
    )


def _spread(rows: Tensor, diagonal: Tensor, squares: Tensor) -> tuple[float, float]:
    """Trace of the covariance and of its square; pairs of a sample with itself are left out of the latter."""
    n, total = len(rows), rows.sum()
    centred = diagonal - 2 * rows / n + total / n**2
    pairs = squares - 2 * rows.square().sum() / n + (total / n) ** 2 - centred.square().sum()
    return float(centred.sum()) / (n - 1), max(0.0, float(pairs)) / (n * (n - 1))


def _across(x: Tensor, y: Tensor, kernel: Kernel) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of k(x, y) over rows and over columns, and of its squares."""
    rows = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    columns = torch.zeros(len(y), dtype=torch.float64, device=x.device)
    squares = torch.zeros((), dtype=torch.float64, device=x.device)
    for i in range(0, len(x), _BLOCK):
        for j in range(0, len(y), _BLOCK):
            values = kernel(x[i : i + _BLOCK].double(), y[j : j + _BLOCK].double())
            rows[i : i + _BLOCK] += values.sum(1)
            columns[j : j + _BLOCK] += values.sum(0)
            squares += values.square_().sum()
    return rows, columns, squares


def _within(x: Tensor, kernel: Kernel) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of k(x, x) over rows, its diagonal, and the sum of its squares; each pair of blocks is computed once."""
    rows = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    diagonal, squares = torch.empty_like(rows), rows.new_zeros(())
    for i in range(0, len(x), _BLOCK):
        block = x[i : i + _BLOCK].double()
        values = kernel(block, block)
        rows[i : i + _BLOCK] += values.sum(1)
        diagonal[i : i + _BLOCK] = values.diagonal()
        squares += values.square_().sum()
        for j in range(i + _BLOCK, len(x), _BLOCK):
            values = kernel(block, x[j : j + _BLOCK].double())
            rows[i : i + _BLOCK] += values.sum(1)
            rows[j : j + _BLOCK] += values.sum(0)
            squares += 2 * values.square_().sum()
    return rows, diagonal, squares
