"""What each lever of the residual networks gains: ``python -m benchmarks.speed.resnet [LEVER...]``.

SN-ResNet-32 as in ``sngan.yaml`` (4.28M and 1.05M parameters), batches of 64, whole cycles through ganzoo's loop. The
form without a lever and the one with all of them take turns on the same networks; a ratio is the median over these
pairs, in CPU time on a CPU (a machine may be shared). FLOPs, the ceiling and the index are those of
``python -m benchmarks.speed``.

    folds           a 3x3 convolution behind upsampling or before pooling, in one step
    shortcuts       1x1 convolutions on the small side of a change of resolution
    together        real and fake in one pass of the discriminator
    iteration       one step of the power iteration per turn, instead of one per pass
    channels_last   the memory format of feature maps and kernels
    all             without any of them

    python -m benchmarks.speed.resnet --pairs 5 --json docs/records/resnet-levers.json
    python -m benchmarks.speed.resnet folds all --d 1 --pairs 3
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from itertools import cycle
from pathlib import Path
from typing import Any
from unittest import mock

import lightning.pytorch as L
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.scores.records import commit, machine
from benchmarks.speed.__main__ import NoTracker, ceiling
from benchmarks.speed.clocks import Clocks, now, silence
from ganzoo import __version__
from ganzoo.callbacks.base import as_gan
from ganzoo.files import atomic
from ganzoo.gan import GAN
from ganzoo.layers.folded import set_folded
from ganzoo.models import SNGAN
from ganzoo.plan import Play
from ganzoo.players import Player
from ganzoo.trainer import Trainer

Form = Callable[[GAN], AbstractContextManager[None]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("levers", nargs="*", metavar="LEVER", help=f"of {', '.join(LEVERS)}; default: all of these")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--d", type=int, default=5, help="turns of the discriminator per cycle")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--width", type=int, default=128, help="of the discriminator; the generator has twice as many")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--json", type=Path, help="write the record here")
    options = parser.parse_args()
    if unknown := set(options.levers) - set(LEVERS):
        parser.error(f"no lever is named {', '.join(sorted(unknown))}")
    torch.set_num_threads(options.threads)
    silence()
    chosen = options.levers or list(LEVERS)
    row = measure(
        chosen, options.pairs, d=options.d, batch=options.batch, width=options.width, precision=options.precision
    )
    print(json.dumps(row))
    if options.json:
        device = torch.device(row["device"])
        facts = {"ganzoo": __version__, "torch": torch.__version__, "commit": commit(), "machine": machine(device)}
        with atomic(options.json, "w") as file:
            file.write(json.dumps({**facts, **row}, indent=1) + "\n")


def measure(
    chosen: list[str], pairs: int, *, d: int = 5, batch: int = 64, width: int = 128, precision: Any = "32-true"
) -> dict[str, Any]:
    """The cycle with all levers, and how much longer it takes without each."""
    widths: dict[str, Any] = {
        f"{name}_{bound}": size
        for name, size in (("generator", 2 * width), ("discriminator", width))
        for bound in ("width", "max_width")
    }
    gan = SNGAN(**widths, play=Play(d), total_kimg=1e9)
    meter = Pairs(chosen, pairs, batch)
    trainer = Trainer(
        devices=1, precision=precision, callbacks=[meter], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(gan, meter)
    clock = 0 if gan.device.type == "cpu" else 1
    shares = [meter.flop / seconds[clock] / top[clock] for seconds, top in meter.readings]
    per_image = meter.flop / (batch * d)
    return {
        "model": "SN-ResNet-32",
        "device": gan.device.type,
        "precision": precision,
        "threads": torch.get_num_threads(),
        "pairs": pairs,
        "generator_parameters": sum(p.numel() for p in gan.generator.parameters()),
        "discriminator_parameters": sum(p.numel() for p in gan.discriminator.parameters()),
        "batch": batch,
        "d_per_g": d,
        "gflop_per_image": float(f"{per_image / 1e9:.4g}"),
        "ms_per_cycle": round(1e3 * statistics.median(seconds[clock] for seconds, _ in meter.readings), 1),
        "share_of_ceiling": round(statistics.median(shares), 4),
        "index": round(1e12 * statistics.median(shares) / per_image, 2),  # images/s per TFLOP/s of the ceiling
        "gain": {name: _ratio([one[clock] for one in found]) for name, found in meter.ratios.items()},
    }


def _ratio(found: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(found), 3), "least": round(min(found), 3), "most": round(max(found), 3)}


class Pairs(L.Callback):
    """Times cycles in the first training step of a fit, which it ends; it is the loader, too."""

    def __init__(self, levers: list[str], num_pairs: int, batch: int) -> None:
        self.levers, self.num_pairs = levers, num_pairs
        self.batches = [(torch.rand(batch, 3, 32, 32) * 2 - 1, None) for _ in range(4)]
        self.ratios: dict[str, list[Clocks]] = {name: [] for name in levers}  #: time without a lever over that with it
        self.readings: list[tuple[Clocks, Clocks]] = []  #: seconds of the cycle with all levers, and the ceiling
        self.flop = 0.0  #: of that cycle

    def __iter__(self) -> Iterator[tuple[Tensor, None]]:
        return cycle(self.batches)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        gan = as_gan(pl_module)
        counter = FlopCounterMode(display=False)
        counter.mod_tracker = NoTracker()
        with counter:  # warms up, too
            self._cycle(gan)
        self.flop = float(counter.get_total_flops())
        for i in range(self.num_pairs):
            top = ceiling(gan.device)
            for name in self.levers:
                forms = [LEVERS[name], shipped]
                found = [self._time(gan, form) for form in (forms if i % 2 else forms[::-1])][:: 1 if i % 2 else -1]
                self.ratios[name].append(Clocks(*(a / b for a, b in zip(*found, strict=True))))
                self.readings.append((found[1], top))
        trainer.should_stop = True

    def _time(self, gan: GAN, form: Form) -> Clocks:
        with form(gan):
            begin = now()
            self._cycle(gan)
            return now() - begin

    def _cycle(self, gan: GAN) -> None:
        gan.meter.clear()  # as the log does
        gan.cycle((batch, 0, 0) for batch in self)


@contextmanager
def shipped(gan: GAN) -> Iterator[None]:
    """Nothing changed."""
    yield


@contextmanager
def _plain(gan: GAN, kernel: int) -> Iterator[None]:
    """Convolutions with such a kernel next to a change of resolution, one step after the other."""
    for network in (gan.generator, gan.discriminator):
        set_folded(network, False, kernels=(kernel,))
    yield
    for network in (gan.generator, gan.discriminator):
        set_folded(network, True, kernels=(kernel,))


@contextmanager
def apart(gan: GAN) -> Iterator[None]:
    """Two passes."""
    gan.judges_together = False
    yield
    gan.judges_together = True


@contextmanager
def iterating(gan: GAN) -> Iterator[None]:
    """One step of the power iteration in each pass of the player that moves."""
    with mock.patch.object(Player, "moving", return_value=nullcontext()):
        yield


@contextmanager
def contiguous(gan: GAN) -> Iterator[None]:
    """The usual memory format."""
    _arrange(gan, torch.contiguous_format)
    yield
    _arrange(gan, torch.channels_last)


def _arrange(gan: GAN, memory: torch.memory_format) -> None:
    """Weights, and what optimizers know of them, which must be in one format."""
    for network in (gan.generator, gan.discriminator):
        network.memory_format = memory  # type: ignore[assignment]  # an attribute of these networks alone
        network.to(memory_format=memory)
    for optimizer in gan.player_optimizers.values():
        for state in optimizer.optimizer.state.values():
            state.update({name: v.contiguous(memory_format=memory) for name, v in state.items() if v.dim() == 4})
    gan.zero_grad()


@contextmanager
def without_any(gan: GAN) -> Iterator[None]:
    """None of the levers."""
    with ExitStack() as stack:
        for name, form in LEVERS.items():
            if name != "all":
                stack.enter_context(form(gan))
        yield


LEVERS: dict[str, Form] = {
    "folds": lambda gan: _plain(gan, 3),
    "shortcuts": lambda gan: _plain(gan, 1),
    "together": apart,
    "iteration": iterating,
    "channels_last": contiguous,
    "all": without_any,
}


if __name__ == "__main__":
    main()
