"""Statistics over the joint batch: two gloo processes learn what one does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.common import max_difference

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[str, dict]:
    folder = tmp_path_factory.mktemp("ranks")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GANZOO_CACHE": str(folder / "cache")}
    for devices in (1, 2):
        command = [sys.executable, str(ROOT / "tests" / "penalties" / "two_ranks.py"), str(folder), str(devices)]
        done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr[-3000:]
    return {path.stem: torch.load(path, weights_only=True) for path in folder.glob("*.pt")}


@pytest.mark.parametrize("name", ["joint", "others"])
def test_two_processes_equal_one(results, name) -> None:
    """Feature matching and LeCam have joint means; consistency has keyed numbers; the others see weights alone."""
    one, first, second = (results[f"{name}-{rank}"] for rank in ("1-0", "2-0", "2-1"))
    assert max_difference(first, second) == 0.0
    assert max_difference(one, first) < 1e-5


def test_the_comparison_fails_for_means_per_rank(results) -> None:
    """With each process's own means in feature matching, or anchors of LeCam that move too late."""
    one, first = results["means_per_rank-1-0"], results["means_per_rank-2-0"]
    assert max_difference(one, first) > 1e-4
    first, second = results["anchors_per_rank-2-0"], results["anchors_per_rank-2-1"]
    assert max_difference(first, second) > 1e-4
