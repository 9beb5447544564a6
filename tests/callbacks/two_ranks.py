"""Run by test_ranks.py, once per process: python two_ranks.py FOLDER DEVICES SCENARIO."""

from __future__ import annotations

import math
import os
import signal
import sys
from pathlib import Path

import torch

from ganzoo.callbacks import Checkpoint, GracefulStop, Log, Samples
from ganzoo.data import Digits
from ganzoo.errors import TrainingError
from ganzoo.parts import Part, Turn
from tests.callbacks.common import run, tiny


class OnRankOne(Part):
    """Breaks something on the second process only, in the discriminator's 4th turn."""

    players = ("discriminator",)

    def __init__(self, scenario: str) -> None:
        super().__init__()
        self.scenario = scenario

    def forward(self, turn: Turn) -> None:
        if turn.number == 3 and turn.gan.global_rank == 1:
            if self.scenario == "signal":
                os.kill(os.getpid(), signal.SIGTERM)
            if self.scenario == "nan":
                turn.logs["penalty/own"] = torch.tensor(math.nan)
                return
        turn.logs["penalty/own"] = torch.tensor(float(turn.gan.global_rank))


def full_disk(self: object, *_: object) -> None:
    raise OSError(28, "No space left on device")


def main(folder: Path, devices: int, scenario: str) -> None:
    if scenario == "disk":
        torch.save = full_disk
    gan = tiny(3.0 if scenario == "signal" else 0.4, shape=(1, 32, 32), parts=[OnRankOne(scenario)])
    callbacks = [Log(0.1), Samples(0.2, 4), GracefulStop(), Checkpoint(0.2)]
    try:
        run(gan, folder, callbacks, data=Digits(batch_size=50), devices=devices)
        said = "ended"
    except TrainingError as error:
        said = str(error)
    (folder / f"said-{gan.global_rank}.txt").write_text(f"{gan.clock.images} {said}")
    os._exit(0)  # a rank that waits for the other at the end would hide that both have come this far


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
