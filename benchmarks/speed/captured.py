"""Turns as CUDA graphs against turns as they are written, by turns on the same networks in one process."""

from __future__ import annotations

from typing import Any

from benchmarks.speed.clocks import silence
from benchmarks.speed.cycles import Cycles, clock_of, drive
from benchmarks.speed.levers import summary
from ganzoo.ablation.timing import Subject
from ganzoo.graphs import RECORDERS, WARM_UP, Graphs, reason


def measure(subject: Subject, *, rounds: int = 3, seconds: float = 0.2) -> dict[str, Any]:
    """The time of a mean cycle without graphs over that with them; or why there are none.

    Args:
        subject: A fresh model.
        rounds: How often each form is timed.
        seconds: Of a reading, about.
    """
    silence()

    def run(cycles: Cycles) -> dict[str, Any]:
        gan, clock = cycles.gan, clock_of(cycles.gan.device)
        if (why_not := reason(gan, gan._is_plain)) is not None:
            return {"why_not": why_not}
        gan.graphs = graphs = Graphs(gan, RECORDERS[gan.device.type](gan.device))
        for number, _ in cycles.kinds:
            cycles.run(number, WARM_UP + 1)
        if gan.graphs is None:
            return {"why_not": graphs.stopped_for}
        repeats = max(1, round(seconds / len(cycles.kinds) / cycles.seconds().wall))
        ratios: list[float] = []
        for k in range(rounds):
            spent = {}
            for form in (graphs, None) if k % 2 else (None, graphs):
                gan.graphs = form
                spent[form] = cycles.seconds(repeats)[clock]
            ratios.append(spent[None] / spent[graphs])
        gan.graphs = None
        return {**summary(ratios), "graphs": graphs.num_graphs, "replayed": graphs.num_replayed / graphs.num_turns}

    return drive(subject, run)
