"""Ctrl-C and SIGTERM: the cycle is completed and saved before the run ends."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING, Any

import lightning.pytorch as L

from ganzoo.callbacks.base import MarkCallback, as_gan, gather, run_directory
from ganzoo.internals import callbacks_of

if TYPE_CHECKING:
    from ganzoo.gan import GAN

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class GracefulStop(MarkCallback):
    """On Ctrl-C or SIGTERM, complete the cycle, save and stop; on a second one, leave at once.

    With several ranks they decide together, at the next multiple of 1 kimg.
    """

    every_kimg = 1.0

    def __init__(self) -> None:
        """The handlers are in place while the model trains, in the main thread only."""
        self.interrupted = False  #: whether the run ended for a signal, and not because it was done
        self._received = 0  # the signal's number
        self._previous: dict[int, Any] = {}
        self._joint, self._sentence = False, b""
        self._module: GAN | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._joint = trainer.world_size > 1
        if self._joint:
            super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Not earlier: Lightning sets its own handlers after ``on_fit_start``, and they would end the run in mid-way.
        # However the run ends, Lightning puts back the handlers that were there before it.
        self.interrupted, self._received = False, 0
        self._module = None if self._joint else as_gan(pl_module)
        self._sentence = self._write_sentence(trainer)
        as_gan(pl_module).stop_requested = False
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._receive) for number in SIGNALS}

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        stop = bool(self._received)
        if self._joint:
            stop = as_gan(pl_module).clock.crossed(self.every_kimg) and any(gather(trainer, stop))
        if stop and not _is_done(trainer):
            self.interrupted = trainer.should_stop = True

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._received:
            for each, previous in self._previous.items():
                signal.signal(each, previous)
            raise SystemExit(128 + number)
        self._received = number
        if self._module is not None:  # several ranks must leave their steps at the same cycle
            self._module.stop_requested = True
        os.write(2, self._sentence)  # print is not safe inside a handler

    def _write_sentence(self, trainer: L.Trainer) -> bytes:
        if not trainer.is_global_zero:
            return b""
        start = "\r\x1b[2K" if sys.stderr.isatty() else ""
        when = f"at the next {self.every_kimg:g} kimg" if self._joint else "after this cycle"
        return (
            f"{start}Saving and stopping {when} (Ctrl-C again: leave at once, unsaved); go on later with: "
            f"ganzoo fit --resume {shlex.quote(str(run_directory(trainer)))}\n"
        ).encode()


def was_interrupted(trainer: L.Trainer) -> bool:
    """Whether a signal ended the run before it was done."""
    return any(isinstance(c, GracefulStop) and c.interrupted for c in callbacks_of(trainer))


def exit_code(trainer: L.Trainer) -> int:
    """128 and the number of the signal that ended the run, as of a process that it ended; else 0."""
    stops = [c for c in callbacks_of(trainer) if isinstance(c, GracefulStop)]
    return next((128 + (c._received or signal.SIGTERM) for c in stops if c.interrupted), 0)


def _is_done(trainer: L.Trainer) -> bool:
    """Whether the run ends here anyway."""
    return trainer.should_stop or 0 <= trainer.max_steps <= trainer.global_step
