"""P7: the average against the closed form of its recursion, and its half-life in images."""

import pytest
import torch
from torch import nn

from ganzoo.ema import EMA
from ganzoo.errors import UserError
from ganzoo.gan import GAN, Generator
from ganzoo.optim import SGD
from ganzoo.parts import Part, Turn
from ganzoo.plan import Play
from tests.common import Critic, fit, normal_batches


class OneNumber(Generator):
    """Gives its one weight to every latent."""

    latent_dim = 1

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, latents, labels=None):
        return self.weight.expand(len(latents), 1)


class SetWeight(Part):
    """Puts the generator's weight to a given function of the turn."""

    players = ("generator",)

    def __init__(self, values: list[float]) -> None:
        super().__init__()
        self.values = values

    def after_step(self, turn: Turn) -> None:
        turn.gan.generator.weight.data.fill_(self.values[min(turn.number, len(self.values) - 1)])


def run(values: list[float], ema: EMA, cycles: int, d: int = 1) -> GAN:
    gan = GAN(OneNumber(), Critic(), parts=[SetWeight(values)], ema=ema, play=Play(d=d), generator_optimizer=SGD(0.0))
    fit(gan, normal_batches(8, 1), max_steps=cycles)
    return gan


def test_average_equals_the_closed_form_of_the_recursion() -> None:
    values = [1.0, -2.0, 5.0, 3.0]
    gan = run(values, EMA(0.02, rampup=None), 4)
    beta = 0.5 ** (8 / 20)
    expected = (1 - beta) * sum(v * beta ** (3 - k) for k, v in enumerate(values))  # from 0 at the start
    assert gan.generator_ema.weight.item() == pytest.approx(expected, rel=1e-5)


def test_half_of_the_distance_is_left_after_the_half_life_with_five_d_turns() -> None:
    # 10 cycles of 5 turns of 8 images are 400 images
    gan = run([1.0], EMA(0.4, rampup=None), 10, d=5)
    assert gan.clock.images == 400
    assert 1 - gan.generator_ema.weight.item() == pytest.approx(0.5, rel=1e-5)


def test_rampup_shortens_the_half_life_early_on() -> None:
    ema = EMA(10.0, rampup=0.05)
    assert ema.decay(64, 1000) == pytest.approx(0.5 ** (64 / 50))
    assert ema.decay(64, 10_000_000) == pytest.approx(0.5 ** (64 / 10_000))
    assert EMA(0.0, rampup=None).decay(64, 1000) == pytest.approx(0.0)


def test_buffers_follow_the_generator() -> None:
    gan = GAN(OneNumber(), Critic(), total_kimg=0.008)
    gan.generator.seen.fill_(7.0)
    fit(gan, normal_batches(8, 1))
    assert gan.generator_ema.seen.item() == 7.0
    assert not gan.generator_ema.training
    assert not any(p.requires_grad for p in gan.generator_ema.parameters())


def test_up_to_its_start_the_average_is_the_current_state() -> None:
    values = [1.0, -2.0, 5.0, 3.0]
    for cycles in (1, 2):
        assert run(values, EMA(0.02, rampup=None, start_kimg=0.016), cycles).generator_ema.weight == values[cycles - 1]
    gan = run(values, EMA(0.02, rampup=None, start_kimg=0.016), 4)  # 2 of the 4 cycles
    beta = 0.5 ** (8 / 20)
    expected = beta**2 * values[1] + (1 - beta) * (beta * values[2] + values[3])
    assert gan.generator_ema.weight.item() == pytest.approx(expected, rel=1e-5)
    with pytest.raises(UserError, match="start_kimg -1"):
        EMA(start_kimg=-1)
