"""p follows its closed form, moves once per interval, and is one number over micro-batches and ranks."""

from __future__ import annotations

import pytest
import torch

from ganzoo.augment import ADA, APA, AdaptiveProbability
from ganzoo.config import build
from ganzoo.errors import UserError
from ganzoo.gan import GAN
from ganzoo.losses import Hinge, LeastSquares, NonSaturating, Relativistic, RelativisticAverage, Wasserstein
from ganzoo.models import MLPGAN
from ganzoo.optim import SGD
from ganzoo.parts import Part, Turn
from ganzoo.plan import Play
from ganzoo.schedules import Linear
from tests.common import Critic, fit, flat, normal_batches
from tests.mutants import kills


def drive(part: AdaptiveProbability, turns: list[list[torch.Tensor]], *, average=lambda: None) -> list[float]:
    """p after each of the discriminator's turns, given the logits of real data of its micro-batches."""
    gan, found = MLPGAN(hidden=4), []
    for number, micro_batches in enumerate(turns):
        turn = Turn(gan, "discriminator", number, 0.0)
        for logits in micro_batches:
            turn.real, turn.real_logits = torch.zeros(len(logits), 2), logits
            part.logits(turn, logits, logits)
        average()
        part.after_step(turn)
        found.append(part.p.item())
        other = Turn(gan, "generator", number, 0.0, real=turn.real, real_logits=-10 * turn.real_logits)
        part.logits(other, other.real_logits, other.real_logits)  # what the generator's turn sees does not count
        part.after_step(other)
    return found


def signs(positive: int, negative: int, size: float = 3.0) -> torch.Tensor:
    return torch.cat([torch.full((positive,), size), torch.full((negative,), -size)])


def check_trajectory(cls) -> None:
    """With r_t above the target, p(T) = p0 + floor(T / interval) interval N / speed, at most 1; below it, downwards."""
    num, interval, speed = 10, 3, 1.0
    for positive, direction in ((10, 1), (9, 1), (7, -1), (2, -1)):  # r_t: 1, 0.8, 0.4, -0.6
        part = cls(p=0.5, target=0.6, speed_kimg=speed, interval=interval)
        got = drive(part, [[signs(positive, 10 - positive)]] * 60)
        step = direction * interval * num / (speed * 1000)
        assert got == pytest.approx([min(1.0, max(0.0, 0.5 + (t + 1) // interval * step)) for t in range(60)], abs=1e-5)
        assert got[-1] in (0.0, 1.0)
    part = cls(p=0.5, target=None, speed_kimg=speed, interval=interval)
    assert drive(part, [[signs(10, 0)]] * 6) == [0.5] * 6


def check_mean_over_micro_batches(cls) -> None:
    """Micro-batches with r_t of 1 and 0 make 0.5: below the target, once per interval and by all of their images."""
    part = cls(p=0.5, target=0.6, speed_kimg=1.0, interval=2)
    got = drive(part, [[signs(10, 0), signs(5, 5)]] * 4)
    assert got == pytest.approx([0.5, 0.5 - 0.04, 0.5 - 0.04, 0.5 - 0.08])
    part = cls(p=0.5, target=0.6, speed_kimg=1.0, interval=2)
    assert drive(part, [[signs(10, 0)], [signs(7, 3)]]) == pytest.approx([0.5, 0.52])  # r_t = 0.7 over the interval


def check_joint(cls, monkeypatch) -> None:
    """Two ranks, each with half of the signs and their float buffers averaged after each turn, equal one process."""
    turns = [[signs(10, 0), signs(0, 10)], [signs(9, 1), signs(8, 2)], [signs(10, 0), signs(6, 4)]] * 2
    options = {"p": 0.5, "target": 0.3, "speed_kimg": 1.0, "interval": 2}
    alone = drive(cls(**options), [[torch.cat(ranks)] for ranks in turns])
    ranks = [cls(**options), cls(**options)]
    gan = MLPGAN(hidden=4)
    monkeypatch.setattr("ganzoo.joint.num_processes", lambda: 2)
    found = []
    for number, parts in enumerate(turns):
        steps = [Turn(gan, "discriminator", number, 0.0) for _ in ranks]
        for part, turn, logits in zip(ranks, steps, parts, strict=True):
            turn.real, turn.real_logits = torch.zeros(len(logits), 2), logits
            part.logits(turn, logits, logits)
        for buffers in zip(*(part.buffers() for part in ranks), strict=True):
            mean = torch.stack(buffers).mean(0)
            for buffer in buffers:
                buffer.copy_(mean)
        for part, turn in zip(ranks, steps, strict=True):
            part.after_step(turn)
        assert ranks[0].p == ranks[1].p
        found.append(ranks[0].p.item())
    monkeypatch.undo()
    assert found == pytest.approx(alone, abs=1e-6)
    assert alone[1] != alone[-1]


class SignFlipped(ADA):
    def after_step(self, turn):
        before = self.p.clone()
        super().after_step(turn)
        self.p.copy_((2 * before - self.p).clamp(0, 1))


class PerMicroBatch(ADA):
    def logits(self, turn, real, fake):
        super().logits(turn, real, fake)
        if turn.player == "discriminator":
            AdaptiveProbability.after_step(self, turn)
        return real, fake

    def after_step(self, turn):
        pass


class EveryTurn(ADA):
    def after_step(self, turn):
        interval, self.interval = self.interval, 1
        super().after_step(turn)
        self.interval = interval


class MeanOfLogits(ADA):
    def logits(self, turn, real, fake):
        if turn.player == "discriminator":
            self.signs += real.sum()
            self.images += len(real)
        return real, fake


class LastMicroBatch(ADA):
    def logits(self, turn, real, fake):
        if turn.player == "discriminator":
            self.signs.zero_()
            self.images.zero_()
        return super().logits(turn, real, fake)


class InTheGeneratorsTurn(ADA):
    def logits(self, turn, real, fake):
        turn.player = "discriminator"
        return super().logits(turn, real, fake)


@pytest.mark.parametrize("cls", [ADA, APA])
def test_trajectory(cls) -> None:
    check_trajectory(cls)
    check_mean_over_micro_batches(cls)


@pytest.mark.parametrize("mutant", [SignFlipped, EveryTurn, MeanOfLogits, InTheGeneratorsTurn])
def test_wrong_trajectories(mutant) -> None:
    kills(lambda cls: (check_trajectory(cls), check_mean_over_micro_batches(cls)), mutant)


@pytest.mark.parametrize("mutant", [PerMicroBatch, LastMicroBatch])
def test_wrong_means(mutant) -> None:
    kills(check_mean_over_micro_batches, mutant)


@pytest.mark.parametrize("cls", [ADA, APA])
def test_ranks(cls, monkeypatch) -> None:
    check_joint(cls, monkeypatch)


class LocalImages(ADA):
    """Forgets that the other ranks have seen as many."""

    def after_step(self, turn):
        self.images /= 2
        self.signs /= 2
        super().after_step(turn)


class AfterAveraging(ADA):
    """Counts too late for the averaging."""

    def logits(self, turn, real, fake):
        self.__dict__["late"] = turn
        return real, fake

    def after_step(self, turn):
        if turn.player == "discriminator":
            ADA.logits(self, self.late, turn.real_logits, turn.real_logits)
        super().after_step(turn)


@pytest.mark.parametrize("mutant", [LocalImages, AfterAveraging])
def test_wrong_ranks(mutant, monkeypatch) -> None:
    kills(lambda cls: check_joint(cls, monkeypatch), mutant)


def test_patches_count_as_their_image() -> None:
    """A discriminator of 3x3 patches gives nine logits per image, of which the share counts."""
    part = ADA(p=0.5, target=0.6, speed_kimg=1.0, interval=1)
    logits = torch.ones(10, 3, 3)
    logits[:, 0] = -1  # r_t = 1/3
    assert drive(part, [[logits]]) == pytest.approx([0.49])


# ------------------------------------------------------------------ in training


def model(*parts: Part, critic_bias: float | None = None, **options) -> GAN:
    torch.manual_seed(0)
    critic = Critic(64)
    if critic_bias is not None:
        torch.nn.init.zeros_(critic.linear.weight)
        torch.nn.init.constant_(critic.linear.bias, critic_bias)
    rates = {"generator_optimizer": SGD(0.01), "discriminator_optimizer": SGD(0.0 if critic_bias is not None else 0.01)}
    return GAN(MLPGAN((1, 8, 8), hidden=8).generator, critic, parts=list(parts), **{**rates, **options})


@pytest.mark.parametrize("bias", [1.0, -1.0])
def test_p_in_a_run_with_a_constant_discriminator(bias) -> None:
    """12 cycles of 2 D turns of 6 images, interval 4: p moves 6 times by 24 / 1000. The log has the p that was used."""
    gan = model(ADA(["blit"], p=0.5, speed_kimg=1.0), critic_bias=bias, play=Play(2, 1))
    fit(gan, normal_batches(6, 1, 8, 8), max_steps=12)
    assert gan.tricks[0].p.item() == pytest.approx(0.5 + bias * 6 * 0.024, abs=1e-5)
    values = gan.meter.values()
    assert values["augment/p"] == pytest.approx([0.5 + bias * (turn // 4) * 0.024 for turn in range(24)], abs=1e-5)
    assert values["augment/r_t"] == [bias] * 24


def test_accumulation_equals_one_batch() -> None:
    """The same weights and the same p, whether a turn's 12 images come at once or in 3 micro-batches."""
    found = []
    for accumulate in (1, 3):
        parts = [ADA(p=0.5, target=0.1, speed_kimg=0.5, interval=2), APA(0.5, target=0.1, speed_kimg=0.5, interval=2)]
        gan = model(*parts, accumulate=accumulate)
        batches = normal_batches(12, 1, 8, 8)
        pieces = (piece for batch in batches for piece in batch.chunk(accumulate))
        fit(gan, _Loader(pieces), max_steps=6)
        found.append((flat(gan), gan.tricks[0].p.item(), gan.tricks[1].p.item()))
    (one, p, q), (several, p_too, q_too) = found
    assert torch.allclose(one, several, atol=1e-6)
    assert (p, q) == pytest.approx((p_too, q_too), abs=1e-6)
    assert p != 0.5


class _Loader:
    def __init__(self, batches) -> None:
        self.batches = batches

    def __iter__(self):
        return self.batches


def test_p_is_in_the_checkpoint() -> None:
    """A model that takes over the state in the middle of an interval goes on as the first one does."""
    options = {"p": 0.5, "target": 0.3, "speed_kimg": 1.0, "interval": 4}
    first = ADA(**options)
    drive(first, [[signs(10, 0)]] * 6)
    second = build(first.config())
    assert isinstance(second, ADA)
    assert second.p.item() == 0.5
    second.load_state_dict(first.state_dict())
    assert {"p", "signs", "images"} == set(first.state_dict())
    gan = MLPGAN(hidden=4)
    for part in (first, second):
        for number in (6, 7):
            turn = Turn(gan, "discriminator", number, 0.0, real=torch.zeros(10, 2), real_logits=signs(0, 10))
            part.logits(turn, turn.real_logits, turn.real_logits)
            part.after_step(turn)
    assert first.p == second.p
    assert first.p.item() == pytest.approx(0.5 + 0.04 - 0.04)  # turns 4 to 7 have r_t = 0


def test_a_schedule_of_p() -> None:
    part = ADA(p=Linear(0.0, 0.4, to_kimg=1.0), target=None)
    gan = model(part)
    seen = []

    class Look(Part):
        def before_turn(self, turn: Turn) -> None:
            seen.append((turn.kimg, part.p.item()))

    gan.tricks.append(Look())
    fit(gan, normal_batches(100, 1, 8, 8), max_steps=3)
    assert seen == [(pytest.approx(k), pytest.approx(0.4 * k)) for k in (0, 0, 0.1, 0.1, 0.2, 0.2)]
    assert build(part.config()).schedule(0.5) == pytest.approx(0.2)


def test_a_fixed_p_is_the_recipes_whatever_a_checkpoint_holds() -> None:
    adapted, fixed = ADA(p=0.7), ADA(p=0.2, target=None)
    fixed.load_state_dict(adapted.state_dict())
    fixed.before_turn(Turn(MLPGAN(hidden=4), "discriminator", 0, 0.0))
    assert fixed.p.item() == pytest.approx(0.2)


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize("cls", [ADA, APA])
def test_losses_whose_logits_have_no_zero_are_refused(cls) -> None:
    for loss in (Wasserstein(), Relativistic(), RelativisticAverage()):
        with pytest.raises(UserError, match=f"{type(loss).__name__} only looks at differences"):
            model(cls(), loss=loss)
        model(cls(p=0.2, target=None), loss=loss)
    for loss in (NonSaturating(), Hinge(), LeastSquares()):
        model(cls(), loss=loss)


@pytest.mark.parametrize("cls", [ADA, APA])
def test_refusals(cls) -> None:
    for options, words in (
        ({"p": 1.5}, "1.5"),
        ({"p": -0.1}, r"-0\.1"),
        ({"target": 1.0}, "mean of signs"),
        ({"speed_kimg": 0.0}, "speed_kimg 0"),
        ({"interval": 0}, "interval 0"),
        ({"p": Linear(to_kimg=1)}, "target to null"),
    ):
        with pytest.raises(UserError, match=words):
            cls(**options)
