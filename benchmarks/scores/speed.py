"""What several stacked seeds cost against one."""

from __future__ import annotations

import json
import statistics
import time

from benchmarks.scores.methods import Method
from benchmarks.scores.protocol import Protocol, Target
from benchmarks.scores.train import Run

CYCLES = 10  #: of each side, in turn


def compare(protocol: Protocol, method: Method, target: Target, *, seconds: float = 30.0, num_seeds: int = 5) -> str:
    """JSON: milliseconds of CPU time per cycle of one seed and of several, and the median ratio of the pairs."""
    sides = [Run(protocol, method, target, range(num)) for num in (1, num_seeds)]
    for side in sides:
        _cycle_ms(side)
    pairs: list[list[float]] = []
    end = time.monotonic() + seconds
    while not pairs or time.monotonic() < end:
        pairs.append([_cycle_ms(side) for side in sides])
    one, several = (round(statistics.median(side), 2) for side in zip(*pairs, strict=True))
    ratio = round(statistics.median(b / a for a, b in pairs), 2)
    return json.dumps(
        {"method": method.name, "seeds": num_seeds, "one_ms": one, "all_ms": several, "ratio": ratio, "n": len(pairs)}
    )


def _cycle_ms(run: Run) -> float:
    start = time.process_time()
    for _ in range(CYCLES):
        run.step()
    return (time.process_time() - start) * 1000 / CYCLES
