"""What callbacks that draw over time share: when they draw, what a resume deletes, the animation, and the loggers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import lightning.pytorch as L
import numpy as np
import torch
from PIL import Image

from ganzoo import files
from ganzoo.callbacks.base import MarkCallback, as_gan, images_of, run_directory, stamp
from ganzoo.callbacks.stop import was_interrupted
from ganzoo.images import save_gif, save_png

if TYPE_CHECKING:
    from ganzoo.gan import GAN

When = Literal["start", "mark", "end"]


class Pictures(MarkCallback):
    """Base of callbacks that draw at the start, at every mark and at the end, and make a GIF of it.

    Pictures are ``NAME/kimg-*.png`` of the run directory, the animation is ``NAME.gif``. After a kill and a resume they
    are those of the run that was never stopped.
    """

    name: str  #: of the folder and of the animation
    key: str  #: of the picture in a logger
    subject: str  #: what is drawn, as the subject of a sentence
    max_side = 640  #: longest side of the animation in pixels

    def __init__(self, every_kimg: float, gif: bool) -> None:
        """
        Args:
            every_kimg: Interval of the pictures in thousands of images; 0: only at the start and at the end.
            gif: Whether to make the animation.
        """
        self.every_kimg, self.gif = every_kimg, gif
        self._at_mark: int | None = None  # images at the last picture that was drawn at a mark

    def look(self, trainer: L.Trainer, gan: GAN, when: When) -> None:
        """On all ranks, before the first one draws. Torch's random numbers are put back afterwards."""

    def picture(self, trainer: L.Trainer, gan: GAN) -> Image.Image | None:
        """On the first rank: what to save, or None for nothing. Torch's random numbers are put back afterwards."""
        raise NotImplementedError(f"{type(self).__name__} must define picture(trainer, gan).")

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._at_mark = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        gan = as_gan(pl_module)
        if self._at_mark is None:
            self._at_mark = gan.clock.images if gan.clock.cycles else -1
        if trainer.is_global_zero:
            files.remove_leftovers(self._folder(trainer))
            for path in self._pictures(trainer):
                if images_of(path) > self._at_mark:
                    path.unlink()
        if gan.clock.cycles == 0:
            self._draw(trainer, gan, "start")
            self._at_mark = 0

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        gan = as_gan(pl_module)
        if gan.clock.crossed(self.every_kimg):
            self._draw(trainer, gan, "mark")
            self._at_mark = gan.clock.images

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        gan = as_gan(pl_module)
        # A picture between two marks is not noted as one of a mark: a resume that moves the end deletes it.
        if not was_interrupted(trainer) and gan.clock.images != self._at_mark:
            self._draw(trainer, gan, "end")
        drawn = self._pictures(trainer)
        if self.gif and drawn and trainer.is_global_zero:
            with files.explained(f"{self.name}.gif"):
                save_gif(run_directory(trainer) / f"{self.name}.gif", drawn, max_side=self.max_side)

    def state_dict(self) -> dict[str, Any]:
        return {"images": -1 if self._at_mark is None else self._at_mark}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._at_mark = state_dict["images"]

    def _draw(self, trainer: L.Trainer, gan: GAN, when: When) -> None:
        """Look, draw, save and log, without a trace in the training's random numbers."""
        devices = [gan.device] if gan.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            self.look(trainer, gan, when)
            picture = self.picture(trainer, gan) if trainer.is_global_zero else None
        if picture is None:
            return
        with files.explained(self.subject):
            save_png(self._folder(trainer) / f"kimg-{stamp(gan.clock.images)}.png", picture)
        for logger in trainer.loggers:
            _log_picture(logger, self.key, picture, gan.clock.images)

    def _folder(self, trainer: L.Trainer) -> Path:
        return run_directory(trainer) / self.name

    def _pictures(self, trainer: L.Trainer) -> list[Path]:
        """All pictures in order of time."""
        return sorted(path for path in self._folder(trainer).glob("kimg-*.png") if images_of(path) >= 0)


def _log_picture(logger: Any, key: str, picture: Image.Image, images: int) -> None:
    """Hand a picture to Weights & Biases or TensorBoard; other loggers take none."""
    if hasattr(logger, "log_picture"):
        logger.log_picture(key, picture, images)
    elif hasattr(getattr(logger, "experiment", None), "add_image"):
        pixels = np.atleast_3d(np.asarray(picture))
        logger.experiment.add_image(key, pixels, global_step=images, dataformats="HWC")
