"""Run by test_ddp_progressive.py in one or two processes: grows small networks and saves what they became, per rank."""

from __future__ import annotations

import os
import sys

import lightning.pytorch as L
import torch

from ganzoo import strategy
from ganzoo.data import Digits
from ganzoo.models import ProgressiveGAN
from ganzoo.optim import Adam
from ganzoo.parts import Part, Turn
from ganzoo.tricks import Growing
from tests.common import quiet_trainer


class Reduced(Part):
    """Counts the parameters whose gradients are averaged in each turn of the discriminator."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers: list[int] = []

    def after_step(self, turn: Turn) -> None:
        if turn.player == "discriminator":
            self.numbers.append(sum(p.numel() for p in turn.gan.players["discriminator"].active))


def grow(accumulate: int) -> ProgressiveGAN:
    """48 images at 4x4 in batches of 24, 32 of fading in to 8x8, then 8x8 in batches of 16: it ends at 16x16."""
    growth = Growing(0.048, fade_kimg=0.032, batch_size={4: 24, 8: 16, 16: 8})
    optimizer = Adam(0.02, (0.5, 0.99), eps=1.0)  # a gradient of nearly zero is no step of full length
    return ProgressiveGAN(
        16,
        1,
        latent_dim=6,
        channel_base=64,
        channel_max=8,
        stddev_channels=0,  # the statistic is of one device
        growth=growth,
        parts=[Reduced()],
        generator_optimizer=optimizer,
        discriminator_optimizer=optimizer,
        accumulate=accumulate,
    )


def main(folder: str, devices: int) -> None:
    average = strategy.average_over_ranks
    for name, accumulate in (("plain", 1), ("accumulated", 2), ("apart", 1)):
        L.seed_everything(11, verbose=False)
        gan = grow(accumulate)
        if name == "apart":
            strategy.average_over_ranks = lambda parameters, buffers: None
        quiet_trainer(devices=devices, max_steps=11).fit(gan, Digits(image_size=16, batch_size=32))
        strategy.average_over_ranks = average
        facts = {"images": gan.clock.images, "drawn": gan.clock.drawn, "level": gan.generator.level}
        out = {"state": gan.state_dict(), "reduced": gan.tricks[1].numbers, **facts}
        torch.save(out, os.path.join(folder, f"{name}-{devices}-{gan.global_rank}.pt"))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
