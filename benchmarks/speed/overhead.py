"""What Lightning and ganzoo's loop add to a bare loop: ``python -m benchmarks.speed.overhead``.

The same networks, loss, fused Adam, EMA, latents and fresh batches from memory, in a loop written by hand and in
``Trainer.fit``. Both run in one process and one thread: between any two training steps of the fit, the bare loop runs
as many cycles as a step has. CPU time of the process counts, since the machine may be shared; wall time is beside it.
With ``--callbacks``, those of ``ganzoo fit`` run too, at their default intervals: the means then hold the grids, rows
and checkpoints that fall into the measured time, the medians do not.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import cycle
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import Timer
from torch import Tensor

from benchmarks.speed.bare import BareLoop
from benchmarks.speed.clocks import Clocks, now, silence
from ganzoo.callbacks import Checkpoint, GracefulStop, Log, Progress, Samples
from ganzoo.callbacks.base import as_gan
from ganzoo.files import write_json
from ganzoo.gan import GAN
from ganzoo.models import DCGAN, MLPGAN
from ganzoo.trainer import Trainer


@dataclass
class Case:
    """A model, and the shape of its joint batch."""

    make: Callable[[], GAN]
    shape: tuple[int, ...]


CASES = {
    "two-layer": Case(lambda: MLPGAN(num_layers=1, hidden=64), (64, 2)),
    "dcgan-32-width-8": Case(lambda: DCGAN(32, 1, width=8), (64, 1, 32, 32)),
    "dcgan-32-width-16": Case(lambda: DCGAN(32, 3, width=16), (64, 3, 32, 32)),
    "dcgan-32-width-32": Case(lambda: DCGAN(32, 3, width=32), (64, 3, 32, 32)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}")
    parser.add_argument("--seconds", type=float, default=20.0, help="per case")
    parser.add_argument("--callbacks", action="store_true", help="with the callbacks of ganzoo fit")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--profile", action="store_true", help="where the time of a fit goes, instead of comparing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    silence()
    cases = {name: CASES[name] for name in options.cases or CASES}
    if options.profile:
        for case in cases.values():
            profile(case, options.seconds, ours(options.callbacks))
        return
    results = {}
    for name, case in cases.items():
        results[name] = compare(case, options.seconds, ours(options.callbacks))
        print(name, json.dumps(results[name]), flush=True)
    if options.json:
        write_json(options.json, results)


def compare(case: Case, seconds: float, callbacks: list[L.Callback]) -> dict[str, float]:
    """Milliseconds per cycle: medians of each, and of what the fit adds within a pair."""
    interleave = Interleave(BareLoop(case.make()), case.shape)
    fit(case, seconds, [*callbacks, interleave])
    pairs = interleave.pairs[len(interleave.pairs) // 10 :]  # the first ones warm up
    result: dict[str, float] = {"num_pairs": len(pairs)}
    for clock, name in enumerate(("cpu", "wall")):
        bare = statistics.median(pair[0][clock] for pair in pairs)
        whole = statistics.median(pair[1][clock] for pair in pairs)
        all_added = [pair[1][clock] - pair[0][clock] for pair in pairs]
        added = statistics.median(all_added)
        result |= {
            f"{name}_bare_ms": round(1e3 * bare, 3),
            f"{name}_fit_ms": round(1e3 * whole, 3),
            f"{name}_added_ms": round(1e3 * added, 3),
            f"{name}_added_mean_ms": round(1e3 * statistics.mean(all_added), 3),
            f"{name}_added_percent": round(100 * added / bare, 2),
        }
    return result


class Interleave(L.Callback):
    """Runs the bare loop before each training step, for as many cycles as the step before it had."""

    def __init__(self, loop: BareLoop, shape: tuple[int, ...]) -> None:
        self.loop, self.batches = loop, in_memory(shape)
        self.pairs: list[tuple[Clocks, Clocks]] = []  #: seconds per cycle: of the bare loop, of the step after it
        self._bare, self._begin, self._cycles = Clocks(0.0, 0.0), now(), 0

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        end, clock = now(), as_gan(pl_module).clock
        num_cycles, self._cycles = clock.cycles - self._cycles, clock.cycles
        if num_cycles:
            self.pairs.append((self._bare, (end - self._begin).per(num_cycles)))
            as_gan(pl_module).meter.clear()  # as the log does every thousand images; else it would grow without end
        begin, num_cycles = now(), max(num_cycles, 1)
        self.loop.run(self.batches, num_cycles)
        self._bare = (now() - begin).per(num_cycles)
        self._begin = now()


def ours(wanted: bool) -> list[L.Callback]:
    """The callbacks of ``ganzoo fit``."""
    return [Log(), Samples(), Checkpoint(), Progress(), GracefulStop()] if wanted else []


def fit(case: Case, seconds: float, callbacks: list[L.Callback]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="cpu",
            default_root_dir=folder,
            callbacks=[*callbacks, Timer(duration=timedelta(seconds=seconds))],
            logger=False,
            enable_checkpointing=any(isinstance(one, Checkpoint) for one in callbacks),
            enable_progress_bar=any(isinstance(one, Progress) for one in callbacks),
            enable_model_summary=False,
        )
        trainer.fit(case.make(), InMemory(case.shape))


def profile(case: Case, seconds: float, callbacks: list[L.Callback]) -> None:
    """Print the functions in which a fit spends most time of its own."""
    import cProfile
    import pstats

    profiler = cProfile.Profile()
    profiler.runcall(fit, case, seconds, callbacks)
    pstats.Stats(profiler).sort_stats("tottime").print_stats(60)


class InMemory:
    """A loader of fresh batches from memory, without end."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def __iter__(self) -> Iterator[Tensor]:
        return in_memory(self.shape)


def in_memory(shape: tuple[int, ...]) -> Iterator[Tensor]:
    return cycle(list(torch.rand(8, *shape) * 2 - 1))


if __name__ == "__main__":
    main()
