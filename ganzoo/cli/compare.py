"""``ganzoo compare``: scores of several runs over their training, at equal images and at equal time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ganzoo.cli.tools import ToolParser
from ganzoo.errors import UserError

if TYPE_CHECKING:
    from ganzoo.analysis.courses import Comparison, Course
    from ganzoo.metrics.protocol import Protocol
    from ganzoo.metrics.record import Record


def run(arguments: list[str]) -> int:
    """Print the tables, and write what was asked for; returns the exit code."""
    parser = ToolParser(
        "compare",
        "Put the scores of runs beside each other: over images, over time, and at the end. Scores are those that "
        "Evaluate keeps in RUN/evaluations while training, or that ganzoo evaluate RUN --all --json wrote there.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="directory of a run")
    parser.add_argument("--score", action="append", metavar="NAME", help="such as swd; default: all that are shared")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers")
    parser.add_argument("--png", type=Path, metavar="FILE", help="write the curves")
    args = parser.read(arguments)

    from ganzoo import files
    from ganzoo.analysis import courses

    label, comparisons = compare([Path(place) for place in args.runs], args.score)
    print("\n\n".join([f"Protocol {label}", *(f"{one.score}\n\n{courses.markdown(one)}" for one in comparisons)]))
    if args.json:
        content = {"protocol": label, "comparisons": [one.state() for one in comparisons]}
        files.write_json(args.json, content, allow_nan=False)
    if args.png:
        with files.atomic(args.png, "wb") as file:
            file.write(courses.png(comparisons))
    return 0


def compare(runs: Sequence[Path], scores: Sequence[str] | None) -> tuple[str, list[Comparison]]:
    """The protocol's label, and one comparison per score.

    Args:
        runs: Their directories.
        scores: Names; none: all that the runs share.

    Raises:
        UserError: A run has no scores, they were measured by different protocols, or there is no such score.
    """
    from ganzoo.analysis import courses
    from ganzoo.metrics.protocol import differences

    kept = [_records(run) for run in runs]
    protocol = _shared_protocol(kept, scores or ())
    found = [[r for r in records if not differences(protocol, r.protocol)] for records in kept]
    names = [dict.fromkeys(name for r in records for name in r.scores) for records in found]
    shared = [name for name in names[0] if all(name in others for others in names)]
    for name in scores or ():
        if name not in shared:
            raise UserError(f"The runs share no score {name}: --score takes one of {', '.join(shared)}.")
    return protocol.label, [
        courses.compare(name, [_course(run, records, name) for run, records in zip(runs, found, strict=True)])
        for name in scores or shared
    ]


def _shared_protocol(kept: Sequence[Sequence[Record]], scores: Sequence[str]) -> Protocol:
    """The last of the first run's that all others were measured by, too, if possible one by which it has the scores."""
    from ganzoo.metrics import record
    from ganzoo.metrics.protocol import differences

    shared = [
        one for one in kept[0] if all(any(not differences(one.protocol, r.protocol) for r in found) for found in kept)
    ]
    if not shared:
        record.compare([found[-1] for found in kept])  # says in what they differ
        raise AssertionError("Records without a shared protocol can be compared.")
    return ([one for one in shared if set(scores) <= one.scores.keys()] or shared)[-1].protocol


def _records(run: Path) -> list[Record]:
    """All that a run holds, whose models had trained for a known time."""
    from ganzoo.metrics import record

    if not run.is_dir():
        raise UserError(f"{run} is no directory: give those of runs, such as runs/quickstart-1.")
    paths = sorted((run / "evaluations").rglob("*.json"))
    found = [one for path in paths for one in record.load(path) if one.kimg is not None]
    if not found:
        raise UserError(
            f"{run} holds no scores: train with the callback Evaluate, or write them by ganzoo evaluate {run} --all "
            f"--json {run}/evaluations/scores.json."
        )
    return found


def _course(run: Path, records: Sequence[Record], score: str) -> Course:
    from ganzoo.ablation.results import Metrics
    from ganzoo.analysis.courses import Course

    values = {r.kimg: r.scores[score].value for r in records if r.kimg is not None and score in r.scores}
    rows = [(float(row["progress/kimg"]), float(row["time/seconds"]) / 60) for row in Metrics(run).rows]
    kimg = sorted(values)
    return Course(run.resolve().name, kimg, [_minutes(mark, rows) for mark in kimg], [values[mark] for mark in kimg])


def _minutes(kimg: float, rows: Sequence[tuple[float, float]]) -> float | None:
    """When a run was at this place, between the rows of its log; none where the log has not come so far."""
    from ganzoo.analysis.courses import SAME

    before = (0.0, 0.0)
    for row in rows:
        if row[0] >= kimg:
            share = (kimg - before[0]) / (row[0] - before[0]) if row[0] > before[0] else 1.0
            return before[1] + share * (row[1] - before[1])
        before = row
    return before[1] if kimg <= before[0] * (1 + SAME) else None  # the last cycles of a run may have no row
