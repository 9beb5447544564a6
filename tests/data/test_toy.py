"""Toys: the law of their points, densities against a reference, and a stream that depends on places alone."""

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from torch import distributions

from ganzoo import streams
from ganzoo.data import Grid, Mixture, Ring, Spiral, SwissRoll, Toy, TwoMoons
from ganzoo.data.toy import EndlessPoints
from ganzoo.data.toy_distributions import Normals
from ganzoo.errors import UserError
from tests.mutants import kills

TOYS = [Mixture, Ring, Grid, Spiral, TwoMoons, SwissRoll]
MODES = {
    "mixture": Mixture(means=[-1.0, 2.0, 2.5], stds=[0.5, 0.1, 2.0], weights=[1.0, 2.0, 5.0]),
    "ring": Ring(num_modes=5, radius=1.5, std=0.2),
    "grid": Grid(side=3, spacing=1.5, std=0.3),
}


def points_of(toy: Toy, num: int, start: int = 0) -> torch.Tensor:
    return toy.dataset[np.arange(start, start + num)].data


@pytest.mark.parametrize("cls", TOYS)
def test_the_place_alone_says_which_point(cls: type[Toy]) -> None:
    """Whatever else is asked for, in whatever order, by whichever object."""
    toy = cls(labels=True)
    whole = toy.dataset[np.arange(0, 5000)]
    assert (whole.data.shape, whole.data.dtype) == ((5000, *toy.shape), torch.float32)
    places = np.random.default_rng(0).permutation(5000)[:700]
    part = cls(labels=True).dataset[places]
    assert torch.equal(part.data, whole.data[places])
    if toy.class_names:
        assert torch.equal(part.labels, whole.labels[places])
        assert set(whole.labels.tolist()) == set(range(len(toy.class_names)))
    else:
        assert whole.labels is None
    far = np.array([10**12 + 7, 3, 10**12 + 7])
    assert torch.equal(toy.dataset[far].data[0], toy.dataset[far].data[2])
    assert torch.equal(pickle.loads(pickle.dumps(toy.dataset))[places].data, part.data)  # for loader processes


def no_point_comes_twice(dataset: type[EndlessPoints]) -> None:
    points = dataset(Ring().distribution, False)[np.arange(20_000)].data
    assert len(points.unique(dim=0)) == 20_000


def test_no_point_comes_twice() -> None:
    class Repeats(EndlessPoints):
        def _block(self, number: int) -> Any:
            return super()._block(0)

    no_point_comes_twice(EndlessPoints)
    kills(no_point_comes_twice, Repeats)
    toy = Grid()
    assert not set(map(tuple, toy.draw(1000).tolist())) & set(map(tuple, points_of(toy, 20_000).tolist()))
    assert torch.equal(toy.draw(1000), Grid().draw(1000))
    assert not torch.equal(toy.draw(1000), toy.draw(1000, seed=1))


def test_a_thousand_points_cost_one_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    real = streams.generator
    monkeypatch.setattr(streams, "generator", lambda *key: made.append(key) or real(*key))
    toy, kept = Ring(batch_size=100), 0
    for k in range(200):
        toy.dataset[np.arange(100 * k, 100 * k + 100)]
        kept = max(kept, len(toy.dataset._blocks))
    assert len(made) == math.ceil(200 * 100 / 1024)
    assert kept <= 8


@pytest.mark.parametrize("toy", MODES.values(), ids=MODES)
def test_points_follow_the_modes(toy: Toy) -> None:
    """Per mode: its share, mean and deviation, within five standard errors."""
    num, known = 40_000, toy.distribution
    batch = type(toy)(**toy.config()["init_args"] | {"labels": True}).dataset[np.arange(num)]
    facts = zip(known.means, known.stds.tolist(), known.weights.tolist(), strict=True)
    for mode, (mean, std, weight) in enumerate(facts):
        own = batch.data[batch.labels == mode]
        assert abs(len(own) - num * weight) < 5 * math.sqrt(num * weight * (1 - weight))
        assert (own.mean(0) - mean).abs().max() < 5 * std / math.sqrt(len(own))
        assert (own.std(0) - std).abs().max() < 5 * std / math.sqrt(2 * len(own))


def test_means_of_ring_grid_and_mixture() -> None:
    ring = Ring(num_modes=4, radius=3.0).distribution.means
    assert torch.allclose(ring, 3.0 * torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]), atol=1e-6)
    grid = {tuple(mean) for mean in Grid().distribution.means.tolist()}  # PacGAN: {-4, -2, 0, 2, 4} squared
    assert grid == {(x, y) for x in (-4.0, -2.0, 0.0, 2.0, 4.0) for y in (-4.0, -2.0, 0.0, 2.0, 4.0)}
    assert MODES["mixture"].distribution.weights.tolist() == [0.125, 0.25, 0.625]


def density_is_the_reference(normals: type[Normals]) -> None:
    """Against torch.distributions, in float64."""
    for toy in MODES.values():
        known = toy.distribution
        parts = distributions.MultivariateNormal(
            known.means.double(), known.stds.double()[:, None, None] ** 2 * torch.eye(toy.shape[0]).double()
        )
        reference = distributions.MixtureSameFamily(distributions.Categorical(known.weights.double()), parts)
        at = torch.randn(500, *toy.shape, generator=torch.Generator().manual_seed(1)).double() * 2
        own = normals(known.means, known.stds, known.weights).log_prob(at)
        assert torch.allclose(own, reference.log_prob(at), atol=1e-4, rtol=1e-5)


def test_densities() -> None:
    class WithoutWeights(Normals):
        def log_prob(self, points: torch.Tensor) -> torch.Tensor:
            return Normals(self.means, self.stds, torch.ones(len(self.stds)) / len(self.stds)).log_prob(points)

    class OnTheLine(Normals):
        """The constant of one dimension in the plane."""

        def log_prob(self, points: torch.Tensor) -> torch.Tensor:
            return super().log_prob(points) + (points.shape[1] - 1) / 2 * math.log(2 * math.pi)

    density_is_the_reference(Normals)
    kills(density_is_the_reference, WithoutWeights)
    kills(density_is_the_reference, OnTheLine)
    assert Spiral().distribution.log_prob(torch.zeros(3, 2)) is None


def test_a_small_mode_far_out_keeps_its_density() -> None:
    """At three standard deviations of 0.01 from a mean at distance 6: products would lose it."""
    known = Grid(side=4, spacing=4.0, std=0.01).distribution
    mean = known.means[-1]
    at = mean + torch.tensor([0.03, 0.0])
    exact = (at.double() - mean.double()).square().sum() / (2 * 0.01**2)
    log_prob = known.log_prob(at[None])[0] - known.log_prob(mean[None])[0]
    assert log_prob.item() == pytest.approx(-exact.item(), rel=1e-3)


def test_quantiles_are_the_inverse_of_the_cdf() -> None:
    one = Mixture(means=[1.0], stds=[2.0]).distribution
    shares = torch.tensor([1e-6, 0.01, 0.3, 0.5, 0.9, 1 - 1e-6], dtype=torch.float64)
    assert np.allclose(one.quantile(shares), scipy.stats.norm(1.0, 2.0).ppf(shares.numpy()), atol=1e-9)
    three = MODES["mixture"].distribution
    assert torch.allclose(three.cdf(three.quantile(shares)), shares, atol=1e-12)
    x = torch.tensor([-3.0, 0.0, 2.1, 4.0])
    parts = zip([-1.0, 2.0, 2.5], [0.5, 0.1, 2.0], [0.125, 0.25, 0.625], strict=True)
    by_hand = sum(weight * scipy.stats.norm(mean, std).cdf(x.numpy()) for mean, std, weight in parts)
    assert np.allclose(three.cdf(x), by_hand, atol=1e-7)


def test_curves_without_noise() -> None:
    """Each point lies on its curve."""
    points, moons = TwoMoons(std=1e-6, labels=True).dataset[np.arange(4000)]
    upper, lower = points[moons == 0], points[moons == 1] - torch.tensor([1.0, 0.5])
    for half, sign in ((upper, 1), (lower, -1)):
        assert (half.norm(dim=1) - 1).abs().max() < 1e-4
        assert (sign * half[:, 1] > -1e-4).all()
        assert half[:, 0].min() < -0.99 and half[:, 0].max() > 0.99
    roll = points_of(SwissRoll(radius=3.0, std=1e-6), 4000)
    t = roll.norm(dim=1) * (4.5 * math.pi / 3.0)
    assert (torch.stack([t * t.cos(), t * t.sin()], 1) * (3.0 / (4.5 * math.pi)) - roll).abs().max() < 1e-3
    assert t.min().item() == pytest.approx(1.5 * math.pi, abs=0.05)
    assert t.max().item() == pytest.approx(4.5 * math.pi, abs=0.05)
    spiral, arms = Spiral(num_arms=3, turns=1.5, radius=2.0, std=1e-6, labels=True).dataset[np.arange(4000)]
    share = spiral.norm(dim=1) / 2
    angle = 2 * math.pi * (1.5 * share + arms / 3)
    on_curve = 2 * share[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
    assert (on_curve - spiral).abs().max() < 1e-3
    assert scipy.stats.kstest(share.square().numpy(), "uniform").pvalue > 1e-3


def test_noise_of_curves() -> None:
    """Across a circle of radius 1 the distance from its centre has nearly the deviation of the noise."""
    batch = TwoMoons(std=0.05, labels=True).dataset[np.arange(20_000)]
    radius = batch.data[batch.labels == 0].norm(dim=1)
    assert radius.std().item() == pytest.approx(0.05, rel=0.05)


def test_the_hash_is_that_of_the_points() -> None:
    same = {Ring().content_hash, Ring(batch_size=7, labels=True).content_hash}
    others = [Ring(std=0.1), Ring(num_modes=9), Ring(radius=3.0), Grid(), Mixture(), Mixture(weights=[1.0, 2.0, 1.0])]
    assert len(same) == 1
    assert len(same | {toy.content_hash for toy in others}) == 1 + len(others)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Ring(std=0.0), "std of Ring was 0.0, but must be above 0."),
        (lambda: Grid(side=0), "side of Grid was 0, but must be above 0."),
        (lambda: Mixture(stds=[0.5, 0.0, 1.0]), "stds of Mixture was 0.0, but must be above 0."),
        (
            lambda: Mixture(means=[0.0, 1.0], stds=[1.0]),
            "A mixture of 2 means, 1 stds and 2 weights was asked for; give as many of each.",
        ),
    ],
)
def test_impossible_toys(make: Any, sentence: str) -> None:
    with pytest.raises(UserError) as error:
        make()
    assert str(error.value) == sentence
