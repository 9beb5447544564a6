"""What several stacked seeds cost against one: in the same program, and in ``Trainer.fit``.

Both sides run in turn, in one process and one thread; CPU time counts, since the machine may be shared.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.scores.methods import Method
from benchmarks.scores.protocol import Protocol, Target
from benchmarks.scores.records import commit, machine
from benchmarks.scores.train import Run
from benchmarks.speed.bare import BareLoop
from benchmarks.speed.clocks import silence
from benchmarks.speed.overhead import Case, Interleave, fit
from ganzoo.models import MLPGAN

CYCLES = 10  #: of each side, in turn
Pairs = list[tuple[float, float]]  #: CPU milliseconds per cycle: one seed, all seeds


def compare(
    protocol: Protocol, method: Method, target: Target, *, seconds: float = 30.0, num_seeds: int = 5
) -> dict[str, Any]:
    """Medians of both sides, and of the ratio of the pairs; against the fit for the plain GAN alone."""
    facts: dict[str, Any] = {"protocol": protocol.name, "method": method.name, "seeds": num_seeds}
    facts |= {"machine": machine(torch.device("cpu")), "commit": commit()}
    facts["one_stacked"] = _summary(_stacked_pairs(protocol, method, target, seconds, num_seeds))
    if method.name == "gan":
        facts["one_in_fit"] = _summary(_fit_pairs(protocol, Run(protocol, method, target, range(num_seeds)), seconds))
    return facts


def _stacked_pairs(protocol: Protocol, method: Method, target: Target, seconds: float, num_seeds: int) -> Pairs:
    one, several = (Run(protocol, method, target, range(num)) for num in (1, num_seeds))
    for run in (one, several):
        _cycle_ms(run)  # warms up
    pairs: Pairs = []
    end = time.monotonic() + seconds
    while not pairs or time.monotonic() < end:
        pairs.append((_cycle_ms(one), _cycle_ms(several)))
    return pairs


def _fit_pairs(protocol: Protocol, run: Run, seconds: float) -> Pairs:
    """The same networks as a model of ganzoo, where the players take turns, trained on batches from memory."""
    silence()
    case = Case(lambda: model(protocol), (protocol.batch, 2))
    interleave = Interleave(_Stack(run), case.shape)
    fit(case, seconds, [interleave])
    return [(1e3 * whole.cpu, 1e3 * stack.cpu) for stack, whole in interleave.pairs[len(interleave.pairs) // 10 :]]


def model(protocol: Protocol) -> MLPGAN:
    """The plain GAN of the protocol, one seed of it."""
    return MLPGAN(
        latent_dim=protocol.latent_dim,
        hidden=protocol.generator_width,
        num_layers=protocol.generator_layers,
        generator_norm="batch",
        discriminator_hidden=protocol.discriminator_width,
        discriminator_layers=protocol.discriminator_layers,
        pieces=protocol.pieces,
        ema=None,
        total_kimg=1e9,
    )


class _Stack(BareLoop):
    """The stacked seeds in the place of the bare loop."""

    def __init__(self, run: Run) -> None:  # has nothing of the bare loop but its name
        self.stack = run

    def run(self, batches: Iterator[Tensor], num_cycles: int) -> None:
        """Train for so many cycles, on batches of its own."""
        for _ in range(num_cycles):
            self.stack.step()


def _summary(pairs: Pairs) -> dict[str, float]:
    one, several = (round(statistics.median(side), 2) for side in zip(*pairs, strict=True))
    return {
        "one_ms": one,
        "all_ms": several,
        "ratio": round(statistics.median(b / a for a, b in pairs), 2),
        "num_pairs": len(pairs),
    }


def _cycle_ms(run: Run) -> float:
    start = time.process_time()
    for _ in range(CYCLES):
        run.step()
    return (time.process_time() - start) * 1000 / CYCLES
