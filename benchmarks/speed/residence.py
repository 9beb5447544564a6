"""Batches from images on the device against those of a loader, by turns on the same networks in one process."""

from __future__ import annotations

import math
from contextlib import closing
from functools import partial
from typing import Any

from benchmarks.speed.captured import ratios, recorded, repeats_of
from benchmarks.speed.clocks import silence
from benchmarks.speed.cycles import Cycles, clock_of, drive
from benchmarks.speed.levers import summary
from ganzoo.ablation.timing import Subject
from ganzoo.data.resident import ResidentLoader


def measure(subject: Subject, *, rounds: int = 3, seconds: float = 0.2, end: float = math.inf) -> dict[str, Any]:
    """The time of a mean cycle with a loader over that with the images on the device; or why they are not there.

    Once with turns as they are written, and under ``replayed`` with turns as graphs, where there are any: those leave
    the host little else to do.

    Args:
        subject: A fresh model, on data that is resident.
        rounds: How often each form is timed.
        seconds: Of a reading, about.
        end: By ``time.monotonic``, from which on no further pair is begun.
    """
    silence()
    data = subject.data

    def run(here: Cycles) -> dict[str, Any]:
        if not isinstance(data.train_dataloader(), ResidentLoader):
            return {"why_not": "the images are not on the device"}
        data.on_device = False
        batches: Any = iter(data.train_dataloader())
        with closing(batches) as loader:
            there = Cycles(here.gan, ((batch, 0, 0) for batch in loader))
            clock, repeats = clock_of(here.gan.device), repeats_of(here, seconds)

            def found() -> dict[str, float]:
                one, other = (partial(_spent, cycles, repeats, clock) for cycles in (there, here))
                return summary(ratios(one, other, rounds, end))

            row: dict[str, Any] = found()
            graphs = recorded(here)
            if not isinstance(graphs, str):
                row["replayed"] = found()
            here.gan.graphs = None
        return row

    return drive(subject, run)


def _spent(cycles: Cycles, repeats: int, clock: int) -> float:
    return cycles.seconds(repeats)[clock]
