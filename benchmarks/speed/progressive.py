"""What each level of a growing network costs: ``python -m benchmarks.speed.progressive [RECIPE] [-- OPTIONS OF FIT]``.

The networks of the recipe (default: progressive.yaml) at the lowest resolution and at each other one, both through the
trainer's loop, by turns in one process: medians of the ratios of processor time per cycle over these pairs. Data are of
the recipe's shape, from memory; batches are of one size, so that these are ratios of time per image, too.

    python -m benchmarks.speed.progressive --json docs/records/progressive-levels.json
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed.clocks import silence
from benchmarks.speed.noise import Noise
from benchmarks.speed.rows import record, split_options
from ganzoo.ablation.timing import Subject, compare
from ganzoo.cli.arguments import read
from ganzoo.cli.parser import FitCLI
from ganzoo.config import build
from ganzoo.files import write_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default="progressive.yaml", metavar="RECIPE")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=10.0, help="of measuring, per level")
    parser.add_argument("--json", type=Path)
    own, rest = split_options(sys.argv[1:])
    options = parser.parse_args(own)
    torch.set_num_threads(1)
    silence()
    cli = FitCLI(read(["--config", options.recipe, *rest]))
    cli.parse()
    cli.build()
    rows = levels(cli.model.config(), list(cli.datamodule.shape), options.batch_size, options.seconds)
    if options.json:
        write_json(options.json, record(torch.device("cpu"), rows, recipe=options.recipe))


def levels(model: dict[str, Any], shape: list[int], batch_size: int, seconds: float) -> list[dict[str, Any]]:
    """One row for each resolution above the lowest one, printed when it is there.

    Args:
        model: Configuration of a growing model.
        shape: Of the images.
        batch_size: At all resolutions.
        seconds: How long to measure each.
    """
    rows = []
    for resolution in (4 << level for level in range(1, shape[-1].bit_length() - 2)):
        pair = (subject(model, shape, batch_size, at) for at in (4, resolution))
        cost = compare(*pair, seconds=seconds)
        print(f"{resolution:5}x{resolution}: a cycle takes {cost.ratio:.2f} times as long as at 4x4", flush=True)
        rows.append({"resolution": resolution, **asdict(cost)})
    return rows


def subject(model: dict[str, Any], shape: list[int], batch_size: int, resolution: int) -> Subject:
    """The model that stays at one resolution, and data in memory."""
    settings, growth = model["init_args"], model["init_args"]["growth"]
    stay = {"start_resolution": resolution, "stabilize_kimg": 1e9, "batch_size": None}
    growth = {**growth, "init_args": {**growth["init_args"], **stay}}
    gan = build({**model, "init_args": {**settings, "growth": growth}})
    return Subject(gan, Noise(shape, batch_size=batch_size), {"accelerator": "cpu"})


if __name__ == "__main__":
    main()
