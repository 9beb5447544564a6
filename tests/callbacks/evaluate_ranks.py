"""Run by test_evaluate_ranks.py, once per process: python evaluate_ranks.py FOLDER DEVICES SCENARIO."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ganzoo.callbacks import Checkpoint, Evaluate, Log
from ganzoo.metrics.extractors.base import Features
from tests.callbacks.common import run, tiny
from tests.callbacks.test_evaluate import NoiseImages
from tests.metrics.fakes import Corner


class OnRankOne(Corner):
    """Has no memory on the second process when it looks at samples."""

    def extract(self, images: Tensor) -> Features:
        if os.environ.get("LOCAL_RANK") == "1" and self.seen >= 15:
            raise torch.OutOfMemoryError("out of memory")
        return super().extract(images)


class Data(NoiseImages):
    """The second process has the second half of each batch."""

    def train_dataloader(self) -> Any:
        for real, labels in super().train_dataloader():
            assert self.trainer is not None
            size = len(real) // self.trainer.world_size
            start = self.trainer.global_rank * size
            yield real[start : start + size], labels


def main(folder: Path, devices: int, scenario: str) -> None:
    extractor = OnRankOne() if scenario == "memory" else Corner()
    gan = tiny(0.4)
    evaluate = Evaluate(
        0.1, "digits", num=41, extractor=extractor, batch_size=8, metrics=["fd", "kd", "is", "prdc", "ppl", "swd"],
        options={"kid_subsets": 3, "kid_subset_size": 20, "is_splits": 2, "swd_images": 30, "ppl_epsilon": 0.01},
    )  # fmt: skip
    callbacks = [evaluate, Log(0.1), Checkpoint(0.2, monitor="eval/fd/corner-3")]
    run(gan, folder, callbacks, data=Data(), devices=devices)
    (folder / f"said-{gan.global_rank}.txt").write_text(f"{gan.clock.images} {extractor.seen}")
    os._exit(0)  # a rank that waits for the other at the end would hide that both have come this far


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
