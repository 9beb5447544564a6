"""The programme of a GPU runs from end to end, on a CPU with tiny networks, without what a GPU machine may lack."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.speed import cases, cycles, gpu, residence
from benchmarks.speed.cases import TINY
from benchmarks.speed.clocks import Clocks
from benchmarks.speed.levers import LEVERS
from ganzoo import graphs
from ganzoo.ablation.timing import Subject
from ganzoo.data import Batch
from ganzoo.data.loader import Loader
from ganzoo.data.resident import ResidentLoader
from tests.recorder import Recorder

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
        assert "why_not" in row["graphs"]
        assert ("gain" in row) == ("resident" in row) == gpu.MODES[row["mode"]].levers
        gains |= {*row.get("gain", {}), *row.get("no_gain", {})}
    assert gains == {*LEVERS, "all"}


def test_what_there_is_no_time_for_is_left_out(python: Path, tmp_path: Path) -> None:
    rows = programme(python, tmp_path / "gpu.json", "dcgan", "--seconds", "0")
    assert rows == [{"case": "dcgan", "mode": mode, "left_out": {"cycles": "no time"}} for mode in gpu.MODES]


class Stages:
    """Stands for what is measured: takes so many seconds of a clock, or fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float = 10.0) -> None:
        self.now, self.errors, self.begun, self.ends = 0.0, {}, [], {}
        monkeypatch.setattr("time.monotonic", lambda: self.now)

        def stand_in(name: str, found: dict) -> Callable[..., dict]:
            def measured(subject: Subject, *, end: float, **options: object) -> dict:
                self.begun.append(name)
                self.ends[name] = end - self.now
                self.now += seconds
                if name in self.errors:
                    raise self.errors[name]
                return found

            return measured

        monkeypatch.setattr(gpu, "measure", stand_in("cycles", {"index": 1.0}))
        monkeypatch.setattr(gpu.captured, "measure", stand_in("graphs", {"median": 2.0}))
        monkeypatch.setattr(gpu.residence, "measure", stand_in("resident", {"median": 3.0}))
        found = {"index": 7.0, "gain": {"all": 4.0}, "all": ["folds"], "no_gain": {"twice": "no time"}}
        monkeypatch.setattr(gpu.levers, "measure", stand_in("levers", found))

    def rows(self, until: float) -> list[dict]:
        options = Namespace(device="cpu", rounds=1, cycles=1, each=5.0)
        return list(gpu.programme({"dcgan": TINY["dcgan"]}, options, until=until))


WHOLE = {"case": "dcgan", "mode": "bf16", "index": 1.0, "graphs": {"median": 2.0}, "resident": {"median": 3.0}}
WHOLE |= {"gain": {"all": 4.0}, "all": ["folds"], "no_gain": {"twice": "no time"}}


@pytest.mark.parametrize(
    ("stage", "error", "reason", "lost"),
    [
        ("levers", torch.OutOfMemoryError("CUDA out of memory"), "no memory", {"gain", "all", "no_gain"}),
        ("graphs", torch.OutOfMemoryError("CUDA out of memory"), "no memory", {"graphs"}),
        ("resident", RuntimeError("one kernel\nand its trace"), "RuntimeError: one kernel", {"resident"}),
        ("levers", AssertionError(), "AssertionError", {"gain", "all", "no_gain"}),
    ],
)
def test_a_stage_that_fails_costs_what_it_would_have_measured(
    stage: str, error: Exception, reason: str, lost: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = Stages(monkeypatch)
    stages.errors[stage] = error
    rows = stages.rows(until=1e9)
    assert rows[0] == {key: value for key, value in WHOLE.items() if key not in lost} | {"left_out": {stage: reason}}
    assert [row["mode"] for row in rows] == list(gpu.MODES)


def test_a_case_that_does_not_train_is_left_out_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    stages = Stages(monkeypatch)
    stages.errors["cycles"] = torch.OutOfMemoryError()
    expected = [{"case": "dcgan", "mode": mode, "left_out": {"cycles": "no memory"}} for mode in gpu.MODES]
    assert stages.rows(until=1e9) == expected
    assert stages.begun == ["cycles"] * len(gpu.MODES)


def test_nothing_is_begun_when_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first row takes 40 s, the second as much, each of the others 20 s."""
    assert Stages(monkeypatch).rows(until=1e9)[0] == WHOLE
    for until in range(0, 125, 5):
        stages = Stages(monkeypatch)
        rows = stages.rows(until)
        assert stages.now < until + 10.0
        done = [name for row in rows for name in ("index", "graphs", "resident", "gain") if name in row]
        left = [name for row in rows for name in row.get("left_out", {})]
        assert len(done) == len(stages.begun) == min(12, -(-until // 10))
        assert all(reason == "no time" for row in rows for reason in row.get("left_out", {}).values())
        assert (len(left) > 0) == (until <= 110)


def test_levers_of_a_case_have_an_end_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    stages = Stages(monkeypatch)
    stages.rows(until=1e9)
    assert stages.ends["levers"] == gpu.MOST * 5.0
    assert stages.ends["graphs"] > 1e8
    stages.rows(until=stages.now + 35)
    assert stages.ends["levers"] == 5


def test_cycles_of_a_programme_are_on_images_of_the_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """uint8, looked up there, with labels; scaled to [-1, 1] in the turn."""
    monkeypatch.setenv("GANZOO_CACHE", str(tmp_path))
    monkeypatch.setattr(cases, "IMAGE_BYTES", 2**16)
    monkeypatch.setattr(cycles, "ceiling", lambda device, dtype: Clocks(1e12, 1e12))
    taken = []
    look_up = ResidentLoader.__iter__
    monkeypatch.setattr(ResidentLoader, "__iter__", lambda self: (taken.append(b) or b for b in look_up(self)))
    case = replace(TINY["dcgan"], classes=3)
    subject = case.subject("cpu", resident=True)
    cycles.measure(subject, rounds=1, cycles=1)
    assert len(taken) > 2
    for batch in taken:
        assert (batch.data.dtype, batch.data.shape) == (torch.uint8, (case.batch, *case.shape))
        assert 0 <= batch.labels.min() <= batch.labels.max() < 3
    real, labels = subject.data.prepare(taken[0], torch.device("cpu"))
    assert real.min() < -0.9 and real.max() > 0.9 and real.dtype == torch.float32
    assert labels.dtype == torch.int64


def test_both_sources_of_batches_are_timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GANZOO_CACHE", str(tmp_path))
    monkeypatch.setattr(cases, "IMAGE_BYTES", 2**16)
    monkeypatch.setitem(graphs.RECORDERS, "cpu", Recorder)
    clock, takes = [0.0], {ResidentLoader: 1.0, Loader: 1.5}
    monkeypatch.setattr(cycles, "now", lambda: Clocks(clock[0], clock[0]))
    for kind, ms in takes.items():

        def slowly(self: object, given=kind.__iter__, ms: float = ms) -> Iterator[Batch]:
            for batch in given(self):
                clock[0] += ms
                yield batch

        monkeypatch.setattr(kind, "__iter__", slowly)
    found = residence.measure(TINY["dcgan"].subject("cpu", resident=True), rounds=3, seconds=0.001)
    assert found == {"median": 1.5, "least": 1.5, "most": 1.5} | {
        "replayed": {"median": 1.5, "least": 1.5, "most": 1.5}
    }
    assert residence.measure(TINY["dcgan"].subject("cpu")) == {"why_not": "the images are not on the device"}


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
