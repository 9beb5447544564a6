"""Scalars over time: a table in the run directory, and the same rows for every logger."""

from __future__ import annotations

import csv
import io
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as L

from ganzoo import files
from ganzoo.callbacks.base import as_gan, check_finite, gather, run_directory
from ganzoo.callbacks.overtime import RememberingCallback
from ganzoo.callbacks.stop import was_interrupted

if TYPE_CHECKING:
    from ganzoo.gan import GAN

Row = dict[str, float | int]


class Log(RememberingCallback):
    """Means of all losses and penalties at every mark: metrics.csv in the run directory, and all loggers.

    After a kill and a resume the table equals that of a run that was never stopped, apart from the columns ``time/``.
    """

    def __init__(self, every_kimg: float = 1.0) -> None:
        """
        Args:
            every_kimg: Interval of the rows in thousands of images; 0: only one row, at the end.
        """
        self.every_kimg = every_kimg
        self.means: dict[str, float] = {}  #: losses and the like in the last row
        self._table: Table | None = None
        self._seconds, self._since, self._since_images = 0.0, 0.0, 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        assert self._at_mark is not None
        self._since, self._since_images = time.monotonic(), as_gan(pl_module).clock.images
        if trainer.is_global_zero:
            with files.explained("metrics.csv"):
                self._table = Table(run_directory(trainer) / "metrics.csv", self._at_mark)
            self._seconds = self._table.seconds

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        gan = as_gan(pl_module)
        if gan.clock.crossed(self.every_kimg):
            self._write(trainer, gan)
            gan.meter.clear()
            self._at_mark = gan.clock.images

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # This row is of a part of an interval. The meter keeps its scalars: a resume that moves the end drops the row
        # and goes on as if the run had not ended here.
        if not was_interrupted(trainer):
            self._write(trainer, as_gan(pl_module))

    def _write(self, trainer: L.Trainer, gan: GAN) -> None:
        check_finite(trainer, gan)
        ranks = gather(trainer, gan.meter.means() | gan.meter.take_passing())
        means = {name: math.fsum(rank[name] for rank in ranks) / len(ranks) for name in ranks[0]}
        if not means or self._table is None:  # nothing happened since the last row, or another rank writes
            return
        self.means = means
        now, images = time.monotonic(), gan.clock.images
        seconds = now - self._since
        row: Row = {
            "progress/kimg": gan.clock.kimg,
            "progress/images": images,
            "progress/g_turns": gan.clock.g_turns,
            **{name: means[name] for name in sorted(means)},
            **settings(trainer, gan),
            "time/seconds": round(self._seconds + seconds, 3),
            "time/images_per_second": round((images - self._since_images) / max(seconds, 1e-9), 3),
        }
        self._seconds += seconds
        self._since, self._since_images = now, images
        with files.explained("metrics.csv"):
            self._table.append(row)
        for logger in trainer.loggers:
            logger.log_metrics(row, step=images)


def settings(trainer: L.Trainer, gan: GAN) -> Row:
    """Learning rates of the last turns, what the parts say, and how much of the old average the EMA kept at last."""
    row: Row = {
        "lr/g": trainer.optimizers[0].param_groups[0]["lr"],
        "lr/d": trainer.optimizers[1].param_groups[0]["lr"],
    }
    for part in gan.tricks:
        row |= part.facts()
    clock = gan.clock
    if gan.ema is not None and clock.images > clock.previous:
        row["ema/decay"] = gan.ema.decay(clock.images - clock.previous, clock.images)
    return row


class Table:
    """A CSV file that grows by rows and, rarely, by columns."""

    def __init__(self, path: Path, last_images: int) -> None:
        """Open the table at ``path`` without its rows beyond ``last_images``, and without one that was cut off."""
        self.path, self.names, self.seconds = path, list[str](), 0.0
        rows = [row for row in self._read() if int(row["progress/images"]) <= last_images]
        # Of two rows at the same images the second tells what was measured at an end, on a mark of the log alone.
        rows = list({row["progress/images"]: row for row in reversed(rows)}.values())[::-1]
        self.names = [name for name in self.names if any(row[name] for row in rows)]
        self.seconds = float(rows[-1]["time/seconds"]) if rows else 0.0  #: the last row's time
        self._rewrite(rows)

    def append(self, row: Row) -> None:
        """Write one row at once; new names become new columns at the end, which older rows leave empty."""
        new = [name for name in row if name not in self.names]
        if new:
            rows = self._read()
            self.names += new
            self._rewrite(rows)
        with open(self.path, "a", newline="") as file:
            file.write(_line([repr(row[name]) if name in row else "" for name in self.names]))

    def _read(self) -> list[dict[str, str]]:
        """All whole rows, after the header has been noted."""
        if not self.path.is_file():
            return []
        lines = self.path.read_text().splitlines(keepends=True)
        table = list(csv.reader(line for line in lines if line.endswith("\n")))
        self.names = table[0] if table else []
        return [dict(zip(self.names, cells, strict=True)) for cells in table[1:] if len(cells) == len(self.names)]

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        with files.atomic(self.path, "w", newline="") as file:
            if self.names:
                file.write(_line(self.names))
            for row in rows:
                file.write(_line([row.get(name, "") for name in self.names]))


def _line(cells: list[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()
