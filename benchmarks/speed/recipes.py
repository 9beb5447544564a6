"""Speed of recipes against what the machine can do: ``python -m benchmarks.speed RECIPE... [-- OPTIONS OF FIT]``.

Whole cycles through ``Trainer.fit``, with real batches in memory as floats; no loading, logging or callbacks. images/s
are real images of the discriminator's turns. Shares of the machine's ceiling and the index (images/s per TFLOP/s of it)
are medians over rounds, in CPU time on a CPU (a machine may be shared), in wall time on a GPU. ``parts_ms`` says where
the time of a cycle goes, ``lightning_share`` how much of it is the trainer's.

    python -m benchmarks.speed quickstart.yaml dcgan.yaml --json out.json
    python -m benchmarks.speed --shape 3 32 32 -- --model DCGAN --model.width 32 --data.batch_size 64
    python -m benchmarks.speed dcgan.yaml --device cuda
    python -m benchmarks.speed dcgan.yaml --stages                    # each turn's passes and terms one by one
    python -m benchmarks.speed dcgan.yaml --vs "--model.ema null"     # both by turns: the ratio of a cycle's time
    python -m benchmarks.speed sngan.yaml --vs folds=off              # the same for a lever: see levers below
    python -m benchmarks.speed dcgan.yaml --compare out.json          # the index against that of an earlier run

    python -m benchmarks.speed peers      # the shapes of published peers
    python -m benchmarks.speed levers     # what each lever gains
    python -m benchmarks.speed gpu        # the programme of a GPU, as benchmarks/speed/gpu.sh runs it
    python -m benchmarks.speed results    # benchmarks/speed/RESULTS.md, from the records
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.speed import levers
from benchmarks.speed.cases import ACCELERATORS
from benchmarks.speed.clocks import silence
from benchmarks.speed.cycles import clock_of, fit, lazy_period, measure
from benchmarks.speed.noise import Noise
from benchmarks.speed.rows import Row, Rows, split_options
from benchmarks.speed.stages import Stages, table
from ganzoo.ablation.timing import Subject, compare
from ganzoo.cli import trust
from ganzoo.cli.arguments import read
from ganzoo.cli.parser import FitCLI


def main(arguments: Sequence[str]) -> None:
    options, rest = _options(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("--device cuda was asked for, but torch sees no GPU here: leave it out, or take --device cpu.")
    if options.device:
        rest = [*rest, f"--trainer.accelerator={ACCELERATORS[options.device]}"]
    torch.set_num_threads(options.threads)
    lever = lever_of(options.vs)
    older = json.loads(options.compare.read_text())["rows"] if options.compare else None
    rows = Rows(options.json)
    for recipe in options.recipes or [None]:
        row = {"recipe": recipe or shlex.join(rest), **_row(recipe, options, rest, lever)}
        if older is not None:
            row |= against(row, older)
        rows.add(row)


#: What an earlier row of a recipe must have in common with a new one, for their indices to be of the same thing.
SAME = ("device", "threads", "precision", "batch")


def against(row: Row, older: Sequence[Row]) -> Row:
    """The ratio of a row's index to that of the earlier row of its kind; or why it has none."""
    found = [one for one in older if one.get("recipe") == row["recipe"] and "index" in one]
    if not found or "index" not in row:
        return {
            "not_compared": f"there is no index {'of this recipe in the older record' if 'index' in row else 'here'}"
        }
    for one in found:
        if all(one.get(name) == row[name] for name in SAME):
            return {"index_ratio": round(row["index"] / one["index"], 3)}
    before = ", ".join(f"{name} {found[-1].get(name)}" for name in SAME if found[-1].get(name) != row[name])
    return {"not_compared": f"the older record is of {before}"}


def lever_of(vs: str | None) -> str | None:
    """The lever of ``LEVER=off``; none where there are options of fit.

    Raises:
        SystemExit: With a sentence, for several levers, or one that does not exist.
    """
    if vs is None or vs.startswith("-"):
        return None
    name, off, more = vs.strip().partition("=off")
    if not off or more:
        raise SystemExit(
            f"--vs was {vs!r}: give options of fit, which begin with --, or one LEVER=off; several levers, each by "
            "itself and all at once, are measured by python -m benchmarks.speed levers --only."
        )
    if name not in levers.LEVERS:
        raise SystemExit(f"There is no lever {name}; there are {', '.join(levers.LEVERS)}.")
    return name


def _row(recipe: str | None, options: argparse.Namespace, rest: list[str], lever: str | None) -> Row:
    """What was asked of one recipe."""

    def fresh(*more: str) -> Subject:
        return subject(parse(recipe, options.shape, [*rest, *more]))

    if options.vs is None and not options.stages:
        return measure(fresh(), rounds=options.rounds, cycles=options.steps or 0)
    if options.stages:
        found = stages(fresh())
        print(table(found))
        return {"stages_ms": found}
    if lever is not None:
        row = levers.measure(fresh(), [lever], seconds=options.seconds)
        if lever not in row["gain"]:
            reason = row.get("no_gain", {}).get(lever, "nothing in the model is what it is about")
            raise SystemExit(f"The lever {lever} has no gain in {recipe or 'this model'}: {reason}.")
        return {"vs": options.vs, **row}
    return {"vs": options.vs, **asdict(compare(fresh(), fresh(*shlex.split(options.vs)), seconds=options.seconds))}


def _options(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Ours, and those of ``ganzoo fit`` behind ``--``."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipes", nargs="*", metavar="RECIPE")
    parser.add_argument("--shape", nargs="+", type=int, help="of the data, in place of the recipe's own")
    parser.add_argument("--device", choices=list(ACCELERATORS), help="default: the recipe's own")
    parser.add_argument("--steps", type=int, help="cycles per round; default: a second, with all lazy penalties")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--stages", action="store_true", help="where the time of a cycle goes, instead of its speed")
    parser.add_argument(
        "--vs",
        metavar="OPTIONS",
        help="options of fit: the time of a cycle with them over that without; or LEVER=off, of "
        f"{', '.join(levers.LEVERS)}",
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="of --vs")
    parser.add_argument("--compare", type=Path, metavar="OLD", help="a --json of before, on a machine of this kind")
    own, rest = split_options(arguments)
    return parser.parse_args(own), rest


def parse(recipe: str | None, shape: list[int] | None, rest: list[str]) -> FitCLI:
    """Model and data as ``ganzoo fit`` would build them."""
    arguments = ["--config", recipe] if recipe else []
    if shape:
        arguments += ["--import", "benchmarks.speed.noise", "--data", "Noise", f"--data.shape={shape}"]
    request = read([*arguments, *rest])
    trust.import_modules(request.imports)
    trust.restrict_parser(request.imports)
    cli = FitCLI(request)
    silence()
    cli.parse()
    cli.build()
    return cli


def subject(cli: FitCLI) -> Subject:
    """The recipe's model in its last stage, without an end, on data of its shape from memory."""
    gan, data, settings = cli.model, cli.datamodule, cli.config["trainer"]
    gan.plan.plays = gan.plan.plays[-1:]
    gan.total_kimg = None
    noise = Noise(list(data.shape), classes=data.num_classes, batch_size=data.batch_size)
    return Subject(gan, noise, {name: settings[name] for name in ("accelerator", "precision")})


def stages(subject: Subject, num_cycles: int = 48) -> dict[str, float]:
    """Milliseconds per cycle by stage, over whole intervals of lazy terms."""
    period = lazy_period(subject.gan)
    taken = Stages(period * math.ceil(num_cycles / period), warm=period * math.ceil(3 / period))
    trainer = fit(subject, taken)
    return {name: round(ms, 3) for name, ms in taken.rows(clock_of(trainer.strategy.root_device)).items()}
