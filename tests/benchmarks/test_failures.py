"""The classic failures fail, and their cures cure, in five seeds of five (slow); how a verdict is reached (fast)."""

from __future__ import annotations

import math

import pytest

from benchmarks.scores import failures
from ganzoo.cli import arguments
from ganzoo.cli.parser import FitCLI
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


def points(*scores: float) -> failures.Table:
    return [{"lr": 0.1, failures.FD: score} if score >= 0 else {"lr": 0.1} for score in scores]


NO_SCORE = -1.0


def check_spread(spread) -> None:
    """Worst minus best, whatever their order; infinite where a run has left no score."""
    assert spread(points(7.0, 3.0, 12.0, 5.0)) == 9.0
    assert spread(points(4.0, 4.0)) == 0.0
    assert spread(points(4.0, NO_SCORE, 5.0)) == math.inf


def test_the_spread_of_a_grid() -> None:
    check_spread(failures.spread)
    kills(check_spread, lambda rows: rows[0][failures.FD] - rows[-1][failures.FD])
    kills(
        check_spread, lambda rows: max(r.get(failures.FD, 0) for r in rows) - min(r.get(failures.FD, 0) for r in rows)
    )


def test_verdicts_on_a_grid() -> None:
    sensitive, robust = failures.depends_on_settings, failures.whatever_the_settings
    assert sensitive(points(5, 30, 6, 7)) and not robust(points(5, 30, 6, 7))
    assert robust(points(5, 12, 6, 7)) and not sensitive(points(5, 12, 6, 7))
    assert not robust(points(40, 41, 40, 42)) and not sensitive(points(40, 41, 40, 42))  # bad everywhere is no cure
    assert not robust(points(5, 20, 6, 7)) and not sensitive(points(5, 20, 6, 7))  # neither
    assert sensitive(points(5, NO_SCORE, 6, 7)) and not robust(points(5, NO_SCORE, 6, 7))


def test_the_settings_of_a_grid_reach_both_optimizers() -> None:
    words = [*failures.FAILURES["sensitivity"].options("r1"), *failures.settings(0.01, 0.9)]
    cli = FitCLI(arguments.read(words))
    cli.parse()
    cli.build()
    for player in cli.model.players.values():
        (group,) = player.optimizer(player.trained).param_groups
        assert (group["lr"], tuple(group["betas"])) == (0.01, (0.9, 0.999))
    assert len(set(failures.GRID)) == len(failures.GRID) == 4


def test_the_last_values_of_a_run_make_the_row_of_a_point() -> None:
    rows = [{"a": 1.0, "b": 2.0}, {"a": 3.0}]
    assert failures.final(rows, lr=0.1) == {"lr": 0.1, "a": 3.0, "b": 2.0}


@pytest.mark.slow
@pytest.mark.timeout(1800)  # fifteen runs, or sixty
@pytest.mark.parametrize("name", failures.FAILURES)
def test_it_fails_in_all_seeds_and_is_cured_in_all_seeds(name: str) -> None:
    found = list(failures.outcomes(failures.FAILURES[name], failures.NUM_SEEDS))
    assert len(found) == 3 * failures.NUM_SEEDS
    assert not [outcome for outcome in found if not outcome["as_expected"]]


def test_a_seed_that_the_search_has_seen_is_not_taken(monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(failures, "run", lambda failure, cure, seed: asked.append(seed) or points(5, 30, 6, 7))
    list(failures.outcomes(failures.FAILURES["sensitivity"], 2))
    assert asked == [5, 6] * 3
