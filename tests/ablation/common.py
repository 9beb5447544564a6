"""What the tests of ablations share: plans and runs that no training made."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from ganzoo.ablation.plan import BASE, Plan, Run, Variation
from ganzoo.ablation.runner import Outcome


def plan_of(*names: str, seeds: Sequence[int] = (0, 1), **settings: object) -> Plan:
    """The base and variations of these names, which differ in ``model.x``."""
    variations = [
        Variation(name, f"--model.x {i}" if i else "", {"model.x": i, **settings}, f"model: {{x: {i}}}\n")
        for i, name in enumerate((BASE, *names))
    ]
    return Plan("toy.yaml", ["--model.total_kimg", "1"], variations, list(seeds))


def write_run(run: Run, columns: Mapping[str, Sequence[float]], outcome: Outcome | None = None) -> None:
    """A table of 1 kimg per row (``math.inf`` of a row: no value there), and a record if the run has ended."""
    run.folder.mkdir(parents=True)
    rows = [["progress/kimg", "progress/images", *columns, "time/seconds"]]
    for i, values in enumerate(zip(*columns.values(), strict=True)):
        cells = ["" if value == math.inf else repr(value) for value in values]
        rows.append([repr(float(i + 1)), str(1000 * (i + 1)), *cells, repr(10.0 * (i + 1))])
    (run.folder / "metrics.csv").write_text("".join(f"{','.join(row)}\n" for row in rows))
    if outcome is not None:
        run.record.write_text(json.dumps(asdict(outcome)))


def finals(out: Path, plan: Plan, values: Mapping[str, Sequence[float]]) -> None:
    """Finished runs whose last value of ``toy/score`` is given by variation, in the order of the seeds."""
    for run in plan.runs(out):
        value = values[run.variation][plan.seeds.index(run.seed)]
        write_run(run, {"toy/score": [0.0, value]}, Outcome("finished", 0))
