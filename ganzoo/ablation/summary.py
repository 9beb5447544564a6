"""From what the runs left to the numbers of a report."""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ganzoo import __version__
from ganzoo.ablation.plan import BASE, Plan, Run
from ganzoo.ablation.results import Curve, Metrics, Score
from ganzoo.ablation.runner import Outcome, read_outcome
from ganzoo.ablation.statistics import Paired, mean_and_deviation, paired
from ganzoo.ablation.timing import Cost

#: Packages whose versions matter for the numbers.
PACKAGES = ("torch", "lightning", "numpy")


@dataclass(frozen=True)
class RunResult:
    """One run. A score counts only when the run finished: the last value of one that diverged is no result."""

    run: Run
    outcome: Outcome
    command: str
    seconds: float  #: of training, resumes included
    curves: dict[str, Curve]  #: by column
    final: dict[str, float | None]
    best: dict[str, float | None]


@dataclass(frozen=True)
class Numbers:
    """One number per finished run of a variation."""

    by_seed: dict[int, float]
    mean: float | None
    deviation: float | None  #: of a sample; none for a single run
    difference: Paired | None  #: to the base's with the same seeds; none for the base itself


@dataclass(frozen=True)
class ScoreNumbers:
    """The last value of a score and its best one during the run."""

    final: Numbers
    best: Numbers


@dataclass
class VariationSummary:
    """All runs of a variation."""

    name: str
    given: str
    config_hash: str
    num_runs: int
    states: dict[str, int]  #: how many runs finished, diverged, failed, and were stopped or never began
    scores: dict[str, ScoreNumbers]
    cost: Cost | None

    @property
    def diverged_share(self) -> float | None:
        """Diverged runs among those that finished or diverged; none if there are none."""
        counted = self.states["finished"] + self.states["diverged"]
        return self.states["diverged"] / counted if counted else None


@dataclass
class Summary:
    """Everything that a report says."""

    plan: Plan
    scores: list[Score]
    variations: list[VariationSummary]
    results: list[RunResult]
    versions: dict[str, str] = field(default_factory=dict)
    machine: str = ""

    def state(self) -> dict[str, Any]:
        """As plain data, without the curves, which are in each run's metrics.csv."""
        runs = [
            {"variation": r.run.variation, "seed": r.run.seed, **asdict(r.outcome), "command": r.command}
            | {"seconds": r.seconds, "final": r.final, "best": r.best}
            for r in self.results
        ]
        variations = [asdict(v) | {"diverged_share": v.diverged_share} for v in self.variations]
        return {
            "plan": self.plan.state(),
            "scores": [asdict(score) for score in self.scores],
            "variations": variations,
            "runs": runs,
            "versions": self.versions,
            "machine": self.machine,
        }


def columns(runs: Sequence[Run]) -> list[str]:
    """All columns that runs logged, in their order."""
    return list(dict.fromkeys(name for run in runs for name in Metrics(run.folder).columns))


def summarize(plan: Plan, out: Path, scores: list[Score], costs: dict[str, Cost]) -> Summary:
    """Read what all runs of a plan left in ``out``.

    Args:
        plan: What was run.
        out: Its directory.
        scores: What is compared.
        costs: Time per cycle by name of variation, as far as it was measured.
    """
    results = [_read(plan, run, scores) for run in plan.runs(out)]
    variations = []
    for variation in plan.variations:
        own = [r for r in results if r.run.variation == variation.name]
        states = dict.fromkeys(("finished", "diverged", "failed", "stopped"), 0)
        for result in own:
            states[result.outcome.state] += 1
        numbers = {score.column: _numbers(variation.name, score.column, results) for score in scores}
        cost = costs.get(variation.name)
        variations.append(
            VariationSummary(variation.name, variation.given, variation.config_hash, len(own), states, numbers, cost)
        )
    return Summary(plan, scores, variations, results, versions(), _machine())


def versions() -> dict[str, str]:
    """Of ganzoo and of what computes."""
    return {"ganzoo": __version__, "python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def command_of(plan: Plan, run: Run) -> str:
    """The run's command as one would type it."""
    files, options = split_given(plan.variation(run.variation).given)
    configs = [word for name in (plan.base, *files) for word in ("--config", name)]
    return shlex.join(["ganzoo", "fit", *configs, *plan.options, *options, "--seed", str(run.seed)])


def split_given(given: str) -> tuple[list[str], list[str]]:
    """The overlay files with which a variation's text begins, and the options after them."""
    words = shlex.split(given)
    num_files = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    return words[:num_files], words[num_files:]


def _read(plan: Plan, run: Run, scores: list[Score]) -> RunResult:
    outcome = read_outcome(run) or Outcome("stopped", 0, "not ended yet")
    metrics = Metrics(run.folder)
    curves = {score.column: metrics.curve(score.column) for score in scores}
    counts = outcome.state == "finished"
    return RunResult(
        run,
        outcome,
        command_of(plan, run),
        metrics.seconds,
        curves,
        {score.column: curves[score.column].final if counts else None for score in scores},
        {score.column: curves[score.column].best(score.best) if counts else None for score in scores},
    )


def _numbers(name: str, column: str, results: list[RunResult]) -> ScoreNumbers:
    """What a variation reached in one score."""
    kinds = []
    for kind in ("final", "best"):
        own, base = (
            {
                r.run.seed: value
                for r in results
                if r.run.variation == who and (value := getattr(r, kind)[column]) is not None
            }
            for who in (name, BASE)
        )
        difference = paired(base, own) if name != BASE else None
        kinds.append(Numbers(own, *mean_and_deviation(list(own.values())), difference))
    return ScoreNumbers(*kinds)


def _machine() -> str:
    """The kind of machine, without its name."""
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores"
