"""Scores as columns of metrics.csv."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from ganzoo.ablation.plan import Run
from ganzoo.ablation.results import Best, Curve, Metrics, Score, check_columns, default_scores, parse_scores
from ganzoo.errors import UserError
from tests.ablation.common import write_run
from tests.mutants import kills


def check_best(best: Callable[[Curve, Best], float | None]) -> None:
    curve = Curve((1.0, 2.0, 3.0, 4.0, 5.0), (3.0, -2.0, math.nan, 7.0, 1.0))
    assert best(curve, "max") == 7.0
    assert best(curve, "min") == -2.0
    assert best(Curve((1.0,), (math.nan,)), "min") is None
    assert best(Curve(), "max") is None


def test_the_best_value() -> None:
    check_best(Curve.best)
    kills(check_best, lambda curve, direction: Curve.best(curve, "min" if direction == "max" else "max"))
    kills(check_best, lambda curve, direction: curve.final)


def test_the_final_value_is_the_last_one_that_was_measured() -> None:
    assert Curve((1.0, 2.0), (5.0, 6.0)).final == 6.0
    assert Curve((1.0, 2.0), (5.0, math.nan)).final is None
    assert Curve().final is None


def test_the_table_of_a_run(tmp_path: Path) -> None:
    run = Run("base", 0, tmp_path / "seed-0")
    write_run(run, {"loss/d": [1.0, 2.0, 3.0], "toy/modes": [math.inf, 8.0, math.inf]})
    with open(run.folder / "metrics.csv", "a") as file:
        file.write("4.0,4000,9")  # the process was killed in mid-row
    metrics = Metrics(run.folder)
    assert metrics.columns == ["progress/kimg", "progress/images", "loss/d", "toy/modes", "time/seconds"]
    assert metrics.curve("toy/modes") == Curve((2.0,), (8.0,))
    assert metrics.curve("loss/d") == Curve((1.0, 2.0, 3.0), (1.0, 2.0, 3.0))
    assert metrics.curve("other") == Curve()
    assert metrics.seconds == 30.0
    nothing = Metrics(tmp_path / "nowhere")
    assert (nothing.columns, nothing.seconds) == ([], 0.0)


def test_scores_as_they_are_written() -> None:
    assert parse_scores(["toy/modes", "loss/d:max", "x/fid"], None) == [
        Score("toy/modes", "max"),
        Score("loss/d", "max"),
        Score("x/fid", "min"),
    ]
    assert parse_scores(["toy/modes", "loss/d"], "min") == [Score("toy/modes", "min"), Score("loss/d", "min")]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["loss/d"], "--score loss/d does not say which way is better: write loss/d:min or loss/d:max."),
        (["loss/d:up"], "--score loss/d:up does not say which way is better: write loss/d:min or loss/d:max."),
        (["a:min", "a:max"], "--score a was given twice: a column has one direction."),
    ],
)
def test_scores_that_are_refused(given: list[str], sentence: str) -> None:
    with pytest.raises(UserError) as error:
        parse_scores(given, None)
    assert str(error.value) == sentence


def test_what_is_compared_by_default() -> None:
    columns = ["progress/kimg", "loss/d", "toy/reverse_kl", "toy/modes", "eval/fid", "time/seconds"]
    assert default_scores(columns) == [Score("toy/modes", "max"), Score("toy/reverse_kl", "min")]
    assert default_scores(["eval/kid", "eval/fid"]) == [Score("eval/fid", "min")]
    with pytest.raises(UserError, match=r"such as --score NAME:min, of loss/d, lr/g\.$"):
        default_scores(["progress/kimg", "loss/d", "lr/g", "time/seconds"])
    with pytest.raises(UserError, match=r"none \(no run has written a row\)"):
        default_scores([])


def test_columns_that_do_not_exist_are_refused_with_those_that_do() -> None:
    check_columns([Score("loss/d", "min")], ["loss/d"])
    with pytest.raises(UserError) as error:
        check_columns([Score("toy/mode", "max")], ["progress/kimg", "loss/d", "toy/modes"])
    assert str(error.value) == "The runs log no column toy/mode: --score takes one of loss/d, toy/modes."
