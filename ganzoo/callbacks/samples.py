"""Grids of the same latents over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as L
import numpy as np
import torch
from PIL import Image

from ganzoo import files
from ganzoo.callbacks.base import MarkCallback, as_gan, images_of, run_directory, stamp
from ganzoo.callbacks.stop import was_interrupted
from ganzoo.errors import UserError
from ganzoo.images import grid, save_gif, save_png

if TYPE_CHECKING:
    from ganzoo.gan import GAN


class Samples(MarkCallback):
    """A grid of samples of fixed latents at the start, at every mark and at the end, and all of them as a GIF.

    Grids are ``samples/kimg-*.png`` of the run directory, the animation is ``samples.gif``. Conditional models show
    one class per column. Only for images.
    """

    def __init__(
        self,
        every_kimg: float = 5.0,
        num: int = 64,
        *,
        seed: int = 0,
        classes: list[int] | None = None,
        averaged: bool = True,
        gif: bool = True,
    ) -> None:
        """
        Args:
            every_kimg: Interval of the grids in thousands of images; 0: only at the start and at the end.
            num: Samples per grid.
            seed: Seed of the latents.
            classes: Class of each column of a conditional model; none: all of them, or the first ones of many.
            averaged: Draw from the averaged weights where there are some.
            gif: Whether to make the animation.
        """
        if num < 1:
            raise UserError(f"Grids of {num} samples were asked for; give 1 or more.")
        self.every_kimg, self.num, self.seed, self.classes = every_kimg, num, seed, classes
        self.averaged, self.gif = averaged, gif
        self._at_mark: int | None = None  # images at the last grid that was drawn at a mark

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._at_mark = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        gan = as_gan(pl_module)
        if self._at_mark is None:
            self._at_mark = gan.clock.images if gan.clock.cycles else -1
        if trainer.is_global_zero:
            files.remove_leftovers(self._folder(trainer))
            for path in self._grids(trainer):
                if images_of(path) > self._at_mark:
                    path.unlink()
        if gan.clock.cycles == 0:
            self._draw(trainer, gan)
            self._at_mark = 0

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        gan = as_gan(pl_module)
        if gan.clock.crossed(self.every_kimg):
            self._draw(trainer, gan)
            self._at_mark = gan.clock.images

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        gan = as_gan(pl_module)
        # A grid between two marks is not noted as one of a mark: a resume that moves the end deletes it.
        if not was_interrupted(trainer) and gan.clock.images != self._at_mark:
            self._draw(trainer, gan)
        grids = self._grids(trainer)
        if self.gif and grids and trainer.is_global_zero:
            with files.explained("samples.gif"):
                save_gif(run_directory(trainer) / "samples.gif", grids)

    def state_dict(self) -> dict[str, Any]:
        return {"images": -1 if self._at_mark is None else self._at_mark}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._at_mark = state_dict["images"]

    def _draw(self, trainer: L.Trainer, gan: GAN) -> None:
        """Sample, save and log one grid, without a trace in the training's random numbers."""
        if not trainer.is_global_zero:
            return
        columns, labels = layout(self.num, gan.num_classes, self.classes)
        devices = [gan.device] if gan.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            samples = gan.sample(
                self.num if labels is None else len(labels), seed=self.seed, labels=labels, averaged=self.averaged
            )
        if samples.dim() != 4:  # points
            return
        picture = grid(samples, columns=columns)
        with files.explained("The grid of samples"):
            save_png(self._folder(trainer) / f"kimg-{stamp(gan.clock.images)}.png", picture)
        for logger in trainer.loggers:
            _log_picture(logger, picture, gan.clock.images)

    def _folder(self, trainer: L.Trainer) -> Path:
        return run_directory(trainer) / "samples"

    def _grids(self, trainer: L.Trainer) -> list[Path]:
        """All grids in order of time."""
        return sorted(path for path in self._folder(trainer).glob("kimg-*.png") if images_of(path) >= 0)


def layout(num: int, num_classes: int, classes: Sequence[int] | None) -> tuple[int, list[int] | None]:
    """Columns of a grid of about ``num`` samples, and their labels, one class per column.

    All classes are shown where there are at most twice as many as a square grid has columns.
    """
    square = math.ceil(math.sqrt(num))
    if num_classes == 0:
        return square, None
    chosen = list(classes or range(num_classes if num_classes <= 2 * square else square))
    return len(chosen), chosen * max(1, num // len(chosen))


def _log_picture(logger: Any, picture: Image.Image, images: int) -> None:
    """Hand a picture to Weights & Biases or TensorBoard; other loggers take none."""
    if hasattr(logger, "log_picture"):
        logger.log_picture("samples/grid", picture, images)
    elif hasattr(getattr(logger, "experiment", None), "add_image"):
        pixels = np.atleast_3d(np.asarray(picture))
        logger.experiment.add_image("samples/grid", pixels, global_step=images, dataformats="HWC")
