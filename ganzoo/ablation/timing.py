"""What a cycle costs, relative to the base: both in one process, by turns, while nothing else of the ablation runs."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import lightning.pytorch as L
import torch

from ganzoo.trainer import Trainer

if TYPE_CHECKING:
    from ganzoo.data import GANDataModule
    from ganzoo.gan import GAN


@dataclass
class Subject:
    """A fresh model, its data, and the options of the trainer that matter for its speed."""

    gan: GAN
    data: GANDataModule
    trainer: dict[str, Any] = field(default_factory=dict)


class Clocks(NamedTuple):
    """Seconds: of this process over all its threads, which a busy machine changes least, and of the wall."""

    cpu: float
    wall: float


@dataclass(frozen=True)
class Cost:
    """Time per cycle of a variation as a multiple of the base's: medians of the ratios within pairs, and quartiles."""

    cpu: float
    cpu_quartiles: tuple[float, float]
    wall: float
    wall_quartiles: tuple[float, float]
    base_ms: Clocks  #: per cycle, medians
    ms: Clocks
    images: int  #: real images per cycle
    base_images: int
    num_pairs: int
    num_cycles: int  #: of each part of a pair
    device: str
    threads: int
    load_average: float  #: of the machine in the last minute; over 1, other work ran too

    @property
    def ratio(self) -> float:
        """Of processor time where that is what computes, else of wall time."""
        return self.cpu if self.device == "cpu" else self.wall

    @classmethod
    def load(cls, state: Mapping[str, Any]) -> Cost:
        """The inverse of ``dataclasses.asdict``, also through JSON."""
        pairs = {name: tuple(state[name]) for name in ("cpu_quartiles", "wall_quartiles")}
        return cls(**{**state, **pairs, **{name: Clocks(*state[name]) for name in ("base_ms", "ms")}})


def compare(base: Subject, other: Subject, *, seconds: float = 8.0, min_pairs: int = 5, max_pairs: int = 40) -> Cost:
    """Train both for a moment, in alternating bursts of cycles.

    A burst is a multiple of the intervals (``every``) of all parts, so that it holds lazy terms at their share. Costs
    that change over a run, such as stages and schedules, are those of its beginning.

    Args:
        base: What is compared with.
        other: The variation.
        seconds: How long to measure, about.
        min_pairs: Pairs to measure even when that takes longer.
        max_pairs: Pairs after which to end earlier.
    """
    measured: list[Cost] = []

    def measure() -> None:
        measured.append(_measure(base, other, seconds, min_pairs, max_pairs))

    try:
        _inside_fit(base, lambda: _inside_fit(other, measure))
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):  # Lightning's way to end
            raise KeyboardInterrupt from error
        raise
    return measured[0]


class _Begin(L.Callback):
    """Does something when a fit has made everything ready, then ends it."""

    def __init__(self, then: Callable[[], None]) -> None:
        self.then: Callable[[], None] | None = then

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        trainer.should_stop = True
        if self.then is not None:
            then, self.then = self.then, None
            then()


def _inside_fit(subject: Subject, then: Callable[[], None]) -> None:
    trainer = Trainer(
        **subject.trainer,
        devices=1,
        max_steps=10**9,  # never reached; without a budget the model would refuse
        callbacks=[_Begin(then)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.fit(subject.gan, datamodule=subject.data)


def _measure(base: Subject, other: Subject, seconds: float, min_pairs: int, max_pairs: int) -> Cost:
    with closing(_batches(base)) as base_batches, closing(_batches(other)) as other_batches:
        sides = [(base.gan, base_batches), (other.gan, other_batches)]
        step = math.lcm(*(getattr(part, "every", 1) for gan, _ in sides for part in gan.tricks))
        for gan, batches in sides:
            _burst(gan, batches, step)  # the first cycles are slower
        first = _burst(base.gan, base_batches, step)
        num_cycles = step * max(1, round(0.1 / max(first.wall, 1e-4)))
        pairs: list[tuple[Clocks, Clocks]] = []
        begin = time.monotonic()
        while len(pairs) < max_pairs and (len(pairs) < min_pairs or time.monotonic() - begin < seconds):
            turn = -1 if len(pairs) % 2 else 1  # what drifts meets both alike
            found = [_burst(gan, batches, num_cycles) for gan, batches in sides[::turn]][::turn]
            pairs.append((found[0], found[1]))
    return _cost(pairs, num_cycles, base.gan, other.gan)


def _batches(subject: Subject) -> Generator[tuple[Any], None, None]:
    """The stream of the data as the loop takes it."""
    with closing(iter(subject.data.train_dataloader())) as loader:
        for batch in loader:
            yield (batch,)


def _burst(gan: GAN, batches: Iterator[tuple[Any]], num_cycles: int) -> Clocks:
    """Seconds of so many cycles."""
    gan.meter.clear()  # as the log does
    begin = _now()
    with gan.trainer.precision_plugin.train_step_context():
        for _ in range(num_cycles):
            gan.cycle(batches)
    end = _now()
    return Clocks(end.cpu - begin.cpu, end.wall - begin.wall)


def _now() -> Clocks:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return Clocks(time.process_time(), time.perf_counter())


def _cost(pairs: list[tuple[Clocks, Clocks]], num_cycles: int, base: GAN, other: GAN) -> Cost:
    ratios = [[b[clock] / a[clock] for a, b in pairs] for clock in (0, 1)]
    quartiles = [(q[0], q[2]) for q in (statistics.quantiles(one, n=4) for one in ratios)]
    ms = [
        Clocks(*(1e3 * statistics.median(pair[side][clock] for pair in pairs) / num_cycles for clock in (0, 1)))
        for side in (0, 1)
    ]
    images = [gan.clock.images // max(gan.clock.cycles, 1) for gan in (other, base)]
    return Cost(
        cpu=statistics.median(ratios[0]),
        cpu_quartiles=quartiles[0],
        wall=statistics.median(ratios[1]),
        wall_quartiles=quartiles[1],
        base_ms=ms[0],
        ms=ms[1],
        images=images[0],
        base_images=images[1],
        num_pairs=len(pairs),
        num_cycles=num_cycles,
        device=base.device.type,
        threads=torch.get_num_threads(),
        load_average=round(os.getloadavg()[0], 2),
    )
