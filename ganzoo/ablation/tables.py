"""The tables of a report, as rows of text: once for Markdown and HTML."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from ganzoo.ablation.plan import BASE
from ganzoo.ablation.results import Score
from ganzoo.ablation.statistics import MIN_PAIRS, Paired
from ganzoo.ablation.summary import Numbers, Summary, VariationSummary


@dataclass(frozen=True)
class Table:
    """A title, a header and rows; ``code`` is the number of the column that holds options."""

    title: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""
    code: int | None = None


def all_tables(summary: Summary) -> list[Table]:
    """One per score, then what was run."""
    return [*(score_table(summary, score) for score in summary.scores), runs_table(summary)]


def plain(table: Table) -> str:
    """For a terminal: aligned columns, without the last column where it holds options."""
    num = len(table.header) if table.code is None else table.code
    lines = [line[:num] for line in (table.header, *table.rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(num)]
    texts = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([table.title, *(f"  {text}" for text in texts)])


def score_table(summary: Summary, score: Score) -> Table:
    """Means with standard deviations, and differences to the base."""
    rows = []
    for v in summary.variations:
        numbers = v.scores[score.column]
        cells = [v.name, spread(numbers.final, v.num_runs), spread(numbers.best, v.num_runs)]
        rows.append([*cells, *(_versus(v, one.difference) for one in (numbers.final, numbers.best))])
    better = "higher" if score.best == "max" else "lower"
    header = ["", "final", "best", "final, difference to the base", "best, difference to the base"]
    return Table(f"{score.column} ({better} is better)", header, rows, _note(summary, score))


def runs_table(summary: Summary) -> Table:
    """How the runs ended, what a cycle costs, and the options of each variation."""
    rows = [
        [
            v.name,
            f"{v.states['finished']}/{v.num_runs}",
            _share(v),
            str(v.states["failed"]),
            cost(v),
            shlex.join(summary.plan.options) if v.name == BASE else v.given,
        ]
        for v in summary.variations
    ]
    header = ["", "finished", "diverged", "failed", "cost per cycle", "options"]
    return Table("Runs", header, rows, _cost_note(summary), code=5)


def spread(numbers: Numbers, num_runs: int) -> str:
    """Mean and standard deviation, and of how many runs where some are missing."""
    if numbers.mean is None:
        return "-"
    deviation = "" if numbers.deviation is None else f" ± {number(numbers.deviation, 2)}"
    counted = len(numbers.by_seed)
    return f"{number(numbers.mean)}{deviation}{'' if counted == num_runs else f' ({counted} of {num_runs} runs)'}"


def cost(v: VariationSummary) -> str:
    """A multiple of the base's, with the quartiles of the pairs."""
    if v.cost is None:
        return "-"
    low, high = v.cost.cpu_quartiles if v.cost.device == "cpu" else v.cost.wall_quartiles
    return f"{v.cost.ratio:.2f} ({low:.2f} to {high:.2f})"


def number(value: float, digits: int = 4) -> str:
    """A value with so many significant digits."""
    return f"{value:.{digits}g}"


def signed(value: float) -> str:
    """A difference, with its sign."""
    return f"{value:+.3g}"


def unfinished(summary: Summary) -> list[str]:
    """A line for each run that did not finish."""
    return [
        f"{r.run.name} {r.outcome.state}: {r.outcome.sentence}"
        for r in summary.results
        if r.outcome.state != "finished"
    ]


def _versus(v: VariationSummary, difference: Paired | None) -> str:
    if v.name == BASE:
        return ""
    if difference is None:
        return "no pair"
    if difference.interval is None:
        return f"{signed(difference.mean)} (pairs: {', '.join(map(signed, difference.differences))})"
    return f"{signed(difference.mean)} [{signed(difference.interval.low)}, {signed(difference.interval.high)}]"


def _share(v: VariationSummary) -> str:
    share = v.diverged_share
    return "-" if share is None else f"{v.states['diverged']} ({100 * share:.0f} %)"


def _note(summary: Summary, score: Score) -> str:
    pairs = [len(d.seeds) for v in summary.variations if (d := v.scores[score.column].final.difference)]
    text = "Mean ± standard deviation over the runs that finished."
    if any(num >= MIN_PAIRS for num in pairs):
        text += (
            " In brackets: 95 % percentile bootstrap interval of the mean difference over pairs with the same seed, "
            "not adjusted for the number of variations."
        )
    if any(num < MIN_PAIRS for num in pairs):
        text += f" With fewer than {MIN_PAIRS} pairs there is no interval: the pairs are listed."
    return text


def _cost_note(summary: Summary) -> str:
    text = "Diverged: stopped since a scalar or a weight was not finite, of the runs that finished or diverged."
    costs = [v.cost for v in summary.variations if v.cost is not None]
    if costs:
        clock = f"processor time, {costs[0].threads} thread" if costs[0].device == "cpu" else "wall time"
        text += (
            f" Cost: {clock}; median ratio of interleaved pairs, and its quartiles; the base's own row compares it "
            "with itself, and so shows the noise."
        )
    images = {v.name: v.cost.images / v.cost.base_images for v in summary.variations if v.cost and v.cost.base_images}
    several = ", ".join(f"{name} {ratio:.3g} times" for name, ratio in images.items() if ratio != 1)
    return f"{text} Real images per cycle relative to the base: {several}." if several else text
