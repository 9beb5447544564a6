"""Latent optimisation: one step is its formula on linear networks, and the generator learns through it."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn

from ganzoo.errors import UserError
from ganzoo.gan import GAN, Generator
from ganzoo.latents import Uniform
from ganzoo.losses import Wasserstein
from ganzoo.parts import Part, Turn
from ganzoo.schedules import Linear
from ganzoo.tricks import LatentOptimization
from tests.common import Critic, max_difference
from tests.mutants import kills
from tests.penalties.fits import RANDOM, run, small, survives


class Spread(Generator):
    """Points M z, without a bias."""

    def __init__(self, inputs: int = 4, outputs: int = 2) -> None:
        super().__init__()
        self.latent_dim, self.linear = inputs, nn.Linear(inputs, outputs, bias=False)

    def forward(self, latents, labels=None):
        return self.linear(latents)


def linear_turn(player: str) -> tuple[Turn, torch.Tensor, torch.Tensor]:
    """With w and M of D(x) = w x + b and G(z) = M z."""
    torch.manual_seed(0)
    gan = GAN(Spread(), Critic(2))
    with torch.no_grad():
        gan.discriminator.linear.weight.mul_(3)
    return Turn(gan, player, 0, 0.0), gan.discriminator.linear.weight.detach()[0], gan.generator.linear.weight.detach()


def is_a_clipped_step_along_the_gradient(cls) -> None:
    """z' = clip(z + alpha M^T w, -1, 1)."""
    for player in ("discriminator", "generator"):
        turn, w, matrix = linear_turn(player)
        z = torch.rand(6, 4) * 2 - 1
        moved = cls(0.7)(z, turn)
        free = z + 0.7 * (matrix.T @ w)
        assert (free.abs() > 1).any() and (free.abs() < 1).any()
        assert torch.allclose(moved, free.clamp(-1, 1), atol=1e-6)
        assert torch.allclose(cls(0.7, bound=None)(z, turn), free, atol=1e-6)
        assert torch.allclose(cls(0.7, bound=0.5)(z, turn), free.clamp(-0.5, 0.5), atol=1e-6)
        assert moved.requires_grad == (player == "generator")


def step_of(cls):
    """The part as a function of (latents, turn)."""

    def make(*args, **options):
        part = cls(*args, **options)
        return lambda z, turn: part.drawn(turn, z)

    return make


def generator_learns_through_the_step(cls) -> None:
    """f(z') = w M z + alpha |M^T w|^2 + b, so -E f(z') has the gradient -w E[z]^T - 2 alpha w (M^T w)^T in M."""
    gan = GAN(Spread(), Critic(2), loss=Wasserstein(), parts=[cls(0.5, bound=None)])
    kept = []

    class Keep(Part):
        players = ("generator",)

        def before_turn(self, turn):
            self.__dict__["now"] = [
                p.detach().clone() for p in (*gan.discriminator.parameters(), gan.generator.linear.weight)
            ]

        def after_backward(self, turn):
            w, _, matrix = self.__dict__["now"]
            z = turn.latents.detach() - 0.5 * (matrix.T @ w[0])
            mean, step = z.mean(0), 2 * 0.5 * (matrix.T @ w[0])
            kept.append((gan.generator.linear.weight.grad.clone(), -torch.outer(w[0], mean + step)))

    gan.tricks.append(Keep())
    run(gan, "points", 3)
    assert len(kept) == 3
    for got, expected in kept:
        assert torch.allclose(got, expected, rtol=1e-4, atol=1e-6)


def both_players_see_fakes_of_the_moved_latents(cls) -> None:
    gan = small("points", parts=[cls(5.0)], latents=Uniform())
    seen = []

    class Look(Part):
        def drawn(self, turn, latents):
            self.__dict__["before"] = latents.clone()
            return latents

        def generated(self, turn):
            moved = not torch.equal(self.__dict__["before"], turn.latents)
            seen.append((turn.player, moved and torch.allclose(turn.fake, turn.gan.generator(turn.latents))))

    gan.tricks.insert(0, Look())
    run(gan, "points", 2)
    assert seen == [("discriminator", True), ("generator", True)] * 2


class Downhill(LatentOptimization):
    def slope(self, turn, latents):
        return -super().slope(turn, latents)


class OfTheMean(LatentOptimization):
    """The gradient of the batch's mean logit."""

    def slope(self, turn, latents):
        return super().slope(turn, latents) / len(latents)


class NeverClipped(LatentOptimization):
    def drawn(self, turn, latents):
        self.bound = None
        return super().drawn(turn, latents)


class Detached(LatentOptimization):
    def slope(self, turn, latents):
        return super().slope(turn, latents).detach()


class InOneTurn(LatentOptimization):
    players = ("generator",)


def test_known_answers() -> None:
    is_a_clipped_step_along_the_gradient(step_of(LatentOptimization))
    generator_learns_through_the_step(LatentOptimization)
    both_players_see_fakes_of_the_moved_latents(LatentOptimization)


def test_mutants() -> None:
    for mutant in (Downhill, OfTheMean, NeverClipped, Detached):
        kills(is_a_clipped_step_along_the_gradient, step_of(mutant))
    kills(generator_learns_through_the_step, Detached)
    kills(generator_learns_through_the_step, Downhill)
    kills(both_players_see_fakes_of_the_moved_latents, InOneTurn)


@pytest.mark.parametrize("kind", ["points", "images"])
def test_the_step_of_a_sample_is_its_own(kind: str) -> None:
    """Against double precision, one sample at a time."""
    gan = small(kind)
    gan.generator.eval()  # batch normalization with fixed statistics
    z = torch.rand(6, gan.generator.latent_dim) * 2 - 1
    moved = LatentOptimization(1.0, bound=None).drawn(Turn(gan, "discriminator", 0, 0.0), z)
    generator, discriminator = copy.deepcopy(gan.generator).double(), copy.deepcopy(gan.discriminator).double()
    for before, after in zip(z.double(), moved.double(), strict=True):
        alone = before[None].requires_grad_()
        (slope,) = torch.autograd.grad(discriminator(generator(alone)).sum(), alone)
        assert slope.abs().max() > 0
        assert torch.allclose(after - before, slope[0], rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize(("kind", "options"), [*RANDOM[:2], ("points", {})])
def test_a_step_of_length_zero_changes_nothing(kind: str, options: dict) -> None:
    """The extra pass moves no statistic of either network."""
    plain = run(small(kind, **options), kind)
    with_it = run(small(kind, parts=[LatentOptimization(0.0, bound=None)], **options), kind)
    assert max_difference(plain.state_dict(), with_it.state_dict()) == 0.0


def test_scheduled_step() -> None:
    turn, w, matrix = linear_turn("discriminator")
    turn.kimg = 1.0
    z = torch.zeros(2, 4)
    moved = LatentOptimization(Linear(0.2, 0.0, to_kimg=2.0), bound=None).drawn(turn, z)
    assert torch.allclose(moved, (0.1 * (matrix.T @ w)).expand(2, 4), atol=1e-6)


def test_in_bf16_the_step_is_of_full_precision() -> None:
    gan = small("images", parts=[LatentOptimization(0.5, bound=None)])
    gan.generator.eval()
    errors = []

    class Compare(Part):
        def drawn(self, turn, latents):
            self.__dict__["z"] = latents.detach()
            return latents

        def generated(self, turn):
            with torch.autocast("cpu", enabled=False), torch.enable_grad():
                z = self.__dict__["z"].requires_grad_()
                (slope,) = torch.autograd.grad(turn.gan.discriminator(turn.gan.generator(z)).sum(), z)
            errors.append((turn.latents.detach() - z.detach() - 0.5 * slope).abs().max().item())

    gan.tricks.insert(0, Compare())
    run(gan, "images", 2, precision="bf16-mixed")
    assert len(errors) == 4
    assert max(errors) < 1e-6


def test_a_bound_that_is_not_positive_is_refused() -> None:
    with pytest.raises(UserError, match="bound of 0"):
        LatentOptimization(bound=0.0)


def test_clipping_normal_latents_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="set latents to Uniform"):
        small("points", parts=[LatentOptimization()])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small("points", parts=[LatentOptimization(bound=None)])
        small("points", parts=[LatentOptimization()], latents=Uniform())


@pytest.mark.parametrize("kind", ["points", "images"])
def test_it_trains(kind: str) -> None:
    survives(kind, lambda: LatentOptimization(0.1, bound=None), "parts")
