"""Run by test_ranks.py in one or two processes: trains small GANs with joint statistics and saves what they became."""

from __future__ import annotations

import os
import sys

import lightning.pytorch as L
import torch

from ganzoo import joint
from ganzoo.data import Digits
from ganzoo.penalties import (
    BalancedConsistency,
    FeatureMatching,
    HistoricalAveraging,
    LatentConsistency,
    LeCam,
    OrthogonalRegularization,
)
from tests.common import quiet_trainer
from tests.ddp_scenarios import plain


class AnchorsPerRank(LeCam):
    """A wrong one: they move after ranks were averaged."""

    def after_backward(self, turn):
        pass

    def after_step(self, turn):
        super().after_backward(turn)


def scenarios():
    statistics = [FeatureMatching(5.0), LeCam(1.0, decay=0.5)]
    others = [
        BalancedConsistency(shift=1),
        LatentConsistency(),
        HistoricalAveraging(0.1),
        OrthogonalRegularization(0.01),
    ]
    options = {"parts": []}
    yield "joint", plain(penalties=statistics, **options), {}
    yield "others", plain(penalties=others, **options), {}
    yield "means_per_rank", plain(penalties=[FeatureMatching(5.0)], **options), {"break": True}
    yield "anchors_per_rank", plain(penalties=[AnchorsPerRank(1.0, decay=0.5)], **options), {}


def main(folder: str, devices: int) -> None:
    average = joint.mean
    for name, gan, flags in scenarios():
        L.seed_everything(11, verbose=False)
        torch.manual_seed(11)
        for module in gan.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        joint.mean = (lambda x: x) if flags.get("break") else average
        trainer = quiet_trainer(devices=devices, max_steps=4)
        trainer.fit(gan, Digits(image_size=8, batch_size=16))
        torch.save(gan.state_dict(), os.path.join(folder, f"{name}-{devices}-{trainer.global_rank}.pt"))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
