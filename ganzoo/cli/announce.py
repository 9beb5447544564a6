"""The first lines of a run: what is trained, on what, and where it is kept."""

from __future__ import annotations

import sys
from typing import Any, cast

import lightning.pytorch as L
from torch import nn

from ganzoo.data import GANDataModule
from ganzoo.gan import GAN


class Announce(L.Callback):
    """Tells every process the run's directory, which the first one made, then says in three lines what the run is."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        trainer._default_root_dir = trainer.strategy.broadcast(trainer._default_root_dir)
        if trainer.is_global_zero:
            data = cast(GANDataModule, trainer.datamodule)  # type: ignore[attr-defined]  # set by Lightning's fit
            for line in describe(cast(GAN, pl_module), data, trainer):
                print(line, file=sys.stderr)


def describe(gan: GAN, data: GANDataModule, trainer: L.Trainer) -> list[str]:
    """The lines."""
    networks = f"generator {_count(gan.generator)}, discriminator {_count(gan.discriminator)} parameters"
    devices = str(trainer.strategy.root_device) + (f" x {trainer.world_size}" if trainer.world_size > 1 else "")
    size = "x".join(map(str, data.shape))
    kind = "points" if len(data.shape) == 1 else "images"
    num = "endless" if data.num is None else f"{data.num:,}"
    classes = f", {gan.num_classes} classes" if gan.num_classes else ""
    return [
        f"Model: {type(gan).__name__}, {networks}, on {devices}",
        f"Data:  {type(data).__name__}, {num} {kind} of {size}{classes}, batches of {data.batch_size}",
        f"Run:   {trainer.default_root_dir} (Ctrl-C saves and stops; then: ganzoo fit --resume {trainer.default_root_dir})",
    ]


def _count(network: nn.Module) -> str:
    """Number of trained parameters, such as ``1.2M``."""
    num: Any = sum(p.numel() for p in network.parameters() if p.requires_grad)
    for unit in ("", "k", "M"):
        if num < 1000:
            return f"{num:.3g}{unit}"
        num /= 1000
    return f"{num:.3g}G"
