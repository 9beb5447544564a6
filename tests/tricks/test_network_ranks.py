"""Two gloo processes: virtual batch and spectral normalization equal one process, minibatch statistics are per rank."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.common import max_difference

ROOT = Path(__file__).resolve().parents[2]
ONE, TWO, TWO_MICRO_BATCHES = (1, 1), (2, 1), (1, 2)


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[str, dict]:
    folder = tmp_path_factory.mktemp("ranks")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GANZOO_CACHE": str(folder / "cache")}
    for devices, accumulate in (ONE, TWO, TWO_MICRO_BATCHES):
        script = str(ROOT / "tests" / "tricks" / "network_ranks.py")
        command = [sys.executable, script, str(folder), str(devices), str(accumulate)]
        done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr[-3000:]
    return {path.stem: torch.load(path, weights_only=True) for path in folder.glob("*.pt")}


def difference(results, name: str, a: tuple[int, int], b: tuple[int, int]) -> float:
    return max_difference(*(results[f"{name}-{devices}-{accumulate}-0"] for devices, accumulate in (a, b)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deviation", "discrimination", "virtual", "spectral"])
def test_both_ranks_have_the_same_model(results, name) -> None:
    assert max_difference(results[f"{name}-2-1-0"], results[f"{name}-2-1-1"]) == 0.0


@pytest.mark.slow
@pytest.mark.parametrize(("name", "other"), [("virtual", TWO), ("virtual", TWO_MICRO_BATCHES), ("spectral", TWO)])
def test_one_joint_batch_or_two_halves(results, name, other) -> None:
    """The discriminator's reference is of the first rank's first micro-batch: the first rows of the joint batch.

    Each pass is a step of the power iteration, so that two micro-batches make twice as many.
    """
    assert difference(results, name, ONE, other) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deviation", "discrimination"])
def test_minibatch_statistics_are_of_each_rank_as_of_each_micro_batch(results, name) -> None:
    assert difference(results, name, TWO, TWO_MICRO_BATCHES) < 1e-5
    assert difference(results, name, ONE, TWO) > 1e-4
