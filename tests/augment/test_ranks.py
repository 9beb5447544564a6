"""Two gloo processes, and accumulation in each, equal one process with the joint batch: weights and both p."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.common import max_difference

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GANZOO_CACHE": str(tmp_path / "cache")}
    for devices in (1, 2):
        command = [sys.executable, str(ROOT / "tests" / "augment" / "ranks.py"), str(tmp_path), str(devices)]
        done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr[-3000:]
    states = {path.stem: torch.load(path, weights_only=True) for path in tmp_path.glob("*.pt")}
    one = states["1-1-0"]
    moved = [one[f"parts.{part}.p"].item() for part in (0, 1)]
    assert all(p != 0.5 for p in moved)
    for accumulate in (1, 2):
        first, second = states[f"{accumulate}-2-0"], states[f"{accumulate}-2-1"]
        assert max_difference(first, second) == 0.0
        assert max_difference(one, first) < 1e-5
        assert [first[f"parts.{part}.p"].item() for part in (0, 1)] == pytest.approx(moved, abs=1e-6)
