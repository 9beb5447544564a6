"""Paired comparisons: with the same seed the base and a variation start alike, so their difference varies less."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

#: Under so many pairs there is no interval: a bootstrap of so few values says little.
MIN_PAIRS = 5

RESAMPLES = 10_000


@dataclass(frozen=True)
class Interval:
    """A 95 % interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Paired:
    """A variation's values minus the base's, by seed."""

    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    mean: float
    interval: Interval | None  #: of the mean; none under five pairs


def paired(base: Mapping[int, float], other: Mapping[int, float]) -> Paired | None:
    """Compare by seed; seeds that only one of both has are left out. None without any pair.

    Args:
        base: The base's value by seed.
        other: The variation's.
    """
    seeds = tuple(sorted(base.keys() & other.keys()))
    if not seeds:
        return None
    differences = tuple(other[seed] - base[seed] for seed in seeds)
    interval = bootstrap(differences) if len(seeds) >= MIN_PAIRS else None
    return Paired(seeds, differences, math.fsum(differences) / len(seeds), interval)


def bootstrap(values: Sequence[float], *, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Percentile bootstrap (Efron 1979) of the mean: the middle 95 % of the means of resamples.

    For few values it is narrower than its name: of normal values it covers the true mean in about 83 % of all cases
    with 5 of them, and in about 90 % with 10.

    Args:
        values: One per pair.
        resamples: How many samples to draw with replacement, each as large as ``values``.
        seed: Of the draws, so that the same values give the same interval.
    """
    array = np.asarray(values, dtype=np.float64)
    chosen = np.random.default_rng(seed).integers(len(array), size=(resamples, len(array)))
    low, high = np.quantile(array[chosen].mean(axis=1), (0.025, 0.975))
    return Interval(float(low), float(high))


def mean_and_deviation(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and standard deviation (of a sample: n - 1) of finite values; None where there are too few."""
    mean = math.fsum(values) / len(values) if values else None
    return mean, statistics.stdev(values) if len(values) > 1 else None
