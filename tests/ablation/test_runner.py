"""Processes: how they end, what goes on after a stop, and that none takes the others with it."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import pytest
import torch
from filelock import FileLock

from ganzoo.ablation.plan import Run
from ganzoo.ablation.runner import Outcome, Runner, classify, fit_command, pending, read_outcome
from ganzoo.callbacks.checkpoint import Checkpoint
from ganzoo.errors import TrainingError, UserError
from ganzoo.models import MLPGAN
from tests.common import normal_batches, quiet_trainer
from tests.mutants import kills

FAKE = Path(__file__).with_name("fake.py")


def runs_in(folder: Path, *names: str) -> list[Run]:
    return [Run(name, 0, folder / name / "seed-0") for name in names]


def start(runs: list[Run], hows: Mapping[str, tuple[str, ...]], jobs: int = 2) -> tuple[int, dict[str, Outcome]]:
    """Run the fake in place of trainings; returns the signal and how each run ended, in the order of ending."""
    ended: dict[str, Outcome] = {}

    def command(run: Run) -> list[str]:
        how, value, *more = hows.get(run.variation, ("finish", "8"))
        return [sys.executable, "-S", str(FAKE), str(run.folder), how, value, *more]

    def note(run: Run, outcome: Outcome, seconds: float) -> None:
        assert seconds > 0
        ended[run.variation] = outcome

    runner = Runner(runs, command, jobs=jobs, ended=note)
    runner.poll_seconds = 0.01
    return runner.run(), ended


def sentence_of_a_bad_loss() -> str:
    gan = MLPGAN()
    gan.meter.add("loss/d", torch.tensor(torch.nan), 7)
    with pytest.raises(TrainingError) as error:
        gan.check_finite()
    return str(error.value)


def check_classes(classify: Callable[[int, str], Outcome]) -> None:
    """Each kind of end, with the words of ganzoo itself, and words that only resemble them."""
    cases = {
        "finished": [(0, ""), (0, "error: loss/d is not finite since turn 1 of its player")],
        "diverged": [(1, f"0/20 kimg\nerror: {sentence_of_a_bad_loss()}\n")],
        "stopped": [(130, ""), (143, "Saving and stopping"), (-signal.SIGTERM, ""), (-signal.SIGINT, "")],
        "failed": [
            (1, "error: The memory of cpu is too small for batches of 64 images; 32 fit"),
            (1, "Traceback (most recent call last):\nZeroDivisionError: loss/d is not finite since turn 1"),
            (2, f"error: {sentence_of_a_bad_loss()}"),
            (-signal.SIGKILL, ""),
            (139, ""),
        ],
    }
    for state, ends in cases.items():
        for end in ends:
            assert classify(*end).state == state, end


def test_how_a_process_ended() -> None:
    check_classes(classify)
    assert classify(1, "a\nerror: the disk is full.\nb").sentence == "the disk is full."
    assert classify(1, "Traceback\nZeroDivisionError: a bug\n\n").sentence == "ZeroDivisionError: a bug"
    assert classify(-9, "50 %").sentence == "killed by signal 9"
    assert classify(3, "").sentence == "exit code 3"


def test_wrong_classes_are_found() -> None:
    kills(check_classes, lambda code, text: Outcome("finished" if code == 0 else "diverged", code))
    kills(check_classes, lambda code, text: Outcome("diverged", 1) if "not finite" in text else classify(code, text))
    kills(check_classes, lambda code, text: Outcome("failed", code) if code == 1 else classify(code, text))


def test_weights_that_are_not_finite_count_as_divergence(tmp_path: Path) -> None:
    """The other place where ganzoo refuses to go on says so in words that are known here, too."""

    class Break(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
            next(pl_module.parameters()).data.fill_(torch.inf)

    trainer = quiet_trainer(
        callbacks=[Break(), Checkpoint()], default_root_dir=str(tmp_path), enable_checkpointing=True
    )
    with pytest.raises(TrainingError) as error:
        trainer.fit(MLPGAN(total_kimg=0.008), normal_batches(8, 2))
    assert "generator turn 1" in str(error.value)
    assert classify(1, f"error: {error.value}\n").state == "diverged"


def test_one_that_fails_does_not_end_the_others(tmp_path: Path) -> None:
    runs = runs_in(tmp_path, "a", "b", "c", "d", "e")
    hows = {"a": ("crash", "1"), "b": ("diverge", "2"), "c": ("kill", "3"), "d": ("fail", "4")}
    number, ended = start(runs, hows)
    assert number == 0
    states = {name: outcome.state for name, outcome in ended.items()}
    assert states == {"a": "failed", "b": "diverged", "c": "failed", "d": "failed", "e": "finished"}
    assert {run.variation: read_outcome(run) for run in runs} == ended
    assert ended["a"].sentence == "ZeroDivisionError: a bug"
    assert "ZeroDivisionError" in runs[0].log.read_text()


def test_what_has_ended_is_not_run_again(tmp_path: Path) -> None:
    runs = runs_in(tmp_path, "a", "b", "c")
    start(runs, {"b": ("fail", "1"), "c": ("diverge", "1")})
    assert pending(runs) == []
    assert pending(runs, retry=True) == [runs[1]]
    number, ended = start(pending(runs, retry=True), {})
    assert (number, list(ended)) == (0, ["b"])
    assert read_outcome(runs[1]) == Outcome("finished", 0)
    assert pending(runs, retry=True) == []


def test_only_the_last_attempt_counts(tmp_path: Path) -> None:
    """The log keeps what an earlier attempt said, which must not be taken for the reason of this one."""
    (run,) = runs_in(tmp_path, "a")
    start([run], {"a": ("diverge", "1")})
    _, ended = start([run], {"a": ("fail", "1")})
    assert ended["a"] == Outcome("failed", 1, "the disk is full.")
    assert "not finite" in run.log.read_text()


@pytest.mark.parametrize("jobs", [1, 2])
def test_so_many_at_once_and_each_in_one_thread(jobs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    runs = runs_in(tmp_path, "a", "b", "c", "d")
    start(runs, {run.variation: ("finish", "1", "0.2") for run in runs}, jobs=jobs)
    facts = [(run.folder / "facts").read_text().split() for run in runs]
    assert {fact[0] for fact in facts} == {"1" if jobs > 1 else "5"}
    spans = [(float(begin), float(end)) for _, begin, end in facts]
    at_once = [sum(begin <= moment < end for begin, end in spans) for moment, _ in spans]
    assert max(at_once) == jobs


def test_ctrl_c_has_each_run_save_and_end(tmp_path: Path) -> None:
    runs = runs_in(tmp_path, "a", "b", "c")

    def interrupt() -> None:
        while not all((run.folder / "facts").is_file() for run in runs[:2]):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=interrupt)
    thread.start()
    number, ended = start(runs, {run.variation: ("finish", "1", "60") for run in runs})
    thread.join()
    assert number == signal.SIGINT
    assert signal.getsignal(signal.SIGINT) is before
    assert ended == {"a": Outcome("stopped", 143), "b": Outcome("stopped", 143)}
    assert not runs[2].folder.exists()
    assert pending(runs) == runs
    commands = [fit_command(run, tmp_path / "x.yaml", []) for run in runs]
    assert [command[4] for command in commands] == ["--resume", "--resume", "--config"]


def test_the_command_of_a_run(tmp_path: Path) -> None:
    run = Run("a", 3, tmp_path / "a" / "seed-3")
    begin = ["--import", "mine", "--config", "x.yaml", "--seed", "3", "--run_dir", str(run.folder)]
    assert fit_command(run, Path("x.yaml"), ["mine"])[4:] == begin
    run.folder.mkdir(parents=True)
    (run.folder / "config.yaml").write_text("")  # it was killed before its first checkpoint: begin anew
    assert fit_command(run, Path("x.yaml"), ["mine"])[4:] == begin
    assert not run.folder.exists()
    (run.folder / "checkpoints").mkdir(parents=True)
    for name in ("config.yaml", "checkpoints/last.ckpt"):
        (run.folder / name).write_text("")
    assert fit_command(run, Path("x.yaml"), [])[4:] == ["--resume", str(run.folder)]


def test_a_run_that_an_earlier_ablation_left_alone_is_not_touched(tmp_path: Path) -> None:
    (run,) = runs_in(tmp_path, "a")
    run.folder.mkdir(parents=True)
    with (
        FileLock(run.folder / ".lock").acquire(timeout=0),
        pytest.raises(UserError, match="is still in progress, left by an ablation that was killed"),
    ):
        pending([run])
    assert pending([run]) == [run]


def test_an_error_of_ours_leaves_no_process(tmp_path: Path) -> None:
    runs = runs_in(tmp_path, "a", "b")

    def fail(run: Run, outcome: Outcome, seconds: float) -> None:
        raise OSError("disk full")

    def command(run: Run) -> list[str]:
        seconds = "0" if run.variation == "a" else "60"
        return [sys.executable, "-S", str(FAKE), str(run.folder), "finish", "1", seconds]

    runner = Runner(runs, command, jobs=2, ended=fail)
    begin = time.monotonic()
    with pytest.raises(OSError, match="disk full"):
        runner.run()
    assert time.monotonic() - begin < 30
    assert [child.process.poll() is not None for child in runner.children] == [True]
