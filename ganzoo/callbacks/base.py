"""What the callbacks share: marks on the clock, and decisions that all ranks take together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import lightning.pytorch as L
import torch.distributed as dist

from ganzoo.config import Configurable
from ganzoo.errors import TrainingError

if TYPE_CHECKING:
    from ganzoo.gan import GAN

T = TypeVar("T")


class MarkCallback(Configurable, L.Callback):
    """A callback that acts at every multiple of ``every_kimg``: a training step always ends where one is reached."""

    every_kimg: float

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit":
            as_gan(pl_module).add_mark(self.every_kimg)


def as_gan(module: L.LightningModule) -> GAN:
    """The module as what these callbacks are made for."""
    return cast("GAN", module)


def run_directory(trainer: L.Trainer) -> Path:
    """Where the run writes."""
    return Path(trainer.default_root_dir)


def stamp(images: int) -> str:
    """The number of images as kimg, in names whose alphabetic order is that of time: ``000005.120``."""
    return f"{images // 1000:06d}.{images % 1000:03d}"


def images_of(path: Path) -> int:
    """The number of images in a file name made with :func:`stamp`; -1 for another name."""
    digits = path.name.removeprefix("kimg-").removesuffix(path.suffix).replace(".", "")
    return int(digits) if path.name.startswith("kimg-") and digits.isdecimal() else -1


def gather(trainer: L.Trainer, value: T) -> list[T]:
    """The plain values of all ranks, in their order; all ranks must call it."""
    if trainer.world_size == 1:
        return [value]
    values: list[T | None] = [None] * trainer.world_size
    dist.all_gather_object(values, value)
    return cast("list[T]", values)


def raise_together(trainer: L.Trainer, error: TrainingError | None) -> None:
    """Raise the first rank's error on all ranks, so that none waits for one that has left; all must call it."""
    sentences = [sentence for sentence in gather(trainer, None if error is None else str(error)) if sentence]
    if sentences:
        raise TrainingError(sentences[0]) from error


def check_finite(trainer: L.Trainer, gan: GAN) -> None:
    """Look at every scalar since the last row of the log, on all ranks; all must call it.

    Raises:
        TrainingError: When one is not finite on any rank.
    """
    found: TrainingError | None = None
    try:
        gan.check_finite()
    except TrainingError as error:
        found = error
    raise_together(trainer, found)
