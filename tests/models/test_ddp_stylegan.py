"""StyleGAN with R1 and path length on two devices and in micro-batches equals one process with the joint batch."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from torch import Tensor, load

from tests.common import max_difference
from tests.ddp_stylegan import train, train_growing

ROOT = Path(__file__).resolve().parents[2]
STATISTICS = ("generator.mapping.mean_style", "parts.1.mean")  #: the mean style, and the mean path length


@cache
def grown() -> dict[str, Tensor]:
    """One process that grows over a boundary."""
    return train_growing().state_dict()


@cache
def one() -> dict[str, Tensor]:
    """One process with the whole batch."""
    return train().state_dict()


def test_two_micro_batches() -> None:
    found = train(accumulate=2).state_dict()
    assert max_difference(one(), found) < 1e-5
    assert all(found[name].abs().max() > 0.01 for name in STATISTICS)
    assert max_difference(grown(), train_growing(accumulate=2).state_dict()) < 1e-5


def test_penalties_and_mixing_act() -> None:
    """The comparison would say nothing about what changes nothing."""
    plain = train(mixing=0.0).state_dict()
    assert max_difference(one(), plain) > 1e-3
    assert grown()["generator._extra_state"].tolist() == [1.0, 1.0]
    at_once = train(discriminator_architecture="skip").state_dict()
    assert max(float((value - grown()[key]).abs().max()) for key, value in at_once.items() if "blocks" in key) > 1e-3


@pytest.mark.slow
def test_two_processes(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GANZOO_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, str(ROOT / "tests" / "ddp_stylegan.py"), str(tmp_path)]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    for name, alone in (("two", one()), ("both", one()), ("growing", grown())):
        assert max_difference(ranks[0][name], ranks[1][name]) == 0.0
        assert max_difference(alone, ranks[0][name]) < 1e-5
    cut = [rank["without buffers"] for rank in ranks]
    for name in STATISTICS:
        assert (cut[0][name] - cut[1][name]).abs().max() > 1e-4
