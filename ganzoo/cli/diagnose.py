"""``ganzoo diagnose``: the classic failures by name, from the log of a run."""

from __future__ import annotations

import math
from pathlib import Path

from ganzoo.ablation.results import Metrics
from ganzoo.cli.tools import ToolParser
from ganzoo.errors import UserError

#: A generator's first samples are close together: fewer rows would name that a collapse.
MIN_ROWS = 8


def run(arguments: list[str]) -> int:
    """Print what was found; returns the exit code."""
    parser = ToolParser("diagnose", "Name what goes wrong in a run: mode collapse, instability, vanishing gradients.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="directory of a run")
    for place in parser.read(arguments).runs:
        print(report(Path(place)))
    return 0


def report(run: Path) -> str:
    """What the log of a run shows, in a few lines."""
    from ganzoo.health.diagnosis import diagnose

    rows = read(run)
    title = f"{run}: {len(rows)} rows of metrics.csv"
    if not any(name.startswith("health/") for row in rows for name in row):
        return f"{title}, without health/ columns: train with --model.parts+=Signals to have them."
    if len(rows) < MIN_ROWS:
        return f"{title}, too few to judge: {MIN_ROWS} or more are needed (--log.every_kimg sets their interval)."
    findings = diagnose(rows)
    if not findings:
        return f"{title}, none of the classic failures."
    return "\n".join([title, *(f"  {f.name}: {f.evidence}. Try {f.cures}." for f in findings)])


def read(run: Path) -> list[dict[str, float]]:
    """The finite numbers of a run's log, by column.

    Raises:
        UserError: There is no log, or no row in it.
    """
    if not (run / "metrics.csv").is_file():
        raise UserError(f"{run} holds no metrics.csv: give the directory of a run, such as runs/quickstart-1.")
    cells = [{name: cell for name, cell in row.items() if cell} for row in Metrics(run).rows]
    rows = [{name: float(cell) for name, cell in row.items() if math.isfinite(float(cell))} for row in cells]
    if not rows:
        raise UserError(f"The log of {run} has no row yet.")
    return rows
