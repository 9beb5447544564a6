"""Features of Inception against torch-fidelity's own loop: ``python -m benchmarks.speed.extractors``.

The same PNG files, weights, batches and thread: torch-fidelity's ``get_featuresdict_from_dataset``, which its command
runs, with the features of FID and of the inception score; and ganzoo's extractor fed by the same data set and loader.
Pairs are interleaved and their order alternates; the ratio is the median over pairs, in CPU time on a CPU (a machine
may be shared). The first pair warms up. Without ``--weights`` they are random: that changes no number of operations.

    python -m benchmarks.speed.extractors --num 64 --pairs 7 --json docs/records/extractors-speed.json
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch_fidelity.datasets import ImagesPathDataset
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.utils import get_featuresdict_from_dataset

from benchmarks.speed.clocks import Clocks, now, silence
from benchmarks.speed.rows import Rows
from ganzoo.metrics.extractors import Features, Inception
from ganzoo.metrics.extractors.weights import sha256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", help="file of Inception's weights")
    parser.add_argument("--sizes", nargs="+", type=int, default=[32, 256], help="sides of the images in pixels")
    parser.add_argument("--num", type=int, default=32, help="images per measurement")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the record here, after each row")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    silence()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = options.weights or random_weights(folder / "inception.pth")
        rows = Rows(options.json, "cuda" if torch.cuda.is_available() else "cpu")
        for size in options.sizes:
            files = pictures(folder / str(size), options.num, size)
            rows.add(measure(files, weights, options.batch_size, options.pairs), threads=options.threads)


def measure(files: list[str], weights: str, batch_size: int, pairs: int) -> dict[str, float | int | str]:
    """Milliseconds per image of both, the ratio, and how far the features differ."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    data: Dataset[Tensor] = ImagesPathDataset(files)
    reference = FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=weights
    ).to(device)
    extractor = Inception(weights, sha256(weights)).to(device)
    extractor.load()
    on_gpu = device == "cuda"

    def theirs() -> Tensor:
        found: dict[str, Tensor] = get_featuresdict_from_dataset(data, reference, batch_size, on_gpu, True, False)
        return found["2048"]

    def ours() -> Tensor:
        return features(data, extractor, batch_size)

    expected, found = theirs(), ours()
    rounds = [timed(theirs, ours) if i % 2 else timed(ours, theirs)[::-1] for i in range(pairs)]
    clock = 1 if on_gpu else 0
    per_image = [[1e3 * clocks.per(len(files))[clock] for clocks in pair] for pair in rounds]
    return {
        "size": Image.open(files[0]).width,
        "device": device,
        "threads": torch.get_num_threads(),
        "images": len(files),
        "batch": batch_size,
        "torch_fidelity_ms": round(statistics.median(t for t, _ in per_image), 2),
        "ganzoo_ms": round(statistics.median(o for _, o in per_image), 2),
        "ratio": round(statistics.median(t / o for t, o in per_image), 3),
        "ratio_lowest": round(min(t / o for t, o in per_image), 3),
        "relative_difference": float(f"{float((found - expected).norm() / expected.norm()):.2g}"),
    }


def features(data: Dataset[Tensor], extractor: Callable[[Tensor], Features], batch_size: int) -> Tensor:
    """All images of a set through ganzoo's extractor, as torch-fidelity's loop does it."""
    return torch.cat([extractor(batch).features.cpu() for batch in DataLoader(data, batch_size)])


def timed(first: Callable[[], Tensor], second: Callable[[], Tensor]) -> tuple[Clocks, Clocks]:
    """One after the other."""
    begin = now()
    first()
    middle = now()
    second()
    return middle - begin, now() - middle


def pictures(folder: Path, num: int, size: int) -> list[str]:
    """Random PNG files."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    paths = [folder / f"{i}.png" for i in range(num)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (size, size, 3), np.uint8)).save(path)
    return [str(path) for path in paths]


class _Untrained(FeatureExtractorInceptionV3):  # type: ignore[misc]  # torch-fidelity has no types
    """The network with the weights that its layers begin with."""

    def load_state_dict(self, *_: object) -> None:
        """The constructor wants a file; it is given an empty one."""


def random_weights(path: Path) -> str:
    """A file of weights that both sides read."""
    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    network = _Untrained("inception-v3-compat", ["2048"], feature_extractor_weights_path=empty)
    torch.save(network.state_dict(), path)
    return str(path)


if __name__ == "__main__":
    main()
