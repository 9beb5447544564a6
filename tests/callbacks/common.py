"""A tiny run with callbacks: 8x8 images, a batch of 50, so that a mark every 0.1 kimg is two cycles."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor

from ganzoo.models.mlp import MLPGAN
from ganzoo.parts import Part, Turn
from ganzoo.trainer import Trainer
from tests.common import quiet_trainer

BATCH = 50
ROOT = Path(__file__).resolve().parents[2]


class Noise(L.LightningDataModule):
    """Images of noise; batch k of the stream depends on k alone, and the place is that of the model's clock."""

    batch_size = BATCH

    def __init__(self, shape: tuple[int, ...] = (1, 8, 8), num_classes: int = 0) -> None:
        super().__init__()
        self.shape, self.num_classes = shape, num_classes

    def train_dataloader(self) -> Stream:
        return Stream(self)

    def prepare(self, batch: Any, device: torch.device) -> tuple[Tensor, Tensor | None]:
        return batch


class Stream:
    def __init__(self, data: Noise) -> None:
        self.data = data

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        assert self.data.trainer is not None
        k = self.data.trainer.lightning_module.clock.drawn // BATCH  # type: ignore[union-attr,operator]
        while True:
            generator = torch.Generator().manual_seed(k)
            real = torch.rand(BATCH, *self.data.shape, generator=generator) * 2 - 1
            labels = (
                torch.randint(self.data.num_classes, (BATCH,), generator=generator) if self.data.num_classes else None
            )
            yield real, labels
            k += 1


def tiny(total_kimg: float | None = 1.0, shape: tuple[int, ...] = (1, 8, 8), **options: Any) -> MLPGAN:
    torch.manual_seed(0)
    return MLPGAN(shape, hidden=8, latent_dim=4, num_layers=1, total_kimg=total_kimg, **options)


def run(
    gan: MLPGAN,
    folder: Path,
    callbacks: list[L.Callback],
    *,
    resume: Path | None = None,
    data: Any = None,
    **options: Any,
) -> Trainer:
    """Fit in ``folder``, from the checkpoint ``resume`` if one is given."""
    checkpointing = any(isinstance(callback, L.callbacks.Checkpoint) for callback in callbacks)
    bar = any(isinstance(callback, L.callbacks.ProgressBar) for callback in callbacks)
    options = {"enable_checkpointing": checkpointing, "enable_progress_bar": bar} | options
    trainer = quiet_trainer(default_root_dir=str(folder), callbacks=list(callbacks), **options)
    trainer.fit(gan, datamodule=data or Noise(), ckpt_path=None if resume is None else str(resume), weights_only=True)
    return trainer


def start_ranks(script: str, folder: Path, devices: int, scenario: str = "plain", **env: str) -> tuple[list[str], str]:
    """What each rank of a script in this folder said at its end, in ``said-RANK.txt``, and standard error."""
    folder.mkdir()
    command = [sys.executable, str(Path(__file__).with_name(script)), str(folder), str(devices), scenario]
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **env}
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=surroundings, cwd=ROOT, start_new_session=True, **pipes)
    try:
        _, errors = process.communicate(timeout=300)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the second rank is a child of the first
    said = [path.read_text() for path in sorted(folder.glob("said-*.txt"))]
    assert len(said) == devices, errors[-3000:]
    return said, errors


class Dies(Exception):
    """Stands for a kill: nobody catches it, nothing is saved."""


class At(Part):
    """Calls a function after the step of one turn of a player."""

    def __init__(self, player: str, number: int, action: Any) -> None:
        super().__init__()
        self.players = (player,)  # type: ignore[assignment]
        self.number, self.action = number, action

    def after_step(self, turn: Turn) -> None:
        if turn.number == self.number:
            self.action()


def die() -> None:
    raise Dies


def same_state(a: MLPGAN, b: MLPGAN) -> bool:
    """Whether all weights, averages and buffers are equal bit by bit."""
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)
