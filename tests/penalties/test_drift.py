"""The drift term: appendix A.1 of Karras 2018 at given logits."""

from __future__ import annotations

import pytest
import torch

from ganzoo.models import MLPGAN
from ganzoo.parts import Turn
from ganzoo.penalties import Drift
from tests.mutants import kills
from tests.penalties.fits import leaves_no_trace, survives

REAL, FAKE = [0.5, -3.0], [4.0, 1.0]


def turn_of(number: int = 0) -> Turn:
    logits = {"real_logits": torch.tensor(REAL), "fake_logits": torch.tensor(FAKE)}
    return Turn(MLPGAN(hidden=4), "discriminator", number, 0.0, **logits)


def check(cls: type[Drift]) -> None:
    """0.001 E[D(x)^2] at real data, or at both; the gradient of a logit is 2 D(x) / N times the weight."""
    assert cls()(turn_of()).item() == pytest.approx(0.001 * (0.5**2 + 3.0**2) / 2)
    turn = turn_of()
    turn.real_logits.requires_grad_()
    cls(0.25, every=2)(turn).backward()
    assert turn.real_logits.grad.tolist() == pytest.approx([0.25 * 2 * logit for logit in REAL])
    assert cls(every=2)(turn_of(1)) is None
    both = (0.5**2 + 3.0**2) / 2 + (4.0**2 + 1.0**2) / 2
    assert cls(0.1, fake=True)(turn_of()).item() == pytest.approx(0.1 * both)


class OfFakes(Drift):
    def value(self, turn: Turn):
        turn.real_logits, turn.fake_logits = turn.fake_logits, turn.real_logits
        return super().value(turn)


class OfTheMean(Drift):
    """The square of the mean, which logits of both signs can cheat."""

    def value(self, turn: Turn):
        return turn.real_logits.mean().square()


def test_known_answers() -> None:
    check(Drift)
    for mutant in (OfFakes, OfTheMean):
        kills(check, mutant)


@pytest.mark.parametrize("kind", ["points", "images"])
def test_it_trains(kind: str) -> None:
    survives(kind, lambda: Drift(1.0))
    leaves_no_trace(kind, lambda: Drift(0.0))
