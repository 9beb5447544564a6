"""Each failure is named from rows made by hand, on the right side of its bound only."""

from __future__ import annotations

from pathlib import Path

import pytest

from ganzoo.cli import main
from ganzoo.health.diagnosis import diagnose
from tests.cli.common import refused

HEALTHY = {
    "health/separation": 0.8,
    "health/diversity": 0.95,
    "health/signal": 0.6,
    "health/gradient_g": 1.0,
    "health/gradient_d": 0.5,
    "logits/real": 1.2,
    "logits/fake": -0.7,
}


def names(rows) -> list[str]:
    return [finding.name for finding in diagnose(rows)]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"health/separation": 0.999, "health/signal": 0.01}, ["vanishing generator gradient"]),
        ({"health/separation": 0.999, "health/signal": 0.9}, []),  # a strong discriminator that still teaches
        ({"health/separation": 0.7, "health/signal": 0.01}, []),
        ({"health/diversity": 0.3}, ["mode collapse"]),
        ({"health/diversity": 0.6}, []),
        ({"logits/fake": -188.0}, ["instability"]),
        ({"logits/fake": -20.0}, []),
        (
            {"health/separation": 1.0, "health/signal": 0.0, "health/diversity": 0.0},
            ["vanishing generator gradient", "mode collapse"],
        ),
    ],
)
def test_failures_have_names(change: dict[str, float], expected: list[str]) -> None:
    assert names([HEALTHY | change] * 8) == expected
    assert names([HEALTHY | change] * 4 + [HEALTHY] * 4) == []  # what was over by the middle of the run
    assert names([HEALTHY] * 4 + [HEALTHY | change] * 4) == expected


def test_a_spike_is_many_times_the_median() -> None:
    calm, spike = [HEALTHY] * 15, HEALTHY | {"health/gradient_d": 5.1}
    assert names([*calm, spike]) == ["instability"]
    assert names([*calm, HEALTHY | {"health/gradient_d": 4.9}]) == []
    assert names([spike, *calm]) == []
    assert "reached 5.1, with a median of 0.5" in diagnose([*calm, spike])[0].evidence


def test_columns_that_are_missing_are_not_judged() -> None:
    assert names([{"loss/d": 1.0}] * 4) == []
    assert names([{"health/diversity": 0.1}] * 4) == ["mode collapse"]


def write(folder: Path, rows: list[dict[str, float]]) -> None:
    columns = list(rows[0])
    lines = [",".join(columns), *(",".join(str(row[name]) for name in columns) for row in rows)]
    folder.mkdir()
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")


def test_the_command_says_it_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "bad", [HEALTHY | {"health/diversity": 0.25}] * 8)
    write(tmp_path / "good", [HEALTHY] * 8)
    write(tmp_path / "blind", [{"loss/d": 1.0}] * 8)
    write(tmp_path / "young", [HEALTHY | {"health/diversity": 0.25}] * 7)
    assert main(["diagnose", *(str(tmp_path / name) for name in ("bad", "good", "blind", "young"))]) == 0
    bad, collapse, good, blind, young = capsys.readouterr().out.splitlines()
    assert young.endswith(
        "7 rows of metrics.csv, too few to judge: 8 or more are needed (--log.every_kimg sets their interval)."
    )
    assert bad == f"{tmp_path / 'bad'}: 8 rows of metrics.csv"
    assert collapse.startswith("  mode collapse: fakes are 0.25 times as far apart as real samples (a healthy game:")
    assert good == f"{tmp_path / 'good'}: 8 rows of metrics.csv, none of the classic failures."
    assert blind.endswith("without health/ columns: train with --model.parts+=Signals to have them.")


def test_what_holds_no_log_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "diagnose", str(tmp_path)) == (
        f"{tmp_path} holds no metrics.csv: give the directory of a run, such as runs/quickstart-1."
    )
    (tmp_path / "metrics.csv").write_text("progress/kimg\n")
    assert refused(capsys, "diagnose", str(tmp_path)) == f"The log of {tmp_path} has no row yet."
