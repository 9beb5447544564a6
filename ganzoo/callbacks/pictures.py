"""What callbacks that draw over time share: when they draw, what a resume deletes, the animation, and the loggers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as L
import numpy as np
import torch
from PIL import Image

from ganzoo import files
from ganzoo.callbacks.base import as_gan, run_directory, stamp
from ganzoo.callbacks.overtime import FilesOverTime, When
from ganzoo.images import save_gif, save_png

if TYPE_CHECKING:
    from ganzoo.gan import GAN


class Pictures(FilesOverTime):
    """Base of callbacks that draw at the start, at every mark and at the end, and make a GIF of it.

    Pictures are ``NAME/kimg-*.png`` of the run directory, the animation is ``NAME.gif``. After a kill and a resume they
    are those of the run that was never stopped.
    """

    name: str  #: of the folder and of the animation
    key: str  #: of the picture in a logger
    subject: str  #: what is drawn, as the subject of a sentence
    suffix = ".png"
    max_side = 640  #: longest side of the animation in pixels

    def __init__(self, every_kimg: float, gif: bool) -> None:
        """
        Args:
            every_kimg: Interval of the pictures in thousands of images; 0: only at the start and at the end.
            gif: Whether to make the animation.
        """
        self.every_kimg, self.gif = every_kimg, gif

    def look(self, trainer: L.Trainer, gan: GAN, when: When) -> None:
        """On all ranks, before the first one draws. Torch's random numbers are put back afterwards."""

    def picture(self, trainer: L.Trainer, gan: GAN) -> Image.Image | None:
        """On the first rank: what to save, or None for nothing. Torch's random numbers are put back afterwards."""
        raise NotImplementedError(f"{type(self).__name__} must define picture(trainer, gan).")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        gan = as_gan(pl_module)
        if gan.clock.cycles == 0:
            self.act(trainer, gan, "start")
            self._at_mark = 0

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        drawn = self.kept(trainer)
        if self.gif and drawn and trainer.is_global_zero:
            with files.explained(f"{self.name}.gif"):
                save_gif(run_directory(trainer) / f"{self.name}.gif", drawn, max_side=self.max_side)

    def act(self, trainer: L.Trainer, gan: GAN, when: When) -> None:
        """Look, draw, save and log, without a trace in the training's random numbers."""
        devices = [gan.device] if gan.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            self.look(trainer, gan, when)
            picture = self.picture(trainer, gan) if trainer.is_global_zero else None
        if picture is None:
            return
        with files.explained(self.subject):
            save_png(self.folder(trainer) / f"kimg-{stamp(gan.clock.images)}.png", picture)
        for logger in trainer.loggers:
            _log_picture(logger, self.key, picture, gan.clock.images)

    def folder(self, trainer: L.Trainer) -> Path:
        return run_directory(trainer) / self.name


def _log_picture(logger: Any, key: str, picture: Image.Image, images: int) -> None:
    """Hand a picture to Weights & Biases or TensorBoard; other loggers take none."""
    if hasattr(logger, "log_picture"):
        logger.log_picture(key, picture, images)
    elif hasattr(getattr(logger, "experiment", None), "add_image"):
        pixels = np.atleast_3d(np.asarray(picture))
        logger.experiment.add_image(key, pixels, global_step=images, dataformats="HWC")
