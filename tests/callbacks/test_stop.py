"""Ctrl-C and SIGTERM: the cycle is completed and saved; a second one leaves at once."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from ganzoo import checkpoint
from ganzoo.callbacks import Checkpoint, GracefulStop, Log
from ganzoo.data import Digits
from ganzoo.parts import Part, Turn
from tests.callbacks.common import At, Dies, die, run, same_state, tiny


class Signal(Part):
    """Sends a signal to this process right after the discriminator's step of a turn, so before the generator's."""

    players = ("discriminator",)

    def __init__(self, number: int, sent: int, times: int = 1) -> None:
        super().__init__()
        self.number, self.sent, self.times = number, sent, times

    def after_step(self, turn: Turn) -> None:
        if turn.number == self.number:
            for _ in range(self.times):
                os.kill(os.getpid(), self.sent)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_between_the_steps_completes_the_cycle_and_saves(
    tmp_path: Path, sent: int, capfd: pytest.CaptureFixture[str]
) -> None:
    stopped = tiny(1.0, parts=[Signal(8, int(sent))])
    stop = GracefulStop()
    run(stopped, tmp_path / "stopped", [stop, Checkpoint(0.25)])
    assert stop.interrupted
    assert (stopped.clock.d_turns, stopped.clock.g_turns, stopped.clock.cycles, stopped.clock.images) == (9, 9, 9, 450)
    sentence = (
        "Saving and stopping after this cycle (Ctrl-C again: leave at once, unsaved); "
        f"go on later with: ganzoo fit --resume {tmp_path / 'stopped'}\n"
    )
    assert capfd.readouterr().err.count(sentence) == 1
    last = tmp_path / "stopped" / "checkpoints" / "last.ckpt"
    assert checkpoint.read(last)["ganzoo"]["clock"]["images"] == 450

    whole, resumed = tiny(1.0), tiny(1.0)
    run(whole, tmp_path / "whole", [])
    run(resumed, tmp_path / "stopped", [GracefulStop(), Checkpoint(0.25)], resume=last)
    assert resumed.clock == whole.clock and same_state(resumed, whole)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_leaves_at_once_and_keeps_the_previous_checkpoint(tmp_path: Path, sent: int, code: int) -> None:
    gan = tiny(1.0, parts=[Signal(8, int(sent), times=2)])
    with pytest.raises(SystemExit) as left:
        run(gan, tmp_path, [GracefulStop(), Checkpoint(0.25)])
    assert left.value.code == code
    assert (gan.clock.d_turns, gan.clock.g_turns) == (8, 8)  # the ninth turn was not completed
    assert checkpoint.read(tmp_path / "checkpoints" / "last.ckpt")["ganzoo"]["clock"]["images"] == 250


def test_handlers_are_there_while_the_model_trains_and_only_then(tmp_path: Path) -> None:
    def handlers() -> list[object]:
        return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    before, during = handlers(), []
    stop = GracefulStop()
    run(tiny(0.2, parts=[At("generator", 1, lambda: during.extend(handlers()))]), tmp_path, [stop])
    assert during == [stop._receive, stop._receive]
    assert handlers() == before
    with pytest.raises(Dies):
        run(tiny(0.2, parts=[At("generator", 1, die)]), tmp_path, [GracefulStop()])
    assert handlers() == before


def test_a_signal_in_the_last_cycle_changes_nothing(tmp_path: Path) -> None:
    """The run was done anyway, so its last row is written."""
    for name, options in (("kimg", {"total_kimg": 0.25}), ("steps", {"total_kimg": None, "max_steps": 5})):
        stop = GracefulStop()
        limits = {k: v for k, v in options.items() if k == "max_steps"}
        gan = tiny(options["total_kimg"], parts=[Signal(4, int(signal.SIGTERM))])
        run(gan, tmp_path / name, [Log(0.1), stop], **limits)
        assert not stop.interrupted and gan.clock.images == 250
        assert (tmp_path / name / "metrics.csv").read_text().splitlines()[-1].startswith("0.25,250,5,")


def test_a_signal_ends_a_step_of_many_cycles(tmp_path: Path) -> None:
    gan = tiny(None, parts=[Signal(8, int(signal.SIGTERM))])
    gan.step_seconds = 60.0
    run(gan, tmp_path, [GracefulStop()], max_steps=100_000)
    assert gan.clock.cycles == 9


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_reaches_loader_processes_too_and_they_stay(number: int) -> None:
    """A terminal sends it to all of them; without their batches the cycle could not be completed."""
    batches = iter(Digits(num_workers=1).train_dataloader())
    next(batches)
    os.kill(batches._workers[0].pid, number)
    for _ in range(5):  # more than are fetched ahead
        next(batches)


def test_training_in_another_thread_needs_no_handlers(tmp_path: Path) -> None:
    gan = tiny(0.2)
    thread = threading.Thread(target=run, args=(gan, tmp_path, [GracefulStop()]))
    thread.start()
    thread.join()
    assert gan.clock.images == 200


def test_several_ranks_stop_together_at_a_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if another of two ranks got the signal before 1 kimg: this one goes on until they ask each other."""
    import ganzoo.callbacks.stop as module

    asked = []

    def other_rank(trainer: object, value: bool) -> list[bool]:
        asked.append((gan.clock.images, value))
        return [value, True]

    class OfTwo(GracefulStop):
        def setup(self, trainer: object, pl_module: object, stage: str) -> None:
            super().setup(trainer, pl_module, stage)  # type: ignore[arg-type]
            gan.add_mark(self.every_kimg)
            self._joint = True

    monkeypatch.setattr(module, "gather", other_rank)
    gan, stop = tiny(3.0, parts=[Signal(8, int(signal.SIGTERM))]), OfTwo()
    run(gan, tmp_path, [stop])
    assert asked == [(1000, True)] and stop.interrupted and gan.clock.images == 1000
