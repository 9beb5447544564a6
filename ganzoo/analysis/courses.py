"""How scores of several runs went over training, at equal numbers of images and at equal times."""

from __future__ import annotations

import io
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ganzoo.analysis.colours import COLOURS
from ganzoo.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Marks that lie closer together than this share of the larger one count as one: runs stop at whole batches.
SAME = 0.01


@dataclass(frozen=True)
class Course:
    """A score over one training, in the order of its images."""

    run: str
    kimg: Sequence[float]  #: thousands of real images that the discriminator had seen
    minutes: Sequence[float | None]  #: of training until then; none where the log does not say
    values: Sequence[float]

    def __post_init__(self) -> None:
        if not len(self.kimg) == len(self.minutes) == len(self.values) > 0:
            raise ValueError("A course has as many values as marks, at least one.")
        if list(self.kimg) != sorted(set(self.kimg)):
            raise ValueError("The marks of a course rise.")

    @property
    def rank_correlation(self) -> float:
        """Spearman's, of kimg and score: -1 where each score is below the one before; nan for fewer than 3."""
        return spearman(self.kimg, self.values)

    def at_kimg(self, kimg: float) -> float | None:
        """The last score that was measured by then."""
        return self._last([*self.kimg], kimg)

    def at_minutes(self, minutes: float) -> float | None:
        """The last score of a model that had trained no longer than this."""
        known = [m for m in self.minutes if m is not None]
        return self._last(known, minutes) if len(known) == len(self.values) else None

    def _last(self, marks: Sequence[float], mark: float) -> float | None:
        place = bisect_right(marks, mark * (1 + SAME))
        return self.values[place - 1] if place else None


@dataclass(frozen=True)
class Summary:
    """What a course comes to, beside others."""

    run: str
    measurements: int
    first: float
    last: float
    rank_correlation: float
    equal_kimg: float | None  #: the score at the images that all runs have seen
    equal_minutes: float | None  #: the score at the time that all runs have trained for


@dataclass(frozen=True)
class Comparison:
    """Courses of one score by one protocol."""

    score: str
    courses: Sequence[Course]

    @property
    def kimg(self) -> float:
        """Images that every run has seen and was measured at or after, in thousands."""
        return min(course.kimg[-1] for course in self.courses)

    @property
    def minutes(self) -> float | None:
        """The time that every run has trained for; none where a log does not say."""
        ends = [course.minutes[-1] for course in self.courses]
        known = [end for end in ends if end is not None]
        return min(known) if len(known) == len(ends) else None

    def summaries(self) -> list[Summary]:
        return [
            Summary(
                course.run,
                len(course.values),
                course.values[0],
                course.values[-1],
                course.rank_correlation,
                course.at_kimg(self.kimg),
                None if self.minutes is None else course.at_minutes(self.minutes),
            )
            for course in self.courses
        ]

    def state(self) -> dict[str, Any]:
        """Plain data."""
        rows = [{"run": c.run, "kimg": [*c.kimg], "minutes": [*c.minutes], "values": [*c.values]} for c in self.courses]
        return {
            "score": self.score,
            "kimg": self.kimg,
            "minutes": self.minutes,
            "summaries": [
                {name: None if value != value else value for name, value in vars(one).items()}  # JSON has no nan
                for one in self.summaries()
            ],
            "courses": rows,
        }


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Rank correlation, ties by their mean rank; nan for fewer than 3 pairs or without any difference."""
    if len(a) < 3:
        return math.nan
    x, y = _ranks(a), _ranks(b)
    mean = (len(a) + 1) / 2
    products = sum((i - mean) * (j - mean) for i, j in zip(x, y, strict=True))
    squares = sum((i - mean) ** 2 for i in x) * sum((j - mean) ** 2 for j in y)
    return products / math.sqrt(squares) if squares else math.nan


def _ranks(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    first = {value: ordered.index(value) for value in set(values)}
    return [first[value] + (ordered.count(value) + 1) / 2 for value in values]


def compare(score: str, courses: Sequence[Course]) -> Comparison:
    """Beside each other.

    Raises:
        UserError: Two have one name.
    """
    names = [course.run for course in courses]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"Two of the runs are called {twice[0]}: give directories whose names differ.")
    return Comparison(score, courses)


def markdown(comparison: Comparison) -> str:
    """Two tables: the score at each mark of any run, and what it comes to."""
    runs = [course.run for course in comparison.courses]
    lines = ["| kimg | " + " | ".join(f"{run} | minutes" for run in runs) + " |", "|---" * (1 + 2 * len(runs)) + "|"]
    for mark in _marks(comparison.courses):
        cells = [cell for course in comparison.courses for cell in _cells(course, mark)]
        lines.append(f"| {mark:.4g} | " + " | ".join(cells) + " |")
    together = f"at {comparison.kimg:.4g} kimg"
    at_once = "at equal time" if comparison.minutes is None else f"after {comparison.minutes:.3g} minutes"
    lines += ["", f"| run | measured | first | last | last / first | rank correlation | {together} | {at_once} |"]
    lines.append("|---" * 8 + "|")
    for one in comparison.summaries():
        share = _number(one.last / one.first) if one.first else "-"
        numbers = (_number(n) for n in (one.rank_correlation, one.equal_kimg, one.equal_minutes))
        cells = [one.run, str(one.measurements), _number(one.first), _number(one.last), share, *numbers]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _marks(courses: Sequence[Course]) -> list[float]:
    """All places where something was measured; those that lie close together once."""
    marks: list[float] = []
    for kimg in sorted(mark for course in courses for mark in course.kimg):
        if not marks or kimg - marks[-1] > SAME * kimg:
            marks.append(kimg)
    return marks


def _cells(course: Course, mark: float) -> tuple[str, str]:
    for kimg, minutes, value in zip(course.kimg, course.minutes, course.values, strict=True):
        if 0 <= kimg - mark <= SAME * kimg:
            return _number(value), "-" if minutes is None else f"{minutes:.3g}"
    return "", ""


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.3g}"


def png(comparisons: Sequence[Comparison]) -> bytes:
    """A row of panels per score: over images, and over time where every log says it."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False}):
        columns = 1 if all(comparison.minutes is None for comparison in comparisons) else 2
        figure = Figure(figsize=(3.6 * columns, 2.5 * len(comparisons)), layout="constrained")
        panels: Any = figure.subplots(len(comparisons), columns, squeeze=False, sharey="row")
        for comparison, (left, *others) in zip(comparisons, panels, strict=True):
            _draw(left, comparison, {c.run: c.kimg for c in comparison.courses}, "kimg")
            for right in others:
                if comparison.minutes is None:
                    right.set_visible(False)
                else:
                    _draw(right, comparison, {c.run: c.minutes for c in comparison.courses}, "minutes of training")
            left.set_ylabel(comparison.score)
            left.legend(frameon=False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def _draw(panel: Axes, comparison: Comparison, marks: Mapping[str, Sequence[Any]], title: str) -> None:
    from matplotlib.ticker import LogLocator

    for i, course in enumerate(comparison.courses):
        ink = COLOURS[i % len(COLOURS)]
        panel.plot(marks[course.run], course.values, marker=".", color=ink, linewidth=1.2, label=course.run)
    panel.set_xlabel(title)
    values = [value for course in comparison.courses for value in course.values]
    if min(values) > 0 and max(values) > 10 * min(values):
        panel.set_yscale("log", subs=())
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter("{x:g}")
    else:
        panel.set_ylim(bottom=min(0, *values))
