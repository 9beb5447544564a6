"""What is said of a start: medians over pairs, and the stages between the marks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from benchmarks.speed import startup
from benchmarks.speed.startup import Marks
from tests.mutants import kills


def fit(scale: float) -> Marks:
    """CPU and wall time from the start, of a process that is so many times slower than another one."""
    marks = {"Python": (0.125, 0.25), "import torch": (2.0, 2.5), "first cycle begins": (5.0, 8.0)}
    marks["first cycle done"] = (7.0, 9.0)
    return {name: (scale * cpu, scale * wall) for name, (cpu, wall) in marks.items()}


#: The plain import, and the fit; the second pair met a busy machine.
PAIRS = [((4.0, 5.0), fit(1.0)), ((20.0, 40.0), fit(5.0)), ((3.5, 5.0), fit(1.0))]


def check(summary: Callable[[Sequence[tuple[tuple[float, float], Marks]]], dict[str, Any]]) -> None:
    """Of CPU time the fit's first cycle begins after 5, 25 and 5 s, the import ends after 4, 20 and 3.5 s."""
    found = summary(PAIRS)
    assert (found["num_pairs"], found["aim_s"]) == (3, 2.0)
    assert (found["cpu_import_s"], found["wall_import_s"]) == (4.0, 5.0)
    assert (found["cpu_first_cycle_s"], found["wall_first_cycle_s"]) == (5.0, 8.0)
    assert (found["cpu_added_s"], found["wall_added_s"]) == (1.5, 3.0)  # of 1, 5 and 1.5; of 3, 0 and 3
    assert (found["cpu_ratio"], found["wall_ratio"]) == (1.25, 1.6)
    assert found["stages"] == {
        "Python": [0.125, 0.25],
        "import torch": [1.875, 2.25],
        "first cycle begins": [3.0, 5.5],
        "first cycle done": [2.0, 1.0],
    }


def test_a_summary() -> None:
    check(startup.summary)

    def of_the_means(pairs: Sequence[tuple[tuple[float, float], Marks]]) -> dict[str, Any]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(startup.statistics, "median", lambda values: sum(v := [*values]) / len(v))
            return startup.summary(pairs)

    def of_the_last_mark(pairs: Sequence[tuple[tuple[float, float], Marks]]) -> dict[str, Any]:
        late = [(one, {**marks, "first cycle begins": marks["first cycle done"]}) for one, marks in pairs]
        return startup.summary(late)

    def of_medians_apart(pairs: Sequence[tuple[tuple[float, float], Marks]]) -> dict[str, Any]:
        found = startup.summary(pairs)
        added = {f"{c}_added_s": found[f"{c}_first_cycle_s"] - found[f"{c}_import_s"] for c in ("cpu", "wall")}
        return found | added

    for mutant in (of_the_means, of_the_last_mark, of_medians_apart):
        kills(check, mutant)


def test_a_table() -> None:
    assert startup.table(startup.summary(PAIRS)).splitlines() == [
        "| until | CPU time | wall time |",
        "|---|---|---|",
        "| Python | 0.12 s | 0.25 s |",
        "| import torch | 1.88 s | 2.25 s |",
        "| first cycle begins | 3.00 s | 5.50 s |",
        "| first cycle done | 2.00 s | 1.00 s |",
        "| `import lightning.pytorch` alone | 4.00 s | 5.00 s |",
        "| first cycle begins | 5.00 s | 8.00 s |",
        "| **added** | 1.50 s | 3.00 s |",
    ]
