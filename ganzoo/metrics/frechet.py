"""The Frechet distance of two sets of features, seen as normal distributions (Heusel 2017, eq. 6).

    |m1 - m2|^2 + tr(C1) + tr(C2) - 2 tr((C1 C2)^(1/2))

The trace of the root is the sum of the roots of the eigenvalues of C1 C2, or the nuclear norm of A1^T A2 where
Ci = Ai Ai^T. The first is fast; the second squares nothing, so it also holds for covariances without full rank, which
is what fewer samples than dimensions give. All of it is float64 on the CPU, so that the device leaves no mark.
"""

from __future__ import annotations

import math
import warnings
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.linalg
import torch
from torch import Tensor

from ganzoo.errors import UserError
from ganzoo.metrics.statistics import Moments

_PRECISION = 1e-7  #: relative to the traces; where eigenvalues cannot promise it, singular values are computed

Matrix = npt.NDArray[np.float64]


class RankWarning(UserWarning):
    """A covariance that was estimated from too few samples to have full rank."""


def frechet_distance(mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor) -> float:
    """The distance of two normal distributions; 0 for equal ones, and never below it.

    Args:
        mean1: (D,).
        cov1: (D, D), symmetric and positive semi-definite.
        mean2: (D,).
        cov2: (D, D).

    Raises:
        UserError: When a number is not finite.
    """
    m1, c1, m2, c2 = (_array(x) for x in (mean1, cov1, mean2, cov2))
    dim = len(m1)
    if not (m1.shape == m2.shape == (dim,) and c1.shape == c2.shape == (dim, dim)):
        raise ValueError(f"means {m1.shape} and {m2.shape} with covariances {c1.shape} and {c2.shape}")
    return _distance(m1, float(np.trace(c1)), m2, float(np.trace(c2)), root_trace(c1, c2))


def from_moments(first: Moments, second: Moments, *, unbiased: bool = True) -> float:
    """The distance of two streamed sets; warns with the rank where there are too few samples.

    Args:
        first: Of one set.
        second: Of the other.
        unbiased: Divide covariances by N - 1, not by N.
    """
    _warn(first.dim, first.num, second.num)
    return frechet_distance(first.mean, first.covariance(unbiased), second.mean, second.covariance(unbiased))


def from_features(first: Tensor, second: Tensor, *, unbiased: bool = True) -> float:
    """The distance of two sets; with fewer samples than dimensions no covariance is ever formed.

    Args:
        first: (N1, D).
        second: (N2, D).
        unbiased: Divide covariances by N - 1, not by N.
    """
    _warn(first.shape[1], len(first), len(second))
    return _from_features(first, second, unbiased)


def intra_class(first: Tensor, labels1: Tensor, second: Tensor, labels2: Tensor, *, unbiased: bool = True) -> float:
    """The mean over classes of the distance within the class (Miyato and Koyama 2018, sec. 4).

    Args:
        first: (N1, D).
        labels1: Integers (N1,).
        second: (N2, D).
        labels2: Integers (N2,), of the same classes.
        unbiased: Divide covariances by N - 1, not by N.

    Raises:
        UserError: When a class is missing on one side, or has one sample only.
    """
    classes1, classes2 = (set(labels.tolist()) for labels in (labels1, labels2))
    if alone := sorted(classes1 ^ classes2):
        raise UserError(
            f"Only one of the two sets has samples of the classes {alone}, and the intra-class distance compares each "
            "class: give more samples, or images of every class on both sides."
        )
    counts = {c: (int((labels1 == c).sum()), int((labels2 == c).sum())) for c in sorted(classes1)}
    if few := [c for c, sides in counts.items() if min(sides) < 2]:
        raise UserError(
            f"There is one image only of the classes {few}, and the intra-class distance compares covariances: give "
            "two or more of each class, on both sides."
        )
    _warn(first.shape[1], *(min(sides) for sides in zip(*counts.values(), strict=True)))
    return float(np.mean([_from_features(first[labels1 == c], second[labels2 == c], unbiased) for c in counts]))


def rank_note(dim: int, *nums: int) -> str | None:
    """What to say where covariances of ``dim`` features were estimated from so few samples; None if there were enough.

    Args:
        dim: Of the features.
        nums: Samples of each set.
    """
    if (few := min(nums)) > dim:
        return None
    return (
        f"A covariance of {dim} features from {few} samples has rank {few - 1}: the Frechet distance is biased "
        f"upwards, the more so the fewer they are; take more than {dim}, or the kernel distance, which has no bias."
    )


def root_trace(cov1: Matrix, cov2: Matrix) -> float:
    """tr((C1 C2)^(1/2)) of two positive semi-definite matrices."""
    try:
        values = scipy.linalg.eigh(cov1, cov2, type=2, driver="gv", eigvals_only=True, check_finite=False)
    except np.linalg.LinAlgError:  # the second has no full rank
        return _nuclear(_factor(cov1), _factor(cov2))
    # An eigenvalue is off by rounding of the largest one. Its root is off by much more if it is small itself.
    rounding = 4 * np.finfo(np.float64).eps * max(float(values[-1]), np.finfo(np.float64).tiny)
    roots = np.sqrt(values.clip(0))
    doubt = float((rounding / np.maximum(roots, math.sqrt(rounding))).sum())
    if doubt > _PRECISION * float(np.trace(cov1) + np.trace(cov2)):
        return _nuclear(_factor(cov1), _factor(cov2))
    return float(roots.sum())


def _from_features(first: Tensor, second: Tensor, unbiased: bool) -> float:
    one, two = _summary(first, unbiased), _summary(second, unbiased)
    if one.factor is None and two.factor is None:
        root = root_trace(one.cov, two.cov)
    else:
        root = _nuclear(*(_factor(side.cov) if side.factor is None else side.factor for side in (one, two)))
    return _distance(one.mean, one.trace, two.mean, two.trace, root)


class _Side(NamedTuple):
    """What is needed of one set: its covariance (D, D), or with few samples its factor (D, N) in the place of it."""

    mean: Matrix
    trace: float
    cov: Matrix
    factor: Matrix | None


def _summary(features: Tensor, unbiased: bool) -> _Side:
    num, dim = features.shape
    if num > dim:
        moments = Moments(dim)
        moments.update(features.cpu())
        cov = _array(moments.covariance(unbiased))
        return _Side(_array(moments.mean), float(np.trace(cov)), cov, None)
    if num < 2:
        raise UserError(f"A covariance needs at least 2 samples, and there are {num}.")
    rows = _array(features)
    factor = (rows - rows.mean(0)).T / math.sqrt(num - unbiased)
    return _Side(rows.mean(0), float(np.square(factor).sum()), np.empty((0, 0)), factor)


def _factor(cov: Matrix) -> Matrix:
    """A (D, rank) with A A^T = cov, by Cholesky's decomposition with pivots, which finds the rank."""
    lower, pivots, rank, _ = scipy.linalg.lapack.dpstrf(cov, lower=1)
    factor = np.empty((len(cov), rank))
    factor[pivots - 1] = np.tril(lower)[:, :rank]
    return factor


def _nuclear(factor1: Matrix, factor2: Matrix) -> float:
    """The sum of the singular values of A1^T A2."""
    return float(torch.linalg.svdvals(torch.from_numpy(factor1.T @ factor2)).sum())


def _distance(mean1: Matrix, trace1: float, mean2: Matrix, trace2: float, root: float) -> float:
    return max(float(np.square(mean1 - mean2).sum()) + trace1 + trace2 - 2 * root, 0.0)


def _array(x: Tensor) -> Matrix:
    array = x.detach().cpu().double().numpy()
    if not np.isfinite(array).all():
        raise UserError("Some features are not finite, so they have no distance: look at the images for NaN or inf.")
    return array


def _warn(dim: int, *nums: int) -> None:
    if note := rank_note(dim, *nums):
        warnings.warn(note, RankWarning, stacklevel=3)
