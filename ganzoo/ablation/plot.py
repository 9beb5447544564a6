"""Pictures of an ablation: each score over the run, and differences to the base."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

from ganzoo.ablation.plan import BASE
from ganzoo.ablation.results import Score
from ganzoo.ablation.summary import RunResult, Summary
from ganzoo.analysis.colours import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

GREY = "#888888"

_INK = "#010203"  #: stands for the colour of the page's text until the SVG is written
_MOST_COLUMNS = 4

_METADATA = ("Creator", "Date", "Format", "Type")  # of SVG; none is written


def png(summary: Summary) -> bytes:
    """The picture for a white page."""
    buffer = io.BytesIO()
    figure(summary).savefig(buffer, format="png", dpi=110, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def svg(summary: Summary) -> str:
    """The picture as an SVG element whose axes and text have the colour of the page around it."""
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "ganzoo"}):
        figure(summary).savefig(buffer, format="svg", transparent=True, metadata=dict.fromkeys(_METADATA))
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    end = text.index(">")
    return re.sub(r' (?:width|height)="[^"]*"', "", text[:end]) + text[end:]  # as wide as the page


def figure(summary: Summary) -> Figure:
    """Per score a row of panels, one for each variation with the base in grey, and a panel of paired differences."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    others = [v.name for v in summary.variations if v.name != BASE] or [BASE]
    num_columns = min(len(others), _MOST_COLUMNS)
    num_rows = -(-len(others) // num_columns)
    height = 1.9 * num_rows + 0.6 + 0.35 * len(others) + 0.9
    with mpl.rc_context(_STYLE):
        whole = Figure(figsize=(2.7 * num_columns + 0.6, height * len(summary.scores)), layout="constrained")
        parts: Any = whole.subfigures(len(summary.scores), 1, squeeze=False)
        for score, part in zip(summary.scores, parts[:, 0], strict=True):
            top, bottom = part.subfigures(2, 1, height_ratios=[1.9 * num_rows + 0.6, 0.35 * len(others) + 0.9])
            _curves(top, summary, score, others, num_rows, num_columns)
            _differences(bottom, summary, score)
    return whole


def colour(summary: Summary, name: str) -> str:
    """The colour of a variation."""
    names = [v.name for v in summary.variations if v.name != BASE]
    return GREY if name == BASE else COLOURS[names.index(name) % len(COLOURS)]


def _curves(part: SubFigure, summary: Summary, score: Score, names: list[str], num_rows: int, num_columns: int) -> None:
    """One line per run; a cross ends one that diverged or failed."""
    axes = part.subplots(num_rows, num_columns, sharex=True, sharey=True, squeeze=False)
    part.suptitle(score.column, fontweight="bold")
    for i, panel in enumerate(axes.flat):
        panel.set_visible(i < len(names))
        panel.set_xlabel("kimg" if i + num_columns >= len(names) else "")
        panel.xaxis.set_tick_params(labelbottom=i + num_columns >= len(names))
    for panel, name in zip(axes.flat, names, strict=False):
        for who in dict.fromkeys((BASE, name)):
            for result in summary.results:
                if result.run.variation == who:
                    _line(panel, result, score, colour(summary, who))
        panel.set_title(name, color=colour(summary, name))


def _line(panel: Axes, result: RunResult, score: Score, ink: str) -> None:
    curve = result.curves[score.column]
    alpha = 0.55 if result.run.variation == BASE else 0.9
    panel.plot(
        curve.kimg, curve.values, color=ink, linewidth=1, alpha=alpha, marker="." if len(curve.kimg) == 1 else ""
    )
    if curve.kimg and result.outcome.state in ("diverged", "failed"):
        panel.plot(curve.kimg[-1:], curve.values[-1:], "x", color=ink, markersize=6)


def _differences(part: SubFigure, summary: Summary, score: Score) -> None:
    """A dot for each pair; their mean, with its interval where there is one."""
    panels = part.subplots(1, 2, sharey=True)
    variations = [v for v in summary.variations if v.name != BASE]
    for panel, kind in zip(panels, ("final", "best"), strict=True):
        panel.axvline(0, color=GREY, linewidth=1, linestyle=":")
        for y, v in enumerate(variations):
            difference = getattr(v.scores[score.column], kind).difference
            if difference is None:
                continue
            ink = colour(summary, v.name)
            panel.plot(difference.differences, [y] * len(difference.seeds), "o", color=ink, alpha=0.45, markersize=4)
            panel.plot([difference.mean], [y], "|", color=ink, markersize=13, markeredgewidth=2)
            if difference.interval is not None:
                panel.plot([difference.interval.low, difference.interval.high], [y, y], color=ink, linewidth=2)
        better = "right" if score.best == "max" else "left"
        panel.set_xlabel(f"{kind} minus the base's ({better} is better)")
        panel.locator_params(axis="x", nbins=5)
        panel.set_ylim(max(len(variations), 1) - 0.5, -0.5)
        panel.set_yticks(range(len(variations)), [v.name for v in variations])


_STYLE: Any = {  # Any: the type of its keys is a list of all names in matplotlib
    **{f"axes.{name}": _INK for name in ("edgecolor", "labelcolor", "titlecolor")},
    **dict.fromkeys(("text.color", "xtick.color", "ytick.color"), _INK),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "axes.linewidth": 0.6,
    "axes.titlesize": 9,
    "figure.titlesize": 10,
    "font.size": 8,
}
