"""Run by test_network_ranks.py: trains in one or two processes and saves what became of it, per rank."""

from __future__ import annotations

import os
import sys

import lightning.pytorch as L
import torch

from ganzoo.data import Digits
from ganzoo.models import DCGAN
from ganzoo.tricks import MinibatchDiscrimination, MinibatchStdDev, PixelNorm, SpectralNorm, VirtualBatchNorm
from tests.common import quiet_trainer

SCENARIOS = {
    "deviation": ([PixelNorm(), MinibatchStdDev(4)], "none"),
    "discrimination": ([PixelNorm(), MinibatchDiscrimination(4)], "none"),
    "virtual": ([VirtualBatchNorm("generator", size=6), VirtualBatchNorm("discriminator", size=6)], "batch"),
    "spectral": ([PixelNorm(), SpectralNorm("both")], "none"),
}


def main(folder: str, devices: int, accumulate: int) -> None:
    for name, (parts, norm) in SCENARIOS.items():
        L.seed_everything(11, verbose=False)
        gan = DCGAN(16, 1, width=4, discriminator_norm=norm, parts=[p.config() for p in parts], accumulate=accumulate)
        trainer = quiet_trainer(devices=devices, max_steps=2)
        trainer.fit(gan, Digits(image_size=16, batch_size=16))
        torch.save(gan.state_dict(), os.path.join(folder, f"{name}-{devices}-{accumulate}-{trainer.global_rank}.pt"))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
