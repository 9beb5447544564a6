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

    Subsets are drawn as torch-fidelity draws them, the generated ones first. The interval is normal. Its standard error
    is that of the samples and of the subsets together: between subsets of m out of n samples, the variance is the
    sampling variance at n times (n - m)/m (Politis and Romano 1994); for one subset of all, it is the jackknife's. Both
    are too wide where the two distributions are nearly equal, and too narrow where features are few and skewed. With
    200 to 3,000 normal samples the interval held the true value in 94 % of draws or more in 8 and 64 dimensions, but in
    one dimension in 83 to 94 %, and where it did not, it mostly lay too low.

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
        sums = _sums(fake, real, kernel)
        return _result(np.array([_discrepancy(*sums)]), _jackknife(*sums))
    draw = generator or np.random.RandomState(2020)
    values = np.empty(subsets)
    for i in range(subsets):
        rows = [torch.from_numpy(draw.choice(len(x), size, replace=False)).to(x.device) for x in (fake, real)]
        sums = _sums(fake[rows[0]], real[rows[1]], kernel)
        values[i] = _discrepancy(*sums)
    if size == fewest or subsets == 1:  # then other subsets tell nothing about other samples
        return _result(values, _jackknife(*sums))
    return _result(values, math.sqrt(float(values.var(ddof=1)) * (size / (fewest - size) + 1 / subsets)))


def _result(values: npt.NDArray[np.float64], error: float) -> KernelDistance:
    mean, half = float(values.mean()), _QUANTILE * error
    return KernelDistance(mean, float(values.std()), (mean - half, mean + half))


def _discrepancy(within_x: Tensor, within_y: Tensor, across_x: Tensor, across_y: Tensor) -> float:
    """The squared discrepancy from sums over rows of the kernel's matrices; diagonals are not in them."""
    n, m = len(within_x), len(within_y)
    return float(within_x.sum() / (n * (n - 1)) + within_y.sum() / (m * (m - 1)) - 2 * across_x.sum() / (n * m))


def _jackknife(within_x: Tensor, within_y: Tensor, across_x: Tensor, across_y: Tensor) -> float:
    """The standard error of the squared discrepancy, from what it is without each sample in turn."""
    variance = 0.0
    for within, across, others in ((within_x, across_x, len(within_y)), (within_y, across_y, len(within_x))):
        n = len(within)
        if n < 3:
            return math.inf
        without = (within.sum() - 2 * within) / ((n - 1) * (n - 2))
        without -= 2 * (across.sum() - across) / ((n - 1) * others)
        variance += (n - 1) / n * float((without - without.mean()).square().sum())
    return math.sqrt(variance)


def _sums(x: Tensor, y: Tensor, kernel: Kernel) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sums over rows of k(x, x) and k(y, y) without their diagonals, and over rows and columns of k(x, y)."""
    within = [_within(points, kernel) for points in (x, y)]
    rows = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    columns = torch.zeros(len(y), dtype=torch.float64, device=x.device)
    for i in range(0, len(x), _BLOCK):
        for j in range(0, len(y), _BLOCK):
            values = kernel(x[i : i + _BLOCK].double(), y[j : j + _BLOCK].double())
            rows[i : i + _BLOCK] += values.sum(1)
            columns[j : j + _BLOCK] += values.sum(0)
    return within[0], within[1], rows, columns


def _within(x: Tensor, kernel: Kernel) -> Tensor:
    """Sums over rows of k(x, x) without its diagonal; each pair of blocks is computed once."""
    rows = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for i in range(0, len(x), _BLOCK):
        block = x[i : i + _BLOCK].double()
        rows[i : i + _BLOCK] += kernel(block, block).fill_diagonal_(0).sum(1)
        for j in range(i + _BLOCK, len(x), _BLOCK):
            values = kernel(block, x[j : j + _BLOCK].double())
            rows[i : i + _BLOCK] += values.sum(1)
            rows[j : j + _BLOCK] += values.sum(0)
    return rows
