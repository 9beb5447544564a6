"""The toy table's program: a stacked seed is the seed alone, formulas are the library's, runs resume exactly."""

from __future__ import annotations

import json
import math
import pickle
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.scores import __main__ as program
from benchmarks.scores import methods, records, second, speed, stacks, table, train
from benchmarks.scores.draws import Draws
from benchmarks.scores.methods import METHODS, OneCentred, ZeroCentred
from benchmarks.scores.networks import EPS, RETAIN, StackedDiscriminator, StackedGenerator, largest, minibatch_std
from benchmarks.scores.protocol import PROTOCOLS, TARGETS, Protocol, differences
from benchmarks.scores.train import Run
from ganzoo.memory import give_back
from ganzoo.models import MLPGAN
from ganzoo.parts import Turn
from ganzoo.penalties.gradient import R1, R2, WassersteinGradientPenalty
from tests.mutants import kills

TINY = Protocol(
    "tiny",
    generator_width=6,
    generator_layers=2,
    discriminator_width=5,
    discriminator_layers=2,
    pieces=3,
    init_std=0.5,
    lr=1e-2,
    batch=8,
    num_points=32,
    cycles=6,
    score_every=3,
    num_samples=50,
)
GRID, RING = TARGETS["grid"], TARGETS["ring"]
SEEDS = (3, 1, 2)


def trained(run: Run, cycles: int) -> Run:
    for _ in range(cycles):
        run.step()
    return run


def close(a: Tensor, b: Tensor, tolerance: float = 1e-4) -> bool:
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance * max(1e-3, b.abs().max().item()))


# A seed in the stack is the seed alone


def stack_is_seeds(cls: type[Run], name: str = "gan") -> None:
    """Parameters, and the last gradients, which Adam's indifference to their scale would hide."""
    method = METHODS[name]
    together = trained(cls(TINY, method, GRID, SEEDS), 5)
    for place, seed in enumerate(SEEDS):
        alone = trained(Run(TINY, method, GRID, [seed]), 5)
        for network in ("generator", "discriminator"):
            ours, single = getattr(together, network).parameters, getattr(alone, network).parameters
            rows = slice(place, None, len(SEEDS))
            assert close(ours.detach()[rows], single.detach())
            assert close(ours.grad[rows], single.grad)


@pytest.mark.parametrize("name", METHODS)
def test_a_seed_does_not_depend_on_the_stack(name: str) -> None:
    stack_is_seeds(Run, name)


def test_the_loss_as_a_mean_over_the_stack_is_found() -> None:
    class Mean(Run):
        def _of_generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
            return super()._of_generator(real_logits, fake_logits) / len(SEEDS)

    kills(stack_is_seeds, Mean)


def test_draws_keyed_by_the_place_in_the_stack_are_found() -> None:
    class ByPlace(Run):
        def __init__(self, protocol: Protocol, method: Any, target: Any, seeds: Any) -> None:
            super().__init__(protocol, method, target, seeds)
            self.draws = Draws(protocol, target, range(len(seeds)), packing=method.packing)

    kills(stack_is_seeds, ByPlace)


def test_a_diverged_seed_leaves_the_others_alone() -> None:
    run = Run(TINY, METHODS["gan"], GRID, SEEDS)
    with torch.no_grad():
        run.generator.parameters[1] = math.nan
    trained(run, 3)
    alone = trained(Run(TINY, METHODS["gan"], GRID, SEEDS[:1]), 3)
    assert run.generator.parameters[1].isnan().all()
    assert close(run.generator.parameters.detach()[:1], alone.generator.parameters.detach())
    assert run.score()["modes"][1] == 0
    assert run.score()["reverse_kl"][1] == pytest.approx(math.log(25))


# The formulas, against references written for one seed and ordinary layouts


def naive_generator(run: Run, place: int, flat: Tensor, latents: Tensor, training: bool = True) -> Tensor:
    """(N, Z) to (N, 2), with the layers of torch."""
    generator = run.generator
    *hidden, weight, bias = [t[0] for t in generator.layout.split(flat[None])]
    x = latents
    for i in range(len(generator.mean)):
        linear, gain, shift = hidden[3 * i : 3 * i + 3]
        stats = [
            s[i].view(len(run.seeds), -1, generator.packing)[place].mean(1) for s in (generator.mean, generator.var)
        ]
        stats = [None, None] if training else stats
        x = F.relu(F.batch_norm(F.linear(x, linear), *stats, gain, shift, training=training, eps=EPS))
    return F.linear(x, weight, bias[:, 0])


def naive_discriminator(run: Run, flat: Tensor, packs: Tensor) -> Tensor:
    """(N, 2 P) to (N,)."""
    *hidden, weight, bias = [t[0] for t in run.discriminator.layout.split(flat[None])]
    x = packs
    for linear, shift in zip(hidden[::2], hidden[1::2], strict=True):
        pieces = F.linear(x, linear, shift[:, 0]).chunk(run.discriminator.pieces, dim=1)
        x = torch.stack(pieces).max(0).values
    return F.linear(x, weight, bias[:, 0])[:, 0]


@pytest.mark.parametrize("packing", [1, 2, 3])
def test_a_cycle_is_goodfellows_game_on_packs(packing: int) -> None:
    """Gradients of both players from the same parameters, with fakes of each pack place normalized by themselves."""
    method = replace(METHODS["gan"], packing=packing)
    run = trained(Run(TINY, method, GRID, SEEDS), 2)
    starts = [run.generator.parameters.detach().clone(), run.discriminator.parameters.detach().clone()]
    batch = run.draws.batch(run.cycle)
    run.step()
    for place in range(len(SEEDS)):
        g, d = (start[place].requires_grad_() for start in starts)
        latents = batch.latents[place].T.split(TINY.batch)  # a batch for each place in the pack
        fakes = [naive_generator(run, place, g, z) for z in latents]
        fake = torch.stack([torch.cat([f[i, c : c + 1] for c in (0, 1) for f in fakes]) for i in range(TINY.batch)])
        real_logits = naive_discriminator(run, d, batch.real[place].T)
        fake_logits = naive_discriminator(run, d, fake)
        (gradient_g,) = torch.autograd.grad(-F.logsigmoid(fake_logits).mean(), g, retain_graph=True)
        loss_d = -F.logsigmoid(real_logits).mean() - F.logsigmoid(-fake_logits).mean()
        (gradient_d,) = torch.autograd.grad(loss_d, d)
        assert close(run.generator.parameters.grad[place], gradient_g)
        assert close(run.discriminator.parameters.grad[place], gradient_d)


def by_hand_is_by_graph(discriminator: type[StackedDiscriminator], name: str = "gan", generator: Any = None) -> None:
    """Gradients of both players from autograd through the same fakes, in the middle of a training."""
    method = replace(METHODS[name], penalty=None)
    run = trained(Run(TINY, method, GRID, SEEDS), 3)
    run.discriminator.__class__ = discriminator
    run.generator.__class__ = generator or StackedGenerator
    batch = run.draws.batch(run.cycle)
    fake = run._packs(run.generator(batch.latents, record=False))
    ours, slope = run._by_hand(batch, fake)
    expected, expected_slope = run._by_graph(batch, fake)
    assert close(ours, expected)
    assert close(slope, expected_slope)
    latents = batch.latents
    for place in range(len(SEEDS)):
        flat = run.generator.parameters.detach()[place].clone().requires_grad_()
        parts = latents[place].T.split(TINY.batch)
        points = torch.cat([naive_generator(run, place, flat, z) for z in parts]).T
        (reference,) = torch.autograd.grad(points, flat, slope.reshape(len(SEEDS), 2, -1)[place])
        assert close(run.generator.pull(slope.reshape(len(SEEDS), 2, -1))[place], reference)
        run.generator(latents, record=False)  # whose gradient may be taken once


@pytest.mark.parametrize("name", ["gan", "pacgan3", "rpgan", "wgan_gp", "d2gan"])
def test_gradients_by_hand(name: str) -> None:
    by_hand_is_by_graph(StackedDiscriminator, name)


class Unweighed(StackedDiscriminator):
    def pull(self, weights: Tensor, *, last: int) -> tuple[Tensor, Tensor]:
        return super().pull(torch.ones_like(weights), last=last)


class FirstPacks(StackedDiscriminator):
    def pull(self, weights: Tensor, *, last: int) -> tuple[Tensor, Tensor]:
        gradient, slope = super().pull(weights, last=weights.shape[1])
        return gradient, slope[:, :, :last]


class AllPieces(StackedDiscriminator):
    def judge(self, packs: Tensor) -> Tensor:
        logits = super().judge(packs)
        for _, won in self._tape:
            won.fill_(1)
        return logits


class NoReLU(StackedGenerator):
    def __call__(self, latents: Tensor, *, record: bool = True) -> Tensor:
        points = super().__call__(latents, record=record)
        self._top = self._top + 1  # above zero everywhere
        return points


@pytest.mark.parametrize("mutant", [Unweighed, FirstPacks, AllPieces])
def test_wrong_gradients_by_hand_are_found(mutant: type[StackedDiscriminator]) -> None:
    kills(by_hand_is_by_graph, mutant)


def test_a_generator_without_the_slope_of_its_relu_is_found() -> None:
    kills(lambda generator: by_hand_is_by_graph(StackedDiscriminator, generator=generator), NoReLU)


def test_samples_use_the_running_statistics() -> None:
    run = trained(Run(TINY, replace(METHODS["gan"], packing=2), GRID, SEEDS), 4)
    for place, flat in enumerate(run.generator.parameters.detach()):
        expected = naive_generator(run, place, flat, run.latents[place].T, training=False)
        assert close(run.samples()[place], expected)


def test_running_statistics_are_an_exponential_average() -> None:
    """Of the first layer's inputs, whose statistics are known from the latents alone."""
    generator = StackedGenerator(TINY, [0])
    weight, expected = generator.layout.split(generator.parameters.detach())[0][0], torch.zeros(6)
    variance = torch.ones(6)
    for k in range(3):
        latents = torch.randn(1, 2, 8, generator=torch.Generator().manual_seed(k))
        generator(latents)
        expected = RETAIN * expected + (1 - RETAIN) * (weight @ latents[0]).mean(1)
        variance = RETAIN * variance + (1 - RETAIN) * (weight @ latents[0]).var(1)
    assert close(generator.mean[0], expected)
    assert close(generator.var[0], variance)
    before = generator.mean.clone()
    generator(torch.randn(1, 2, 8), record=False)
    assert torch.equal(generator.mean, before)


def test_largest_piece_and_its_gradients() -> None:
    maps = torch.randn(2, 3, 4, dtype=torch.double, requires_grad=True)
    assert torch.equal(largest(maps), maps.max(1, keepdim=True).values)
    assert torch.autograd.gradcheck(largest, maps)
    assert torch.autograd.gradgradcheck(lambda m: largest(m).square(), maps)


def test_minibatch_std_is_per_seed_and_group() -> None:
    x = torch.randn(2, 3, 8)
    found = minibatch_std(x, 4)
    for seed in range(2):
        for i in range(8):
            mates = x[seed][:, [j for j in range(8) if j % 2 == i % 2]]  # i + N / group and so on, N / group = 2
            assert found[seed, 0, i].item() == pytest.approx((mates.var(1, unbiased=False) + 1e-8).sqrt().mean().item())


def test_minibatch_std_feeds_the_last_layer() -> None:
    """Equal samples have no deviation; samples that differ only in their mates have other logits."""
    discriminator = StackedDiscriminator(TINY, [0], group=2)
    points = torch.randn(1, 2, 4)
    same = points[:, :, [0, 1, 0, 1]]
    with torch.no_grad():
        plain = discriminator.layout.split(discriminator.parameters)[-2]
        plain[:, :, -1] = 0
        without = discriminator(same)
        plain[:, :, -1] = 10.0
        assert close(discriminator(same) - without, torch.full((1, 4), 10 * 1e-4), 1e-2)
        assert (discriminator(points) - discriminator(same))[0, 0].abs() > 1e-3


class Critic(torch.nn.Module):
    """One seed of the stack as a discriminator of the library; its parameter is the row ``flat``."""

    def __init__(self, run: Any, flat: Tensor) -> None:
        super().__init__()
        self.run, self.flat = run, torch.nn.Parameter(flat.detach().clone())

    def forward(self, data: Tensor, labels: Tensor | None = None) -> Tensor:
        return naive_discriminator(self.run, self.flat, data)


def of_the_library(penalties: list[Any], critic: Critic, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the library's penalties, and its gradient in the critic's parameters."""
    state = torch.get_rng_state()
    gan = MLPGAN()  # which draws its weights
    torch.set_rng_state(state)
    gan.discriminator = critic
    value = sum(penalty(Turn(gan, "discriminator", 0, 0.0, real=real, fake=fake)) for penalty in penalties)
    return value.detach(), torch.autograd.grad(value, critic.flat)[0]


def penalties_are_the_librarys(kinds: tuple[Any, Any]) -> None:
    """Value and gradient in the parameters, seed by seed and as a sum."""
    zero_centred, one_centred = kinds
    discriminator = StackedDiscriminator(TINY, SEEDS)
    run = SimpleNamespace(discriminator=discriminator)
    real, fake = torch.randn(3, 2, 8), 2 * torch.randn(3, 2, 8)
    library = [(zero_centred, lambda: [R1(0.7), R2(0.7)]), (one_centred, lambda: [WassersteinGradientPenalty(0.7)])]
    for kind, make in library:
        torch.manual_seed(0)
        share = torch.stack([torch.rand(8, 1).T for _ in SEEDS])  # as the library draws it outside of a turn
        ours = kind(0.7)(discriminator, real, fake, share)
        (gradient,) = torch.autograd.grad(ours, discriminator.parameters)
        torch.manual_seed(0)
        theirs = []
        for place, flat in enumerate(discriminator.parameters):
            theirs.append(of_the_library(make(), Critic(run, flat), real[place].T, fake[place].T))
        assert close(ours.detach(), sum(value for value, _ in theirs))
        assert close(gradient, torch.stack([slope for _, slope in theirs]))


def test_penalties() -> None:
    penalties_are_the_librarys((ZeroCentred, OneCentred))


class NoHalf(ZeroCentred):
    def __call__(self, *given: Any) -> Tensor:
        return 2 * super().__call__(*given)


class RealOnly(ZeroCentred):
    def __call__(self, discriminate: Any, real: Tensor, fake: Tensor, share: Tensor) -> Tensor:
        return super().__call__(discriminate, real, real, share)


class BatchNorms(OneCentred):
    def __call__(self, discriminate: Any, real: Tensor, fake: Tensor, share: Tensor) -> Tensor:
        norms = methods._gradient(discriminate, fake.lerp(real, share)).flatten(1).norm(dim=1)
        return (norms - 1).square().sum() * self.weight


class AtFakes(OneCentred):
    def __call__(self, discriminate: Any, real: Tensor, fake: Tensor, share: Tensor) -> Tensor:
        return super().__call__(discriminate, real, fake, torch.zeros_like(share))


@pytest.mark.parametrize(
    "mutant", [(NoHalf, OneCentred), (RealOnly, OneCentred), (ZeroCentred, BatchNorms), (ZeroCentred, AtFakes)]
)
def test_wrong_penalties_are_found(mutant: tuple[Any, Any]) -> None:
    kills(penalties_are_the_librarys, mutant)


# Unrolling


def ahead_is_adam(cls: type) -> None:
    """Values are those of torch's Adam, gradients those of finite differences, and the optimizer does not move."""
    weight = torch.nn.Parameter(torch.randn(2, 3, dtype=torch.double))
    optimizer = torch.optim.Adam([weight], lr=0.1, betas=(0.8, 0.99))
    target = torch.randn(2, 3, dtype=torch.double)

    def gradient(p: Tensor, t: Tensor) -> Tensor:
        return torch.autograd.grad((p - t).pow(4).sum(), p, create_graph=True)[0]

    for _ in range(2):  # some state
        weight.grad = gradient(weight, target).detach()
        optimizer.step()
    state = {name: value.clone() for name, value in optimizer.state[weight].items()}

    def look_ahead(t: Tensor) -> Tensor:
        adam, p = cls(optimizer, weight), weight
        for _ in range(3):
            p = adam.step(p, gradient(p, t))
        return p

    ahead = look_ahead(target).detach()
    numerical = torch.stack(
        [(look_ahead(target + step) - look_ahead(target - step)).detach().flatten() / 2e-6 for step in nudges(target)],
        1,
    )
    exact = torch.autograd.functional.jacobian(look_ahead, target).view(6, 6)
    assert torch.allclose(exact, numerical, rtol=1e-4, atol=1e-6)
    assert all(torch.equal(value, optimizer.state[weight][name]) for name, value in state.items())
    for _ in range(3):
        weight.grad = gradient(weight, target).detach()
        optimizer.step()
    assert torch.allclose(ahead, weight.detach(), rtol=1e-6)


def nudges(like: Tensor, size: float = 1e-6) -> list[Tensor]:
    return list((size * torch.eye(like.numel(), dtype=like.dtype)).view(-1, *like.shape))


def test_the_look_ahead_is_adam() -> None:
    ahead_is_adam(train._Ahead)


class Detached(train._Ahead):
    def step(self, parameters: Tensor, gradient: Tensor) -> Tensor:
        return super().step(parameters, gradient.detach())


class LateStart(train._Ahead):
    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.time = 0


@pytest.mark.parametrize("mutant", [Detached, LateStart])
def test_a_wrong_look_ahead_is_found(mutant: type) -> None:
    kills(ahead_is_adam, mutant)


def test_the_look_ahead_is_finite_where_gradients_are_zero() -> None:
    """Pieces of maxout that never win have no gradient, and a root has none at zero."""
    weight = torch.nn.Parameter(torch.zeros(2))
    factor = torch.tensor([1.0, 0.0], requires_grad=True)
    ahead = train._Ahead(torch.optim.Adam([weight], lr=0.1), weight).step(weight, factor * 2)
    (slope,) = torch.autograd.grad(ahead.sum(), factor)
    assert slope.isfinite().all()
    assert ahead.tolist() == pytest.approx([-0.1, 0.0])


def test_the_generator_sees_the_discriminator_steps_ahead() -> None:
    """The discriminator itself moves as without unrolling; the generator's loss is at the unrolled one."""
    plain, unrolled = (Run(TINY, replace(METHODS["unrolled"], unroll=k), GRID, SEEDS) for k in (0, 3))
    start = unrolled.discriminator.parameters.detach().clone()
    batch, seen = unrolled.draws.batch(0), list[Tensor]()
    generator_loss = unrolled.method.loss.generator

    def watched(fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        seen.append(fake_logits.detach())
        return generator_loss(fake_logits, real_logits)

    unrolled.method.loss.generator = watched
    try:
        unrolled.step()
    finally:
        del unrolled.method.loss.generator
    plain.step()
    assert close(plain.discriminator.parameters.detach(), unrolled.discriminator.parameters.detach())
    assert not close(plain.generator.parameters.grad, unrolled.generator.parameters.grad, 1e-2)
    for place in range(len(SEEDS)):
        weight = torch.nn.Parameter(start[place].clone())
        adam = torch.optim.Adam([weight], lr=TINY.lr, betas=(TINY.beta1, TINY.beta2))
        g = Run(TINY, METHODS["gan"], GRID, SEEDS).generator.parameters.detach()[place]
        fake = naive_generator(unrolled, place, g, batch.latents[place].T)
        for _ in range(3):
            real_logits = naive_discriminator(unrolled, weight, batch.real[place].T)
            fake_logits = naive_discriminator(unrolled, weight, fake)
            loss = F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
            (weight.grad,) = torch.autograd.grad(loss, weight)
            adam.step()
        assert close(seen[0][place], naive_discriminator(unrolled, weight, fake).detach())


def second_gradients(gradient: Any, name: str = "gan") -> None:
    """In parameters and packs, against autograd through the discriminator, twice."""
    generator = torch.Generator().manual_seed(0)
    discriminator, method = StackedDiscriminator(TINY, SEEDS, packing=2), METHODS[name]
    packs = torch.randn(3, 4, 10, generator=generator, requires_grad=True)
    flat = discriminator.parameters.detach().clone().requires_grad_()
    direction = torch.randn(flat.shape, generator=generator)

    def loss(logits: Tensor) -> Tensor:
        return method.loss.discriminator(logits[:, :6].reshape(2, 9), logits[:, 4:].reshape(2, 9))

    ours = gradient(loss, discriminator, flat, packs)
    (expected,) = torch.autograd.grad(loss(discriminator(packs, flat)), flat, create_graph=True)
    assert close(ours.detach(), expected.detach())
    pairs = zip(*(torch.autograd.grad(x, [flat, packs], direction) for x in (ours, expected)), strict=True)
    for found, reference in pairs:
        assert reference.abs().max() > 0
        assert close(found, reference)


@pytest.mark.parametrize("name", ["gan", "rpgan", "wgan_gp"])
def test_second_gradients_by_hand(name: str) -> None:
    second_gradients(second.gradient_of, name)


class NoCurvature(second._Gradient):
    """The loss taken as linear in the logits."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        result = second._Gradient.forward(ctx, *given)
        ctx.weighed = ctx.weighed.detach()
        return result


class NoTangents(second._Gradient):
    """What layers say to each other when all move is left out."""

    @staticmethod
    def backward(ctx: Any, direction: Tensor) -> Any:
        ctx.slopes = [torch.zeros_like(slope) for slope in ctx.slopes]
        return second._Gradient.backward(ctx, direction)


@pytest.mark.parametrize("mutant", [NoCurvature, NoTangents])
def test_wrong_second_gradients_are_found(mutant: Any) -> None:
    kills(second_gradients, lambda loss, network, flat, packs: mutant.apply(flat, packs, loss, network))


# What is drawn


@pytest.mark.parametrize("packing", [1, 3])
@pytest.mark.parametrize("target", [GRID, RING], ids=lambda t: t.name)
def test_real_points_are_of_the_mixture(target: Any, packing: int) -> None:
    """Each pair of a pack's numbers, first coordinates before second ones, is a point near a mode."""
    protocol = replace(TINY, batch=100, num_points=5000)
    draws = Draws(protocol, target, [0], packing=packing)
    real = torch.cat([draws.batch(k).real[0] for k in range(50)], dim=1).view(2, packing, -1)
    for place in range(packing):
        distance, mode = torch.cdist(real[:, place].T.double(), target.centres().double()).min(1)
        assert distance.square().mean().sqrt() == pytest.approx(target.std * math.sqrt(2), rel=0.05)
        share = torch.bincount(mode, minlength=len(target.means)) / 5000
        assert (share - 1 / len(target.means)).abs().max() < 0.02
    assert torch.unique(real[0, 0]).numel() > (4900 if packing == 1 else 2900)  # drawn with replacement: 63 % of points


def test_an_epoch_goes_through_every_pack_once() -> None:
    draws = Draws(TINY, GRID, [0])
    first, second = ([draws.batch(k).real[0] for k in range(4 * e, 4 * e + 4)] for e in (0, 1))
    columns = [sorted(map(tuple, torch.cat(epoch, 1).T.tolist())) for epoch in (first, second)]
    assert columns[0] == columns[1] == sorted(map(tuple, draws.packs[0][:, 0].tolist()))
    assert not torch.equal(torch.cat(first, 1), torch.cat(second, 1))


def test_the_targets_are_the_published_ones() -> None:
    assert sorted(GRID.means) == [(float(a), float(b)) for a in range(-4, 5, 2) for b in range(-4, 5, 2)]
    assert torch.allclose(RING.centres().norm(dim=1), torch.ones(8))
    gaps = (RING.centres() - RING.centres().roll(1, 0)).norm(dim=1)
    assert torch.allclose(gaps, torch.full((8,), 2 * math.sin(math.pi / 8)))


# Resuming, records and the table


@pytest.mark.parametrize("name", ["pacgan2", "d2gan", "unrolled"])
def test_a_resumed_run_is_bitwise_the_uninterrupted_one(name: str, tmp_path: Any) -> None:
    whole = Run(TINY, METHODS[name], RING, SEEDS)
    assert whole.go()
    first = trained(Run(TINY, METHODS[name], RING, SEEDS), 0)
    first.protocol = replace(TINY, cycles=4)
    first.go(checkpoint=tmp_path / "run.pt")
    second = Run(TINY, METHODS[name], RING, SEEDS)
    second.load(tmp_path / "run.pt")
    assert second.cycle == 4
    assert second.go()
    for key, tensor in whole._tensors().items():
        assert torch.equal(tensor, second._tensors()[key])
    assert whole.curve == second.curve
    assert [row["cycle"] for row in whole.curve] == [3, 6]
    assert torch.equal(whole.samples(), second.samples())


def test_scores_of_a_generator_with_one_point() -> None:
    """All samples at the centre: one mode of 25, all of high quality, the worst divergence."""
    run = Run(TINY, METHODS["gan"], GRID, SEEDS)
    with torch.no_grad():
        run.generator.parameters.zero_()
    scores = run.score()
    assert scores["modes"] == [1, 1, 1]
    assert scores["high_quality"] == [1.0, 1.0, 1.0]
    assert scores["reverse_kl"] == scores["reverse_kl_all"] == pytest.approx([math.log(25)] * 3)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROTOCOLS, "tiny", TINY)
    for target in TARGETS.values():
        monkeypatch.setitem(TARGETS, target.name, replace(target, num_seeds=2))


def command(*arguments: Any) -> int:
    threads = torch.get_num_threads()
    try:
        return program.main(["--threads", "1", *map(str, arguments)])
    finally:
        torch.set_num_threads(threads)
        give_back()


@pytest.mark.usefixtures("tiny")
def test_stopped_runs_go_on_and_all_fills_what_is_missing(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    places = ["--protocol", "tiny", "--stacks", 1, "--work", tmp_path / "work", "--records"]
    go = Run.go

    def one_cycle(run: Run, seconds: float, checkpoint: Any) -> bool:
        run.protocol = replace(TINY, cycles=run.cycle + 1)
        go(run, seconds, checkpoint)
        run.protocol = TINY
        return run.cycle >= TINY.cycles

    with monkeypatch.context() as patch:
        patch.setattr(Run, "go", one_cycle)
        for _ in range(TINY.cycles):
            assert not list(tmp_path.glob("a/*.json"))
            assert command("run", "--data", "ring", "--method", "rpgan", *places, tmp_path / "a") == 0
    assert command("run", "--all", *places[:4], "--work", tmp_path / "fresh", "--records", tmp_path / "b") == 0
    assert len(list(tmp_path.glob("b/*.json"))) == len(METHODS) * len(TARGETS)
    assert not records.missing(TINY, list(TARGETS.values()), list(METHODS.values()), tmp_path / "b")
    resumed, whole = (json.loads((tmp_path / x / "tiny-ring-rpgan.json").read_text()) for x in "ab")
    for key in ("seeds", "cycles", "results", "curve", "samples", "config", "config_hash"):
        assert resumed[key] == whole[key]
    assert whole["config_hash"] == records.config_hash(whole["config"])
    assert whole["config_hash"] != records.config_hash({**whole["config"], "data": {}})


def test_seeds_are_split_evenly() -> None:
    assert stacks.split(range(5), 2) == [[0, 1, 2], [3, 4]]
    assert stacks.split([7, 3, 5], 1) == [[7, 3, 5]]
    assert stacks.split(range(2), 4) == [[0], [1]]
    assert stacks.split(range(8), 3) == [[0, 1, 2], [3, 4, 5], [6, 7]]


@pytest.mark.usefixtures("tiny")
def test_stacks_in_two_processes_are_the_seeds_of_one(tmp_path: Any) -> None:
    """And the record says how it was made."""
    for num in (1, 2):
        work = ["run", "--protocol", "tiny", "--method", "pacgan2", "--stacks", num, "--work", tmp_path / str(num)]
        assert command(*work, "--seeds", 3, "--records", tmp_path / f"records{num}") == 0
        assert len(list(tmp_path.glob(f"{num}/*.pt"))) == num
    one, two = (json.loads((tmp_path / f"records{n}" / "tiny-grid-pacgan2.json").read_text()) for n in (1, 2))
    assert (one["stacks"], two["stacks"]) == ([3], [2, 1])
    for key in ("seeds", "cycles", "curve", "results", "samples", "config_hash", "differences"):
        assert one[key] == two[key]
    assert len(two["results"]["modes"]) == 3


def test_stopped_stacks_go_on(tmp_path: Any) -> None:
    plan, checkpoints = stacks.Plan(TINY, METHODS["gan"], GRID), {tmp_path / "a.pt": [0, 1], tmp_path / "b.pt": [2]}
    threads = torch.get_num_threads()
    try:
        assert [run.cycle for run in stacks.train(plan, checkpoints, 0.0)] == [0, 0]
        runs = stacks.train(plan, checkpoints)
    finally:
        torch.set_num_threads(threads)
        give_back()
    whole = trained(Run(TINY, METHODS["gan"], GRID, range(3)), TINY.cycles)
    assert [run.cycle for run in runs] == [TINY.cycles] * 2
    assert torch.equal(torch.cat([run.samples() for run in runs]), whole.samples())


def test_a_failure_of_one_stack_is_raised(tmp_path: Any) -> None:
    """Of a checkpoint that cannot be read."""
    (tmp_path / "b.pt").write_bytes(b"no checkpoint")
    plan = stacks.Plan(TINY, METHODS["gan"], GRID)
    with pytest.raises(pickle.UnpicklingError):
        stacks.train(plan, {tmp_path / "a.pt": [0], tmp_path / "b.pt": [1]})


def test_differences_are_said() -> None:
    compact = " ".join(differences(PROTOCOLS["compact"], 5))
    for word in ("128", "64", "20,000", "Learning rate", "5 seeds"):
        assert word in compact
    paper = " ".join(differences(PROTOCOLS["paper"], 3))
    assert "Networks" not in paper
    assert "Learning rate" not in paper


def test_the_table_has_means_and_deviations_beside_the_published(tmp_path: Any) -> None:
    run = Run(TINY, METHODS["pacgan2"], GRID, SEEDS)
    run.protocol = replace(TINY, name="compact")
    run.curve = [{"cycle": 6, "modes": [20, 22, 24], "high_quality": [0.5, 0.6, 0.7], "reverse_kl": [1.0, 1.0, 1.0]}]
    run.curve[0]["reverse_kl_all"] = [0.2, 0.3, 0.4]
    run.cpu_seconds, run.wall_seconds = 60.0, 90.0
    records.write([run], "c0ffee", tmp_path / "records")
    page = table.write_table(
        tmp_path / "records", tmp_path / "docs" / "page.md", tmp_path / "docs" / "images"
    ).read_text()
    row = (
        "| PacGAN2 | 22.0 +- 2.0 | 60.0 +- 10.0 % | 1.00 +- 0.00 (0.30) | 3 | 23.8 | 91.3 % | 0.13 | PacGAN, table 1 |"
    )
    assert row in page
    assert "| GAN | not run |" in page
    assert "| 3 | 0 | 1.0 | 1.5 |" in page  # seeds, cycles, minutes
    assert "| c0ffee |" in page
    assert (tmp_path / "docs" / "images" / "toy-compact-grid.png").stat().st_size < 60_000


def test_cost_is_the_median_ratio_of_pairs() -> None:
    pairs = [(1.0, 2.0), (2.0, 6.0), (4.0, 4.0)]
    assert speed._summary(pairs) == {"one_ms": 2.0, "all_ms": 4.0, "ratio": 2.0, "num_pairs": 3}


def test_on_the_clock_both_sides_do_their_cycles() -> None:
    """Two stacks and the one seed, each in its process; a cycle takes time."""
    pairs = speed._clock_pairs(stacks.Plan(TINY, METHODS["gan"], GRID), [[0, 1], [2]], 0.0)
    assert len(pairs) == 1
    assert all(0 < side < 1000 for side in pairs[0])


def test_the_fit_that_is_compared_has_the_same_discriminator() -> None:
    """And the same generator but for biases before batch normalization, which has its own."""
    gan, run = speed.model(TINY), Run(TINY, METHODS["gan"], GRID, [0])
    assert sum(p.numel() for p in gan.discriminator.parameters()) == run.discriminator.parameters.numel()
    biases = TINY.generator_layers * TINY.generator_width
    assert sum(p.numel() for p in gan.generator.parameters()) == run.generator.parameters.numel() + biases
