"""Consistency penalties against a naive shift and flip, hand-written differences, and the identity augmentation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from ganzoo import streams
from ganzoo.errors import UserError
from ganzoo.gan import GAN, Generator
from ganzoo.parts import Part, Turn
from ganzoo.penalties import BalancedConsistency, Consistency, LatentConsistency
from ganzoo.penalties.consistency import shifted_and_flipped
from ganzoo.schedules import Linear
from tests.common import Critic, fit
from tests.mutants import kills
from tests.penalties.fits import RANDOM, Noisy, Watch, labelled, leaves_no_trace, run, small, survives

CPU = torch.device("cpu")
IDENTITY = {"shift": 0, "flip": False}


class Spread(Generator):
    """Points M z, without a bias."""

    def __init__(self, inputs: int = 2, outputs: int = 3) -> None:
        super().__init__()
        self.latent_dim, self.linear = inputs, nn.Linear(inputs, outputs, bias=False)

    def forward(self, latents, labels=None):
        return self.linear(latents)


def keyed(num: int = 6, start: int = 0, total: int | None = None):
    return streams.stream(5, start=start, num=num, total=total or num, device=CPU)


def turn_of(*shape: int, player="discriminator", critic: nn.Module | None = None) -> Turn:
    """Six samples, with the logits that the critic gives them, as the loop leaves them."""
    g = torch.Generator().manual_seed(1)
    critic = critic or Critic(int(np.prod(shape)))
    gan = GAN(Spread(2, 3), critic)
    turn = Turn(gan, player, 0, 0.0, real=torch.randn(6, *shape, generator=g), latents=torch.randn(6, 2, generator=g))
    turn.fake = torch.randn(6, *shape, generator=g)
    turn.real_logits, turn.fake_logits = critic(turn.real), critic(turn.fake)
    return turn


def moves_each_image_by_itself(function) -> None:
    """Against numpy's reflecting border and a slice, with the offsets and coins that the stream gives."""
    images = torch.arange(6 * 2 * 5 * 7, dtype=torch.float32).view(6, 2, 5, 7)
    with keyed():
        got = function(images, 3, True)
    with keyed():
        coins = streams.randint(2, 6, purpose="consistency flip").tolist()
        down = streams.randint(7, 6, purpose="consistency shift").tolist()
        across = streams.randint(7, 6, purpose="consistency shift").tolist()
    assert 0 < sum(coins) < 6
    assert len({*down}) > 1
    for image, moved, coin, dy, dx in zip(images.numpy(), got.numpy(), coins, down, across, strict=True):
        padded = np.pad(image, ((0, 0), (3, 3), (3, 3)), mode="reflect")
        expected = padded[:, dy : dy + 5, dx : dx + 7]
        assert np.array_equal(moved, expected[:, :, ::-1] if coin else expected)


def whole_batch_at_once(images, shift, flip):
    offset = int(streams.randint(2 * shift + 1, 6, purpose="consistency shift")[0]) - shift
    return images.roll(offset, 3).flip(3)


def with_zeros(images, shift, flip):
    padded = nn.functional.pad(images, [shift] * 4)
    return shifted_and_flipped(padded, shift, flip)[:, :, shift:-shift, shift:-shift]


def test_shift_and_flip() -> None:
    moves_each_image_by_itself(shifted_and_flipped)
    kills(moves_each_image_by_itself, whole_batch_at_once)
    kills(moves_each_image_by_itself, with_zeros)


def test_shift_and_flip_are_a_gather_that_can_be_differentiated() -> None:
    images = torch.rand(2, 1, 4, 4, dtype=torch.float64, requires_grad=True)

    def moved(x):
        with keyed(2):
            return shifted_and_flipped(x, 2, True)

    assert torch.autograd.gradcheck(moved, (images,))


def test_two_processes_draw_what_one_draws() -> None:
    images = torch.rand(6, 1, 8, 8)
    with keyed():
        whole = shifted_and_flipped(images, 2, True)
    halves = []
    for start in (0, 3):
        with keyed(3, start, 6):
            halves.append(shifted_and_flipped(images[start : start + 3], 2, True))
    assert torch.equal(torch.cat(halves), whole)


def test_zero_for_the_identity_augmentation() -> None:
    turn = turn_of(1, 4, 4)
    assert Consistency(**IDENTITY)(turn).item() == 0.0
    assert BalancedConsistency(**IDENTITY)(turn).item() == 0.0


def test_zero_for_a_critic_that_does_not_see_the_augmentation() -> None:
    class Mean(nn.Module):
        def forward(self, x, labels=None):
            return x.flatten(1).mean(1)

    turn = turn_of(1, 4, 4, critic=Mean())
    with keyed():
        assert Consistency(shift=0)(turn).item() < 1e-12
        assert Consistency(shift=1)(turn).item() > 1e-6


def is_the_mean_square_difference_on_real_data(cls) -> None:
    turn = turn_of(1, 4, 4)
    w = turn.gan.discriminator.linear.weight.detach()[0].double()
    with keyed():
        term = cls(3.0, shift=1)(turn)
    with keyed():
        moved = shifted_and_flipped(turn.real, 1, True)
    per_sample = [float(w @ (a - b).flatten().double()) ** 2 for a, b in zip(turn.real, moved, strict=True)]
    assert term.item() == pytest.approx(3.0 * sum(per_sample) / 6, rel=1e-4)


def is_of_both_sides_with_two_weights(cls) -> None:
    turn = turn_of(1, 4, 4)
    w = turn.gan.discriminator.linear.weight.detach()[0].double()
    with keyed():
        term = cls(3.0, fake_weight=0.5, shift=1)(turn)
    with keyed():
        means = []
        for data in (turn.real, turn.fake):
            moved = shifted_and_flipped(data, 1, True)
            means.append(((data - moved).flatten(1).double() @ w).square().mean().item())
    assert term.item() == pytest.approx(3.0 * means[0] + 0.5 * means[1], rel=1e-4)


def has_the_gradient_of_both_sides(cls) -> None:
    """(w (x - T x))^2 has the gradient 2 w (x - T x) (x - T x): with one side held it would be another one."""
    turn = turn_of(1, 4, 4)
    critic = turn.gan.discriminator.linear
    with keyed():
        cls(1.0, shift=1)(turn).backward()
    with keyed():
        change = (turn.real - shifted_and_flipped(turn.real, 1, True)).flatten(1)
    w = critic.weight.detach()[0]
    assert torch.allclose(critic.weight.grad[0], (2 * (change @ w)[:, None] * change).mean(0), rtol=1e-3, atol=1e-6)
    assert torch.allclose(critic.bias.grad, torch.zeros(1), atol=1e-5)


class OnFakes(Consistency):
    def value(self, turn):
        return self.of_fakes(turn)


class NotSquared(Consistency):
    def inconsistency(self, turn, data, labels, logits, moment):
        return (logits - turn.discriminate(self.transformed(data), labels)).abs().mean()


class OfMeans(Consistency):
    def inconsistency(self, turn, data, labels, logits, moment):
        return (logits.mean() - turn.discriminate(self.transformed(data), labels).mean()).square()


class OneSided(Consistency):
    def inconsistency(self, turn, data, labels, logits, moment):
        return super().inconsistency(turn, data, labels, logits.detach(), moment)


class SwappedWeights(BalancedConsistency):
    def __init__(self, real_weight, *, fake_weight, shift):
        super().__init__(fake_weight, fake_weight=real_weight, shift=shift)


def test_known_answers() -> None:
    is_the_mean_square_difference_on_real_data(Consistency)
    is_of_both_sides_with_two_weights(BalancedConsistency)
    has_the_gradient_of_both_sides(Consistency)


def test_mutants() -> None:
    for mutant in (OnFakes, NotSquared, OfMeans):
        kills(is_the_mean_square_difference_on_real_data, mutant)
    kills(has_the_gradient_of_both_sides, OneSided)
    kills(is_of_both_sides_with_two_weights, SwappedWeights)


def is_indifferent_in_the_discriminators_turn(cls) -> None:
    """D(G(z)) - D(G(z + dz)) = -w M dz for linear networks; the generator gets no gradient."""
    turn = turn_of(3)
    matrix, w = turn.gan.generator.linear.weight, turn.gan.discriminator.linear.weight
    with torch.no_grad():
        turn.fake = turn.gan.generator(turn.latents)
    turn.fake_logits = turn.gan.discriminator(turn.fake)
    with keyed():
        term = cls(5.0, sigma=0.3)(turn)
    with keyed():
        change = 0.3 * streams.randn(6, 2, purpose="consistency noise")
    term.backward()
    drop = (change @ matrix.T @ w.T).squeeze(1)
    assert term.item() == pytest.approx(5.0 * drop.square().mean().item(), rel=1e-4)
    expected = (2 * 5.0 * drop[:, None] * (change @ matrix.T)).mean(0)
    assert torch.allclose(w.grad[0], expected, rtol=1e-3, atol=1e-6)
    assert matrix.grad is None


def spreads_in_the_generators_turn(cls) -> None:
    """-E|M dz|^2, the mean also over the 3 components, with the gradient -2 E (M dz) dz^T / 3."""
    turn = turn_of(3, player="generator")
    matrix = turn.gan.generator.linear.weight
    turn.fake = turn.gan.generator(turn.latents)
    with keyed():
        term = cls(generator_weight=0.5, sigma=0.3)(turn)
    with keyed():
        change = 0.3 * streams.randn(6, 2, purpose="consistency noise")
    term.backward()
    moved = change @ matrix.detach().T  # (6, 3)
    assert term.item() == pytest.approx(-0.5 * moved.square().mean().item(), rel=1e-4)
    expected = -0.5 * 2 / 3 * (moved[:, :, None] * change[:, None, :]).mean(0)
    assert torch.allclose(matrix.grad, expected, rtol=1e-3, atol=1e-6)


class Attracts(LatentConsistency):
    """Of the wrong sign for the generator."""

    def diversity(self, turn):
        return -super().diversity(turn)


class OneSideOnly(LatentConsistency):
    """The gradient flows through the moved side alone."""

    def diversity(self, turn):
        moved = turn.generate(self.moved(turn.latents))
        return (turn.fake.detach() - moved).square().mean()


class VarianceInsteadOfDeviation(LatentConsistency):
    def moved(self, latents):
        return latents + self.sigma**0.5 * streams.randn(*latents.shape, purpose="consistency noise")


def test_latent_consistency() -> None:
    is_indifferent_in_the_discriminators_turn(LatentConsistency)
    spreads_in_the_generators_turn(LatentConsistency)
    kills(spreads_in_the_generators_turn, Attracts)
    kills(spreads_in_the_generators_turn, OneSideOnly)
    kills(is_indifferent_in_the_discriminators_turn, VarianceInsteadOfDeviation)


def test_points_are_moved_by_noise_of_the_given_deviation() -> None:
    penalty = Consistency(noise=0.2, **IDENTITY)
    data = torch.zeros(20000, 2)
    with keyed(20000):
        moved = penalty.transformed(data)
    assert moved.std().item() == pytest.approx(0.2, rel=0.02)
    assert moved.mean().item() == pytest.approx(0.0, abs=0.01)


def test_points_cannot_be_flipped() -> None:
    for penalty in (Consistency(), BalancedConsistency(shift=0), Consistency(flip=False, noise=0.1)):
        with pytest.raises(UserError, match=r"shape \(3,\): set shift to 0"):
            penalty(turn_of(3))


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(UserError, match="4x4 by up to 4"):
        Consistency(shift=4)(turn_of(1, 4, 4))
    with pytest.raises(UserError, match="shift -1"):
        Consistency(shift=-1)
    with pytest.raises(UserError, match="sigma 0"):
        LatentConsistency(sigma=0.0)
    with pytest.raises(UserError, match="was -2"):
        BalancedConsistency(fake_weight=-2.0)
    with pytest.raises(UserError, match="was -2"):
        LatentConsistency(generator_weight=-2.0)


def test_lazy_and_scheduled_weights() -> None:
    ramp = Linear(4.0, 0.0, to_kimg=2.0)  # 2 at 1 kimg
    for player, make in (
        ("discriminator", lambda *weights, **o: BalancedConsistency(weights[0], fake_weight=weights[1], shift=1, **o)),
        ("discriminator", lambda *weights, **o: LatentConsistency(weights[0], generator_weight=weights[1], **o)),
        ("generator", lambda *weights, **o: LatentConsistency(weights[0], generator_weight=weights[1], **o)),
    ):
        turn = turn_of(*((1, 4, 4) if make(1.0, 1.0).__class__ is BalancedConsistency else (3,)), player=player)
        turn.kimg = 1.0
        if turn.fake.shape[1:] == (3,):
            turn.fake = turn.gan.generator(turn.latents)
        with keyed():
            plain = make(1.0, 1.0)(turn).item()
        with keyed():
            assert make(ramp, ramp, every=3)(turn).item() == pytest.approx(2.0 * 3 * plain, rel=1e-5)
        turn.number = 4
        assert make(ramp, ramp, every=3)(turn) is None


class SecondPass(Consistency):
    """Re-uses nothing of the turn."""

    def inconsistency(self, turn, data, labels, logits, moment):
        return super().inconsistency(turn, data, labels, None, moment)


def test_the_turns_own_logits_are_used_again_with_the_same_gradient() -> None:
    states, passes = [], []
    for cls in (Consistency, SecondPass):
        gan = small("images", penalties=[cls(shift=1)])
        count = []
        gan.discriminator.register_forward_hook(lambda *_, count=count: count.append(1))
        run(gan, "images", 1)
        states.append(torch.cat([p.detach().flatten() for p in gan.discriminator.parameters()]))
        passes.append(len(count))
    assert passes == [4, 5]  # one of them in the generator's turn
    assert torch.allclose(*states, rtol=1e-3, atol=1e-6)


class OfTheFirst(Consistency):
    """Both sides in passes of their own kind, as if nothing was recorded."""

    def before_turn(self, turn):
        pass


def identity_gives_zero_in_a_run(cls) -> None:
    """With noise on the inputs, dropout and spectral normalization, which differ from pass to pass."""
    for kind, norm in (("images", {"discriminator_norm": "spectral"}), ("points", {"dropout": 0.3})):
        for precision in ("32-true", "bf16-mixed"):
            values = []

            class Keep(cls):
                def value(self, turn, values=values):
                    values.append(super().value(turn).item())
                    return turn.real_logits.sum() * 0

            gan = small(kind, parts=[Noisy()], penalties=[Keep(**IDENTITY)], **norm)
            run(gan, kind, 2, precision=precision)
            assert values == [0.0, 0.0]


def test_only_the_augmentation_makes_a_difference() -> None:
    identity_gives_zero_in_a_run(Consistency)
    kills(identity_gives_zero_in_a_run, OfTheFirst)


class WithoutRecord(LatentConsistency):
    """The second pass draws other noise than the first."""

    def before_turn(self, turn):
        pass


class WithTheTurnsFakes(LatentConsistency):
    """One side is generated under autocast, the other one in full precision."""

    def indifference(self, turn):
        with torch.no_grad():
            moved = turn.generate(self.moved(turn.latents), turn.fake_labels)
        sides = []
        for data in (turn.fake, moved):
            with turn.before_fake.restored():
                sides.append(turn.discriminate(data, turn.fake_labels))
        return (sides[0] - sides[1]).square().mean()


def latents_that_stay_give_zero_in_a_run(cls, precision: str = "32-true") -> None:
    """With dz = 0 both sides are one pass made twice, whatever differs from pass to pass."""
    for kind, options in (("images", {"discriminator_norm": "spectral"}), ("points", {"dropout": 0.3})):
        values = []

        class Keep(cls):
            def moved(self, latents):
                return latents

            def indifference(self, turn, values=values):
                values.append(super().indifference(turn).item())
                return turn.fake_logits.sum() * 0

        run(small(kind, parts=[Noisy()], penalties=[Keep()], **options), kind, 2, precision=precision)
        assert values == [0.0, 0.0]


def test_only_the_change_of_latents_makes_a_difference() -> None:
    latents_that_stay_give_zero_in_a_run(LatentConsistency)
    latents_that_stay_give_zero_in_a_run(LatentConsistency, "bf16-mixed")
    kills(latents_that_stay_give_zero_in_a_run, WithoutRecord)
    kills(lambda cls: latents_that_stay_give_zero_in_a_run(cls, "bf16-mixed"), WithTheTurnsFakes)


@pytest.mark.parametrize("kind", ["images", "points"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_both_sides_have_the_same_labels(kind: str, precision: str) -> None:
    """Of a conditional model, where another label would give another logit."""
    values = []

    class Keep(BalancedConsistency):
        def inconsistency(self, turn, data, labels, logits, moment):
            assert labels is not None
            value = super().inconsistency(turn, data, labels, logits, moment)
            other = super().inconsistency(turn, data, (labels + 1) % 3, logits, moment)
            values.append((value.item(), other.item() > 0 or not turn.full_precision))
            return value

    gan = small(kind, num_classes=3, penalties=[Keep(**IDENTITY)])
    fit(gan, labelled(kind), max_steps=2, precision=precision)
    assert values == [(0.0, True)] * 4


@pytest.mark.parametrize("cls", [Consistency, BalancedConsistency])
def test_in_bf16_both_sides_are_of_full_precision(cls) -> None:
    """Where one side came from autocast, the identity would not give zero."""
    gan = small("images", penalties=[cls(**IDENTITY)])
    seen = []

    class Look(Part):
        players = ("discriminator",)

        def forward(self, turn):
            seen.append((cls(**IDENTITY)(turn).item(), (turn.real_logits - turn.discriminate(turn.real)).abs().max()))

    gan.tricks.append(Look())
    run(gan, "images", 2, precision="bf16-mixed")
    assert [value for value, _ in seen] == [0.0, 0.0]
    assert min(error for _, error in seen) > 0


def test_the_discriminators_turn_moves_no_generator() -> None:
    gan = small("images", penalties=[LatentConsistency(50.0, generator_weight=5.0)])
    states: list = []

    class Keep(Watch):
        def before_turn(self, turn):
            states.append((turn.player, {k: v.clone() for k, v in turn.gan.generator.state_dict().items()}))

    gan.tricks.append(Keep(lambda turn: None))
    run(gan, "images", 2)
    for (player, before), (_, after) in zip(states[::2], states[1::2], strict=True):
        assert player == "discriminator"
        assert all(torch.equal(before[k], after[k]) for k in before)


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("images", lambda: Consistency(shift=2)),
        ("images", lambda: BalancedConsistency(shift=2)),
        ("images", LatentConsistency),
        ("points", lambda: Consistency(noise=0.1, **IDENTITY)),
        ("points", lambda: BalancedConsistency(noise=0.1, **IDENTITY)),
        ("points", LatentConsistency),
    ],
)
def test_they_train(kind: str, make) -> None:
    survives(kind, make)


@pytest.mark.parametrize(("kind", "options"), RANDOM)
@pytest.mark.parametrize(
    "make",
    [
        lambda: Consistency(0.0, noise=0.1, **IDENTITY),
        lambda: BalancedConsistency(0.0, fake_weight=0.0, noise=0.1, **IDENTITY),
        lambda: LatentConsistency(0.0, generator_weight=0.0),
    ],
)
def test_with_a_weight_of_zero_nothing_changes(kind: str, options: dict, make) -> None:
    leaves_no_trace(kind, make, **options)
