"""The cycle of StyleGAN against its plain forms: ``python -m benchmarks.speed.stylegan [SHAPE...]``.

Three kinds of cycle are timed, with R1 and path length, with path length alone, and with neither; the mean cycle weighs
them as often as they come in 16 cycles. Forms take turns within each round, on the same networks, and a ratio is the
median over rounds, in CPU time on a CPU (a machine may be shared). FLOPs, the ceiling and the index are those of
``python -m benchmarks.speed``.

    grouped   a grouped convolution with weights for each sample, instead of scaled activations
    unfused   factors, bias, noise and gain each in a pass of its own
    filter    depthwise filters in torch's own derivatives, on zeros between values, in the usual memory format
    plain     all of them
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import cycle
from typing import Any
from unittest import mock

import lightning.pytorch as L
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.speed.__main__ import NoTracker, ceiling
from benchmarks.speed.clocks import Clocks, now, silence
from ganzoo import streams
from ganzoo.callbacks.base import as_gan
from ganzoo.gan import GAN
from ganzoo.layers import filtered
from ganzoo.layers.modulated import ModulatedConv2d, StyledConv
from ganzoo.models import StyleGAN
from ganzoo.penalties import R1, PathLength
from ganzoo.trainer import Trainer

#: Options of the model, batch, and turns of the generator from one path length term to the next; 0: without it.
SHAPES: dict[str, tuple[dict[str, Any], int, int]] = {
    "32": ({"image_size": 32, "channel_base": 4096, "channel_max": 256, "mapping_layers": 2, "mixing": 0.0}, 16, 0),
    "64": ({"image_size": 64, "channel_base": 4096, "channel_max": 512, "mapping_layers": 2}, 8, 4),
    "tiny": ({"image_size": 16, "channel_base": 64, "latent_dim": 8, "style_dim": 8}, 4, 4),
}
#: Numbers of cycles that stand for all, and how many of 16 are alike.
CYCLES = {0: 1, 1: 12, 4: 3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", nargs="*", default=["32", "64"], metavar="SHAPE", help=f"of {', '.join(SHAPES)}")
    parser.add_argument("--forms", nargs="+", default=["plain"], choices=list(FORMS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", default="32-true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    silence()
    for name in options.shapes:
        print(
            json.dumps({"shape": name, **measure(name, options.forms, options.rounds, options.precision)}), flush=True
        )


def measure(name: str, forms: list[str], rounds: int, precision: Any = "32-true") -> dict[str, Any]:
    """One row: the cycle as it is, and by how much each form takes longer."""
    network, batch, path_length = SHAPES[name]
    penalties = [R1(every=16), *([PathLength(every=path_length)] if path_length else [])]
    gan = StyleGAN(**network, penalties=penalties, total_kimg=1e9)
    meter = Rounds(forms, rounds, batch)
    trainer = Trainer(
        devices=1, precision=precision, callbacks=[meter], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    size = gan.sample(1).shape[1:]
    meter.batches = [(torch.rand(batch, *size) * 2 - 1, None) for _ in range(4)]
    trainer.fit(gan, meter)
    clock = 0 if gan.device.type == "cpu" else 1
    seconds = {form: [one[clock] for one in found] for form, found in meter.seconds.items()}
    shares = [meter.flop / s / c[clock] for s, c in zip(seconds["shipped"], meter.ceilings, strict=True)]
    share = statistics.median(shares)
    return {
        "device": gan.device.type,
        "precision": precision,
        "threads": torch.get_num_threads(),
        "rounds": rounds,
        "generator_parameters": sum(p.numel() for p in gan.generator.parameters()),
        "discriminator_parameters": sum(p.numel() for p in gan.discriminator.parameters()),
        "batch": batch,
        "gflop_per_image": float(f"{meter.flop / batch / 1e9:.4g}"),
        "ms_per_cycle": round(1e3 * statistics.median(seconds["shipped"]), 1),
        "share_of_ceiling": round(share, 4),
        "index": round(1e12 * share / (meter.flop / batch), 2),  # images/s per TFLOP/s of the ceiling
        "ratio": {
            form: round(statistics.median(a / b for a, b in zip(found, seconds["shipped"], strict=True)), 3)
            for form, found in seconds.items()
            if form != "shipped"
        },
    }


class Rounds(L.Callback):
    """Times cycles in the first training step of a fit, which it ends; it is the loader, too."""

    def __init__(self, forms: list[str], num_rounds: int, batch: int) -> None:
        self.forms, self.num_rounds, self.batch = ["shipped", *forms], num_rounds, batch
        self.batches: list[tuple[Tensor, None]] = []
        self.seconds: dict[str, list[Clocks]] = {form: [] for form in self.forms}  #: of the mean cycle, by round
        self.ceilings: list[Clocks] = []
        self.flop = 0.0  #: of the mean cycle as it is

    def __iter__(self) -> Iterator[tuple[Tensor, None]]:
        return cycle(self.batches)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        gan = as_gan(pl_module)
        self.flop = self._count(gan)
        for form in self.forms[1:]:  # warms up
            self._time(gan, form)
        for i in range(self.num_rounds):
            for form in self.forms if i % 2 else self.forms[::-1]:
                self.seconds[form].append(self._time(gan, form))
            self.ceilings.append(ceiling(gan.device))
        trainer.should_stop = True

    def _time(self, gan: GAN, form: str) -> Clocks:
        total = Clocks(0.0, 0.0)
        with FORMS[form]():
            for number, times in CYCLES.items():
                begin = now()
                self._cycle(gan, number)
                spent = (now() - begin).per(16 / times)
                total = Clocks(total.cpu + spent.cpu, total.wall + spent.wall)
        return total

    def _count(self, gan: GAN) -> float:
        total = 0.0
        for number, times in CYCLES.items():
            counter = FlopCounterMode(display=False)
            counter.mod_tracker = NoTracker()
            with counter:
                self._cycle(gan, number)
            total += counter.get_total_flops() * times / 16
        return total

    def _cycle(self, gan: GAN, number: int) -> None:
        gan.clock.d_turns = gan.clock.g_turns = number
        gan.cycle((batch, 0, 0) for batch in self)


@contextmanager
def shipped() -> Iterator[None]:
    """Nothing changed."""
    yield


@contextmanager
def grouped() -> Iterator[None]:
    """Weights for each sample."""
    with mock.patch.object(ModulatedConv2d, "forward", _grouped):
        yield


@contextmanager
def unfused() -> Iterator[None]:
    """One pass over the features for each operation."""
    with mock.patch.object(StyledConv, "forward", _unfused):
        yield


@contextmanager
def unfused_filter() -> Iterator[None]:
    """Filters as they are written down."""
    with mock.patch.object(filtered, "_filter", _zeros_between):
        yield


@contextmanager
def plain() -> Iterator[None]:
    """All of the plain forms."""
    with ExitStack() as stack:
        for form in (grouped, unfused, unfused_filter):
            stack.enter_context(form())
        yield


FORMS: dict[str, Callable[[], Any]] = {
    "shipped": shipped,
    "grouped": grouped,
    "unfused": unfused,
    "filter": unfused_filter,
    "plain": plain,
}


def _grouped(self: ModulatedConv2d, x: Tensor, style: Tensor, offset: Tensor | None = None) -> Tensor:
    """One group of channels for each sample."""
    num, inputs, height, width = x.shape
    outputs, size = len(self.weight), self.kernel_size
    weight = self.weight * self.scale * self.affine(style)[:, None, :, None, None]  # (N, O, I, k, k)
    if self.demodulate:
        weight = weight * torch.rsqrt(weight.square().sum(dim=(2, 3, 4), keepdim=True) + self.eps)
    x = x.reshape(1, num * inputs, height, width)
    if self.up:
        kernels = weight.transpose(1, 2).reshape(num * inputs, outputs, size, size)
        x = filtered.blur(F.conv_transpose2d(x, kernels, stride=2, groups=num), 1, gain=4.0)
    else:
        x = F.conv2d(x, weight.view(num * outputs, inputs, size, size), padding=size // 2, groups=num)
    x = x.view(num, outputs, *x.shape[2:]) * self.gain
    return x if offset is None else x + offset[:, None, None]


def _unfused(self: StyledConv, x: Tensor, style: Tensor, noise: Any = "random", name: str = "noise") -> Tensor:
    """With the gain behind the rectifier."""
    gain, self.conv.gain = self.conv.gain, 1.0
    x = self.conv(x, style)
    self.conv.gain = gain
    if self.strength is not None:
        x = x + streams.randn(len(x), 1, *self.size, purpose=name, device=x.device) * self.strength
    return F.leaky_relu(x + self.bias[:, None, None], 0.2) * gain


def _zeros_between(x: Tensor, kernel: Tensor, step: Any) -> Tensor:
    """Zeros between the values, the filter at every place, then every second value."""
    x, channels, size = x.contiguous(), x.shape[1], len(kernel)
    padding = step.padding
    if step.transposed:
        padding, shape = size - 1 - step.padding, x.shape
        x = F.pad(x[..., None, :, None], (0, 1, 0, 0, 0, 1)).view(*shape[:2], 2 * shape[2], 2 * shape[3])[..., :-1, :-1]
    x = F.conv2d(x, kernel.expand(channels, 1, size, size), padding=padding, groups=channels)
    return x if step.transposed else x[..., :: step.stride, :: step.stride]


if __name__ == "__main__":
    main()
