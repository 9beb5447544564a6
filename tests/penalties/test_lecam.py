"""LeCam: the equation at hand-set anchors, and the anchors' recursion written out."""

from __future__ import annotations

import pytest
import torch

from ganzoo.errors import UserError
from ganzoo.gan import GAN
from ganzoo.models import MLPGAN
from ganzoo.parts import Part, Turn
from ganzoo.penalties import LeCam
from ganzoo.plan import Play
from ganzoo.schedules import Linear
from tests.common import Critic
from tests.mutants import kills
from tests.penalties.fits import RANDOM, leaves_no_trace, run, small, survives


def turn_of(real: list[float], fake: list[float], **options) -> Turn:
    logits = {"real_logits": torch.tensor(real), "fake_logits": torch.tensor(fake)}
    gan = GAN(MLPGAN(hidden=4).generator, Critic(2))
    return Turn(gan, "discriminator", 0, **{"kimg": 0.0, **options}, **logits)


def anchored(cls: type[LeCam], real: float, fake: float, *args, **options) -> LeCam:
    penalty = cls(*args, **options)
    penalty.real_anchor.fill_(real)
    penalty.fake_anchor.fill_(fake)
    penalty.ready.fill_(1.0)
    return penalty


def is_the_distance_from_the_opposite_anchors(cls: type[LeCam]) -> None:
    """E(x - a_F)^2 + E(y - a_R)^2 with a_R = 1 and a_F = -2."""
    turn = turn_of([0.5, 3.0], [-1.0, 0.0])
    expected = ((0.5 + 2) ** 2 + (3.0 + 2) ** 2) / 2 + ((-1.0 - 1) ** 2 + (0.0 - 1) ** 2) / 2
    assert anchored(cls, 1.0, -2.0, 0.25)(turn).item() == pytest.approx(0.25 * expected)


def is_zero_where_logits_equal_the_opposite_anchors(cls: type[LeCam]) -> None:
    assert anchored(cls, 1.0, -2.0)(turn_of([-2.0, -2.0], [1.0, 1.0])).item() == 0.0


def pulls_each_logit_by_its_distance(cls: type[LeCam]) -> None:
    turn = turn_of([0.5, -3.0], [-1.0, 2.0])
    turn.real_logits.requires_grad_()
    turn.fake_logits.requires_grad_()
    anchored(cls, 1.0, -2.0, 1.0)(turn).backward()
    assert turn.real_logits.grad.tolist() == pytest.approx([0.5 + 2, -3.0 + 2])
    assert turn.fake_logits.grad.tolist() == pytest.approx([-1.0 - 1, 2.0 - 1])


class SameSide(LeCam):
    def value(self, turn):
        turn.real_logits, turn.fake_logits = turn.fake_logits, turn.real_logits
        return super().value(turn)


class Absolute(LeCam):
    def value(self, turn):
        return (turn.real_logits - self.fake_anchor).abs().mean() + (turn.fake_logits - self.real_anchor).abs().mean()


class OfMeans(LeCam):
    def value(self, turn):
        return (turn.real_logits.mean() - self.fake_anchor) ** 2 + (turn.fake_logits.mean() - self.real_anchor) ** 2


class CutAtZero(LeCam):
    """As the authors' code."""

    def value(self, turn):
        return (turn.real_logits - self.fake_anchor).relu().square().mean() + (
            self.real_anchor - turn.fake_logits
        ).relu().square().mean()


EQUATION = [
    is_the_distance_from_the_opposite_anchors,
    is_zero_where_logits_equal_the_opposite_anchors,
    pulls_each_logit_by_its_distance,
]


@pytest.mark.parametrize("check", EQUATION)
def test_equation(check) -> None:
    check(LeCam)


def test_mutants_of_the_equation() -> None:
    kills(is_zero_where_logits_equal_the_opposite_anchors, SameSide)
    for mutant in (SameSide, Absolute, OfMeans):
        kills(is_the_distance_from_the_opposite_anchors, mutant)
    kills(pulls_each_logit_by_its_distance, CutAtZero)


class Record(Part):
    """Means of the logits of each micro-batch, and the anchors that a turn begins with and ends with."""

    players = ("discriminator",)

    def __init__(self) -> None:
        super().__init__()
        self.__dict__.update(means=[], before=[], after=[])

    def before_turn(self, turn):
        self.means.append([])
        self.before.append(anchors_of(turn.gan))

    def forward(self, turn):
        self.means[-1].append((turn.real_logits.double().mean().item(), turn.fake_logits.double().mean().item()))

    def after_step(self, turn):
        self.after.append(anchors_of(turn.gan))


def anchors_of(gan) -> tuple[float, float]:
    (penalty,) = [part for part in gan.tricks if isinstance(part, LeCam)]
    return penalty.real_anchor.item(), penalty.fake_anchor.item()


def anchors_follow_the_recursion(cls: type[LeCam], **options) -> None:
    """a_1 = m_1 and a_t = 0.8 a_{t-1} + 0.2 m_t at the end of turn t, m_t over all micro-batches of the turn."""
    gan = small("points", accumulate=2, play=Play(2, 1), penalties=[cls(1.0, decay=0.8, **options)])
    record = Record()
    gan.tricks.append(record)
    run(gan, "points", 3)
    assert [len(means) for means in record.means] == [2] * 6
    expected: list[tuple[float, float]] = []
    for first, second in record.means:
        now = [(a + b) / 2 for a, b in zip(first, second, strict=True)]
        old = expected[-1] if expected else now
        expected.append(tuple(0.8 * a + 0.2 * m for a, m in zip(old, now, strict=True)))
    assert len(set(expected)) == 6
    for got, wanted in zip(record.after, expected, strict=True):
        assert got == pytest.approx(wanted, rel=1e-4, abs=1e-6)
    assert record.before[1:] == record.after[:-1]


class FromZero(LeCam):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.ready.fill_(1.0)


class OncePerMicroBatch(LeCam):
    def forward(self, turn):
        term = super().forward(turn).detach()  # its graph would not survive the move
        super().after_backward(turn)
        self._means = []
        return term

    def after_backward(self, turn):
        pass


class LastMicroBatch(LeCam):
    def after_backward(self, turn):
        self._means = self._means[-1:]
        super().after_backward(turn)


@pytest.mark.parametrize("options", [{}, {"every": 4}, {"start_kimg": 1000.0}], ids=["eager", "lazy", "not yet"])
def test_anchors(options: dict) -> None:
    anchors_follow_the_recursion(LeCam, **options)


def test_mutants_of_the_anchors() -> None:
    for mutant in (FromZero, OncePerMicroBatch, LastMicroBatch):
        kills(anchors_follow_the_recursion, mutant)


def test_nothing_in_the_first_turn_nor_before_its_time() -> None:
    turn = turn_of([5.0], [5.0])
    assert LeCam()(turn).item() == 0.0
    late = anchored(LeCam, 1.0, 1.0, start_kimg=2.0)
    assert late(turn) is None
    turn.kimg = 2.0
    assert late(turn).item() > 0


def test_lazy_and_scheduled_weight() -> None:
    turn = turn_of([1.0], [0.0], kimg=1.0)
    lazy = anchored(LeCam, 0.0, 0.0, Linear(4.0, 0.0, to_kimg=2.0), every=3)
    assert lazy(turn).item() == pytest.approx(2.0 * 3)
    turn.number = 1
    assert lazy(turn) is None


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(UserError, match=r"decay 1.0.*\[0, 1\)"):
        LeCam(decay=1.0)
    with pytest.raises(UserError, match="start_kimg -1"):
        LeCam(start_kimg=-1.0)


@pytest.mark.parametrize("kind", ["points", "images"])
def test_it_trains(kind: str) -> None:
    survives(kind, lambda: LeCam(1.0, decay=0.5))


@pytest.mark.parametrize(("kind", "options"), RANDOM)
@pytest.mark.parametrize("make", [lambda: LeCam(0.0)])
def test_with_a_weight_of_zero_nothing_changes(kind: str, options: dict, make) -> None:
    leaves_no_trace(kind, make, **options)
