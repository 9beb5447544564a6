"""What several stacked seeds cost against one: in the same program, in ``Trainer.fit``, and on the clock.

Both sides run in turn and in one thread. In one process CPU time counts, since the machine may be shared; of stacks on
several cores, the time until the last one has ended, which is fair on a quiet machine only.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from benchmarks.scores.methods import Method
from benchmarks.scores.protocol import Protocol, Target
from benchmarks.scores.records import commit, machine
from benchmarks.scores.stacks import SPAWN, Plan, split
from benchmarks.scores.train import Run
from benchmarks.speed.bare import BareLoop
from benchmarks.speed.clocks import silence
from benchmarks.speed.overhead import Case, Interleave, fit
from ganzoo.models import MLPGAN

CYCLES = 10  #: of each side, in turn
Pairs = list[tuple[float, float]]  #: milliseconds per cycle: one seed, all seeds


def compare(
    protocol: Protocol, method: Method, target: Target, *, seconds: float = 30.0, num_seeds: int = 5
) -> dict[str, Any]:
    """Medians of both sides, and of the ratio of the pairs; against the fit for the plain GAN alone."""
    facts: dict[str, Any] = {"protocol": protocol.name, "method": method.name, "seeds": num_seeds}
    facts |= {"machine": machine(torch.device("cpu")), "commit": commit()}
    facts["one_stacked"] = _summary(_stacked_pairs(protocol, method, target, seconds, num_seeds))
    if method.name == "gan":
        facts["one_in_fit"] = _summary(_fit_pairs(protocol, Run(protocol, method, target, range(num_seeds)), seconds))
    stacks = split(range(num_seeds), os.cpu_count() or 1)
    on_the_clock = _clock_pairs(Plan(protocol, method, target), stacks, seconds)
    facts["on_the_clock"] = {"stacks": [len(stack) for stack in stacks], **_summary(on_the_clock)}
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


def _clock_pairs(plan: Plan, stacks: Sequence[Sequence[int]], seconds: float) -> Pairs:
    """One seed in a process of its own, and all of them in a process per stack."""
    with ExitStack() as opened:
        one, *several = [opened.enter_context(_worker(plan, seeds)) for seeds in ([stacks[0][0]], *stacks)]
        pairs: Pairs = []
        end = time.monotonic() + seconds
        while not pairs or time.monotonic() < end:
            pairs.append((_clock_ms([one]), _clock_ms(several)))
    return pairs


def _clock_ms(workers: Sequence[Connection]) -> float:
    """Until all have done their cycles."""
    start = time.perf_counter()
    for worker in workers:
        worker.send(CYCLES)
    for worker in workers:
        worker.recv()
    return (time.perf_counter() - start) * 1000 / CYCLES


@contextmanager
def _worker(plan: Plan, seeds: Sequence[int]) -> Iterator[Connection]:
    """A process that trains these seeds for as many cycles as it is sent, and answers when they are done."""
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=_serve, args=(plan, seeds, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        ours.recv()
        yield ours
    finally:
        ours.close()
        process.join()


def _serve(plan: Plan, seeds: Sequence[int], orders: Connection) -> None:
    run = plan.run(seeds)
    _cycle_ms(run)  # warms up
    with suppress(EOFError):  # the other end was closed
        while True:
            orders.send(run.cycle)
            for _ in range(orders.recv()):
                run.step()


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
