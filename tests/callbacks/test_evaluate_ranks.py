"""Two gloo processes share the samples of an evaluation, and their scores are those of one."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ganzoo import checkpoint
from ganzoo.metrics import record

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


def start(folder: Path, devices: int, scenario: str = "plain") -> tuple[list[str], str]:
    """What each rank said at its end, and standard error."""
    folder.mkdir()
    cache = str(folder.parent / "cache")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GANZOO_CACHE": cache}
    script = ROOT / "tests" / "callbacks" / "evaluate_ranks.py"
    command = [sys.executable, str(script), str(folder), str(devices), scenario]
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=env, cwd=ROOT, start_new_session=True, **pipes)
    try:
        _, errors = process.communicate(timeout=300)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the second rank is a child of the first
    said = [path.read_text() for path in sorted(folder.glob("said-*.txt"))]
    assert len(said) == devices, errors[-3000:]
    return said, errors


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_scores_of_two_ranks_are_those_of_one(tmp_path: Path) -> None:
    (one,), _ = start(tmp_path / "1", 1)
    two, _ = start(tmp_path / "2", 2)
    assert one == f"400 {80 + 4 * 41}"  # the reference, and each sample once
    assert two == [f"400 {4 * 20}", f"400 {4 * 21}"]
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
        assert len(keys) == 7
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
