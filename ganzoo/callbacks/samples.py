"""Grids of the same latents over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import lightning.pytorch as L
from PIL import Image

from ganzoo.callbacks.pictures import Pictures
from ganzoo.errors import UserError
from ganzoo.images import grid

if TYPE_CHECKING:
    from ganzoo.gan import GAN


class Samples(Pictures):
    """A grid of samples of fixed latents at the start, at every mark and at the end, and all of them as a GIF.

    Grids are ``samples/kimg-*.png`` of the run directory, the animation is ``samples.gif``. Conditional models show
    one class per column. Only for images.
    """

    name, key, subject = "samples", "samples/grid", "The grid of samples"

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
        super().__init__(every_kimg, gif)
        if num < 1:
            raise UserError(f"Grids of {num} samples were asked for; give 1 or more.")
        self.num, self.seed, self.classes, self.averaged = num, seed, classes, averaged

    def picture(self, trainer: L.Trainer, gan: GAN) -> Image.Image | None:
        columns, labels = layout(self.num, gan.num_classes, self.classes)
        num = self.num if labels is None else len(labels)
        samples = gan.sample(num, seed=self.seed, labels=labels, averaged=self.averaged)
        return grid(samples, columns=columns) if samples.dim() == 4 else None  # the others are points


def layout(num: int, num_classes: int, classes: Sequence[int] | None) -> tuple[int, list[int] | None]:
    """Columns of a grid of about ``num`` samples, and their labels, one class per column.

    All classes are shown where there are at most twice as many as a square grid has columns.
    """
    square = math.ceil(math.sqrt(num))
    if num_classes == 0:
        return square, None
    chosen = list(classes or range(num_classes if num_classes <= 2 * square else square))
    return len(chosen), chosen * max(1, num // len(chosen))
