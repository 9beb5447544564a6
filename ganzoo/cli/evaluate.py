"""``ganzoo evaluate``: scores with their protocol, of runs, checkpoints and images; what needs no torch."""

from __future__ import annotations

import argparse
import json
import os
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ganzoo.cli import datasets
from ganzoo.cli.arguments import Request
from ganzoo.cli.tools import ToolParser
from ganzoo.cli.words import did_you_mean
from ganzoo.errors import UserError
from ganzoo.metrics import presets, record
from ganzoo.metrics.presets import Preset
from ganzoo.metrics.protocol import WORDS, Protocol


@dataclass
class Order:
    """What a command line of ``ganzoo evaluate`` asks for."""

    target: Path
    against: Request  #: what describes the reference; empty: the run's own data
    extractor: list[str]  #: options that describe it; empty: the preset's
    preset: Preset
    protocol: Protocol
    metrics: tuple[str, ...]
    options: argparse.Namespace


def run(arguments: list[str]) -> int:
    """Measure, or compare what was measured; returns the exit code."""
    order = read(arguments)
    if isinstance(order, list):
        print(record.compare([one for path in order for one in record.load(path)]))
        return 0
    from ganzoo.cli import evaluating

    return evaluating.evaluate(order)


def read(arguments: list[str]) -> Order | list[str]:
    """Sort a command line: what to measure, or the files to compare.

    Raises:
        UserError: For what can be refused without torch.
    """
    own, groups = datasets.split(arguments, ("against", "extractor"))
    words = [f"--extractor={word}" for word in _taken(own, "--extractor")]
    options = _parser().read(own)
    if options.compare:
        if options.target:
            raise UserError("--compare takes files of records; leave out what would be measured.")
        return list(options.compare)
    if not options.target:
        raise UserError("There is nothing to evaluate: give a run, a checkpoint or a folder of images.")
    target = existing(options.target)
    check_json(options)
    changes = _changes(options.set)
    _check_target(target, options, changes)
    for name, least in (("batch_size", 1), ("image_size", 1), ("max_seconds", 0)):
        if (value := getattr(options, name)) is not None and value < least:
            raise UserError(f"--{name} was {value:g}; give {least} or more.")
    preset = presets.preset(options.protocol)
    metrics = presets.chosen(options.metrics.split(",") if options.metrics else None, preset)
    protocol = presets.changed(preset.protocol, {**changes, "num": options.num})
    extractor = [*words, *groups["extractor"].arguments]
    return Order(target, groups["against"], extractor, preset, protocol, metrics, options)


def existing(target: str) -> Path:
    """What is to be measured.

    Raises:
        UserError: It is not there.
    """
    if not Path(target).exists():
        raise UserError(f"{target} does not exist: give a run, a checkpoint or a folder of images.")
    return Path(target)


def check_json(options: argparse.Namespace) -> None:
    """Refuse a place for records that is taken or cannot be written to, before anything is measured.

    Raises:
        UserError: It is.
    """
    if not options.json:
        return
    path = Path(options.json)
    if path.is_dir():
        raise UserError(f"{path} is a folder: give the name of a file to --json.")
    if path.exists() and not options.overwrite:
        raise UserError(f"{options.json} exists already: give another --json, or add --overwrite.")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UserError(f"Nothing can be written to {folder}: give another --json.")


def _check_target(target: Path, options: argparse.Namespace, changes: dict[str, Any]) -> None:
    """Refuse options that would say nothing about what is measured.

    Raises:
        UserError: The sentence names the option.
    """
    if options.all and not (target / "checkpoints").is_dir():
        raise UserError(f"--all is for the checkpoints of a run, and {target} is none: leave it out.")
    if is_model(target):
        return
    given = [f"--set {name}" for name in changes if name in OF_MODELS]
    if given or options.max_seconds is not None:
        raise UserError(
            f"{(given or ['--max_seconds'])[0]} is for samples of a model, and {target} holds images: leave it out."
        )


def is_model(path: Path) -> bool:
    """Whether a path is a run or a checkpoint, and not images."""
    return path.suffix == ".ckpt" or (
        path.is_dir() and ((path / "checkpoints").is_dir() or (path / "config.yaml").is_file())
    )


def _taken(words: list[str], name: str) -> list[str]:
    """The values of an option, which are taken out of a command line."""
    found = []
    while name in words or any(word.startswith(f"{name}=") for word in words):
        at = next(i for i, word in enumerate(words) if word.partition("=")[0] == name)
        word = words.pop(at)
        if "=" in word:
            found.append(word.partition("=")[2])
        elif at < len(words):
            found.append(words.pop(at))
        else:
            raise UserError(f"{name} needs a value.")
    return found


def _changes(given: list[str]) -> dict[str, Any]:
    """``NAME=VALUE`` of choices of the protocol."""
    changes: dict[str, Any] = {}
    for word in given:
        name, separator, value = word.partition("=")
        if name in CHOICES and not separator:
            raise UserError(f"--set {word} has no value: give {name}=VALUE.")
        if name not in CHOICES:
            raise UserError(f"--set {word} names no choice of a protocol{did_you_mean(name, CHOICES, _choices())}")
        kind = type(getattr(Protocol(), name))
        try:
            changes[name] = value if kind is str else json.loads(value)
        except ValueError as error:
            raise UserError(f"--set {word} was given, but {name} is a number, or true or false.") from error
        kinds = (int, float) if kind is float or name == "truncation" else (kind,)
        if type(changes[name]) not in kinds:
            raise UserError(f"--set {word} was given, but {name} is like {getattr(Protocol(), name)}.")
    return changes


#: What may be set; the rest of a protocol is known from the data and the extractor.
CHOICES = tuple(
    name for name in WORDS if not name.startswith(("extractor", "reference")) and name not in ("num", "resize")
)

#: Those that say how samples of a model are drawn; nobody knows that of images.
OF_MODELS = tuple(
    name
    for name in CHOICES
    if name in ("quantization", "weights", "labels", "truncation")
    or name.startswith(("batch_norm", "standing_", "ppl_"))
)


def _choices() -> str:
    return f"choose from {', '.join(CHOICES)}"


def _parser() -> ToolParser:
    parser = ToolParser(
        "evaluate",
        "Score a model, or images of another program, by a protocol that every score carries.",
    )
    parser.usage = (
        "ganzoo evaluate RUN_OR_CHECKPOINT_OR_IMAGES [options]\n       ganzoo evaluate --compare A.json B.json"
    )
    parser.instead = {f"--{name}": f"--set {name}=VALUE" for name in CHOICES}
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    names = "\n".join(f"  {name:<15} {preset.about}" for name, preset in presets.PRESETS.items())
    metrics = "\n".join(f"  {name:<15} {about}" for name, about in presets.METRICS.items())
    choices = textwrap.fill(", ".join(CHOICES), 100, initial_indent="  ", subsequent_indent="  ")
    parser.epilog = f"protocols:\n{names}\n\nmetrics:\n{metrics}\n\nchoices of --set:\n{choices}\n\n{_EXAMPLES}"
    add = parser.add_argument
    add("target", nargs="?", metavar="TARGET", help="a run, a .ckpt file, or a folder or archive of images")
    add("--protocol", default="quick", metavar="NAME", help="see below (%(default)s)")
    add("--num", type=int, help="samples; default: as the protocol says")
    add("--metrics", metavar="M,M,...", help="see below; default: what the protocol is for")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="another choice: seed=1, truncation=0.7")
    add("--all", action="store_true", help="every checkpoint of the run, instead of the last one")
    add("--json", metavar="FILE", help="write the records: scores, protocol and hashes")
    add("--overwrite", action="store_true", help="replace that file")
    add("--compare", nargs="+", metavar="FILE", help="show records side by side, if their protocol is the same")
    add("--image_size", type=int, help="size to read images at; default: that of the first, or of the model")
    add("--batch_size", type=int, default=64, help="images at a time; scores do not depend on it (%(default)s)")
    add("--max_seconds", type=float, help="stop sampling then: the record says how many samples it was")
    add("--device", default="auto", help="cpu, cuda, ...; default: a GPU if there is one")
    return parser


_EXAMPLES = """\
the reference, and the network whose features are compared:
  --against PATH           real images: a folder or an archive; default: the data that the run was trained on
  --against CLASS          data as in ganzoo fit, such as CIFAR10, with --against.split test
  --extractor FILE.pt      one that ganzoo extractor trained; default: the protocol's
  --extractor CLASS        such as Inception, with --extractor.weights FILE
  --import MODULE          import a module of yours that the model or the data need; may be repeated

examples:
  ganzoo evaluate runs/quickstart-1 --protocol digits
  ganzoo evaluate runs/dcgan-1 --protocol torch-fidelity --all --json dcgan.json
  ganzoo evaluate made/ --against real/ --protocol clean-fid
  ganzoo evaluate made/ --against real/ --metrics swd
  ganzoo evaluate --compare dcgan.json sngan.json"""
