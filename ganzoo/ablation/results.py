"""What runs logged, and what is a score: a column of metrics.csv with the direction in which it is better."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ganzoo.errors import UserError

Best = Literal["min", "max"]

#: Which way is better, by the last part of a column's name; what says most comes first.
DIRECTIONS: dict[str, Best] = {
    "modes": "max",
    "high_quality": "max",
    "reverse_kl": "min",
    "wasserstein": "min",
    "sliced_wasserstein": "min",
    "fid": "min",
    "kid": "min",
    "is": "max",
    "precision": "max",
    "recall": "max",
    "density": "max",
    "coverage": "max",
}

#: Columns that say when a row was written, and how fast.
_CLOCKS = ("progress/", "time/")


@dataclass(frozen=True)
class Score:
    """A column of metrics.csv, and whether its lower or its higher values are better."""

    column: str
    best: Best


@dataclass(frozen=True)
class Curve:
    """The values of a score over a run; rows without the column are left out, values may be non-finite."""

    kimg: tuple[float, ...] = ()
    values: tuple[float, ...] = ()

    @property
    def final(self) -> float | None:
        """The last value; none if there is none or if it is not finite."""
        return self.values[-1] if self.values and math.isfinite(self.values[-1]) else None

    def best(self, direction: Best) -> float | None:
        """The best finite value; none if there is none."""
        finite = [value for value in self.values if math.isfinite(value)]
        return (min if direction == "min" else max)(finite) if finite else None


class Metrics:
    """The table metrics.csv of a run; one that does not exist is empty."""

    def __init__(self, run: Path) -> None:
        self.rows: list[dict[str, str]] = []
        self.columns: list[str] = []
        path = run / "metrics.csv"
        if path.is_file():
            with open(path, newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file)
                self.rows = [row for row in reader if None not in row.values()]  # the last one may be cut off
                self.columns = list(reader.fieldnames or [])

    @property
    def seconds(self) -> float:
        """How long the run trained, resumes included."""
        return float(self.rows[-1]["time/seconds"]) if self.rows else 0.0

    def curve(self, column: str) -> Curve:
        rows = [(float(row["progress/kimg"]), float(row[column])) for row in self.rows if row.get(column)]
        return Curve(tuple(kimg for kimg, _ in rows), tuple(value for _, value in rows))


def parse_scores(given: Sequence[str], best: Best | None) -> list[Score]:
    """Scores as they are written: ``NAME``, ``NAME:min`` or ``NAME:max``.

    Args:
        given: What was written.
        best: The direction of those that say none.

    Raises:
        UserError: A direction is unknown, or a score is given twice.
    """
    scores = []
    for text in given:
        name, separator, end = text.rpartition(":")
        column, direction = (name, end) if separator else (text, best or DIRECTIONS.get(_last(text)))
        if direction not in ("min", "max"):
            raise UserError(f"--score {text} does not say which way is better: write {column}:min or {column}:max.")
        scores.append(Score(column, "min" if direction == "min" else "max"))
    columns = [score.column for score in scores]
    if twice := [column for column in columns if columns.count(column) > 1]:
        raise UserError(f"--score {twice[0]} was given twice: a column has one direction.")
    return scores


def default_scores(columns: Iterable[str]) -> list[Score]:
    """What a recipe's own log offers: its toy metrics, else its first score of an evaluation.

    Raises:
        UserError: There is neither; the sentence lists the columns.
    """
    columns = list(columns)
    known = [Score(name, best) for end, best in DIRECTIONS.items() for name in columns if _last(name) == end]
    toys = [score for score in known if score.column.startswith("toy/")]
    evals = [score for score in known if score.column.startswith("eval/")]
    if not (toys or evals):
        raise UserError(
            "The runs log nothing that is known as a score: name a column and its direction, such as --score "
            f"NAME:min, of {_list(columns)}."
        )
    return toys or evals[:1]


def check_columns(scores: Sequence[Score], columns: Sequence[str]) -> None:
    """Refuse scores that the runs do not log.

    Raises:
        UserError: The sentence lists the columns.
    """
    for score in scores:
        if score.column not in columns:
            raise UserError(f"The runs log no column {score.column}: --score takes one of {_list(columns)}.")


def _list(columns: Iterable[str]) -> str:
    return ", ".join(name for name in columns if not name.startswith(_CLOCKS)) or "none (no run has written a row)"


def _last(name: str) -> str:
    return name.rpartition("/")[2]
