"""The cycle of a GAN as a bare loop over the same parts: what Lightning and ganzoo's loop are measured against.

No trainer, hooks, keyed streams, meter or clock. It handles what the plain recipes need: one loss, no penalties.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ganzoo.ema import update_average
from ganzoo.gan import GAN
from ganzoo.latents import Uniform


class BareLoop:
    """Trains the networks of a fresh :class:`ganzoo.gan.GAN` by hand."""

    def __init__(self, gan: GAN) -> None:
        self.gan = gan.train()
        self.g, self.d = gan.players["generator"], gan.players["discriminator"]
        self.g_parameters, self.d_parameters = list(gan.generator.parameters()), list(gan.discriminator.parameters())
        self.g_optimizer, self.d_optimizer = self.g.optimizer(self.g_parameters), self.d.optimizer(self.d_parameters)
        self.average = [] if gan.generator_ema is None else list(gan.generator_ema.parameters())
        self.average_buffers = [] if gan.generator_ema is None else list(gan.generator_ema.buffers())
        self.buffers = list(gan.generator.buffers())
        self.images = 0

    def run(self, batches: Iterator[Tensor], num_cycles: int) -> None:
        """``num_cycles`` cycles, each D turn on the next of ``batches``, (N, *shape) as the model sees data."""
        play = self.gan.plan.plays[-1]
        for _ in range(num_cycles):
            for _ in range(play.d):
                real = next(batches)
                self._discriminator_turn(real)
            for _ in range(play.g):
                self._generator_turn(real)
            self._average(play.d * len(real))

    def _discriminator_turn(self, real: Tensor) -> None:
        gan = self.gan
        self.d_optimizer.zero_grad()
        with torch.no_grad():
            fake = gan.generator(self._latents(real), None)
        gan.loss.discriminator(gan.discriminator(real, None), gan.discriminator(fake, None)).backward()  # type: ignore[no-untyped-call]  # torch's
        self.d_optimizer.step()

    def _generator_turn(self, real: Tensor) -> None:
        gan = self.gan
        self.g_optimizer.zero_grad()
        for p in self.d_parameters:
            p.requires_grad = False
        fake = gan.generator(self._latents(real), None)
        gan.loss.generator(gan.discriminator(fake, None)).backward()  # type: ignore[no-untyped-call]  # torch's
        for p in self.d_parameters:
            p.requires_grad = True
        self.g_optimizer.step()

    def _latents(self, real: Tensor) -> Tensor:
        shape = len(real), self.gan.generator.latent_dim
        uniform = isinstance(self.gan.latents, Uniform)
        return torch.rand(shape, device=real.device) * 2 - 1 if uniform else torch.randn(shape, device=real.device)

    def _average(self, images: int) -> None:
        self.images += images
        if self.gan.ema is None:
            return
        update_average(self.average, self.g_parameters, self.gan.ema.decay(images, self.images))
        for buffer, now in zip(self.average_buffers, self.buffers, strict=True):
            buffer.copy_(now)
