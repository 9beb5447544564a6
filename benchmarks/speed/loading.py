"""How long a training step waits for its batch, with the page cache warm: ``python -m benchmarks.speed.loading``.

A step is simulated by a sleep. Waiting is the time inside ``next(loader)``; the target is a share under 5 % for
64 images of 32x32x3 and a step of 2 ms, read by one thread of the training process (no worker process).
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--num-images", type=int, default=50_000)
    parser.add_argument("--num-workers", type=int, default=0)
    parser.add_argument("--step-ms", type=float, default=2.0)
    parser.add_argument("--num-steps", type=int, default=2000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GANZOO_CACHE"] = folder
        print(json.dumps(measure(options, Path(folder)), indent=1))


def measure(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Waiting per step in ms (median, mean), and its share of all time."""
    from ganzoo.data import Array

    side = options.image_size
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (options.num_images, side, side, options.channels), np.uint8)
    np.save(folder / "images.npy", images)
    del images
    data = Array(
        str(folder / "images.npy"), batch_size=options.batch_size, num_workers=options.num_workers, mirror=True
    )
    data.setup()
    loader = iter(data.train_dataloader())
    for _ in range(2 * options.num_images // options.batch_size):  # every page of the cache is touched
        next(loader)
    waits = []
    begin = time.perf_counter()
    for _ in range(options.num_steps):
        start = time.perf_counter()
        next(loader)
        waits.append(time.perf_counter() - start)
        time.sleep(options.step_ms / 1e3)
    total = time.perf_counter() - begin
    return {
        "wait_ms_median": 1e3 * float(np.median(waits)),
        "wait_ms_mean": 1e3 * float(np.mean(waits)),
        "wait_ms_largest": 1e3 * max(waits),
        "waiting_share": sum(waits) / total,
        "images_per_second_without_step": options.num_steps * options.batch_size / _time(loader, options.num_steps),
    }


def _time(loader: Iterator[object], num: int) -> float:
    begin = time.perf_counter()
    for _ in range(num):
        next(loader)
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
