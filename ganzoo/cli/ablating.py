"""``ganzoo ablate`` once torch is there: check every variation, run them, time them, report."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import cast

import torch
import yaml
from filelock import FileLock, Timeout

from ganzoo import files
from ganzoo.ablation import plan as plans
from ganzoo.ablation import report, results, runner, summary, tables, timing
from ganzoo.ablation.plan import BASE, Plan, Run, Variation
from ganzoo.cli import arguments, fit, resume, rundir, training
from ganzoo.cli.ablate import Asked, Request, default_jobs
from ganzoo.errors import TrainingError, UserError


def ablate(request: Request) -> int:
    """Do what a command line asks for, or the rest of it; returns the exit code."""
    if request.out is not None:
        plans.check_directory(request.out)
    results.parse_scores(request.scores, _best(request))  # a mistake in them is told at once
    plan, on_gpu = make_plan(request)
    out = request.out or plans.choose_directory(plan)
    out.mkdir(parents=True, exist_ok=True)
    with _hold(out):
        if (old := plans.load(out)) is not None:
            plan = plans.merge(old, plan, out)
        plans.save(plan, out)
        if number := _train(plan, out, request, on_gpu):
            return 128 + number
        return _report(plan, out, request)


def make_plan(request: Request) -> tuple[Plan, bool]:
    """Parse and build every variation, and say whether their runs compute on a GPU.

    Raises:
        UserError: One of them cannot be run, or gives the very settings of another; the sentence names it.
    """
    variations: list[Variation] = []
    on_gpu = False
    for asked in (Asked(BASE), *request.variations):
        try:
            variation, gpu = _check(request, asked)
        except UserError as error:
            raise error if asked.name == BASE else UserError(f"In the variation {asked.name}: {error}") from error
        if same := [other.name for other in variations if other.settings == variation.settings]:
            raise UserError(f"{asked.name} has exactly the settings of {same[0]}: leave it out, or mend its options.")
        variations.append(variation)
        on_gpu |= gpu
    return Plan(request.base, request.options, variations, request.seeds), on_gpu


def _check(request: Request, asked: Asked) -> tuple[Variation, bool]:
    words = [word for name in (request.base, *asked.files) for word in ("--config", name)]
    wanted = arguments.read([*words, *request.options, *asked.options])
    fit.check(wanted)
    cli, trainer = training.prepare(wanted)
    config = rundir.config_text(cli.resolved())
    settings = resume.flat(yaml.safe_load(config))
    for name in ("seed", "import"):
        del settings[name]
    settings = json.loads(json.dumps(settings, default=str))  # as they will be read again
    variation = Variation(asked.name, asked.given, settings, config, tuple(wanted.imports))
    return variation, trainer.strategy.root_device.type != "cpu"


def _train(plan: Plan, out: Path, request: Request, on_gpu: bool) -> int:
    """Run what has not ended; returns the number of the signal that stopped it, or 0."""
    runs = plan.runs(out)
    todo = runner.pending(runs, retry=request.retry)
    jobs = min(request.jobs or default_jobs(on_gpu), max(len(todo), 1))
    at_once = f", {jobs} at once" if jobs > 1 else ""
    before = f"{len(runs) - len(todo)} of them ended before" if len(todo) < len(runs) else f"in {out}"
    names = ", ".join(v.name for v in plan.variations)
    _say(f"{names}, {len(plan.seeds)} seeds each: {len(runs)} runs{at_once}, {before}")
    progress = Progress(len(runs), len(runs) - len(todo), jobs, request)

    def command(run: Run) -> list[str]:
        variation = plan.variation(run.variation)
        return runner.fit_command(run, out / variation.name / "config.yaml", variation.imports)

    number = runner.Runner(todo, command, jobs=jobs, ended=progress.ended).run()
    if number:
        left = len(runner.pending(runs))
        _say(f"Stopped; {len(runs) - left} of {len(runs)} runs have ended. Go on later with: {_again(request)}")
    return number


def _report(plan: Plan, out: Path, request: Request) -> int:
    runs = plan.runs(out)
    columns = summary.columns(runs)
    scores = results.parse_scores(request.scores, _best(request)) or results.default_scores(columns)
    results.check_columns(scores, columns)
    costs = _load_costs(out)
    if request.timing and any(v.name not in costs for v in plan.variations):
        report.write(summary.summarize(plan, out, scores, costs), out)  # so that there is one whatever comes now
        try:
            _time(plan, out, costs)
        except KeyboardInterrupt:
            _say(f"The timing was stopped, but the runs are done and the report is in {out}: {_again(request)}")
            raise
    found = summary.summarize(plan, out, scores, costs)
    report.write(found, out)
    for table in tables.all_tables(found):
        print(tables.plain(table), end="\n\n")
    print(f"Report: {out / 'ablation.html'} (also .md, .json and .png)")
    states = [result.outcome.state for result in found.results]
    if bad := states.count("failed") + states.count("stopped"):
        first = next(r.run for r in found.results if r.outcome.state in ("failed", "stopped"))
        raise TrainingError(
            f"{bad} of {len(states)} runs did not end by themselves: see why in {first.log}, then give the same "
            "command with --retry."
        )
    return 0


def _time(plan: Plan, out: Path, costs: dict[str, timing.Cost]) -> None:
    """Measure the costs that are not known yet; each is kept at once."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for variation in plan.variations:
            if variation.name in costs:
                continue
            _say(f"Timing {variation.name}")
            costs[variation.name] = timing.compare(*(_subject(v, out) for v in (plan.variation(BASE), variation)))
            files.write_json(out / "costs.json", {name: asdict(cost) for name, cost in costs.items()})
    finally:
        torch.set_num_threads(threads)


def _subject(variation: Variation, out: Path) -> timing.Subject:
    """A fresh model of a variation, with its data."""
    imports = [word for name in variation.imports for word in ("--import", name)]
    torch.manual_seed(0)
    cli, _ = training.prepare(arguments.read([*imports, "--config", str(out / variation.name / "config.yaml")]))
    options = {name: cli.config_init["trainer"][name] for name in ("accelerator", "precision", "deterministic")}
    return timing.Subject(cli.model, cli.datamodule, options)


def _load_costs(out: Path) -> dict[str, timing.Cost]:
    path = out / "costs.json"
    if not path.is_file():
        return {}
    return {name: timing.Cost.load(state) for name, state in json.loads(path.read_text(encoding="utf-8")).items()}


class Progress:
    """A line for each run that has ended, and about how long the others will take."""

    def __init__(self, total: int, done: int, jobs: int, request: Request) -> None:
        self.total, self.done, self.jobs, self.request = total, done, jobs, request
        self.seconds: list[float] = []
        self._warned = False

    def ended(self, run: Run, outcome: runner.Outcome, seconds: float) -> None:
        if outcome.state == "stopped":
            _say(f"{run.name} stopped")
            return
        self.done += 1
        self.seconds.append(seconds)
        sentence = outcome.sentence.split(": ")[0] if outcome.state == "diverged" else outcome.sentence
        what = self._scores(run) if outcome.state == "finished" else f"{outcome.state}, {sentence}"
        _say(f"{self.done}/{self.total} {run.name}: {what} ({_duration(seconds)}){self._left()}")

    def _scores(self, run: Run) -> str:
        metrics = results.Metrics(run.folder)
        try:
            scores = results.parse_scores(self.request.scores, _best(self.request))
            scores = scores or results.default_scores(metrics.columns)
            results.check_columns(scores, metrics.columns)
        except UserError as error:
            if not self._warned:  # the runs are worth going on with: another --score only needs a new report
                _say(f"note: {error}")
                self._warned = True
            return "finished"
        finals = {score.column: metrics.curve(score.column).final for score in scores}
        return ", ".join(f"{name} {'-' if value is None else tables.number(value)}" for name, value in finals.items())

    def _left(self) -> str:
        left = self.total - self.done
        seconds = sum(self.seconds) / len(self.seconds) * left / self.jobs
        return f", about {_duration(seconds)} left" if left else ""


@contextmanager
def _hold(out: Path) -> Iterator[None]:
    """Keep other processes from running the same ablation."""
    try:
        lock = FileLock(out / ".lock").acquire(timeout=0)
    except Timeout as error:
        raise UserError(f"The ablation {out} is in progress in another process: wait for it, or stop it.") from error
    with lock:
        yield


def _again(request: Request) -> str:
    return shlex.join(["ganzoo", "ablate", *request.command])


def _best(request: Request) -> results.Best | None:
    return cast("results.Best | None", request.best)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
