"""Instance noise: its variance is the schedule's, on real and fake alike, and it ends."""

from __future__ import annotations

import pytest
import torch

from ganzoo.augment import InstanceNoise
from ganzoo.errors import UserError
from ganzoo.gan import GAN
from ganzoo.models import MLPGAN
from ganzoo.parts import Part, Turn
from ganzoo.schedules import Linear
from tests.augment.common import stream
from tests.common import Critic, fit, normal_batches
from tests.mutants import kills


def check_variance(cls) -> None:
    """Var(x + noise) - Var(x) = std(kimg)^2; 200,000 numbers give the variance to 1 % (5 deviations: 1.6 %)."""
    noise = cls(Linear(0.5, 0.0, to_kimg=10))
    data = torch.zeros(2, 100_000)
    with stream(2):
        for kimg, std in ((0.0, 0.5), (4.0, 0.3), (9.0, 0.05)):
            added = noise.augment(data, kimg)
            assert added.var().item() == pytest.approx(std**2, rel=0.016)
            assert abs(added.mean().item()) < 5 * std / 200_000**0.5
    assert noise.augment(data, 10.0) is data
    assert noise.augment(data, 11.0) is data


class StdForVariance(InstanceNoise):
    def augment(self, data, kimg=0.0):
        std = self.std(kimg)
        return data if std <= 0 else data + std**0.5 * torch.randn_like(data)


class NeverEnds(InstanceNoise):
    def augment(self, data, kimg=0.0):
        return super().augment(data, min(kimg, 9.9))


def test_variance_is_the_schedules() -> None:
    check_variance(InstanceNoise)
    kills(check_variance, StdForVariance)
    kills(check_variance, NeverEnds)


def check_real_and_fake(cls) -> None:
    """The critic's inputs minus the clean ones have the noise's deviation, for real data and fakes, in both turns."""
    seen = []

    class Look(Part):
        def inputs(self, turn: Turn, data, labels):
            clean = turn.real if len(seen) % 3 == 0 else turn.fake
            seen.append((turn.player, (data - clean).std().item()))
            return data, labels

    torch.manual_seed(0)
    gan = GAN(MLPGAN((1, 8, 8), hidden=8).generator, Critic(64), parts=[cls(0.3), Look()])
    fit(gan, normal_batches(64, 1, 8, 8), max_steps=1)
    assert [player for player, _ in seen] == ["discriminator", "discriminator", "generator"]
    assert [std for _, std in seen] == pytest.approx([0.3] * 3, rel=0.06)  # 4096 numbers: 1 % is one deviation


class OnlyReal(InstanceNoise):
    def inputs(self, turn, data, labels):
        return super().inputs(turn, data, labels) if data is turn.real else (data, labels)


class OnlyDiscriminator(InstanceNoise):
    players = ("discriminator",)


def test_noise_is_on_all_that_the_discriminator_sees() -> None:
    check_real_and_fake(InstanceNoise)
    kills(check_real_and_fake, OnlyReal)
    kills(check_real_and_fake, OnlyDiscriminator)


def check_independent(cls) -> None:
    """The noise of one sample says nothing about another's, nor that of one pass about the next pass's."""
    data = torch.zeros(2, 50_000)
    with stream(2):
        a, b = cls(1.0).augment(data), cls(1.0).augment(data)
    for x, y in ((a[0], a[1]), (a[0], b[0])):
        assert abs((x * y).mean().item()) < 5 / 50_000**0.5


class OneDrawForAll(InstanceNoise):
    def augment(self, data, kimg=0.0):
        return data + super().augment(torch.zeros_like(data[:1]), kimg)


def test_noise_is_independent() -> None:
    check_independent(InstanceNoise)
    kills(check_independent, OneDrawForAll)


def test_two_halves_of_the_joint_batch_equal_the_whole() -> None:
    data = torch.zeros(8, 3)
    with stream(8):
        whole = InstanceNoise(1.0).augment(data)
    halves = []
    for start in (0, 4):
        with stream(4, start=start, total=8):
            halves.append(InstanceNoise(1.0).augment(data[:4]))
    assert torch.equal(whole, torch.cat(halves))


def test_a_negative_deviation_is_refused() -> None:
    with pytest.raises(UserError, match=r"-0\.1"):
        InstanceNoise(-0.1)
