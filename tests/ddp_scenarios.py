"""Run by test_ddp.py in one or two processes: trains small GANs and saves what they became, per rank."""

from __future__ import annotations

import os
import sys

import lightning.pytorch as L
import torch

from ganzoo import strategy
from ganzoo.data import Digits
from ganzoo.gan import GAN
from ganzoo.models import DCGAN
from ganzoo.models.mlp import MLPDiscriminator
from ganzoo.parts import Part, Turn
from ganzoo.penalties import R1, WassersteinGradientPenalty
from ganzoo.plan import Play
from tests.common import Critic, quiet_trainer


class TwoTerms(Part):
    """A second pass through the discriminator in the generator's turn, and noise on everything that it sees."""

    def inputs(self, turn: Turn, data, labels):
        from ganzoo import streams

        return data + 0.1 * streams.randn(len(data), *data.shape[1:], purpose="noise"), labels

    def forward(self, turn: Turn):
        return 0.5 * turn.discriminate(turn.fake).square().mean() if turn.player == "generator" else None


def plain(**options) -> GAN:
    """No batch normalization anywhere: one joint batch must equal any split of it."""
    generator = DCGAN(8, 1, width=4).generator
    for name, module in list(generator.layers.named_children()):
        if isinstance(module, torch.nn.BatchNorm2d):
            generator.layers[int(name)] = torch.nn.Identity()
    discriminator = MLPDiscriminator((1, 8, 8), 16, 2, 0, 2, 0.25)  # maxout and dropout
    penalties = [R1(1.0, every=2), WassersteinGradientPenalty(0.5)]
    options = {"parts": [TwoTerms()], "penalties": penalties, "play": Play(2, 1), **options}
    return GAN(generator, discriminator, **options)


class Unequal(Part):
    """Only the first rank has a gradient for the critic's bias."""

    def after_backward(self, turn: Turn) -> None:
        bias = turn.gan.discriminator.linear.bias
        if turn.player == "discriminator" and turn.gan.global_rank > 0:
            bias.grad = None


def scenarios():
    yield "plain", plain(), {}
    yield "accumulated", plain(accumulate=2), {}
    yield "batch_norm", DCGAN(8, 1, width=4), {}
    yield "unequal", GAN(DCGAN(8, 1, width=4).generator, Critic(64), parts=[Unequal()]), {}
    yield "not_averaged", plain(), {"break": True}


def main(folder: str, devices: int) -> None:
    for name, gan, flags in scenarios():
        L.seed_everything(11, verbose=False)
        torch.manual_seed(11)
        for module in gan.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        average = strategy.average_over_ranks
        if flags.get("break"):
            strategy.average_over_ranks = lambda parameters, buffers: None
        trainer = quiet_trainer(devices=devices, max_steps=4)
        trainer.fit(gan, Digits(image_size=8, batch_size=16))
        strategy.average_over_ranks = average
        out = {"state": gan.state_dict(), "images": gan.clock.images, "strategy": type(trainer.strategy).__name__}
        torch.save(out, os.path.join(folder, f"{name}-{devices}-{trainer.global_rank}.pt"))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
