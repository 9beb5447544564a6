"""The classic failures, made to fail and cured, seed by seed: ``python -m benchmarks.scores.failures``.

Every run is an ordinary ``ganzoo fit`` of a shipped recipe of ``configs/failures`` and of its cures as overlays. The
bounds below were fixed before the seeds were run. A verdict comes from the rules of ``ganzoo diagnose`` and, on the
toy, from the modes that were captured.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import torch

import ganzoo
from benchmarks.scores.records import commit, machine
from ganzoo import cli
from ganzoo.cli.diagnose import read
from ganzoo.files import atomic
from ganzoo.health.diagnosis import Row, diagnose

NUM_SEEDS = 5

Check = Callable[[list[dict[str, float]]], bool]


@dataclass(frozen=True)
class Failure:
    """A recipe that fails, its cures, and what counts as either."""

    name: str  #: as the diagnosis calls it
    recipe: str
    cures: tuple[str, ...]
    failed: Check
    cured: Check

    def options(self, cure: str | None) -> list[str]:
        """Options of ``ganzoo fit``: the recipe, and a cure stacked on it."""
        names = [self.recipe, *([f"{self.recipe}-{cure}"] if cure else [])]
        return [part for name in names for part in ("--config", f"failures/{name}.yaml")]


def named(name: str) -> Check:
    """Whether the diagnosis finds a failure."""
    return lambda rows: name in [finding.name for finding in diagnose(rows)]


def last(rows: list[dict[str, float]], column: str) -> float:
    """The last value of a column."""
    return next((row[column] for row in reversed(rows) if column in row), math.nan)


def collapsed(rows: list[dict[str, float]]) -> bool:
    """At most half of the ring's modes, and the diagnosis says so."""
    return last(rows, "toy/modes") <= 4 and named("mode collapse")(rows)


def covers(rows: list[dict[str, float]]) -> bool:
    """All modes, evenly, and no finding of collapse."""
    even = last(rows, "toy/reverse_kl") <= 0.5
    return last(rows, "toy/modes") == 8 and even and not named("mode collapse")(rows)


def learns(rows: list[dict[str, float]]) -> bool:
    """The generator has a gradient, and has come to differ from sample to sample."""
    return not named("vanishing generator gradient")(rows) and last(rows, "health/diversity") >= 0.5


def steady(rows: list[dict[str, float]]) -> bool:
    """No sign of instability, and fakes as far apart as real samples are, or nearly so."""
    late = [row["health/diversity"] for row in rows[len(rows) // 2 :]]
    return not named("instability")(rows) and statistics.median(late) >= 0.7


FAILURES = {
    "mode_collapse": Failure(
        "mode collapse", "mode_collapse", ("packing", "minibatch"), failed=collapsed, cured=covers
    ),
    "vanishing_gradient": Failure(
        "vanishing generator gradient",
        "vanishing_gradient",
        ("non_saturating", "wgan_gp"),
        failed=named("vanishing generator gradient"),
        cured=learns,
    ),
    "instability": Failure("instability", "instability", ("r1", "slower"), failed=named("instability"), cured=steady),
}


def run(failure: Failure, cure: str | None, seed: int) -> list[dict[str, float]]:
    """The rows of one run's log."""
    with tempfile.TemporaryDirectory() as folder, redirect_stderr(StringIO()) as said:
        options = [*failure.options(cure), "--seed", str(seed), "--run_dir", f"{folder}/run", "--samples.gif", "false"]
        code = cli.main(["fit", *options, "--trainer.accelerator", "cpu", "--trainer.logger", "false"])
        if code not in (0, 1):  # 1: stopped by a loss that is not finite, which is an outcome
            raise RuntimeError(said.getvalue())
        return read(Path(folder) / "run")


def outcomes(failure: Failure, seeds: range) -> Iterator[dict[str, Any]]:
    """The verdict on each run: the recipe alone, which is to fail, and each cure."""
    for cure in (None, *failure.cures):
        for seed in seeds:
            rows = run(failure, cure, seed)
            as_expected = failure.failed(rows) if cure is None else failure.cured(rows)
            yield {"recipe": failure.recipe, "cure": cure, "seed": seed, "as_expected": as_expected, **evidence(rows)}


def evidence(rows: list[dict[str, float]]) -> dict[str, Any]:
    """What the verdict rests on: medians over the second half of the rows, and the last scores."""
    late: list[Row] = list(rows[len(rows) // 2 :])
    columns = [name for name in rows[-1] if name.startswith(("health/", "logits/"))]
    medians = {name: statistics.median(row[name] for row in late if name in row) for name in columns}
    scores = {name: last(rows, name) for name in ("toy/modes", "toy/reverse_kl", "toy/high_quality")}
    found = {**medians, **{name: value for name, value in scores.items() if not math.isnan(value)}}
    return {"findings": [f.name for f in diagnose(rows)], **{name: round(value, 5) for name, value in found.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("failures", nargs="*", help=f"of {', '.join(FAILURES)}; default: all")
    parser.add_argument("--seeds", type=int, default=NUM_SEEDS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = []
    for name in options.failures or FAILURES:
        for outcome in outcomes(FAILURES[name], range(options.seeds)):
            print(json.dumps(outcome), flush=True)
            results.append(outcome)
    if options.json:
        origin = {"commit": commit(("ganzoo", "configs/failures")), "machine": machine(torch.device("cpu"))}
        versions = {"ganzoo": ganzoo.__version__, "torch": torch.__version__}
        with atomic(options.json, "w", encoding="utf-8") as file:
            file.write(json.dumps({**origin, "versions": versions, "runs": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
