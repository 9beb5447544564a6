"""The kernel distance: closed forms, loops over pairs, how often the interval holds the truth, both libraries."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_kid import kid_features_to_metric
from torchmetrics.image.kid import poly_mmd

from ganzoo.errors import UserError
from ganzoo.metrics import kernel
from ganzoo.metrics.kernel import KernelDistance, kernel_distance
from tests.mutants import kills

Distance = Callable[..., KernelDistance]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def of_all(x: Tensor, y: Tensor, **options: Any) -> KernelDistance:
    return kernel_distance(x, y, subset_size=None, **options)


def by_pairs(x: Tensor, y: Tensor, degree: int, gamma: float, coef0: float) -> float:
    """Binkowski 2018, eq. 4: means over pairs of different samples within, over all pairs across."""

    def k(a: Tensor, b: Tensor) -> float:
        return (gamma * float(a @ b) + coef0) ** degree

    within = [[k(a, b) for a, b in itertools.permutations(side, 2)] for side in (x, y)]
    across = [k(a, b) for a, b in itertools.product(x, y)]
    return float(np.mean(within[0]) + np.mean(within[1]) - 2 * np.mean(across))


def equals_pairs(distance: Distance) -> None:
    """Sides of different sizes; the published kernel, and another one."""
    x, y = draw(7, 3), draw(5, 3, seed=1) + 0.5
    assert distance(x, y).mean == pytest.approx(by_pairs(x, y, 3, 1 / 3, 1), rel=1e-12)
    other = distance(x, y, degree=2, gamma=0.3, coef0=-0.5)
    assert other.mean == pytest.approx(by_pairs(x, y, 2, 0.3, -0.5), rel=1e-12)
    assert distance(x, y).std == 0


def test_pairs() -> None:
    equals_pairs(of_all)


def biased(x: Tensor, y: Tensor, *, degree: int = 3, gamma: float = 1 / 3, coef0: float = 1.0) -> KernelDistance:
    k = kernel.Kernel(degree, gamma, coef0)
    return KernelDistance(float(k(x, x).mean() + k(y, y).mean() - 2 * k(x, y).mean()), 0.0, (0.0, 0.0))


def without_the_two(x: Tensor, y: Tensor, **options: Any) -> KernelDistance:
    right = of_all(x, y, **options)
    return right._replace(mean=right.mean + float(kernel.Kernel(3, 1 / 3, 1)(x, y).mean()))


def of_a_sum(x: Tensor, y: Tensor, **options: Any) -> KernelDistance:
    return of_all(x, y, **{"gamma": 1.0, **options})


@pytest.mark.parametrize("mutant", [biased, without_the_two, of_a_sum, lambda x, y, **_: of_all(x, y)])
def test_wrong_estimates(mutant: Distance) -> None:
    kills(equals_pairs, mutant)


def test_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut into blocks or not: the same sums, hence the same interval."""
    x, y = draw(70, 4), draw(50, 4, seed=1)
    whole = of_all(x, y)
    monkeypatch.setattr(kernel, "_BLOCK", 16)
    assert of_all(x, y).mean == pytest.approx(whole.mean, rel=1e-9, abs=1e-14)
    assert of_all(x, y).interval == pytest.approx(whole.interval, rel=1e-9)


DIM, SHIFT, SCALE = 64, 0.3, 1.2


def expected_kernel(mean1: Tensor, std1: float, mean2: Tensor, std2: float) -> float:
    """E (x.y/D + 1)^3 of independent isotropic normal x and y: inner products of their moments up to the third."""
    dim, a, x, y = len(mean1), float(mean1 @ mean2), float(mean1 @ mean1), float(mean2 @ mean2)
    v, w = std1**2, std2**2
    second = a**2 + w * x + v * y + v * w * dim
    third = a**3 + 3 * a * (w * x + v * y) + v * w * (3 * dim + 6) * a
    return 1 + 3 * a / dim + 3 * second / dim**2 + third / dim**3


def is_right_and_knows_how_right(distance: Callable[[Tensor, Tensor, int], KernelDistance]) -> None:
    """Over 400 draws: no bias; the standard error is the deviation of the values; 95 % of intervals hold the truth.

    The deviation is known to 3.5 %, and the error may be wide by 15 % more. Of 400 intervals of 95 %, fewer than 362
    hold the truth in one case of 10,000.
    """
    one, two = torch.full((DIM,), 0.4).double(), torch.full((DIM,), 0.4 + SHIFT).double()
    truth = expected_kernel(one, 1, one, 1) + expected_kernel(two, SCALE, two, SCALE)
    truth -= 2 * expected_kernel(one, 1, two, SCALE)
    pairs = ((draw(100, DIM, seed=2 * i) + one, draw(100, DIM, seed=2 * i + 1) * SCALE + two, i) for i in range(400))
    found = [distance(*pair) for pair in pairs]
    values = np.array([result.mean for result in found])
    errors = np.array([(result.interval[1] - result.interval[0]) / 2 / 1.959964 for result in found])
    assert abs(values.mean() - truth) < 4 * values.std() / 20
    assert 0.86 < math.sqrt(np.square(errors).mean()) / values.std() < 1.29
    assert sum(result.interval[0] <= truth <= result.interval[1] for result in found) >= 362


@functools.cache
def _by_subsets(seed: int) -> KernelDistance:
    x, y = (draw(100, DIM, seed=2 * seed + i) * std + mean for i, std, mean in ((0, 1, 0.4), (1, SCALE, 0.4 + SHIFT)))
    return kernel_distance(x, y, subsets=20, subset_size=25, generator=np.random.RandomState(seed))


def by_subsets(x: Tensor, y: Tensor, seed: int) -> KernelDistance:
    """Of the very samples that it is given; once for all checks."""
    return _by_subsets(seed)


def of_the_mean_alone(x: Tensor, y: Tensor, seed: int) -> KernelDistance:
    """std/sqrt(subsets) is how sure the mean over subsets is for these samples, not for these distributions."""
    right = by_subsets(x, y, seed)
    half = 1.959964 * right.std / math.sqrt(20)
    return right._replace(interval=(right.mean - half, right.mean + half))


def of_a_subset(x: Tensor, y: Tensor, seed: int) -> KernelDistance:
    """As if the mean varied as one subset does."""
    right = by_subsets(x, y, seed)
    half = 1.959964 * right.std
    return right._replace(interval=(right.mean - half, right.mean + half))


@pytest.mark.slow
def test_interval() -> None:
    is_right_and_knows_how_right(lambda x, y, _: of_all(x, y))
    is_right_and_knows_how_right(by_subsets)
    kills(is_right_and_knows_how_right, of_the_mean_alone)
    kills(is_right_and_knows_how_right, of_a_subset)
    kills(is_right_and_knows_how_right, lambda x, y, _: of_all(x, y)._replace(mean=biased(x, y, gamma=1 / DIM).mean))


def features(x: Tensor) -> np.ndarray:
    """The kernel's own, (N, (D + 1)^3): inner products of third tensor powers are third powers of inner products."""
    u = np.hstack([x.numpy() / math.sqrt(x.shape[1]), np.ones((len(x), 1))])
    return np.einsum("na,nb,nc->nabc", u, u, u).reshape(len(u), -1)


def wilson(x: Tensor, y: Tensor) -> tuple[float, float]:
    """Ends of the set of truths t with (estimate - t)^2 <= 1.96^2 (A t + B), by features and their covariances."""
    a, b = features(x), features(y)
    n, m, delta = len(a), len(b), a.mean(0) - b.mean(0)
    covariances = [np.cov(side.T) for side in (a, b)]
    along = [delta @ covariance @ delta for covariance in covariances]
    estimate = delta @ delta - np.trace(covariances[0]) / n - np.trace(covariances[1]) / m
    centred = [side - side.mean(0) for side in (a, b)]
    pairs = [np.square(side @ side.T) for side in centred]
    squares = [(square.sum() - np.trace(square)) / (len(square) * (len(square) - 1)) for square in pairs]
    across = np.square(centred[0] @ centred[1].T).mean()
    length = max(estimate, 0) + np.trace(covariances[0]) / n + np.trace(covariances[1]) / m
    along = [max(along[0], squares[0] / n + across / m), max(along[1], squares[1] / m + across / n)]
    linear = 4 * (along[0] / n + along[1] / m) / length
    constant = 2 * (squares[0] / n**2 + squares[1] / m**2 + 2 * across / (n * m))
    low, high = np.sort(np.roots([1, -2 * estimate - 1.959964**2 * linear, estimate**2 - 1.959964**2 * constant]))
    return float(low), float(high)


def equals_features(distance: Distance) -> None:
    """Two sets of different sizes that are far apart, near to each other, and of a single feature."""
    for dim, shift in ((3, 1.0), (3, 0.2), (1, 0.5)):
        x, y = draw(40, dim), draw(25, dim, seed=1) + shift
        assert distance(x, y).interval == pytest.approx(wilson(x, y), rel=1e-6, abs=1e-9)


def test_interval_is_that_of_the_kernel_s_features() -> None:
    equals_features(of_all)


def normal_interval(x: Tensor, y: Tensor) -> KernelDistance:
    """Wrong: as wide, but around the estimate."""
    right = of_all(x, y)
    half = (right.interval[1] - right.interval[0]) / 2
    return right._replace(interval=(right.mean - half, right.mean + half))


def swapped_sizes(x: Tensor, y: Tensor) -> KernelDistance:
    """Wrong: the larger set's sureness for the smaller one."""
    return of_all(x, y)._replace(interval=of_all(x[:25], torch.cat([y, y])[:40]).interval)


@pytest.mark.parametrize("mutant", [normal_interval, swapped_sizes])
def test_wrong_intervals(mutant: Distance) -> None:
    kills(equals_features, mutant)


def share_of_intervals(
    dim: int, shift: float, scale: float, sizes: tuple[int, int], options: dict[str, Any]
) -> tuple[float, float]:
    """How many of 400 intervals of independent draws hold the truth, and how many lie below it."""
    one, two = torch.zeros(dim).double(), torch.full((dim,), shift).double()
    truth = expected_kernel(one, 1, one, 1) + expected_kernel(two, scale, two, scale)
    truth -= 2 * expected_kernel(one, 1, two, scale)
    held = low = 0
    for i in range(400):
        x, y = draw(sizes[0], dim, seed=2 * i), draw(sizes[1], dim, seed=2 * i + 1) * scale + shift
        found = kernel_distance(x, y, generator=np.random.RandomState(i), **options).interval
        held, low = held + (found[0] <= truth <= found[1]), low + (found[1] < truth)
    return held / 400, low / 400


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sizes", "options"),
    [
        ((200, 200), {"subset_size": None}),
        ((200, 500), {"subsets": 20, "subset_size": 50}),
        ((400, 400), {"subsets": 20, "subset_size": 100}),
    ],
)
@pytest.mark.parametrize(("dim", "shift", "scale"), [(1, 0.5, 1.2), (1, 0.2, 1.0), (1, 0.0, 1.0), (8, 0.2, 1.1)])
def test_coverage(dim: int, shift: float, scale: float, sizes: tuple[int, int], options: dict[str, Any]) -> None:
    """Of single and of few skewed features, equal and different ones: nominally 95 %, whose error is 1.1 % here.

    A normal interval holds the truth in 80 to 93 % of these, and lies below it in the others.
    """
    held, low = share_of_intervals(dim, shift, scale, sizes, options)
    assert held >= 0.915
    assert low <= 0.045


def test_equal_distributions() -> None:
    """The value is 0 on average, and below it about as often as not."""
    means = np.array([of_all(draw(50, 3, seed=i), draw(50, 3, seed=1000 + i)).mean for i in range(200)])
    assert abs(means.mean()) < 4 * means.std() / math.sqrt(200)
    assert (means < 0).mean() > 0.3


# Subsets


def test_torch_fidelity() -> None:
    """Their draws of subsets, generated samples first: the same mean and deviation, in either precision."""
    fake, real = draw(300, 20) + 0.3, draw(400, 20, seed=1)
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        x, y = fake.to(dtype), real.to(dtype)
        theirs = kid_features_to_metric(x, y, kid_subsets=7, kid_subset_size=100, verbose=False)
        ours = kernel_distance(x, y, subsets=7, subset_size=100)
        assert ours.mean == pytest.approx(theirs["kernel_inception_distance_mean"], rel=tolerance)
        assert ours.std == pytest.approx(theirs["kernel_inception_distance_std"], rel=10 * tolerance)
        swapped = kernel_distance(y, x, subsets=7, subset_size=100)
        assert swapped.mean != pytest.approx(ours.mean, rel=1e-4)


def test_torchmetrics() -> None:
    """One subset of all, where the order has no part."""
    x, y = draw(100, 8), draw(100, 8, seed=1) * 1.5
    expected = float(poly_mmd(y, x))
    assert of_all(x, y).mean == pytest.approx(expected, rel=1e-9)
    assert kernel_distance(x, y, subsets=1, subset_size=100).mean == pytest.approx(expected, rel=1e-9)


def test_a_subset_of_all_is_as_sure_as_all() -> None:
    """However often it is drawn: the samples' own uncertainty is left."""
    x, y = draw(60, 4), draw(60, 4, seed=1) + 0.2
    expected = of_all(x, y)
    for subsets in (1, 5):
        found = kernel_distance(x, y, subsets=subsets, subset_size=60)
        assert found.mean == pytest.approx(expected.mean, rel=1e-9)
        assert found.std == pytest.approx(0, abs=1e-12)
        assert found.interval == pytest.approx(expected.interval, rel=1e-9)


def test_refusals() -> None:
    with pytest.raises(UserError, match="1000 samples, and there are 5 generated and 7 real"):
        kernel_distance(draw(5, 2), draw(7, 2))
    with pytest.raises(UserError, match="2 at least"):
        kernel_distance(draw(5, 2), draw(7, 2), subset_size=1)
