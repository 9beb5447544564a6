"""What each level of a growing network costs: ``python -m benchmarks.speed.progressive [RECIPE] [-- OPTIONS OF FIT]``.

The networks of the recipe (default: progressive.yaml) at the lowest resolution and at each other one, both through the
trainer's loop, by turns in one process: medians of the ratios of processor time per cycle over these pairs, and what
follows for an image, as batches have the recipe's size at each resolution. Data are of its shape, from memory.

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
from ganzoo.tricks import Growing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default="progressive.yaml", metavar="RECIPE")
    parser.add_argument("--batch-size", type=int, help="at all resolutions; default: the recipe's at each")
    parser.add_argument("--seconds", type=float, default=10.0, help="of measuring, per level")
    parser.add_argument("--json", type=Path)
    own, rest = split_options(sys.argv[1:])
    options = parser.parse_args(own)
    torch.set_num_threads(1)
    silence()
    cli = FitCLI(read(["--config", options.recipe, *rest]))
    cli.parse()
    cli.build()
    model = cli.model.config()
    sizes = batch_sizes(model, cli.datamodule.batch_size)
    if options.batch_size:
        sizes = dict.fromkeys(sizes, options.batch_size)
    rows = levels(model, list(cli.datamodule.shape), sizes, options.seconds)
    if options.json:
        write_json(options.json, record(torch.device("cpu"), rows, recipe=options.recipe))


def batch_sizes(model: dict[str, Any], batch_size: int) -> dict[int, int]:
    """The recipe's at each resolution.

    Args:
        model: Configuration of a growing model.
        batch_size: Of its data.
    """
    gan = build(model)
    growing = next(part for part in gan.tricks if isinstance(part, Growing))
    drawn = dict(gan.batch_sizes)
    resolutions = {phase.start: growing.networks[0].resolution_of(phase.level) for phase in growing.phases}
    return {resolution: drawn.get(start) or batch_size for start, resolution in resolutions.items()}


def levels(model: dict[str, Any], shape: list[int], sizes: dict[int, int], seconds: float) -> list[dict[str, Any]]:
    """One row for each resolution above the lowest one, printed when it is there.

    Args:
        model: Configuration of a growing model.
        shape: Of the images.
        sizes: Of batches, by resolution from the lowest one on.
        seconds: How long to measure each.
    """
    rows, (lowest, *higher) = [], sizes
    for resolution in higher:
        cost = compare(*(subject(model, shape, sizes[at], at) for at in (lowest, resolution)), seconds=seconds)
        ratio = cost.ratio * cost.base_images / cost.images
        print(
            f"{resolution:5}x{resolution}: an image takes {ratio:.2f} times as long as at {lowest}x{lowest}", flush=True
        )
        rows.append({"resolution": resolution, "per_image": ratio, **asdict(cost)})
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
