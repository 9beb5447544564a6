"""Whole cycles: how they are run and timed, how many FLOPs they have, and the facts of a row.

A cycle is all discriminator turns, the generator's, both optimizers and the EMA. FLOPs are 2 per multiply-add, double
backward included.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, TypeVar

import lightning.pytorch as L
import torch
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count
from torch.utils.module_tracker import ModuleTracker

from benchmarks.speed.clocks import Clocks, now
from benchmarks.speed.limits import ceiling, peak_memory, reset_peak_memory
from benchmarks.speed.stages import Stages, interval
from ganzoo.ablation.timing import Subject
from ganzoo.callbacks.base import as_gan
from ganzoo.gan import GAN
from ganzoo.trainer import Trainer

T = TypeVar("T")


def fit(subject: Subject, callback: L.Callback) -> Trainer:
    """Train until the callback ends it."""
    trainer = Trainer(
        **subject.trainer,
        devices=1,
        max_steps=10**9,  # never reached; without a budget the model would refuse
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(subject.gan, datamodule=subject.data)
    return trainer


def drive(subject: Subject, function: Callable[[Cycles], T]) -> T:
    """Hand the cycles of a fit, in which everything is ready, to a function; then end the fit."""
    found: list[T] = []

    class Drive(L.Callback):
        def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
            trainer.should_stop = True
            if not found:
                gan = as_gan(pl_module)
                batches: Any = iter(subject.data.train_dataloader())
                with closing(batches) as loader:
                    found.append(function(Cycles(gan, ((batch, 0, 0) for batch in loader))))

    fit(subject, Drive())
    return found[0]


class Cycles:
    """Cycles of a model in a fit, by hand: of each kind, with what is lazy and without, only one is run.

    A mean cycle weighs the kinds as they come in a period, after which every lazy term has had its turn equally often.
    """

    def __init__(self, gan: GAN, batches: Iterator[Any]) -> None:
        self.gan, self._batches = gan, batches
        self.kinds = kinds(gan)  #: number of the first cycle of each kind, and its share of all cycles
        self.images = gan.trainer.datamodule.batch_size * gan.plan.plays[-1].d  # type: ignore[attr-defined]  # Lightning's

    def seconds(self, repeats: int = 1) -> Clocks:
        """Of the mean cycle, each kind ``repeats`` times."""
        total = Clocks(0.0, 0.0)
        for number, share in self.kinds:
            begin = now()
            self.run(number, repeats)
            spent = (now() - begin).per(repeats / share)
            total = Clocks(total.cpu + spent.cpu, total.wall + spent.wall)
        return total

    def flop(self) -> float:
        """Of the mean cycle."""
        total = 0.0
        for number, share in self.kinds:
            with counter() as counted:
                self.run(number)
            total += share * counted.get_total_flops()
        return total

    def run(self, number: int, repeats: int = 1) -> None:
        """Cycle ``number``, again and again."""
        play, clock = self.gan.plan.plays[-1], self.gan.clock
        self.gan.meter.clear()  # as the log does
        with self.gan.trainer.precision_plugin.train_step_context():
            for _ in range(repeats):
                clock.d_turns, clock.g_turns = number * play.d, number * play.g
                self.gan.cycle(self._batches)


def kinds(gan: GAN) -> list[tuple[int, float]]:
    """The first cycle of each kind within a period, and the kind's share of the period."""
    period = lazy_period(gan)
    found: dict[tuple[bool, ...], list[int]] = {}
    for number in range(period):
        found.setdefault(_due(gan, number), []).append(number)
    return [(numbers[0], len(numbers) / period) for numbers in found.values()]


def _due(gan: GAN, number: int) -> tuple[bool, ...]:
    """Of each part, in each turn of a cycle that its hooks see, whether it acts."""
    play = gan.plan.plays[-1]
    return tuple(
        (number * turns + turn) % interval(part) == 0
        for part in gan.tricks
        for player, turns in (("discriminator", play.d), ("generator", play.g))
        if player in part.players
        for turn in range(turns)
    )


def lazy_period(gan: GAN) -> int:
    """Cycles after which every lazy term has had its turn equally often."""
    return math.lcm(*map(interval, gan.tricks))


def dtype_of(subject: Subject) -> torch.dtype:
    """In which most FLOPs are."""
    return torch.bfloat16 if "bf16" in str(subject.trainer.get("precision")) else torch.float32


def clock_of(device: torch.device) -> int:
    """Which of the clocks counts: CPU time on a CPU, which may be shared, wall time on a GPU."""
    return 0 if device.type == "cpu" else 1


class _NoTracker(ModuleTracker):
    """Of modules, whose hooks do not allow ``autograd.grad``; all FLOPs are counted together."""

    def __enter__(self) -> _NoTracker:
        return self

    def __exit__(self, *args: object) -> None:
        pass


def counter() -> FlopCounterMode:
    """Counts FLOPs as a context, also in double backward passes."""
    found = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.convolution_backward: _backward_flop})
    found.mod_tracker = _NoTracker()
    return found


def _backward_flop(gradient: Any, x: Any, weight: Any, *options: Any, out_shape: Any = None, **_: Any) -> int:
    """Of a convolution's backward pass, from shapes: as many as forward for each of the two derivatives.

    torch's own formula for the weight's derivative forgets that a convolution may have groups.
    """
    transposed, mask = options[4], options[7]
    forward: int = conv_flop_count(x, weight, gradient, transposed)
    return forward * sum(map(bool, mask[:2]))


# ---------------------------------------------------------------------- one row of a table


class Rounds(L.Callback):
    """Times rounds of whole cycles in a fit, and the ceiling after each; before them it counts FLOPs."""

    def __init__(
        self,
        images_per_cycle: int,
        num_rounds: int,
        num_cycles: int,
        period: int,
        dtype: torch.dtype = torch.float32,
        end: float = math.inf,
    ) -> None:
        self.dtype = dtype  #: of the ceiling
        self.end = end  #: by ``time.monotonic``: the first round from then on is the last
        self.images_per_cycle, self.num_rounds, self.period = images_per_cycle, num_rounds, period
        self.num_cycles = num_cycles  #: per round, at least; 0: as many as fit into a second
        self.rounds: list[tuple[Clocks, Clocks]] = []  #: seconds per cycle, and FLOP/s of the ceiling by both clocks
        self.flop_per_cycle = 0.0
        self._counter: FlopCounterMode | None = None
        self._begin, self._since, self._warm = now(), 0, num_cycles > 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.period > 1:  # a step ends where a period does
            as_gan(pl_module).add_mark(self.images_per_cycle * self.period / 1000)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        end, gan = now(), as_gan(pl_module)
        gan.meter.clear()  # as the log does
        done = gan.clock.cycles - self._since
        if not gan.clock.cycles:
            self._counter = counter()
            self._counter.__enter__()  # type: ignore[no-untyped-call]  # torch's
            self._begin = now()
            return
        if done % self.period:
            return
        if self._counter is not None:
            self._counter.__exit__(None, None, None)  # type: ignore[no-untyped-call]  # torch's
            self.flop_per_cycle, self._counter = self._counter.get_total_flops() / done, None
            if not self._warm and (end - self._begin).wall > 4.0 * done / self.period:  # hardly for the counter's sake
                self._warm, self.num_cycles = True, self.period
        elif not self._warm:  # the counter has slowed down the first round
            self._warm = True
            self.num_cycles = self.period * math.ceil(1.0 / (end - self._begin).per(done).wall / self.period)
        elif done < self.num_cycles:
            return
        else:
            self.rounds.append(((end - self._begin).per(done), ceiling(pl_module.device, self.dtype)))
            trainer.should_stop = len(self.rounds) >= self.num_rounds or time.monotonic() >= self.end
        self._begin, self._since = now(), gan.clock.cycles


def measure(subject: Subject, *, rounds: int = 7, cycles: int = 0, end: float = math.inf) -> dict[str, Any]:
    """One row: whole cycles through the trainer, then once more with the time of each part.

    Args:
        subject: A fresh model.
        rounds: How often to time so many cycles.
        cycles: Of a round, which is a multiple of the intervals of all lazy terms; 0: as many as fit into a second.
        end: By ``time.monotonic``, from which on no further round is begun.
    """
    gan, data = subject.gan, subject.data
    play, period = gan.plan.plays[-1], lazy_period(gan)
    images = data.batch_size * play.d
    meter = Rounds(images, rounds, period * math.ceil(cycles / period), period, dtype_of(subject), end)
    reset_peak_memory()
    device = fit(subject, meter).strategy.root_device
    peak = peak_memory(device)
    taken = Stages(meter.num_cycles if time.monotonic() < end else period, warm=int(period == 1))
    fit(subject, taken)
    parts = taken.parts(clock_of(device))
    return {
        **facts(subject, device),
        "rounds": len(meter.rounds),
        "cycles_per_round": meter.num_cycles,
        **speed(meter.flop_per_cycle, images, meter.rounds, clock_of(device)),
        "parts_ms": {name: round(ms, 3) for name, ms in parts.items()},
        "lightning_share": round(parts["trainer"] / sum(parts.values()), 4),
        "peak_memory_mb": round(peak / 2**20),
    }


def facts(subject: Subject, device: torch.device) -> dict[str, Any]:
    """What was run, and where."""
    gan, play = subject.gan, subject.gan.plan.plays[-1]
    return {
        "model": type(gan).__name__,
        "device": device.type,
        "precision": str(subject.trainer.get("precision") or "32-true"),
        "threads": torch.get_num_threads(),
        "generator_parameters": sum(p.numel() for p in gan.generator.parameters()),
        "discriminator_parameters": sum(p.numel() for p in gan.discriminator.parameters()),
        "batch": subject.data.batch_size,
        "d_per_g": play.d / max(play.g, 1),
    }


def speed(flop: float, images: int, readings: list[tuple[Clocks, Clocks]], clock: int) -> dict[str, float]:
    """Of cycles with so many FLOPs and real images.

    Args:
        flop: Of a cycle.
        images: Of a cycle.
        readings: Seconds of a cycle, and FLOP/s of the ceiling beside it.
        clock: Which of the clocks counts for the share and the index; images per second are by the wall clock.
    """
    share = statistics.median(flop / seconds[clock] / top[clock] for seconds, top in readings)
    return {
        "gflop_per_image": float(f"{flop / images / 1e9:.5g}"),
        "ms_per_cycle": round(1e3 * statistics.median(seconds.wall for seconds, _ in readings), 3),
        "images_per_second": round(statistics.median(images / seconds.wall for seconds, _ in readings), 2),
        "ceiling_gflops": round(statistics.median(top[clock] for _, top in readings) / 1e9, 2),
        "share_of_ceiling": round(share, 4),
        "index": round(1e12 * share * images / flop, 2),  # images/s per TFLOP/s of the ceiling
    }
