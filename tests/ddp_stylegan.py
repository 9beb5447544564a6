"""Run by test_ddp_stylegan.py in two processes: trains small StyleGANs and saves what they became, per rank."""

from __future__ import annotations

import os
import sys
from typing import Any
from unittest import mock

import lightning.pytorch as L
import torch

from ganzoo import strategy
from ganzoo.data import Digits
from ganzoo.models import StyleGAN
from ganzoo.optim import SGD
from ganzoo.penalties import R1, PathLength
from ganzoo.tricks import Growing
from tests.common import quiet_trainer


def train(*, devices: int = 1, accumulate: int = 1, **options: Any) -> StyleGAN:
    """Four cycles with R1 and path length in every second one; no statistic over the samples of a batch."""
    L.seed_everything(11, verbose=False)
    networks: dict[str, Any] = {"channel_base": 32, "latent_dim": 6, "style_dim": 8, "mapping_layers": 2, "group": 0}
    gan = StyleGAN(
        8,
        1,
        num_classes=10,
        label_layers=1,
        mapping_lr=1.0,
        style_decay=0.5,
        penalties=[R1(1.0, every=2), PathLength(5.0, every=2, decay=0.5)],
        generator_optimizer=SGD(0.05),
        discriminator_optimizer=SGD(0.05),
        accumulate=accumulate,
        **networks,
        **options,
    )
    gan.step_seconds = 0.0
    for name, parameter in gan.generator.named_parameters():
        if name.endswith("strength"):
            parameter.data.fill_(0.3)
    quiet_trainer(devices=devices, max_steps=4).fit(gan, Digits(image_size=8, batch_size=16, labels=True))
    return gan


def train_growing(**options: Any) -> StyleGAN:
    """The same with a cycle at 4x4, two in which 8x8 fades in, and one at 8x8."""
    return train(growth=Growing(0.016, fade_kimg=0.032), **options)


def main(folder: str) -> None:
    average = strategy.average_over_ranks
    found = {"two": train(devices=2).state_dict(), "both": train(devices=2, accumulate=2).state_dict()}
    found["growing"] = train_growing(devices=2).state_dict()
    with mock.patch.object(strategy, "average_over_ranks", lambda parameters, buffers: average(parameters, [])):
        found["without buffers"] = train(devices=2).state_dict()
    torch.save(found, os.path.join(folder, f"{torch.distributed.get_rank()}.pt"))


if __name__ == "__main__":
    main(sys.argv[1])
