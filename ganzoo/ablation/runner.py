"""Runs in processes of their own, some at once: stopped ones are gone on with, and one that fails ends no other."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Literal

from filelock import FileLock, Timeout

from ganzoo import files
from ganzoo.ablation.plan import Run
from ganzoo.errors import UserError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

#: What ``ganzoo fit`` says, with exit code 1, when a scalar of a turn or a weight is NaN or infinite.
_NOT_FINITE = re.compile(r"^error: \S+ is not finite (since turn|at) ", re.MULTILINE)

State = Literal["finished", "diverged", "failed", "stopped"]


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    *finished*: exit code 0. *diverged*: ended since a scalar of its turns or a weight was not finite. *stopped*: by
    Ctrl-C or SIGTERM, to be gone on with. *failed*: everything else, such as no memory, no disk or a bug.
    """

    state: State
    code: int  #: exit code; minus the number of the signal that killed the process
    sentence: str = ""  #: the last thing that it said, if it did not finish


def classify(code: int, text: str) -> Outcome:
    """How a process of ``ganzoo fit`` ended.

    Args:
        code: Its exit code, as of :class:`subprocess.Popen`.
        text: What it wrote to the terminal.
    """
    if code == 0:
        return Outcome("finished", code)
    if code in (128 + signal.SIGINT, 128 + signal.SIGTERM, -signal.SIGINT, -signal.SIGTERM):
        return Outcome("stopped", code)
    if code == 1 and _NOT_FINITE.search(text):
        return Outcome("diverged", code, _last_line(text))
    killed = f"killed by signal {-code}" if code < 0 else ""
    return Outcome("failed", code, killed or _last_line(text) or f"exit code {code}")


def read_outcome(run: Run) -> Outcome | None:
    """How a run ended, by its record; none while it has not."""
    return Outcome(**json.loads(run.record.read_text(encoding="utf-8"))) if run.record.is_file() else None


def pending(runs: Sequence[Run], *, retry: bool = False) -> list[Run]:
    """The runs that have not ended.

    Args:
        runs: All of them.
        retry: Whether to have those that failed run again. Diverged ones would diverge again.

    Raises:
        UserError: One of them is in progress, as an earlier ablation was killed and left it alone.
    """
    todo = []
    for run in runs:
        outcome = read_outcome(run)
        if outcome is None or (retry and outcome.state == "failed"):
            _check_idle(run)
            todo.append(run)
    return todo


def fit_command(run: Run, config: Path, imports: Sequence[str]) -> list[str]:
    """The command that begins a run, or goes on with what was saved of it."""
    command = [sys.executable, "-m", "ganzoo", "fit"]
    for name in imports:
        command += ["--import", name]
    if (run.folder / "checkpoints" / "last.ckpt").is_file() and (run.folder / "config.yaml").is_file():
        return [*command, "--resume", str(run.folder)]
    if run.folder.is_dir():
        shutil.rmtree(run.folder)  # it was stopped before its first checkpoint
    return [*command, "--config", str(config), "--seed", str(run.seed), "--run_dir", str(run.folder)]


@dataclass
class _Child:
    run: Run
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    offset: int  #: where this attempt's text begins in the log
    start: float


class Runner:
    """Starts processes, ``jobs`` at a time, until all runs have ended or a signal came."""

    poll_seconds = 0.1

    def __init__(
        self,
        runs: Sequence[Run],
        command: Callable[[Run], list[str]],
        *,
        jobs: int,
        ended: Callable[[Run, Outcome, float], None],
    ) -> None:
        """
        Args:
            runs: What to run, in order.
            command: The command line of a run.
            jobs: How many run at once; with more than one, each computes in one thread.
            ended: Called after each run with how it ended and its seconds.
        """
        self.todo, self.command, self.jobs, self.ended = list(runs), command, jobs, ended
        self.children: list[_Child] = []
        self._received = 0  # the signal's number
        self._num_received = self._num_passed_on = 0

    def run(self) -> int:
        """Run everything; returns 0, or the number of the signal that stopped it when all processes have ended."""
        with self._handlers():
            try:
                while self.children or (self.todo and not self._received):
                    while self.todo and not self._received and len(self.children) < self.jobs:
                        self._start(self.todo.pop(0))
                    self._pass_signals_on()
                    self._collect()
                    time.sleep(self.poll_seconds)
            finally:  # only after an error are there any
                for child in self.children:
                    child.process.terminate()
                for child in self.children:
                    child.process.wait()
                    child.log.close()
        return self._received

    def _start(self, run: Run) -> None:
        run.record.unlink(missing_ok=True)
        run.folder.parent.mkdir(parents=True, exist_ok=True)
        command = self.command(run)
        environment = dict(os.environ)
        if self.jobs > 1:
            environment |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        log = open(run.log, "ab")  # noqa: SIM115  closed when the process has ended
        offset = log.tell()
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches this process alone, which passes it on
        )
        self.children.append(_Child(run, process, log, offset, time.monotonic()))

    def _collect(self) -> None:
        """Note the processes that have ended."""
        for child in [child for child in self.children if child.process.poll() is not None]:
            self.children.remove(child)
            child.log.close()
            with open(child.run.log, "rb") as log:
                log.seek(child.offset)
                outcome = classify(child.process.returncode, log.read().decode(errors="replace"))
            if outcome.state != "stopped":
                files.write_json(child.run.record, asdict(outcome))
            self.ended(child.run, outcome, time.monotonic() - child.start)

    def _pass_signals_on(self) -> None:
        """A first signal has each run save and end, a second one end at once, a third one kills it."""
        if self._num_passed_on == self._num_received:
            return
        self._num_passed_on = self._num_received
        for child in self.children:
            if self._num_received > 2:
                child.process.kill()
            else:
                child.process.terminate()

    @contextmanager
    def _handlers(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {number: signal.signal(number, self._receive) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received = number
        self._num_received += 1


def _check_idle(run: Run) -> None:
    if run.folder.is_dir():
        try:
            with FileLock(run.folder / ".lock").acquire(timeout=0):
                pass
        except Timeout as error:
            raise UserError(
                f"The run {run.folder} is still in progress, left by an ablation that was killed: wait for it, or "
                "stop it."
            ) from error


def _last_line(text: str) -> str:
    """What a process said last: its error, else its last line."""
    lines = [line.rpartition("\r")[2].strip() for line in text.splitlines()]
    errors = [line for line in lines if line.startswith("error: ")]
    return next((line for line in reversed(errors or lines) if line), "").removeprefix("error: ")
