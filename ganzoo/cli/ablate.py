"""``ganzoo ablate``: a base and its variations with the same seeds, and a report that compares them in pairs."""

from __future__ import annotations

import argparse
import os
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from ganzoo.cli import recipes
from ganzoo.cli.tools import ToolParser
from ganzoo.errors import UserError


@dataclass(frozen=True)
class Asked:
    """A variation as it was asked for."""

    name: str
    files: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    @property
    def given(self) -> str:
        return shlex.join([*self.files, *self.options])


@dataclass
class Request:
    """What a command line of ``ganzoo ablate`` asks for."""

    base: str
    variations: list[Asked]
    options: list[str]  #: of all runs
    seeds: list[int]
    scores: list[str]
    best: str | None
    out: Path | None
    jobs: int | None
    retry: bool
    timing: bool
    command: list[str] = field(default_factory=list)  #: as it was typed, to say how to go on


def run(arguments: list[str]) -> int:
    """Run an ablation, or go on with it; returns the exit code."""
    request = read(arguments)
    for name in (request.base, *(file for variation in request.variations for file in variation.files)):
        recipes.load(recipes.find(name))
    from ganzoo.cli import ablating

    return ablating.ablate(request)


def read(arguments: list[str]) -> Request:
    """Sort a command line.

    Raises:
        UserError: For what ablate itself does not accept; options of ``ganzoo fit`` are looked at later.
    """
    own, options = _split(arguments)
    parser = _parser()
    args = parser.read(own)
    if args.base is None:
        raise UserError("ganzoo ablate needs a base: a recipe, such as ganzoo ablate ring.yaml; see --help.")
    variations = [_variation(text) for text in args.vary]
    names = [v.name for v in variations]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"Two variations are named {twice[0]}: give one another name, as in NAME={twice[0]}.yaml.")
    for word in [*options, *(word for v in variations for word in v.options)]:
        if (name := word.partition("=")[0]) in _TAKEN:
            raise UserError(f"{name} cannot be given, as ablate sets it for each run{_TAKEN[name]}.")
    if args.jobs is not None and args.jobs < 1:
        raise UserError(f"--jobs was {args.jobs}, but must be 1 or more.")
    return Request(
        args.base,
        variations,
        options,
        _seeds(args.seeds),
        args.score,
        args.best,
        Path(args.out) if args.out else None,
        args.jobs,
        args.retry,
        not args.no_timing,
        arguments,
    )


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Arguments of ablate itself, and those for the runs: unknown options with their values, and all after ``--``."""
    flags = [name for action in _parser()._actions if action.nargs == 0 for name in action.option_strings]
    with_value = [name for action in _parser()._actions if action.nargs != 0 for name in action.option_strings]
    own: list[str] = []
    options: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        name, separator, _ = word.partition("=")
        if word == "--":
            options += rest
            break
        if name in flags or not word.startswith("-"):
            own.append(word)
            continue
        target = own if name in with_value else options
        target.append(word)
        if not separator and rest and not rest[0].startswith("--"):
            target.append(rest.pop(0))
        elif not separator and target is own:
            raise UserError(f"{name} needs a value{_VALUES.get(name, '')}; see ganzoo ablate --help.")
    return own, options


def _variation(text: str) -> Asked:
    """``NAME=OPTIONS``, ``NAME=FILE ...`` or ``FILE``."""
    name, separator, rest = text.partition("=")
    if not separator:
        if not text.strip() or text.startswith("-"):
            raise UserError(f"--vary {text!r} has no name: write NAME={text.strip() or 'OPTIONS'}, or give a file.")
        return Asked(_name(Path(text).stem, text), (text,))
    if name.startswith("-"):
        raise UserError(f"--vary {text!r} has no name: write, for example, 'NAME={text}'.")
    try:
        words = shlex.split(rest)
    except ValueError as error:
        raise UserError(f"--vary {text!r} cannot be split into options ({str(error).lower()}).") from error
    if not words:
        raise UserError(f"The variation {name} changes nothing: write options after the equals sign.")
    num_files = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    return Asked(_name(name, text), tuple(words[:num_files]), tuple(words[num_files:]))


def _name(name: str, text: str) -> str:
    """A name that can be that of a directory."""
    if name == "base":
        raise UserError(
            "A variation cannot be named base, which the runs without a variation are: choose another name."
        )
    if not re.fullmatch(r"\w[\w.+-]*", name):
        raise UserError(
            f"{name!r} in --vary {text!r} cannot be a name: it may hold letters, digits and any of _ . + - after the "
            "first one."
        )
    return name


def _seeds(text: str) -> list[int]:
    """``5``: the first five; ``3,7``: these."""
    try:
        numbers = [int(word) for word in text.split(",") if word.strip()]
    except ValueError as error:
        raise UserError(f"--seeds was {text}, but must be how many, such as 5, or a list, such as 3,7.") from error
    seeds = numbers if "," in text else list(range(*numbers))
    if not seeds or min(seeds) < 0 or max(seeds) >= 2**32 or len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds was {text}, but must be 1 or more different numbers from 0 to {2**32 - 1}.")
    return seeds


def default_jobs(on_gpu: bool) -> int:
    """How many runs at once: as many as there are cores, or one where they would share a GPU."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return 1 if on_gpu else cores or 1


def _parser() -> ToolParser:
    parser = ToolParser(
        "ablate",
        "Train a base and variations of it with the same seeds, and compare them in pairs: a table and a plot of\n"
        "final and best scores with bootstrap intervals, of diverged runs, and of the cost of a cycle. The same\n"
        "command again goes on where it was stopped.",
    )
    parser.usage = "ganzoo ablate BASE --vary 'NAME=OPTIONS' --vary OVERLAY ... [options] [options of ganzoo fit]"
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    add = parser.add_argument
    add("base", metavar="BASE", nargs="?", help="a YAML file or a recipe (ganzoo list)")
    add(
        "--vary",
        metavar="VARIATION",
        action="append",
        default=[],
        help="NAME=OPTIONS of ganzoo fit, or an overlay file",
    )
    add("--seeds", metavar="N|A,B,..", default="5", help="how many seeds, from 0, or a list (%(default)s)")
    add(
        "--score",
        metavar="COLUMN[:max]",
        action="append",
        default=[],
        help="column of metrics.csv and its better end, min or max; may be repeated; default: the toy metrics, else "
        "the first score of an evaluation",
    )
    add("--best", choices=("min", "max"), help="the better end of scores that don't say it")
    add("--out", metavar="DIR", help="directory of the ablation; default: ablations/BASE-N")
    add("--jobs", metavar="N", type=int, help="runs at once; default: one per CPU core, one on a GPU")
    add("--retry", action="store_true", help="run those again that failed (diverged ones did not fail)")
    add("--no-timing", action="store_true", help="do not measure what a cycle costs")
    return parser


_TAKEN = {"--seed": ": use --seeds", "--run_dir": ": use --out", "--resume": "", "--print_config": "", "--help": ""}

_VALUES = {"--vary": ": a name with options, such as 'R1=--model.penalties+=R1', or an overlay file"}

_EXAMPLES = """\
All other options, and whatever follows --, go to every run, as in ganzoo fit.

examples:
  ganzoo ablate ring.yaml --vary 'packing=--model.parts+=Packing' --vary 'no-R1=--model.penalties []'
  ganzoo ablate ring.yaml --vary 'hinge=--model.loss Hinge' --seeds 3,7 --model.total_kimg 200
  ganzoo ablate mlp.yaml --vary 'R1=--model.penalties+=R1' --score loss/d:max --out r1 --jobs 1"""
