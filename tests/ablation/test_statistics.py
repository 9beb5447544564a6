"""Intervals against exhaustive enumeration, a naive loop and the normal approximation; pairs by seed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

from ganzoo.ablation.statistics import (
    MIN_PAIRS,
    RESAMPLES,
    Interval,
    Paired,
    bootstrap,
    mean_and_deviation,
    paired,
)
from tests.mutants import kills

VALUES = (0.3, -1.2, 2.5, 0.9, 4.0)


def all_means(values: Sequence[float]) -> list[float]:
    """Means of all n^n samples with replacement, sorted: the distribution that a bootstrap draws from."""
    return sorted(sum(sample) / len(values) for sample in itertools.product(values, repeat=len(values)))


def check_interval(make: Callable[[Sequence[float]], Interval]) -> None:
    """Its ends are the 2.5 % and 97.5 % quantiles of the exact distribution, which has steps, up to 0.5 %."""
    means, found = np.array(all_means(VALUES)), make(VALUES)
    assert np.mean(means < found.low - 1e-9) <= 0.03
    assert np.mean(means <= found.low + 1e-9) >= 0.02
    assert np.mean(means > found.high + 1e-9) <= 0.03
    assert np.mean(means >= found.high - 1e-9) >= 0.02


def mutant(statistic: Callable[..., object], replace: bool, low: float, less: int = 0) -> Callable[..., Interval]:
    def make(values: Sequence[float]) -> Interval:
        rng = np.random.default_rng(0)
        size = len(values) - less
        found = [statistic(rng.choice(values, size, replace)) for _ in range(5000)]
        return Interval(*(float(q) for q in np.quantile(np.array(found), (low, 1 - low))))

    return make


def test_the_interval_is_that_of_the_exact_bootstrap_distribution() -> None:
    check_interval(bootstrap)
    check_interval(mutant(np.mean, True, 0.025))  # what a plain loop does


@pytest.mark.parametrize(
    "wrong",
    [
        mutant(np.median, True, 0.025),
        mutant(np.mean, False, 0.025),
        mutant(np.mean, True, 0.05),
        mutant(np.mean, True, 0.025, less=2),
    ],
    ids=["median", "without replacement", "90 %", "smaller samples"],
)
def test_wrong_intervals_are_found(wrong: Callable[[Sequence[float]], Interval]) -> None:
    kills(check_interval, wrong)


def test_a_naive_loop_over_the_same_draws() -> None:
    draws = np.random.default_rng(0).integers(5, size=(RESAMPLES, 5)).tolist()
    means = sorted(math.fsum(VALUES[i] for i in draw) / 5 for draw in draws)

    def quantile(p: float) -> float:
        place = p * (len(means) - 1)
        below = math.floor(place)
        return means[below] + (place - below) * (means[below + 1] - means[below])

    found = bootstrap(VALUES)
    assert (found.low, found.high) == pytest.approx((quantile(0.025), quantile(0.975)), abs=1e-12)


def test_of_many_values_it_is_the_normal_interval() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, 400)
    half = 1.959964 * values.std() / math.sqrt(400)
    found = bootstrap(values.tolist())
    assert found.low == pytest.approx(values.mean() - half, abs=0.06 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.06 * half)


def check_pairing(compare: Callable[[Mapping[int, float], Mapping[int, float]], Paired | None]) -> None:
    """What a seed adds to both cancels, in whatever order the runs ended, and seeds of one side alone are left out."""
    offsets = {0: 100.0, 1: -40.0, 2: 7.0, 3: 0.0, 4: 1000.0}
    base = {**offsets, 9: 1.0}
    other = {seed: offsets[seed] + 0.5 for seed in reversed(offsets)}
    found = compare(base, {8: 77.0, **other})
    assert found is not None
    assert found.seeds == (0, 1, 2, 3, 4)
    assert found.differences == (0.5,) * 5
    assert found.mean == 0.5
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == (0.5, 0.5)


def test_pairs_have_the_same_seed() -> None:
    check_pairing(paired)


def test_unpaired_comparisons_are_found() -> None:
    def in_order(base: Mapping[int, float], other: Mapping[int, float]) -> Paired:
        differences = tuple(b - a for a, b in zip(base.values(), other.values(), strict=False))
        return Paired((0, 1, 2, 3, 4), differences, sum(differences) / 5, bootstrap(differences))

    def independent(base: Mapping[int, float], other: Mapping[int, float]) -> Paired:
        right = paired(base, other)
        assert right is not None
        rng = np.random.default_rng(0)
        means = [[rng.choice([side[s] for s in right.seeds], 5).mean() for _ in range(1000)] for side in (base, other)]
        low, high = np.quantile(np.subtract(means[1], means[0]), (0.025, 0.975))
        return Paired(right.seeds, right.differences, right.mean, Interval(float(low), float(high)))

    kills(check_pairing, in_order)
    kills(check_pairing, independent)


def test_few_pairs_have_no_interval() -> None:
    base = dict.fromkeys(range(MIN_PAIRS), 1.0)
    enough = paired(base, base)
    assert enough is not None
    assert enough.interval == Interval(0.0, 0.0)
    few = paired(base, {0: 3.0, 2: 2.0, 3: 1.0, 4: 1.5})
    assert few is not None
    assert (few.differences, few.interval) == ((2.0, 1.0, 0.0, 0.5), None)
    assert paired(base, {7: 1.0}) is None


def test_the_same_values_give_the_same_interval() -> None:
    assert bootstrap(VALUES) == bootstrap(VALUES)
    assert bootstrap(VALUES) != bootstrap(VALUES, seed=1)


def test_mean_and_deviation() -> None:
    assert mean_and_deviation([1.0, 3.0]) == (2.0, pytest.approx(math.sqrt(2)))  # n - 1
    assert mean_and_deviation([1.0]) == (1.0, None)
    assert mean_and_deviation([]) == (None, None)
