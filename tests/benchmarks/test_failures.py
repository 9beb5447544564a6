"""The classic failures fail, and their cures cure, in five seeds of five (slow); how a verdict is reached (fast)."""

from __future__ import annotations

import pytest

from benchmarks.scores import failures
from tests.mutants import kills

HEALTHY = {
    "health/diversity": 1.0,
    "health/separation": 0.7,
    "health/signal": 0.5,
    "toy/modes": 8,
    "toy/reverse_kl": 0.1,
}


def check_covers(covers) -> None:
    assert covers([HEALTHY] * 8)
    assert not covers([HEALTHY | {"toy/modes": 7}] * 8)
    assert not covers([HEALTHY | {"toy/reverse_kl": 0.9}] * 8)
    assert not covers([HEALTHY | {"health/diversity": 0.3}] * 8)
    assert covers([HEALTHY | {"toy/modes": 2}] * 2 + [HEALTHY] * 6)  # the last score counts


def test_a_cure_of_collapse_covers_all_modes_evenly() -> None:
    check_covers(failures.covers)
    kills(check_covers, lambda rows: rows[0]["toy/modes"] == 8)
    kills(check_covers, lambda rows: failures.last(rows, "toy/modes") == 8)


def test_verdicts() -> None:
    collapsed = HEALTHY | {"toy/modes": 2, "health/diversity": 0.3}
    assert failures.collapsed([collapsed] * 8)
    assert not failures.collapsed([HEALTHY] * 8) and not failures.collapsed([collapsed | {"toy/modes": 6}] * 8)
    mute = HEALTHY | {"health/separation": 1.0, "health/signal": 0.01}
    assert failures.learns([HEALTHY] * 8) and not failures.learns([mute] * 8)
    assert not failures.learns([HEALTHY | {"health/diversity": 0.4}] * 8)
    assert failures.steady([HEALTHY] * 8) and not failures.steady([HEALTHY | {"logits/real": 900.0}] * 8)


@pytest.mark.slow
@pytest.mark.parametrize("name", failures.FAILURES)
def test_it_fails_in_all_seeds_and_is_cured_in_all_seeds(name: str) -> None:
    found = list(failures.outcomes(failures.FAILURES[name], range(failures.NUM_SEEDS)))
    assert len(found) == 3 * failures.NUM_SEEDS
    assert not [outcome for outcome in found if not outcome["as_expected"]]
