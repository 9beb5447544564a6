"""The programme of a GPU runs from end to end, on a CPU with tiny networks, without what a GPU machine may lack."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.speed import gpu
from benchmarks.speed.cases import TINY
from benchmarks.speed.levers import LEVERS

ROOT = Path(__file__).parents[2]

#: Runs a module as the interpreter would, but some packages are missing, and the ceiling, which takes long, is known.
STUB = """#!{python}
import runpy, sys
from importlib import metadata
from importlib.machinery import PathFinder

MISSING = ("jsonargparse", "torch_fidelity", "torch-fidelity", "wandb", "sklearn", "scikit-learn")
find_spec, from_name = PathFinder.find_spec, metadata.Distribution.from_name

def find(name, path=None, target=None):
    return None if name.partition(".")[0] in MISSING else find_spec(name, path, target)

def distribution(name):
    if name in MISSING:
        raise metadata.PackageNotFoundError(name)
    return from_name(name)

PathFinder.find_spec, metadata.Distribution.from_name = find, distribution
import torch
torch.set_num_threads(1)
from benchmarks.speed import limits
from benchmarks.speed.clocks import Clocks
limits.ceiling = lambda device, dtype: Clocks(1e12, 1e12)
assert sys.argv[1] == "-m"
sys.argv[:2] = []
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


@pytest.fixture
def python(tmp_path: Path) -> Path:
    path = tmp_path / "python"
    path.write_text(STUB.format(python=sys.executable))
    path.chmod(0o755)
    return path


def programme(python: Path, file: Path, *options: str) -> list[dict]:
    script = ROOT / "benchmarks" / "speed" / "gpu.sh"
    environment = os.environ | {"PYTHON": str(python), "COMMIT": "abc"}
    command = ["bash", str(script), str(file), "--device", "cpu", "--tiny", "--cycles", "1", "--rounds", "1", *options]
    subprocess.run(command, env=environment, check=True, capture_output=True, text=True, cwd=file.parent)
    record = json.loads(file.read_text())
    assert record["commit"] == "abc"
    return record["rows"]


@pytest.mark.slow
def test_the_whole_programme(python: Path, tmp_path: Path) -> None:
    rows = programme(python, tmp_path / "gpu.json", "--each", "0.01")
    assert [(row["mode"], row["case"]) for row in rows] == [(mode, case) for mode in gpu.MODES for case in TINY]
    gains: set[str] = set()
    for row in rows:
        assert row["precision"] == gpu.MODES[row["mode"]].precision
        assert row["images_per_second"] > 0 < row["index"]
        assert ("gain" in row) == gpu.MODES[row["mode"]].levers
        gains |= row.get("gain", {}).keys()
    assert gains == {*LEVERS, "all"}


def test_what_there_is_no_time_for_is_left_out(python: Path, tmp_path: Path) -> None:
    rows = programme(python, tmp_path / "gpu.json", "dcgan", "--seconds", "0")
    assert rows == [{"case": "dcgan", "mode": mode, "left_out": "no time"} for mode in gpu.MODES]


def test_modes_are_set_for_their_rows_alone() -> None:
    def now() -> tuple[bool, bool, bool]:
        backends = torch.backends
        return backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32, backends.cudnn.benchmark

    before = now()
    with gpu.MODES["bf16, autotuned"].on():
        assert now() == (True, True, True)
    with pytest.raises(ZeroDivisionError), gpu.MODES["fp32"].on():
        assert now() == (False, False, False)
        raise ZeroDivisionError
    assert now() == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        gpu.main(["dcgan-32"])
    assert "torch sees no GPU here" in capsys.readouterr().err
