"""Fakes that both players' turns share: one pass of the generator, which the discriminator sees before it moves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from ganzoo import fakes, loop, streams
from ganzoo.errors import UserError
from ganzoo.gan import GAN
from ganzoo.models import DCGAN, MLPGAN, StyleGAN
from ganzoo.optim import SGD
from ganzoo.parts import Part
from ganzoo.penalties import R1, FeatureMatching
from ganzoo.plan import Play
from ganzoo.tricks import Growing, SpectralNorm, Unrolled
from tests.common import Endless, fit, flat, normal_batches
from tests.mutants import kills

LR, BATCH, STEPS = 0.1, 8, 3


def mlp(**options) -> MLPGAN:
    torch.manual_seed(0)
    sgd = {"generator_optimizer": SGD(LR), "discriminator_optimizer": SGD(LR), "ema": None}
    small = {"latent_dim": 3, "hidden": 5, "num_layers": 1}
    return MLPGAN(**{"play": Play(shared=True), **small, **sgd, **options})


def by_hand(gan: MLPGAN, d_turns: int, steps: int) -> Tensor:
    """The generator's and the discriminator's parameters after cycles written out; the draws are keyed by the turn."""
    loader = iter(normal_batches(BATCH, 2))
    g, d = gan.generator, gan.discriminator

    def latents(player: str, number: int) -> Tensor:
        with streams.stream(0, player, number, start=0, num=BATCH, total=BATCH, device="cpu"):
            return gan.latents.draw(BATCH, 3, torch.device("cpu"))

    def descend(network: nn.Module, loss: Tensor) -> None:
        slopes = torch.autograd.grad(loss, list(network.parameters()))
        with torch.no_grad():
            for p, slope in zip(network.parameters(), slopes, strict=True):
                p -= LR * slope

    for step in range(steps):
        shared = None
        for turn in range(d_turns):
            real = next(loader)
            if turn == d_turns - 1:
                shared = g(latents("generator", step))
                fake = shared.detach()
            else:
                fake = g(latents("discriminator", step * d_turns + turn)).detach()
            descend(d, softplus(-d(real)).mean() + softplus(d(fake)).mean())
        assert shared is not None
        descend(g, softplus(-d(shared)).mean())
    return flat(nn.ModuleList([g, d]))


def cut(generator: nn.Module, z: Tensor) -> Tensor:
    """Its output, with a gradient for the last layer alone."""
    last = [m for m in generator.modules() if isinstance(m, nn.Linear)][-1]
    kept = []
    with torch.no_grad(), last.register_forward_pre_hook(lambda _, given: kept.append(given[0])):
        generator(z)
    return last(kept[0])


def check_by_hand(d_turns: int) -> None:
    gan = mlp(play=Play(d=d_turns, shared=True))
    expected = by_hand(mlp(), d_turns, STEPS)
    fit(gan, normal_batches(BATCH, 2), max_steps=STEPS)
    assert torch.allclose(flat(nn.ModuleList([gan.generator, gan.discriminator])), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("d_turns", [1, 2])
def test_cycles_by_hand(d_turns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    check_by_hand(d_turns)
    provide, ahead = fakes.provide, fakes.make_ahead

    def anew(gan, turn, parts, m, micro) -> None:  # the discriminator's turn makes fakes of its own
        turn.ahead = turn.ahead if turn.player == "generator" else None
        provide(gan, turn, parts, m, micro)

    def attached(gan, turn, batch, size) -> None:  # without the graph to the first layer
        with monkeypatch.context() as inner:
            inner.setattr(gan, "generate", lambda z, labels: cut(gan.generator, z))
            ahead(gan, turn, batch, size)

    for name, wrong in (("provide", anew), ("make_ahead", attached)):
        with monkeypatch.context() as patch:
            patch.setattr(loop, name, wrong)
            kills(check_by_hand, d_turns)


def counted(gan: GAN, shape: tuple[int, ...], **options) -> int:
    """Passes of the generator per cycle."""
    passes = []
    gan.generator.register_forward_hook(lambda *_: passes.append(1))
    fit(gan, normal_batches(*shape), max_steps=4, **options)
    assert len(passes) % gan.clock.cycles == 0
    return len(passes) // gan.clock.cycles


@pytest.mark.parametrize(
    ("play", "num"),
    [(Play(), 2), (Play(shared=True), 1), (Play(d=3, shared=True), 3), (Play(d=1, g=2, shared=True), 2)],
)
def test_a_pass_less_per_cycle(play: Play, num: int) -> None:
    assert counted(mlp(play=play), (BATCH, 2)) == num


def test_statistics_move_once_per_cycle() -> None:
    """Running means of batch normalization and the spectral vectors of the generator, as in turns of their own."""
    gan = DCGAN(8, 1, width=4, parts=[SpectralNorm("generator")], play=Play(shared=True), ema=None)
    norms = [m for m in gan.generator.modules() if isinstance(m, nn.BatchNorm2d)]
    spectral = [m for m in gan.generator.modules() if isinstance(m, nn.utils.parametrizations._SpectralNorm)]
    steps = []
    for module in spectral:
        method = module._power_method
        module._power_method = lambda *a, method=method: steps.append(1) or method(*a)
    fit(gan, normal_batches(BATCH, 1, 8, 8), max_steps=3)
    assert norms and {int(m.num_batches_tracked) for m in norms} == {3}
    assert len(steps) == 3 * len(spectral) > 0


def test_micro_batches_are_the_batch() -> None:
    found = []
    for accumulate in (1, 4):
        gan, loader = mlp(accumulate=accumulate), iter(normal_batches(BATCH, 2))
        micro = [piece for _ in range(STEPS) for piece in next(loader).chunk(accumulate)]
        fit(gan, Endless(lambda k, micro=micro: micro[k]), max_steps=STEPS)
        found.append(flat(gan))
    assert torch.allclose(*found, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"mixing": 0.0, "penalties": []},
        {"accumulate": 2},
        {"growth": Growing(start_resolution=8, fade_kimg=0.004, stabilize_kimg=0.004)},
    ],
    ids=["plain", "accumulated", "growing"],
)
def test_style_based_models(options) -> None:
    """The mean style moves by the styles of the shared pass, once per cycle."""
    gan = StyleGAN(
        8,
        1,
        channel_base=32,
        channel_max=4,
        style_dim=4,
        latent_dim=4,
        mapping_layers=1,
        group=0,
        play=Play(shared=True),
        **options,
    )
    mapping, seen, before = gan.generator.mapping, [], gan.generator.mapping.mean_style.clone()
    gan.generator.register_forward_hook(lambda *_: seen.append(mapping.batch_mean.clone()))
    fit(gan, normal_batches(4, 1, 8, 8), max_steps=3)
    num = gan.accumulate
    assert len(seen) == 3 * num
    for i in range(0, len(seen), num):
        before = before.lerp(torch.stack(seen[i : i + num]).mean(0), 1 - 0.998)
    assert torch.allclose(mapping.mean_style, before, atol=1e-6)


def test_terms_that_look_at_the_fakes_see_the_shared_ones() -> None:
    """And a penalty that looks at features in the generator's turn has none of the discriminator's turn."""
    seen = []

    class Watch(Part):
        def forward(self, turn):
            seen.append((turn.player, turn.latents.clone(), turn.fake.detach().clone(), turn.fake.requires_grad))

    gan = mlp(parts=[Watch()], penalties=[R1(gamma=0.1), FeatureMatching()])
    fit(gan, normal_batches(BATCH, 2), max_steps=2)
    assert [player for player, *_ in seen] == ["discriminator", "generator"] * 2
    for (_, z_d, x_d, graph_d), (_, z_g, x_g, graph_g) in zip(seen[::2], seen[1::2], strict=True):
        assert torch.equal(z_d, z_g) and torch.equal(x_d, x_g)
        assert (graph_d, graph_g) == (False, True)


def test_what_cannot_share() -> None:
    with pytest.raises(UserError, match="0 of the discriminator and 1 of the generator: leave shared out"):
        Play(d=0, g=1, shared=True)
    with pytest.raises(UserError, match="but Unrolled needs the discriminator as the generator's turn finds it"):
        mlp(parts=[Unrolled()])
