"""The base of all image data: pictures in, uint8 batches out, scaled and flipped on the device."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from ganzoo import streams
from ganzoo.data import cache
from ganzoo.data.base import GANDataModule
from ganzoo.data.batch import Batch
from ganzoo.data.framing import Fit, Framing, Resample
from ganzoo.data.pictures import Pictures
from ganzoo.errors import UserError


class ImageData(GANDataModule):
    """Base of all image data: decoded once into a cache, then read from there.

    A subclass gives :attr:`pictures`.
    """

    def __init__(
        self,
        *,
        image_size: int | tuple[int, int] = 64,
        channels: int = 3,
        fit: Fit = "crop",
        background: str = "white",
        resample: Resample = "bicubic",
        mirror: bool = False,
        corrupt: Literal["refuse", "skip"] = "refuse",
        **options: Any,
    ) -> None:
        """
        Args:
            image_size: Side of a square, or height and width.
            channels: 1 for gray, 3 for RGB, 4 to keep transparency.
            fit: What to do with pictures of another shape: crop to the middle, pad with the background, or stretch.
            background: Colour behind transparent pictures and around padded ones; a name or a code like #7f7f7f.
            resample: Filter for resizing; all but nearest are antialiased.
            mirror: Whether to flip half of the images, drawn anew each time.
            corrupt: What to do with pictures that cannot be decoded: refuse to train, or skip them.
            **options: Of the base: batch_size, num_workers, labels, on_device.
        """
        super().__init__(**options)
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        self.framing = Framing(height, width, channels, fit, background, resample)
        self.mirror, self.corrupt = mirror, corrupt

    @property
    @abstractmethod
    def pictures(self) -> Pictures:
        """What the cache is made from."""

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.framing.shape

    @property
    def channels(self) -> int:
        """Number of channels: 1, 3 or 4."""
        return self.framing.channels

    @property
    def image_size(self) -> int | tuple[int, int]:
        """The side if images are square, else (height, width)."""
        height, width = self.framing.height, self.framing.width
        return height if height == width else (height, width)

    @cached_property
    def class_names(self) -> list[str]:
        found = cache.find(self.pictures.cache_name())
        names = found.class_names if found is not None else self.pictures.labels.names
        if self.labels and not names:
            raise UserError(
                f"labels are asked for, but {self.pictures.title} has none; sort the pictures into one folder per "
                "class, name a labels_file, or set labels to false."
            )
        return names

    @cached_property
    def dataset(self) -> cache.Cache:
        """The cache, built on first use.

        Raises:
            UserError: No pictures, pictures that are corrupt and not to be skipped, or no room for the cache.
        """
        found = cache.open_or_build(self.pictures, labels=self.num_classes > 0, skip=self.corrupt == "skip")
        if found.skipped:
            names = cache.in_words(found.skipped)
            warnings.warn(f"skipped {len(found.skipped)} pictures that cannot be decoded: {names}", stacklevel=2)
        return found

    @property
    def num(self) -> int:
        return len(self.dataset)

    @property
    def class_counts(self) -> list[int]:
        return self.dataset.class_counts

    @property
    def content_hash(self) -> str:
        return self.dataset.content_hash

    def prepare_data(self) -> None:
        """Decode, once per machine; Lightning calls it in one process before the others go on."""
        if cache.find(self.pictures.cache_name()) is None:
            self._check_number(self.pictures.num)  # before anything is decoded
        self._check_number(self.num)

    def setup(self, stage: str | None = None) -> None:
        """Open the cache, and see :meth:`GANDataModule.setup`."""
        self._check_number(self.num)
        super().setup(stage)

    def prepare(self, batch: Batch, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """float32 in [-1, 1] on the device: level v becomes v / 127.5 - 1; half of them flipped if ``mirror``."""
        images = batch.data.to(device, non_blocking=True)
        if self.mirror:
            flip = streams.rand(len(images), purpose="flip", device=device) < 0.5
            images = torch.where(flip[:, None, None, None], images.flip(3), images)
        labels = None if batch.labels is None else batch.labels.to(device, non_blocking=True)
        return images.float().div_(127.5).sub_(1), labels

    def to_images(self, x: Tensor) -> Tensor:
        """uint8 (N, C, H, W) of model output (N, C, H, W): the inverse of :meth:`prepare`, rounded and clamped."""
        return x.detach().float().add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)

    def _check_number(self, num: int) -> None:
        if num == 0:
            raise UserError(f"There are no pictures in {self.pictures.title}; give a folder or archive of some.")
        place, size = max([(0, self.batch_size), *self.later_sizes], key=lambda pair: pair[1])
        if num < size:
            later = f", which the model asks for from {place / 1000:g} kimg on" if size != self.batch_size else ""
            raise UserError(
                f"{self.pictures.title} has {num} pictures, fewer than one batch of {size}{later}; "
                f"set {'that ' if later else ''}batch_size to {num} or less, or give more pictures."
            )
