"""Scores: ``python -m benchmarks.speed.evaluation PART...``, of frechet, scores, pair and memory; data are random.

frechet: the distance at 2,048 dimensions against the textbook's formula with ``scipy.linalg.sqrtm``, in interleaved
pairs, for 6,000 samples (full rank) and 1,000 (without), with the differences from it and from the exact value.
scores: CPU seconds of each score at 10,000 samples, and what inception score, kernel distance and PRDC add to the
Frechet distance alone, extraction included, as a sum of parts.
pair: the same ratio as a user meets it: whole evaluations of images by Inception, from bytes to scores, with the
Frechet distance alone and with all four, in interleaved pairs. The reference is prepared before, as it is cached. Its
cost per image is that of any number but for kernel distance (subsets of a tenth, 100 of them) and PRDC, whose share
grows with the number, so a small number bounds neither: compare with ``scores`` at 10,000.
memory: the peak of a process above what it holds before the first sample, for 50,000 samples. ``statistics`` are the
moments of both sides and the fake logits, with Frechet distance and inception score; ``prdc`` is above the features.

    python -m benchmarks.speed.evaluation frechet scores pair memory --json docs/records/evaluation-speed.json
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.speed.clocks import Clocks, now, silence
from benchmarks.speed.extractors import random_weights
from benchmarks.speed.limits import resident
from benchmarks.speed.rows import Rows
from ganzoo.data.batch import Batch
from ganzoo.metrics.evaluation import Evaluation
from ganzoo.metrics.extractors import Inception
from ganzoo.metrics.extractors.weights import sha256
from ganzoo.metrics.frechet import frechet_distance, from_features, from_moments
from ganzoo.metrics.inception_score import inception_score
from ganzoo.metrics.kernel import kernel_distance
from ganzoo.metrics.manifold import prdc
from ganzoo.metrics.protocol import Protocol
from ganzoo.metrics.statistics import Bank, Moments

DIM, CLASSES, BATCH = 2048, 1008, 64
T = TypeVar("T")
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=[*PARTS, *CHILDREN], metavar="PART")
    parser.add_argument("--num", type=int, help="samples; default: 10,000 for scores, 512 for pair, 50,000 for memory")
    parser.add_argument("--pairs", type=int, default=1, help="for frechet and pair; a root takes many seconds")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the record here, after each row")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    silence()
    if options.parts[0] in CHILDREN:
        print(CHILDREN[options.parts[0]](options.num))
        return
    rows = Rows(options.json, "cpu")
    for name in options.parts:
        for row in PARTS[name](options):
            rows.add({"part": name, **row}, threads=options.threads)


def frechet(options: argparse.Namespace) -> Iterator[Row]:
    """One row with full rank, one without."""
    for num in (6000, 1000):
        yield compared(num, options.pairs)


def compared(num: int, num_pairs: int) -> Row:
    """CPU seconds of both ways to the distance and of the root, and how far they are from each other."""
    x, y = features(num, 0), features(num, 1)
    given = (x.mean(0), x.T.cov(), y.mean(0), y.T.cov())
    ways: dict[str, Callable[[], float]] = {
        "distance": lambda: frechet_distance(*given),
        "from_features": lambda: from_features(x, y),
        "root": lambda: by_root(*given),
    }
    values = {name: ways[name]() for name in ("distance", "from_features")}  # warms up; a root takes too long for that
    pairs = list[dict[str, float]]()
    for i in range(num_pairs):
        order = list(ways) if i % 2 else list(ways)[::-1]
        seconds = dict[str, float]()
        for name in order:
            clocks, values[name] = timed(ways[name])
            seconds[name] = clocks.cpu
        pairs.append(seconds)
    exact = by_singular_values(x, y)
    return {
        "samples": num,
        "pairs": num_pairs,
        "cpu_seconds": {name: round(statistics.median(pair[name] for pair in pairs), 2) for name in ways},
        "root_over_distance": round(statistics.median(p["root"] / p["distance"] for p in pairs), 2),
        "root_over_from_features": round(statistics.median(p["root"] / p["from_features"] for p in pairs), 2),
        "distance_from_root": float(f"{abs(values['distance'] / values['root'] - 1):.1e}"),
        "from_exact": {name: float(f"{abs(value / exact - 1):.1e}") for name, value in values.items()},
    }


def scores(options: argparse.Namespace) -> Iterator[Row]:
    """What each score costs, and the ratio of all of them to the Frechet distance alone."""
    num = options.num or 10_000
    real, fake, logits = (draw(num, dim, seed) for dim, seed in ((DIM, 0), (DIM, 1), (CLASSES, 2)))
    moments = [Moments(DIM), Moments(DIM)]
    moments[0].update(real)

    def stream() -> None:
        for batch in torch.split(fake, BATCH):
            moments[1].update(batch)

    cpu = {
        "moments": timed(stream)[0].cpu,
        "frechet": timed(lambda: from_moments(*moments))[0].cpu,
        "inception_score": timed(lambda: inception_score(logits))[0].cpu,
        "kernel": timed(lambda: kernel_distance(fake, real))[0].cpu,
        "prdc": timed(lambda: prdc(real, fake, k=3))[0].cpu,
        "extraction": num * seconds_per_image(),
    }
    alone = cpu["extraction"] + cpu["moments"] + cpu["frechet"]
    row = {"samples": num, "cpu_seconds": {name: round(value, 1) for name, value in cpu.items()}}
    yield row | {"all_over_frechet": round(sum(cpu.values()) / alone, 4)}


def pair(options: argparse.Namespace) -> Iterator[Row]:
    """Both evaluations, one after the other, in an order that alternates."""
    num = options.num or 512
    real, fake = (Noise(num, seed) for seed in (0, 1))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GANZOO_CACHE"] = folder
        weights = random_weights(Path(folder) / "inception.pth")
        extractor = Inception(weights, sha256(weights))
        protocol = Protocol(num=num, kid_subset_size=num // 10)
        metrics = {"fd": ("fd",), "all": ("fd", "is", "kd", "prdc")}
        ways = {name: Evaluation(protocol, extractor, real, metrics=metrics[name]) for name in ("all", "fd")}
        extractor(fake[np.arange(min(num, BATCH))].data)  # warms up
        pairs = list[dict[str, float]]()
        for i in range(options.pairs):
            seconds = dict[str, float]()
            for name in list(ways) if i % 2 else list(ways)[::-1]:
                way = ways[name]
                seconds[name] = timed(lambda way=way: way.scores(way.collect_images(fake)))[0].cpu  # type: ignore[misc]
            pairs.append(seconds)
    ratios = [seconds["all"] / seconds["fd"] for seconds in pairs]
    cpu = {name: round(statistics.median(seconds[name] for seconds in pairs), 1) for name in ways}
    row = {"samples": num, "pairs": options.pairs, "cpu_seconds": cpu}
    yield row | {"all_over_frechet": round(statistics.median(ratios), 4), "highest": round(max(ratios), 4)}


class Noise:
    """Random images of 32x32 pixels, as a data module."""

    shape, num_classes, split = (3, 32, 32), 0, "train"

    def __init__(self, num: int, seed: int) -> None:
        self.num, self.content_hash, self.dataset = num, f"noise {seed}", self
        self.class_names = list[str]()
        self.images = torch.randint(256, (num, *self.shape), generator=torch.Generator().manual_seed(seed)).byte()

    def __getitem__(self, indices: NDArray[np.int64]) -> Batch:
        return Batch(self.images[torch.from_numpy(indices)], None)


def memory(options: argparse.Namespace) -> Iterator[Row]:
    """Peaks of processes of their own, in MB."""
    num = options.num or 50_000
    for name in CHILDREN:
        command = [sys.executable, "-m", "benchmarks.speed.evaluation", name]
        command += ["--num", str(num), "--threads", str(options.threads)]
        peak = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        yield {"samples": num, "dim": DIM, "of": name, "peak_mb": round(peak / 1e6)}


def statistics_alone(num: int) -> float:
    """Bytes that streaming and its scores take above the start."""
    begin = resident("VmRSS")
    moments, logits = [Moments(DIM), Moments(DIM)], Bank(num)
    for i in range(0, num, BATCH):
        size = min(BATCH, num - i)
        for side, part in enumerate(moments):
            part.update(draw(size, DIM, 2 * i + side))
        logits.update(draw(size, CLASSES, i))
    from_moments(*moments)
    inception_score(logits.rows)
    return resident("VmHWM") - begin


def prdc_alone(num: int) -> float:
    """Bytes that PRDC takes above the features of both sides."""
    real, fake = torch.empty(num, DIM), torch.empty(num, DIM)
    for side, x in enumerate((real, fake)):
        for i in range(0, num, BATCH):
            x[i : i + BATCH] = draw(min(BATCH, num - i), DIM, 2 * i + side)
    begin = resident("VmRSS")
    prdc(real, fake, k=3)
    return resident("VmHWM") - begin


def features(num: int, seed: int) -> Tensor:
    """Float64 (num, 2048) whose variances fall over six decades along random directions, with another mean each."""
    directions = torch.linalg.qr(draw(DIM, DIM, 10 + seed).double()).Q
    scaled = draw(num, DIM, seed).double() * torch.logspace(0, -3, DIM, dtype=torch.float64)
    return torch.addmm(torch.tensor(0.01 * seed).double(), scaled, directions)


def by_root(mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor) -> float:
    """The textbook's formula."""
    root = scipy.linalg.sqrtm((cov1 @ cov2).numpy())
    return float((mean1 - mean2).square().sum() + cov1.trace() + cov2.trace() - 2 * np.trace(root).real)


def by_singular_values(x: Tensor, y: Tensor) -> float:
    """The trace of the root as the nuclear norm of the product of the centred features."""
    a, b = ((f - f.mean(0)) / math.sqrt(len(f) - 1) for f in (x, y))
    product = torch.linalg.qr(a).R @ torch.linalg.qr(b).R.T if len(a) > DIM else a @ b.T
    root = torch.linalg.svdvals(product).sum()
    return float((x.mean(0) - y.mean(0)).square().sum() + a.square().sum() + b.square().sum() - 2 * root)


def seconds_per_image(num: int = 32) -> float:
    """CPU time of Inception with random weights on images of 32x32."""
    images = torch.randint(0, 256, (num, 3, 32, 32), dtype=torch.uint8)
    with tempfile.TemporaryDirectory() as folder:
        weights = random_weights(Path(folder) / "inception.pth")
        extractor = Inception(weights, sha256(weights))
        extractor(images)
        return timed(lambda: extractor(images))[0].per(num).cpu


def timed(way: Callable[[], T]) -> tuple[Clocks, T]:
    """What it took, and what it gave."""
    begin = now()
    found = way()
    return now() - begin, found


def draw(num: int, dim: int, seed: int) -> Tensor:
    return torch.randn(num, dim, generator=torch.Generator().manual_seed(seed))


PARTS: dict[str, Callable[[argparse.Namespace], Iterator[Row]]] = {
    "frechet": frechet,
    "scores": scores,
    "pair": pair,
    "memory": memory,
}
CHILDREN: dict[str, Callable[[int], float]] = {"statistics": statistics_alone, "prdc": prdc_alone}

if __name__ == "__main__":
    main()
