"""Compiled passes, as a callback."""

from __future__ import annotations

import lightning.pytorch as L
import torch

from ganzoo.callbacks.base import as_gan
from ganzoo.config import Configurable
from ganzoo.errors import UserError


class Compile(Configurable, L.Callback):
    """Has torch compile both networks for the passes of the turns.

    Penalties that differentiate twice, which no compiled network can, run the networks as they are written. The first
    cycles compile for half a minute or more, and again for each batch or image of another size. What it gains has not
    been measured, so it is off.
    """

    def __init__(self, backend: str = "inductor", *, mode: str | None = None) -> None:
        """
        Args:
            backend: As :func:`torch.compile` takes it; ``inductor`` needs a C++ compiler on a CPU.
            mode: The same, such as ``max-autotune``.
        """
        super().__init__()
        known = torch.compiler.list_backends(exclude_tags=())
        if backend not in known:
            raise UserError(f"The backend was {backend}; torch has {', '.join(known)}.")
        self.backend, self.mode = backend, mode

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        gan = as_gan(pl_module)
        for network in (gan.generator, gan.discriminator):
            network.compile(backend=self.backend, mode=self.mode, dynamic=False)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        gan = as_gan(pl_module)
        for network in (gan.generator, gan.discriminator):
            network._compiled_call_impl = None
