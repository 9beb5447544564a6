"""``ganzoo validate``: what the callbacks ``Evaluate`` of a run measure, of a checkpoint and outside of training."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ganzoo.cli import evaluate, recipes
from ganzoo.cli.arguments import Request
from ganzoo.cli.evaluate import Order
from ganzoo.cli.tools import ToolParser
from ganzoo.errors import UserError
from ganzoo.metrics import presets

_NAMES = tuple(f"{module}Evaluate" for module in ("", "ganzoo.callbacks.", "ganzoo.callbacks.evaluate."))


def run(arguments: list[str]) -> int:
    """Measure; returns the exit code."""
    found = orders(arguments)
    from ganzoo.cli import evaluating

    return evaluating.evaluate(*found)


def orders(arguments: list[str]) -> list[Order]:
    """One for each callback ``Evaluate`` of the run or the recipe.

    Raises:
        UserError: There is none, or nothing to measure.
    """
    options = _parser().read(arguments)
    if (target := options.ckpt_path or options.target) is None:
        raise UserError("There is nothing to validate: give a run, or --config RECIPE with --ckpt_path FILE.")
    place = evaluate.existing(target)
    evaluate.check_json(options)
    recipe = recipes.find(options.config) if options.config else _recipe(Path(options.target or target))
    trainer = recipes.load(recipe).get("trainer") or {}
    callbacks = trainer.get("callbacks") or []
    given = [one.get("init_args") or {} for one in callbacks if one.get("class_path") in _NAMES]
    if not given:
        raise UserError(
            f"{recipe} has no callback Evaluate, so it does not say what to measure: name a protocol by "
            f"ganzoo evaluate {target} --protocol NAME."
        )
    return [_order(one, place, options) for one in given]


def _recipe(run: Path) -> Path:
    """The config.yaml of a run, or of the run that a checkpoint lies in."""
    for folder in (run, *run.resolve().parents[:2]):
        if (folder / "config.yaml").is_file():
            return folder / "config.yaml"
    raise UserError(f"{run} is no run and lies in none, so nothing says what to measure: add --config RECIPE.")


def _order(given: Mapping[str, Any], place: Path, options: argparse.Namespace) -> Order:
    preset = presets.preset(given.get("protocol", "quick"))
    protocol = presets.changed(preset.protocol, {**(given.get("options") or {}), "num": given.get("num")})
    metrics = presets.chosen(given.get("metrics"), preset)
    if given.get("extractor"):
        preset = replace(preset, extractor=given["extractor"])
    against = Request(imports=list(options.imports))
    measured = argparse.Namespace(**vars(options), image_size=None, max_seconds=None)
    measured.batch_size = given.get("batch_size", 64)
    return Order(place, against, [], preset, protocol, metrics, measured)


def _parser() -> ToolParser:
    parser = ToolParser(
        "validate",
        "Measure a checkpoint as the callbacks Evaluate of its run do: the same protocol, so the same numbers. "
        "ganzoo evaluate measures by any protocol, and images of other programs.",
    )
    parser.usage = "ganzoo validate RUN [options]\n       ganzoo validate --config RECIPE --ckpt_path FILE [options]"
    add = parser.add_argument
    add("target", nargs="?", metavar="RUN", help="a run, or a checkpoint in one")
    add("--ckpt_path", metavar="FILE", help="another checkpoint than the run's last one")
    add("--config", "-c", metavar="RECIPE", help="whose callbacks Evaluate are meant; default: the run's own")
    add("--all", action="store_true", help="every checkpoint of the run, instead of the last one")
    add("--json", metavar="FILE", help="write the records: scores, protocol and hashes")
    add("--overwrite", action="store_true", help="replace that file")
    add("--import", action="append", default=[], dest="imports", metavar="MODULE", help="a module that the model needs")
    add("--device", default="auto", help="cpu, cuda, ...; default: a GPU if there is one")
    return parser
