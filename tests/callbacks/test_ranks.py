"""Callbacks of two gloo processes: one decision, the means of both, files from the first only."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from tests.callbacks.common import start_ranks

pytestmark = pytest.mark.slow


def start(folder: Path, devices: int, scenario: str = "plain") -> list[str]:
    return start_ranks("two_ranks.py", folder, devices, scenario)[0]


def rows(folder: Path) -> list[dict[str, float]]:
    with open(folder / "metrics.csv", newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def test_rows_of_two_ranks_are_those_of_one(tmp_path: Path) -> None:
    assert start(tmp_path / "1", 1) == ["400 ended"] and start(tmp_path / "2", 2) == ["400 ended"] * 2
    one, two = rows(tmp_path / "1"), rows(tmp_path / "2")
    assert [row["progress/images"] for row in two] == [100, 200, 300, 400]
    for a, b in zip(one, two, strict=True):
        assert a["penalty/own"] == 0 and b["penalty/own"] == 0.5  # the mean of ranks 0 and 1
        same = [name for name in a if not name.startswith(("time/", "penalty/"))]
        assert {name: b[name] for name in same} == pytest.approx({name: a[name] for name in same}, rel=1e-4, abs=1e-5)
    assert sorted(os.listdir(tmp_path / "1" / "samples")) == sorted(os.listdir(tmp_path / "2" / "samples"))
    assert sorted(os.listdir(tmp_path / "1" / "checkpoints")) == sorted(os.listdir(tmp_path / "2" / "checkpoints"))


def test_a_signal_to_one_rank_stops_both_at_the_same_mark(tmp_path: Path) -> None:
    assert start(tmp_path / "run", 2, "signal") == ["1000 ended"] * 2  # they ask each other at every 1 kimg
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()


def test_what_one_rank_finds_is_said_by_both(tmp_path: Path) -> None:
    first, second = start(tmp_path / "run", 2, "nan")
    assert first == second and "penalty/own is not finite since turn 3" in first


def test_a_full_disk_of_the_first_ends_both(tmp_path: Path) -> None:
    first, second = start(tmp_path / "run", 2, "disk")
    assert first == second and "The checkpoint at 0.2 kimg could not be written (No space left" in first
