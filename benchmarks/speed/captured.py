"""Turns as CUDA graphs against turns as they are written, by turns on the same networks in one process."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from benchmarks.speed.clocks import silence
from benchmarks.speed.cycles import Cycles, clock_of, drive
from benchmarks.speed.levers import summary
from ganzoo.ablation.timing import Subject
from ganzoo.graphs import RECORDERS, WARM_UP, Graphs, reason


def measure(subject: Subject, *, rounds: int = 3, seconds: float = 0.2, end: float = math.inf) -> dict[str, Any]:
    """The time of a mean cycle without graphs over that with them; or why there are none.

    Args:
        subject: A fresh model.
        rounds: How often each form is timed.
        seconds: Of a reading, about.
        end: By ``time.monotonic``, from which on no further pair is begun.
    """
    silence()

    def run(cycles: Cycles) -> dict[str, Any]:
        gan, graphs = cycles.gan, recorded(cycles)
        if isinstance(graphs, str):
            return {"why_not": graphs}

        def spent(form: Graphs | None) -> float:
            gan.graphs = form
            return cycles.seconds(repeats)[clock_of(gan.device)]

        repeats = repeats_of(cycles, seconds)
        found = ratios(lambda: spent(None), lambda: spent(graphs), rounds, end)
        gan.graphs = None
        return {**summary(found), "graphs": graphs.num_graphs, "replayed": graphs.num_replayed / graphs.num_turns}

    return drive(subject, run)


def recorded(cycles: Cycles) -> Graphs | str:
    """The graphs of all kinds of turns, which the model replays from here on; or why there are none."""
    gan = cycles.gan
    if (why_not := reason(gan, gan._is_plain)) is not None:
        return why_not
    gan.graphs = graphs = Graphs(gan, RECORDERS[gan.device.type](gan.device))
    for number, _ in cycles.kinds:
        cycles.run(number, WARM_UP + 1)
    return graphs if gan.graphs is not None else str(graphs.stopped_for)


def repeats_of(cycles: Cycles, seconds: float) -> int:
    """How often each kind of cycle fits into a reading of so many seconds."""
    return max(1, round(seconds / len(cycles.kinds) / cycles.seconds().wall))


def ratios(one: Callable[[], float], other: Callable[[], float], rounds: int, end: float = math.inf) -> list[float]:
    """What one form takes over what the other does, in pairs; what drifts meets both alike. At least one pair."""
    found: list[float] = []
    while not found or (len(found) < rounds and time.monotonic() < end):
        if len(found) % 2:
            second = other()
            found.append(one() / second)
        else:
            first = one()
            found.append(first / other())
    return found
