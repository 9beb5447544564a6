"""Images at both ends of short steps between latents, for the perceptual path length: :mod:`ganzoo.metrics.path`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor

from ganzoo import sampling, streams
from ganzoo.errors import UserError
from ganzoo.latents import Normal
from ganzoo.metrics import path
from ganzoo.metrics.generation import Samples
from ganzoo.metrics.statistics import keyed

if TYPE_CHECKING:
    from ganzoo.gan import GAN
    from ganzoo.metrics.protocol import Protocol
    from ganzoo.penalties.path_length import StyleBased


def check(gan: GAN, protocol: Protocol) -> None:
    """Refuse paths that this model does not have.

    Raises:
        UserError: They are of styles, which it has none of, or truncated ones.
    """
    if protocol.ppl_space == "z":
        return
    if not all(hasattr(gan.generator, name) for name in ("mapping", "synthesis")):
        raise UserError(
            f"Paths between styles were asked for, but {type(gan).__name__} has none: set ppl_space to z, for paths "
            "between latents."
        )
    if protocol.truncation is not None:
        raise UserError("Paths between styles are measured without truncation: leave truncation out, or ppl.")


class Walks:
    """Numbered paths of a model. Both ends of a step share the label and all that the generator draws for a sample."""

    def __init__(self, samples: Samples) -> None:
        """
        Args:
            samples: Of the model; its network is used.
        """
        self.samples, self.gan, self.protocol = samples, samples.gan, samples.protocol
        check(self.gan, self.protocol)
        # Great circles leave the range of other distributions than the normal one, and straight lines do not.
        curved = self.protocol.ppl_space == "z" and isinstance(self.gan.latents, Normal)
        self.interpolation: path.Interpolation = "slerp" if curved else "lerp"

    @torch.no_grad()
    def __call__(self, numbers: range) -> Iterator[tuple[Tensor, Tensor]]:
        """Both ends of the step on each path, a batch of the size of the samples' at a time.

        Returns:
            Twice float32 (n, C, H, W): bytes but for the rounding.
        """
        labels, size = self.samples.labels(numbers), self.samples.batch_size
        for at in range(0, len(numbers), size):
            piece = numbers[at : at + size]
            classes = None if labels is None else labels[at : at + size].to(self.gan.device)
            start, end = (self._latents(piece, side, classes) for side in ("start", "end"))
            places = path.step(
                start, end, self._positions(piece), interpolation=self.interpolation, epsilon=self.protocol.ppl_epsilon
            )
            first, second = (self._image(place.float(), piece, classes) for place in places)
            yield first, second

    def _latents(self, piece: range, side: str, labels: Tensor | None) -> Tensor:
        """Where paths begin or end: float64, so that a step of 1e-4 keeps its digits."""
        seed = streams.key(self.protocol.seed, "path", side)
        latents = self.gan.latents.numbered(piece, self.gan.generator.latent_dim, seed)
        if self.protocol.ppl_space == "w":
            with self._keyed(piece):
                latents = cast("StyleBased", self.samples.network).mapping(latents.to(self.gan.device), labels)
        return latents.double()

    def _positions(self, piece: range) -> Tensor:
        if self.protocol.ppl_sampling == "end":
            return torch.zeros(len(piece), dtype=torch.float64)
        draws = keyed(streams.key(self.protocol.seed, "path", "position"), np.arange(piece.start, piece.stop))
        return torch.from_numpy(draws / 2.0**64)

    def _image(self, place: Tensor, piece: range, labels: Tensor | None) -> Tensor:
        with self._keyed(piece):
            if self.protocol.ppl_space == "w":
                image = cast("StyleBased", self.samples.network).synthesis(place)
            else:
                image = sampling.generate(self.gan, self.samples.network, place, labels, self.samples.truncation)
        return (image.float() + 1) * 127.5

    @contextmanager
    def _keyed(self, piece: range) -> Iterator[None]:
        """A block whose draws depend on the numbers alone, however often it is passed."""
        device = self.gan.device
        with (
            streams.numbered(piece, self.protocol.seed, "path", device=device),
            torch.autocast(device.type, enabled=False),
        ):
            yield
