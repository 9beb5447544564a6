"""The first lines of a run: what is trained, on what, and where it is kept."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from typing import Any, cast

import lightning.pytorch as L
from torch import nn

from ganzoo.data import GANDataModule
from ganzoo.gan import GAN


class Announce(L.Callback):
    """Tells every process the run's directory, which the first one made, then says in three lines what the run is."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        set_run_directory(trainer, trainer.strategy.broadcast(trainer.default_root_dir))
        if trainer.is_global_zero:
            data = cast(GANDataModule, trainer.datamodule)  # type: ignore[attr-defined]  # set by Lightning's fit
            for line in describe(cast(GAN, pl_module), data, trainer):
                print(line, file=sys.stderr)


def set_run_directory(trainer: L.Trainer, path: str) -> None:
    """Tell the trainer, which exists already, where the run is."""
    trainer._default_root_dir = path  # type: ignore[attr-defined]  # set by a connector, without a declaration


def describe(gan: GAN, data: GANDataModule, trainer: L.Trainer) -> list[str]:
    """The lines."""
    networks = f"generator {_count(gan.generator)}, discriminator {_count(gan.discriminator)} parameters"
    devices = str(trainer.strategy.root_device) + (f" x {trainer.world_size}" if trainer.world_size > 1 else "")
    if len(data.shape) == 3:
        channels, height, width = data.shape
        kind = f"images of {height}x{width}, {channels} channel{'s' * (channels > 1)}"
    else:
        kind = f"points of shape {tuple(data.shape)}"
    num = "endless" if data.num is None else f"{data.num:,}"
    classes = f", {gan.num_classes} classes" if gan.num_classes else ""
    run = trainer.default_root_dir
    return [
        f"Model: {type(gan).__name__}, {networks}, on {devices}",
        f"Data:  {type(data).__name__}, {num} {kind}{classes}, batches of {batches(data.batch_size, gan.batch_sizes)}",
        f"Run:   {run} (Ctrl-C saves and stops; then: ganzoo fit --resume {shlex.quote(str(run))})",
    ]


def batches(size: int, later: Sequence[tuple[int, int]]) -> str:
    """Sizes of joint batches over a run, such as ``32, then 16 from 10 kimg on``.

    Args:
        size: At the start.
        later: Pairs (images, size) in rising order: the size from there on; one at 0 takes the place of ``size``.
    """
    steps = {0: size, **dict(later)}
    known = steps.pop(0)
    text = str(known)
    for images, new in steps.items():
        if new != known:
            text += f", then {new} from {images / 1000:,g} kimg on"
        known = new
    return text


def _count(network: nn.Module) -> str:
    """Number of trained parameters, such as ``1.2M``."""
    num: Any = sum(p.numel() for p in network.parameters() if p.requires_grad)
    for unit in ("", "k", "M"):
        if num < 1000:
            return f"{num:.3g}{unit}"
        num /= 1000
    return f"{num:.3g}G"
