"""What a run shows while it lasts: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import ProgressBar

from ganzoo.callbacks.base import as_gan
from ganzoo.callbacks.log import Log
from ganzoo.config import Configurable
from ganzoo.errors import UserError
from ganzoo.internals import callbacks_of

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

    from ganzoo.gan import GAN


class Progress(Configurable, ProgressBar):
    """Time, speed, losses and what is left: a bar in a terminal, else a plain line now and then."""

    def __init__(self, refresh_seconds: float = 0.5, line_seconds: float = 10.0) -> None:
        """
        Args:
            refresh_seconds: Shortest time between two states of the bar; each reads the losses from the device.
            line_seconds: Shortest time between two lines where the output is no terminal.
        """
        super().__init__()
        if not (refresh_seconds >= 0 and line_seconds >= 0):
            raise UserError(
                f"The progress has refresh_seconds {refresh_seconds} and line_seconds {line_seconds}; both are 0 or "
                "more."
            )
        self.refresh_seconds, self.line_seconds = refresh_seconds, line_seconds
        self._enabled = True
        self._due = float("inf")
        self._losses: dict[str, float] = {}
        self._speed = Speed()
        self._bar: RichProgress | None = None

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print above the bar."""
        if self._bar is not None:
            self._bar.console.print(*args, markup=False, highlight=False)
        elif self._enabled:
            print(*args, file=sys.stderr, flush=True, **kwargs)

    def aside(self, text: str) -> None:
        """Show what a callback does meanwhile, where the losses are otherwise; without a bar a line now and then."""
        if not self._enabled or time.monotonic() < self._due:
            return
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], text=text, left="")
            self._bar.refresh()
        else:
            print(text, file=sys.stderr, flush=True)
        self._set_due()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self._enabled:
            return
        gan = as_gan(pl_module)
        self._losses, self._speed = {}, Speed()
        self._speed.note(time.monotonic(), gan.clock.images, done(trainer, gan))
        if _is_terminal():
            self._bar = _bar()
            self._bar.add_task("", total=1.0, text="", left="")
            self._bar.start()
        self._show(trainer, gan)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if time.monotonic() >= self._due:
            self._show(trainer, as_gan(pl_module))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._enabled:
            self._show(trainer, as_gan(pl_module))
        self._close()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._close()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._close()

    def _show(self, trainer: L.Trainer, gan: GAN) -> None:
        share = done(trainer, gan)
        self._speed.note(time.monotonic(), gan.clock.images, share)
        self._losses |= _last_means(trainer) | gan.meter.means()  # the meter is empty right after a row of the log
        facts = describe(trainer, gan, self._speed, self._losses)
        seconds = self._speed.seconds_left()
        left = [] if seconds is None else [f"{duration(seconds)} left"]
        if self._bar is not None:
            text = fitting(facts, self._bar.console.width - 30)
            self._bar.update(self._bar.task_ids[0], completed=share or 0.0, text=text, left="".join(left))
            self._bar.refresh()
        else:
            percent = [] if share is None else [f"{share:.0%}"]
            print(" | ".join([*facts, *percent, *left]), file=sys.stderr, flush=True)
        self._set_due()

    def _set_due(self) -> None:
        # From here, not from the last time it was due: a slow terminal must not slow the training down.
        self._due = time.monotonic() + (self.refresh_seconds if self._bar is not None else self.line_seconds)

    def _close(self) -> None:
        self._due = float("inf")
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class Speed:
    """Images per second and time left, from the last minute."""

    def __init__(self, window_seconds: float = 60.0) -> None:
        """
        Args:
            window_seconds: How far back to look.
        """
        self.window_seconds = window_seconds
        self._notes: deque[tuple[float, int, float | None]] = deque()

    def note(self, seconds: float, images: int, share: float | None) -> None:
        """Note how much is done at a time: images, and the share of the whole run if it is known."""
        self._notes.append((seconds, images, share))
        while len(self._notes) > 2 and seconds - self._notes[1][0] >= self.window_seconds:
            self._notes.popleft()

    def images_per_second(self) -> float | None:
        """None before there is anything to measure."""
        (start, before, _), (end, now, _) = self._notes[0], self._notes[-1]
        return (now - before) / (end - start) if end > start and now > before else None

    def seconds_left(self) -> float | None:
        """None as long as it is unknown."""
        (start, _, before), (end, _, now) = self._notes[0], self._notes[-1]
        if before is None or now is None or not (end > start and now > before):
            return None
        return max(0.0, (1 - now) * (end - start) / (now - before))


def done(trainer: L.Trainer, gan: GAN) -> float | None:
    """The share of the run that is done, by whichever of its limits is nearer; None without one."""
    shares = []
    if gan.total_kimg:
        shares.append(gan.clock.kimg / gan.total_kimg)
    if trainer.max_steps > 0:
        shares.append(gan.clock.g_turns / trainer.max_steps)
    return min(1.0, max(shares)) if shares else None


def describe(trainer: L.Trainer, gan: GAN, speed: Speed, losses: dict[str, float]) -> list[str]:
    """Time, speed and losses, the most important first."""
    total = f"/{gan.total_kimg:g}" if gan.total_kimg else ""
    steps = [f"step {gan.clock.g_turns}/{trainer.max_steps}"] if trainer.max_steps > 0 else []
    rate = speed.images_per_second()
    images_per_second = "- images/s" if rate is None else f"{rate:.{0 if rate >= 10 else 1}f} images/s"
    shown = [f"{label} {losses[name]:.3f}" for label, name in (("D", "loss/d"), ("G", "loss/g")) if name in losses]
    facts = [f"{name.rpartition('/')[2]} {value:.3g}" for part in gan.tricks for name, value in part.facts().items()]
    return [f"{gan.clock.kimg:.1f}{total} kimg", *steps, *facts, images_per_second, *shown]


def fitting(facts: list[str], width: int) -> str:
    """As many of the first facts as fit into a line, at least one."""
    while len(facts) > 1 and len(" | ".join(facts)) > width:
        facts = facts[:-1]
    return " | ".join(facts)


def progress_of(trainer: L.Trainer) -> Progress | None:
    """The progress of a run, if it shows one."""
    found = trainer.progress_bar_callback
    return found if isinstance(found, Progress) else None


def _last_means(trainer: L.Trainer) -> dict[str, float]:
    logs = [callback for callback in callbacks_of(trainer) if isinstance(callback, Log)]
    return logs[0].means if logs else {}


def duration(seconds: float) -> str:
    """``0:07``, ``12:34`` or ``3:04:05``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _is_terminal() -> bool:
    return sys.stderr.isatty()


def _bar() -> RichProgress:
    """A bar of one line, drawn only when it is told to: a thread of its own would compete with the training."""
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn
    from rich.progress import Progress as RichProgress

    return RichProgress(
        TextColumn("{task.fields[text]}", markup=False),
        BarColumn(bar_width=None),
        TaskProgressColumn(),
        TextColumn("{task.fields[left]}", markup=False),
        console=Console(stderr=True),
        auto_refresh=False,
        expand=True,
    )
