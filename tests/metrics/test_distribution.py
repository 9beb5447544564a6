"""Metrics of distributions: perfect, collapsed and lopsided samplers, whose scores are closed form."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from ganzoo.data import Grid, Mixture, Ring
from ganzoo.metrics.distribution import (
    high_quality_share,
    modes_captured,
    reverse_kl,
    sliced_wasserstein,
    wasserstein,
)
from tests.mutants import kills

GRID = Grid().distribution
RING = Ring(radius=1.0, std=0.01).distribution


def test_a_perfect_sampler() -> None:
    """1 - exp(-4.5) = 98.9 % in the plane and 99.73 % on the line lie within three standard deviations."""
    for toy, expected in ((Grid(), 1 - math.exp(-4.5)), (Ring(radius=1.0, std=0.01), 1 - math.exp(-4.5))):
        samples, known = toy.draw(200_000), toy.distribution
        share = high_quality_share(samples, known.means, known.stds)
        assert abs(share - expected) < 5 * math.sqrt(expected * (1 - expected) / 200_000)
        assert modes_captured(samples, known.means, known.stds) == len(known.means)
        # n KL(empirical || true) is half a chi-square with n_modes - 1 degrees of freedom
        kl = reverse_kl(samples, known.means, known.stds)
        assert 2 * 200_000 * kl < scipy.stats.chi2(len(known.means) - 1).ppf(1 - 1e-6)
    line = Mixture(means=[-50.0, 0.0, 50.0], stds=[1.0, 2.0, 0.5])
    share = high_quality_share(line.draw(200_000), line.distribution.means, line.distribution.stds)
    assert abs(share - 0.9973) < 5 * math.sqrt(0.9973 * 0.0027 / 200_000)


def test_a_collapsed_sampler() -> None:
    samples = GRID.means[7].repeat(2500, 1)
    assert modes_captured(samples, GRID.means, GRID.stds) == 1
    assert high_quality_share(samples, GRID.means, GRID.stds) == 1
    assert reverse_kl(samples, GRID.means, GRID.stds) == pytest.approx(math.log(25), rel=1e-12)


def is_log_of_the_lost_share(kl: Callable[..., float]) -> None:
    """Uniform over m of n modes: log(n/m), whichever they are."""
    for num in (1, 3, 5, 8):
        samples = RING.means[torch.randperm(8)[:num]].repeat(10, 1)
        assert abs(kl(samples, RING.means, RING.stds) - math.log(8 / num)) < 1e-9
    lopsided = RING.means[[0, 0, 0, 5]]
    assert abs(kl(lopsided, RING.means, RING.stds) - (0.75 * math.log(6) + 0.25 * math.log(2))) < 1e-9


def test_reverse_kl_of_lost_modes() -> None:
    def forward(samples: Tensor, means: Tensor, stds: Tensor) -> float:
        """The other direction, with a little added so that it is finite."""
        generated = torch.bincount(torch.cdist(samples, means).argmin(1), minlength=8).double() / len(samples) + 1e-9
        return float((torch.full((8,), 1 / 8) * (1 / 8 / generated).log()).sum())

    is_log_of_the_lost_share(reverse_kl)
    kills(is_log_of_the_lost_share, forward)
    kills(is_log_of_the_lost_share, lambda *given: reverse_kl(*given) / math.log(2))  # bits


def test_reverse_kl_against_the_weights_of_the_modes() -> None:
    means, weights = torch.tensor([[0.0], [10.0], [20.0]]), torch.tensor([1.0, 2.0, 1.0])
    samples = torch.tensor([[0.0], [10.0], [10.1], [20.0]])
    assert reverse_kl(samples, means, weights=weights) == pytest.approx(0.0, abs=1e-12)
    by_hand = 0.5 * math.log(0.5 / (1 / 3)) + 2 * 0.25 * math.log(0.25 / (1 / 3))
    assert reverse_kl(samples, means) == pytest.approx(by_hand, rel=1e-6)


def test_whether_low_quality_samples_are_assigned_is_a_choice() -> None:
    samples = torch.cat([RING.means[:4], 1.5 * RING.means[4:]])  # the second half lies outside of every mode
    assert reverse_kl(samples, RING.means, RING.stds) == pytest.approx(0.0, abs=1e-9)
    assert reverse_kl(samples, RING.means, RING.stds, within=3.0) == pytest.approx(math.log(2), rel=1e-9)
    assert high_quality_share(samples, RING.means, RING.stds) == 0.5
    assert modes_captured(samples, RING.means, RING.stds) == 4
    assert reverse_kl(5 * samples, RING.means, RING.stds, within=3.0) == pytest.approx(math.log(8))  # none is left


def quality_is_in_units_of_the_mode(share: Callable[..., float]) -> None:
    means, stds = torch.tensor([[0.0, 0.0], [10.0, 0.0]]), torch.tensor([0.1, 2.0])
    samples = torch.tensor([[0.29, 0.0], [0.31, 0.0], [4.1, 0.0], [3.9, 0.0], [10.0, 5.9], [10.0, 6.1]])
    assert share(samples, means, stds) == pytest.approx(3 / 6)
    assert share(samples, means, stds, within=1.0) == 0
    assert share(samples, means, stds, within=3.2) == pytest.approx(6 / 6)


def test_quality_is_in_units_of_the_mode() -> None:
    def by_the_mean(samples: Tensor, means: Tensor, stds: Tensor, within: float = 3.0) -> float:
        return high_quality_share(samples, means, stds.mean(), within=within)

    quality_is_in_units_of_the_mode(high_quality_share)
    kills(quality_is_in_units_of_the_mode, by_the_mean)


def is_the_distance_of_quantiles(distance: Callable[[Tensor, Any], float]) -> None:
    """Against scipy, which integrates the difference of distribution functions."""
    generator = np.random.default_rng(0)
    for _ in range(5):
        a, b = generator.normal(size=300), generator.exponential(size=300)
        assert abs(distance(torch.tensor(a), torch.tensor(b)) - scipy.stats.wasserstein_distance(a, b)) < 1e-9


def test_wasserstein_of_samples() -> None:
    is_the_distance_of_quantiles(wasserstein)
    kills(is_the_distance_of_quantiles, lambda a, b: float((a - b).abs().mean()))  # unsorted
    kills(is_the_distance_of_quantiles, lambda a, b: float((a.sort()[0] - b.sort()[0]).square().mean().sqrt()))  # W2
    with pytest.raises(ValueError, match="3 samples cannot be sorted against 2 real points"):
        wasserstein(torch.zeros(3), torch.zeros(2))


def test_wasserstein_to_an_exact_distribution() -> None:
    normal = Mixture(means=[0.0], stds=[1.0]).distribution.quantile
    assert wasserstein(torch.zeros(500), normal) == pytest.approx(math.sqrt(2 / math.pi), rel=1e-3)  # E|x|
    at_quantiles = normal((torch.arange(2000, dtype=torch.float64) + 0.5) / 2000)
    assert wasserstein(at_quantiles + 3, normal) == pytest.approx(3.0, rel=1e-6)  # a shift
    assert wasserstein(2 * at_quantiles, normal) == pytest.approx(math.sqrt(2 / math.pi), rel=1e-2)  # E|2x - x|
    uniform = torch.linspace(0.5 / 100, 1 - 0.5 / 100, 100)
    assert wasserstein(uniform, lambda shares: shares) == pytest.approx(1 / 400, rel=1e-3)  # 100 steps of width 1/100


def is_rotation_and_shift_true(distance: Callable[[Tensor, Tensor], float]) -> None:
    points = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    shift = torch.tensor([3.0, -4.0])
    assert abs(distance(points + shift, points) - 5 * 2 / math.pi) < 0.01  # |shift| E|cos|
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]])
    other = torch.randn(400, 2, generator=torch.Generator().manual_seed(1)) * torch.tensor([2.0, 0.5])
    assert abs(distance(points @ turn, other @ turn) - distance(points, other)) < 0.01
    assert distance(points, points[torch.randperm(400)]) < 1e-9


def test_sliced_wasserstein() -> None:
    def along_axes(samples: Tensor, real: Tensor) -> float:
        return float((samples.sort(0).values - real.sort(0).values).abs().mean())

    is_rotation_and_shift_true(sliced_wasserstein)
    kills(is_rotation_and_shift_true, along_axes)
    line = torch.randn(50, 1), torch.randn(50, 1)
    assert sliced_wasserstein(*line) == wasserstein(line[0][:, 0], line[1][:, 0])
    for wrong in ((torch.zeros(3, 2), torch.zeros(4, 2)), (torch.zeros(3, 3), torch.zeros(3, 3))):
        with pytest.raises(ValueError, match="must both be"):
            sliced_wasserstein(*wrong)


def test_small_modes_far_out_are_seen() -> None:
    """Distances of 0.01 beside means of size 6, in float32."""
    known = Grid(side=4, spacing=4.0, std=0.001).distribution
    samples = known.means + torch.tensor([0.0029, 0.0])
    assert high_quality_share(samples, known.means, known.stds) == 1
    assert high_quality_share(known.means + torch.tensor([0.0031, 0.0]), known.means, known.stds) == 0
