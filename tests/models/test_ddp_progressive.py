"""Two gloo processes that grow over boundaries, where batches change their size, equal one process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.common import max_difference
from tests.models.ddp_progressive import grow

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("ddp_progressive.py")


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[str, dict]:
    folder = tmp_path_factory.mktemp("ddp")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GANZOO_CACHE": str(folder / "cache")}
    for devices in (1, 2):
        command = [sys.executable, str(SCRIPT), str(folder), str(devices)]
        done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr[-3000:]
    return {path.stem: torch.load(path, weights_only=True) for path in folder.glob("*.pt")}


@pytest.mark.parametrize("name", ["plain", "accumulated"])
def test_two_processes_equal_one(results, name: str) -> None:
    one, first, second = (results[f"{name}-{which}"] for which in ("1-0", "2-0", "2-1"))
    # 2 batches of 24, 2 of 16 while 8x8 fades in, 3 of 16, then 4 of 8 while 16x16 does
    images = 2 * 24 + 5 * 16 + 4 * 8
    for found in (one, first, second):
        assert (found["images"], found["drawn"], found["level"]) == (images, images, 2)
    assert max_difference(first["state"], second["state"]) == 0.0
    assert max_difference(one["state"], first["state"]) < 1e-5


def test_what_is_averaged_grows(results) -> None:
    """The parameters of the levels in use; while one fades in, of the port below it, too."""
    network = grow(1).discriminator

    def size(*modules) -> int:
        return sum(p.numel() for module in modules for p in module.parameters())

    b, p, always = network.blocks, network.ports, size(network.head)
    turns = [size(b[0], p[0])] * 2 + [size(b[0], p[0], b[1], p[1])] * 2 + [size(b[0], b[1], p[1])] * 3
    turns += [size(b[0], b[1], p[1], b[2], p[2])] * 4
    assert results["plain-2-0"]["reduced"] == results["plain-2-1"]["reduced"] == [always + n for n in turns]


def test_the_comparison_fails_when_nothing_is_averaged(results) -> None:
    assert max_difference(results["apart-1-0"]["state"], results["apart-2-0"]["state"]) > 1e-3
    assert max_difference(results["apart-2-0"]["state"], results["apart-2-1"]["state"]) > 1e-3
