"""What an extractor of features is: a frozen network that turns images into vectors, which scores compare.

Scores of different extractors have nothing to do with each other, so each extractor says which file its weights are
from, and what a score in its features is called: ``fid`` in Inception's published ones, ``fd/<name>`` in any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from ganzoo.config import Configurable
from ganzoo.errors import UserError
from ganzoo.precision import full_precision


class Features(NamedTuple):
    """What an extractor sees in a batch of images."""

    features: Tensor  #: (N, D), float32
    logits: Tensor | None = None  #: (N, K), float32, for the inception score; None where there is no classifier


class Extractor(Configurable):
    """A frozen network from uint8 images to feature vectors, in full float32.

    Weights are read on first use, or by :meth:`load`, so that a recipe that names an extractor can be parsed, printed
    and checked without them.
    """

    #: What scores in these features are called, by what they are, where it is not ``fd/<name>`` and the like.
    published_name: ClassVar[dict[str, str]] = {}

    name: str  #: in the names of scores: ``digits-cnn``, ``dinov2-vitl14``
    num_features: int
    num_logits: int | None = None
    weights_hash: str  #: SHA-256 of the file of the weights, in hexadecimal digits
    resize: str = "none"  #: how images get the network's size; see :mod:`ganzoo.metrics.pixels`
    channels: int | None = 3  #: of the network's input; gray images are repeated where it is 3. None: it takes any
    device: torch.device = torch.device("cpu")

    def load(self) -> None:
        """Read the weights, if that is not done yet.

        Raises:
            UserError: When they are missing or not the ones that were asked for.
        """

    def to(self, device: torch.device | str) -> Self:
        """Compute on ``device`` from now on."""
        self.device = torch.device(device)
        self._move()
        return self

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Features:
        """Features of images, on the extractor's device.

        Args:
            images: uint8 (N, C, H, W) with C of 1 or 3, of any size and on any device.

        Raises:
            UserError: For values that are no bytes, or channels that the network can't take.
        """
        self.load()  # first, as the file may say how many channels the network takes
        images = as_input(images, self.channels, self.name)
        with exact(self.device):
            return self.extract(images.to(self.device, non_blocking=True))

    @torch.no_grad()
    def unrounded(self, images: Tensor) -> Features:
        """Features of images that never became bytes, for changes that are smaller than a level.

        Args:
            images: float32 (N, C, H, W), bytes but for the rounding: 0 to 255.
        """
        return self.differentiable(images)

    def differentiable(self, images: Tensor) -> Features:
        """As :meth:`unrounded`, with the gradient, where the network has one.

        Args:
            images: float32 (N, C, H, W), of the range 0 to 255.
        """
        self.load()
        with exact(self.device):
            return self.extract(_with_channels(images, self.channels, self.name).to(self.device))

    def extract(self, images: Tensor) -> Features:
        """Features of images (N, C, H, W) that are on the device and have the network's channels.

        They are uint8, or float32 of the same range (:meth:`unrounded`).
        """
        raise NotImplementedError

    def score_name(self, kind: str) -> str:
        """What a score in these features is called.

        Args:
            kind: What it is: ``fd`` (Frechet distance), ``kd`` (kernel distance), ``is``, ``precision``, ``ppl``, ...
        """
        return self.published_name.get(kind, f"{kind}/{self.name}")

    def _move(self) -> None:
        """Take what is loaded to ``self.device``."""


_TF32 = ((torch.backends.cudnn, "conv"), (torch.backends.cuda, "matmul"))


@contextmanager
def exact(device: torch.device) -> Iterator[None]:
    """A block in float32 proper: no autocast, and no TF32 on a GPU, whose ten bits are too few for published scores."""
    places = [getattr(module, name) for module, name in _TF32]
    before = [place.fp32_precision for place in places]
    for place in places:
        place.fp32_precision = "ieee"
    try:
        with full_precision(device):
            yield
    finally:
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision


def as_input(images: Tensor, channels: int | None, name: str) -> Tensor:
    """The images with the channels that a network takes: a gray one is repeated where it takes three.

    Args:
        images: uint8 (N, C, H, W).
        channels: What the network takes; None: any.
        name: Of the network, for the message.

    Raises:
        UserError: For values that are no bytes, or channels that cannot be had from these.
    """
    if images.dtype != torch.uint8 or images.dim() != 4:
        kind = str(images.dtype).removeprefix("torch.")
        raise UserError(
            f"The extractor {name} was given {kind} of shape {tuple(images.shape)}, but it takes uint8 images "
            "(N, C, H, W) of the range 0 to 255: make them of samples in [-1, 1] with ganzoo.metrics.pixels.quantize."
        )
    return _with_channels(images, channels, name)


def _with_channels(images: Tensor, channels: int | None, name: str) -> Tensor:
    given = images.shape[1]
    if channels is None or given == channels:
        return images
    if given == 1:
        return images.expand(-1, channels, -1, -1)
    if given == 4:
        raise UserError(
            f"The images have an alpha channel, which the extractor {name} cannot see: choose a background and put "
            "them on it, so that they have 3 channels."
        )
    raise UserError(f"The images have {given} channels, but the extractor {name} takes {channels}.")
