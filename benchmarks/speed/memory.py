"""Anonymous memory of building and reading a cache: ``python -m benchmarks.speed.memory --gb 4``.

Three child processes: one with 1,024 images (the empty run), one with a cache of that size, one with twice as
much. The parent samples their RssAnon (memory that is no file's: mapped pages of the cache can be dropped at any
time and do not count). Targets: at most 400 MB above the empty run, and under 5 % more for twice the data.
Linux only; takes four times the given size on disk, in the folder for temporary files.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gb", type=float, default=4.0)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        read(options.child)
        return
    row = 3 * options.image_size**2
    one = int(options.gb * 1e9 / row)
    empty, once, twice = (measure(num, options.image_size) for num in (1024, one, 2 * one))
    above = [round(run["peak_anonymous_mb"] - empty["peak_anonymous_mb"], 1) for run in (once, twice)]
    print(
        json.dumps(
            {
                "runs": [empty, once, twice],
                "above_empty_mb": above[0],
                "above_empty_doubled_mb": above[1],
                "change_by_doubling_percent": round(100 * (above[1] / above[0] - 1), 2),
                "change_of_peak_by_doubling_percent": round(
                    100 * (twice["peak_anonymous_mb"] / once["peak_anonymous_mb"] - 1), 2
                ),
            },
            indent=1,
        )
    )


def measure(num: int, side: int) -> dict[str, float]:
    """Peak RssAnon in MB of a process that builds a cache of ``num`` images and reads a whole epoch of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        _write(path, num, side)
        begin, peak = time.perf_counter(), 0
        child = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.speed.memory", "--child", str(path)],
            env=os.environ | {"GANZOO_CACHE": folder},
        )
        while child.poll() is None:
            peak = max(peak, _anonymous(child.pid))
            time.sleep(0.005)
        if child.returncode:
            raise SystemExit(child.returncode)
        seconds = time.perf_counter() - begin
    return {"gb": num * 3 * side**2 / 1e9, "peak_anonymous_mb": peak / 1e3, "seconds": round(seconds, 1)}


def read(path: str) -> None:
    """The child: build, then read one and a half epochs, the boundary between two orders included."""
    from ganzoo.data import Array

    data = Array(path, labels=False)
    data.setup()
    batches = iter(data.train_dataloader())
    for _ in range(max(3 * data.num // 128, 1000)):
        next(batches)


def _write(path: Path, num: int, side: int) -> None:
    block = np.random.default_rng(0).integers(0, 256, (1024, side, side, 3), np.uint8)
    header = {"descr": "|u1", "fortran_order": False, "shape": (num, side, side, 3)}
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, num, len(block)):
            file.write(block[: num - start].tobytes())


def _anonymous(pid: int) -> int:
    """RssAnon in kB; 0 if the process has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)


if __name__ == "__main__":
    main()
