"""How far an image moves per step in style space, over the training of runs: with path length regularization, without.

``python -m benchmarks.scores.paths runs/with runs/without --json docs/records/path-length.json --png
docs/images/path-length.png``

|J^T y| of the trained weights (not the averaged ones) at each checkpoint, over the same latents, noise and y in all of
them (Karras 2020, eq. 4): its mean, and its standard deviation over the mean, which the penalty brings down.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch

from benchmarks.scores.records import commit, machine
from ganzoo import files, streams
from ganzoo.analysis.courses import Comparison, Course, compare, markdown, png
from ganzoo.callbacks.base import images_of
from ganzoo.checkpoint import load_model
from ganzoo.gan import GAN
from ganzoo.penalties import PathLength
from ganzoo.penalties.path_length import StyleBased

BATCH = 64


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser("python -m benchmarks.scores.paths", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--num", type=int, default=256, help="latents")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--png", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    comparisons = measure(options.runs, options.num)
    print("\n\n".join(f"{one.score}\n\n{markdown(one)}" for one in comparisons))
    if options.json:
        facts: dict[str, Any] = {
            "num": options.num,
            "commit": commit(("ganzoo",)),
            "machine": machine(torch.device("cpu")),
        }
        content = facts | {"comparisons": [one.state() for one in comparisons]}
        files.write_json(options.json, content)
    if options.png:
        with files.atomic(options.png, "wb") as file:
            file.write(png(comparisons))


def measure(runs: Sequence[Path], num: int) -> list[Comparison]:
    """Mean length, and its spread, at each numbered checkpoint of each run."""
    means, spreads = list[Course](), list[Course]()
    for run in runs:
        paths = {images_of(path) / 1000: path for path in (run / "checkpoints").glob("kimg-*.ckpt")}
        kimg = sorted(mark for mark in paths if mark >= 0)
        if not kimg:
            raise SystemExit(f"{run} has no numbered checkpoint: train it with --checkpoint.every_kimg.")
        lengths = [path_lengths(load_model(paths[mark]), num) for mark in kimg]
        unknown = [None] * len(kimg)
        means.append(Course(run.name, kimg, unknown, [float(one.mean()) for one in lengths]))
        spreads.append(Course(run.name, kimg, unknown, [float(one.std() / one.mean()) for one in lengths]))
    return [compare("path length", means), compare("its spread over the mean", spreads)]


def path_lengths(gan: GAN, num: int, *, seed: int = 0) -> torch.Tensor:
    """|J^T y| of samples 0 to num - 1, (num,), each of the class that its number gives, if there are classes."""
    generator, found = cast(StyleBased, gan.generator), []
    for first in range(0, num, BATCH):
        numbers = range(first, min(first + BATCH, num))
        latents = gan.latents.numbered(numbers, gan.generator.latent_dim, seed)
        labels = torch.tensor(numbers) % gan.num_classes if gan.num_classes else None
        with streams.numbered(numbers, seed, "paths", device=gan.device):
            w = generator.mapping(latents, labels).detach().requires_grad_()
            found.append(PathLength().length(generator.synthesis(w), w).detach())
    return torch.cat(found)


if __name__ == "__main__":
    main()
