"""Real and fake in one pass of the discriminator equal two passes; a turn takes one step of the power iteration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning.pytorch as L
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm

import ganzoo.loop
from ganzoo import judging, streams
from ganzoo.augment import InstanceNoise
from ganzoo.ema import EMA
from ganzoo.gan import GAN
from ganzoo.generator import Generator
from ganzoo.layers.spectral import rules, spectral_norm
from ganzoo.losses import Hinge, RelativisticAverage
from ganzoo.models import DCGAN, SNGAN
from ganzoo.optim import SGD
from ganzoo.parts import Part, Turn
from ganzoo.penalties import R1, Consistency, FeatureMatching, LeCam, WassersteinGradientPenalty
from ganzoo.plan import Play
from ganzoo.precision import full_precision
from ganzoo.tricks import LatentOptimization, Packing, SpectralNorm, Unrolled
from tests.common import Endless, fit, flat, max_difference
from tests.mutants import kills

NARROW = {"generator_width": 4, "generator_max_width": 4, "discriminator_width": 4, "discriminator_max_width": 4}


class Watch(Part):
    """Keeps the gradients and logits of each turn of the discriminator, and how often the network was called."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, ...]] = []
        self.passes: list[int] = []

    def before_turn(self, turn: Turn) -> None:
        self.passes.append(0)
        if len(self.passes) == 1:  # behind the loop's look at the network: hooks make it one that is not trusted
            turn.gan.discriminator.register_forward_hook(self.count)

    def count(self, *_: Any) -> None:
        self.passes[-1] += 1

    def after_backward(self, turn: Turn) -> None:
        if turn.player == "discriminator":
            grads = torch.cat([p.grad.flatten() for p in turn.gan.discriminator.parameters()])
            self.seen.append((turn.real_logits.detach(), turn.fake_logits.detach(), grads))


class Relabel(Part):
    """Shows the discriminator other labels for fakes than for real data, so that a mix-up is seen."""

    def inputs(self, turn: Turn, data: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return data, (labels + (data is turn.fake)) % 3


def labelled(*shape: int) -> Endless:
    def make(k: int) -> tuple[Tensor, Tensor]:
        g = torch.Generator().manual_seed(k)
        return torch.randn(*shape, generator=g), torch.randint(3, shape[:1], generator=g)

    return Endless(make)


def trained(monkeypatch: pytest.MonkeyPatch, together: bool, **options: Any) -> tuple[GAN, Watch]:
    """A small conditional SNGAN after a few turns; its data pass together or one after the other."""
    monkeypatch.setattr(ganzoo.loop, "sample_group", lambda network: int(together))
    L.seed_everything(0, verbose=False)
    optimizer = {f"{name}_optimizer": SGD(1e-3) for name in ("generator", "discriminator")}
    watch = Watch()
    parts = [*options.pop("parts", []), watch]
    settings = {**NARROW, "num_classes": 3, "play": Play(2), **optimizer, **options}
    gan = SNGAN(parts=parts, **settings)
    fit(gan, labelled(4, 3, 32, 32), max_steps=2)
    return gan, watch


def check_equal(monkeypatch: pytest.MonkeyPatch, make: Callable[[], dict[str, Any]]) -> None:
    (one, a), (two, b) = (trained(monkeypatch, together, **make()) for together in (True, False))
    assert [a.passes[turn] for turn in (0, 1, 3, 4)] == [1] * 4  # of the discriminator, two in each cycle
    assert [b.passes[turn] for turn in (0, 1, 3, 4)] == [2] * 4
    assert a.passes[2::3] == b.passes[2::3]
    for turn, (x, y) in enumerate(zip(a.seen, b.seen, strict=True)):
        for mine, reference in zip(x, y, strict=True):
            # The first turn is the claim; what follows starts from weights that differ in their last digits.
            assert (mine - reference).abs().max() < (1e-6 if turn == 0 else 1e-4) * max(1.0, reference.abs().max())
    assert max_difference(one.state_dict(), two.state_dict()) < 1e-4


def test_one_pass_equals_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits, gradients and what is learned, with noise on the input, labels that differ, and a joint statistic."""
    check_equal(monkeypatch, lambda: {"parts": [Relabel(), InstanceNoise(0.3)], "penalties": [LeCam(0.1)]})


def test_one_pass_equals_two_with_other_losses_and_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    loss = RelativisticAverage(Hinge())
    check_equal(monkeypatch, lambda: {"loss": loss, "parts": [Packing(2)], "num_classes": 0})


def test_mutants(monkeypatch: pytest.MonkeyPatch) -> None:
    together, shown = judging._together, judging.shown

    def swapped(gan: GAN, turn: Turn, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        a, b = together(gan, turn, real, fake)
        return b, a

    def same_labels(gan: GAN, turn: Turn, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        (real, labels), (fake, _) = shown(gan, real, turn.real_labels, turn), shown(gan, fake, turn.fake_labels, turn)
        logits = turn.call(gan.discriminator, torch.cat([real, fake]), torch.cat([labels, labels]))
        return logits[: len(real)], logits[len(real) :]

    def shown_together(gan: GAN, turn: Turn, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        data, labels = torch.cat([real, fake]), torch.cat([turn.real_labels, turn.fake_labels])
        logits = turn.call(gan.discriminator, *shown(gan, data, labels, turn))
        return logits[: len(real)], logits[len(real) :]

    def check(function: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(judging, "_together", function)
            check_equal(patch, lambda: {"parts": [Relabel(), InstanceNoise(0.3)]})

    check(together)
    for mutant in (swapped, same_labels, shown_together):
        kills(check, mutant)


@pytest.mark.parametrize(
    ("options", "passes"),
    [
        ({}, 1),
        ({"penalties": [R1(1.0)]}, 2),  # real by itself, so that its gradient takes no fakes along
        ({"penalties": [R1(1.0, every=2)]}, 1.5),
        ({"penalties": [WassersteinGradientPenalty(1.0)]}, 2),  # both, and the points between
        ({"penalties": [Consistency(1.0)]}, 3),  # recorded: real, fake, real again
        ({"parts": [LatentOptimization(0.1, bound=None)]}, 2),  # the step's own pass, and both
        ({"parts": [SpectralNorm()]}, 1),
    ],
)
def test_how_many_passes_a_turn_of_the_discriminator_makes(options, passes) -> None:
    watch = Watch()
    gan = SNGAN(**NARROW, play=Play(2), **{**options, "parts": [*options.get("parts", []), watch]})
    fit(gan, Endless(lambda k: torch.randn(4, 3, 32, 32)), max_steps=2)
    assert sum(watch.passes[turn] for turn in (0, 1, 3, 4)) / 4 == passes


def test_batch_norm_in_the_discriminator_keeps_two_passes() -> None:
    watch = Watch()
    fit(DCGAN(8, 1, width=4, parts=[watch]), Endless(lambda k: torch.randn(4, 1, 8, 8)), max_steps=2)
    assert watch.passes == [2, 1] * 2


# ---------------------------------------------------------------------- one step of the power iteration


class Small(Generator):
    """Spectrally normalized, too, by torch's own function."""

    def __init__(self) -> None:
        super().__init__()
        self.latent_dim = 3
        self.linear = nn.utils.parametrizations.spectral_norm(nn.Linear(3, 16))

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.linear(latents).view(-1, 1, 4, 4)


class Judge(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = spectral_norm(nn.Linear(16, 5))
        self.head = spectral_norm(nn.Linear(5, 1))

    def forward(self, data: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.head(self.linear(data.flatten(1)).relu()).squeeze(1)


class Iterations(Part):
    """By hand: each turn's player goes one step from the vectors and weights before the turn, the other player none."""

    def before_turn(self, turn: Turn) -> None:
        self.expected = {}
        for name in ("generator", "discriminator"):
            for layer in [m for m in getattr(turn.gan, name).modules() if rules(m)]:
                (rule,), w = rules(layer), layer.parametrizations.weight.original.detach()
                u, v = rule._u.clone(), rule._v.clone()
                if name == turn.player:
                    with full_precision(w.device):
                        u = w @ v / (w @ v).norm()
                        v = w.T @ u / (w.T @ u).norm()
                self.expected[rule] = u, v

    def after_step(self, turn: Turn) -> None:
        for rule, (u, v) in self.expected.items():
            assert torch.allclose(rule._u, u, atol=1e-6)
            assert torch.allclose(rule._v, v, atol=1e-6)
            assert rule.training


EXTRAS: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulated": {"accumulate": 2},
    "penalties": {"penalties": [R1(1.0), WassersteinGradientPenalty(1.0), Consistency(1.0, shift=1)]},
    "step": {"parts": [LatentOptimization(0.1, bound=None)]},
    "unrolled": {"parts": [Unrolled(2)]},
    "features": {"penalties": [FeatureMatching(1.0, layer="linear")]},
}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("name", EXTRAS)
def test_one_step_of_the_power_iteration_per_turn(name: str, precision: str) -> None:
    options = dict(EXTRAS[name])
    parts = [*options.pop("parts", []), Iterations()]
    torch.manual_seed(0)
    gan = GAN(Small(), Judge(), parts=parts, play=Play(2), ema=EMA(0.1), **options)
    before = flat(gan.discriminator)
    fit(gan, Endless(lambda k: torch.randn(4, 1, 4, 4)), max_steps=2, precision=precision)
    assert not torch.equal(before, flat(gan.discriminator))


def test_a_mutant_that_iterates_in_each_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    from contextlib import nullcontext

    from ganzoo.players import Player

    def check(moving: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Player, "moving", moving)
            test_one_step_of_the_power_iteration_per_turn("penalties", "32-true")

    check(Player.moving)
    kills(check, lambda self, **_: nullcontext())


def test_the_norm_holds_after_training() -> None:
    """The largest singular value of every weight that the discriminator uses, by torch.linalg."""
    gan = SNGAN(**NARROW, play=Play(5), discriminator_optimizer=SGD(0.02))
    fit(gan, Endless(lambda k: torch.randn(4, 3, 32, 32)), max_steps=8)
    gan.eval()
    layers = [m for m in gan.discriminator.modules() if any(isinstance(r, _SpectralNorm) for r in rules(m))]
    assert len(layers) == 12 - 1  # without the embedding
    for layer in layers:
        weight = layer.weight.detach().flatten(1)
        assert torch.linalg.svdvals(weight)[0].item() == pytest.approx(1.0, abs=0.02)


def test_draws_outside_of_a_turn_iterate_as_before() -> None:
    gan = GAN(Small(), Judge())
    (rule,) = rules(gan.discriminator.linear)
    rule._u.normal_(), rule._v.normal_()
    before = rule._v.clone()
    gan.discriminator(torch.randn(2, 1, 4, 4))
    assert not torch.equal(rule._v, before)
    assert streams._current is None
