"""Two gloo processes share the samples of an evaluation, and their scores are those of one."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from ganzoo import checkpoint
from ganzoo.metrics import record
from tests.callbacks.common import start_ranks

pytestmark = pytest.mark.slow


def start(folder: Path, devices: int, scenario: str = "plain") -> tuple[list[str], str]:
    return start_ranks("evaluate_ranks.py", folder, devices, scenario, GANZOO_CACHE=str(folder.parent / "cache"))


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_scores_of_two_ranks_are_those_of_one(tmp_path: Path) -> None:
    (one,), _ = start(tmp_path / "1", 1)
    two, _ = start(tmp_path / "2", 2)
    assert one == f"400 {80 + 4 * 3 * 41}"  # the reference, each sample, and both ends of a step
    assert two == [f"400 {4 * 3 * 20}", f"400 {4 * 3 * 21}"]
    name = next((tmp_path / "1" / "evaluations").iterdir()).name
    for images in (100, 200, 300, 400):
        first, second = (
            record.load(tmp_path / k / "evaluations" / name / f"kimg-000000.{images}.json")[0] for k in ("1", "2")
        )
        assert first.protocol == second.protocol
        for key, score in first.scores.items():
            assert second.scores[key].value == pytest.approx(score.value, rel=1e-3, abs=1e-3), key
    for a, b in zip(rows(tmp_path / "1"), rows(tmp_path / "2"), strict=True):
        keys = [key for key in a if key.startswith("eval/")]
        assert len(keys) == 10
        assert [float(b[key]) for key in keys] == pytest.approx([float(a[key]) for key in keys], rel=1e-3, abs=1e-3)
    best = [
        checkpoint.read(tmp_path / k / "checkpoints" / "best.ckpt")["ganzoo"]["clock"]["images"] for k in ("1", "2")
    ]
    assert best[0] == best[1]


def test_what_fails_on_one_rank_is_left_out_on_both(tmp_path: Path) -> None:
    said, errors = start(tmp_path / "run", 2, "memory")
    assert [word.split()[0] for word in said] == ["400", "400"]
    assert errors.count("The evaluation was left out: the memory is too small for it") == 1
    assert not any(key.startswith("eval/") for key in rows(tmp_path / "run")[0])
