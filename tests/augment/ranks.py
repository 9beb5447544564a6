"""Run by test_ranks.py in one or two processes: trains with all augmentations and saves what the model became."""

from __future__ import annotations

import os
import sys

import lightning.pytorch as L
import torch

from ganzoo.augment import ADA, APA, DiffAugment, InstanceNoise
from ganzoo.data import Digits
from ganzoo.gan import GAN
from ganzoo.models import MLPGAN
from ganzoo.models.mlp import MLPDiscriminator
from ganzoo.optim import SGD
from ganzoo.penalties import R1
from tests.common import quiet_trainer


def model(accumulate: int) -> GAN:
    torch.manual_seed(11)
    adaptive = {"p": 0.5, "target": 0.0, "speed_kimg": 0.5, "interval": 2}
    groups = ["blit", "geometric", "color", "filter", "noise", "cutout"]
    return GAN(
        MLPGAN((1, 8, 8), hidden=16).generator,
        MLPDiscriminator((1, 8, 8), 16, 2, 0, 1, 0.0),
        parts=[APA(**adaptive), ADA(groups, **adaptive), DiffAugment(), InstanceNoise(0.1)],
        penalties=[R1(1.0)],
        generator_optimizer=SGD(0.05),
        discriminator_optimizer=SGD(0.05),
        accumulate=accumulate,
    )


def main(folder: str, devices: int) -> None:
    for accumulate in (1, 2):
        L.seed_everything(11, verbose=False)
        gan = model(accumulate)
        trainer = quiet_trainer(devices=devices, max_steps=8)
        trainer.fit(gan, Digits(image_size=8, batch_size=16))
        torch.save(gan.state_dict(), os.path.join(folder, f"{accumulate}-{devices}-{trainer.global_rank}.pt"))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
