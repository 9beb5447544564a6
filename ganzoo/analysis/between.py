"""Images between samples: on the ways from one to the next, and with the coarse styles of one and the fine of another.

All images of a picture share what the generator draws beside its latents, such as the noise of its layers, so that
what differs between them is the point they are made from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from ganzoo import sampling, streams
from ganzoo.errors import UserError
from ganzoo.latents import Normal
from ganzoo.metrics.path import slerp
from ganzoo.replay import evaluating

if TYPE_CHECKING:
    from ganzoo.gan import GAN


@runtime_checkable
class Styled(Protocol):
    """A generator that is ``synthesis(mapping(latents, labels))``."""

    mapping: Callable[[Tensor, Tensor | None], Tensor]  #: to styles, (N, D), or (N, L, D) with one for each of L layers
    synthesis: Callable[[Tensor], Tensor]  #: to images


class Options(NamedTuple):
    """How samples are drawn, as for :meth:`ganzoo.gan.GAN.sample`."""

    seed: int = 0
    labels: sampling.Labels = None
    averaged: bool = True
    truncation: sampling.Truncation | None = None
    batch_size: int = 64


def interpolate(gan: GAN, num: int, frames: int, options: Options, *, closed: bool = False) -> Tensor:
    """Ways from sample 0 to 1, to 2 and so on: straight lines between styles where the generator has some.

    Otherwise they are between latents: on great circles for normal ones, whose length is nearly the same all along
    (White 2016, arXiv 1609.04468), and straight for others. There a label cannot change on the way: all samples then
    have one class.

    Args:
        gan: The model.
        num: How many samples, 2 or more.
        frames: Images between one sample and the next, at even distances.
        options: How they are drawn.
        closed: Whether a last way leads back to sample 0.

    Returns:
        (num - 1, or num, frames + 2, *shape): each way with both of its ends, on the CPU.
    """
    if num < 2 or frames < 1:
        raise UserError(f"{frames} images on the ways between {num} samples were asked for; give 1 and 2 or more.")
    space = _Space(gan, options)
    with evaluating(space.network):
        points, labels = space.points(num, one_class=not space.styled)
        place = torch.linspace(0, 1, frames + 2, dtype=points.dtype, device=points.device)
        ways = []
        for i in range(num if closed else num - 1):
            start, end = (points[j % num].expand(frames + 2, *points.shape[1:]) for j in (i, i + 1))
            ways.append(space.between(start, end, place))
        classes = None if labels is None else labels[:1].expand(len(ways) * (frames + 2))
        images = space.images(torch.cat(ways), classes)
    return images.view(len(ways), frames + 2, *images.shape[1:])


def mix(gan: GAN, num: int, layers: int, options: Options) -> tuple[Tensor, Tensor, Tensor]:
    """Samples with the styles of one source in the first layers and of another in the rest (Karras 2019, sec. 3.1).

    Args:
        gan: A model whose generator has a style for each layer.
        num: Sources of each kind: samples 0 to num of coarse styles, num to 2 num of fine ones.
        layers: How many of the layers take the coarse styles.
        options: How samples are drawn.

    Returns:
        (num, num, *shape), the coarse source by the first index and the fine one by the second; and both kinds of
        sources, (num, *shape) each; on the CPU.
    """
    if num < 1:
        raise UserError(f"{num} sources of styles were asked for; give 1 or more.")
    space = _Space(gan, options)
    with evaluating(space.network):
        points, _ = space.points(2 * num) if space.styled else (torch.empty(0), None)
        if points.dim() != 3:
            raise UserError(
                f"Styles were to be mixed, but {type(gan).__name__} has none that differ between layers: use a "
                "style-based model, or interpolate between its samples."
            )
        if not 0 < layers < points.shape[1]:
            raise UserError(
                f"The coarse styles were to be those of the first {layers} layers, but {type(gan).__name__} has "
                f"{points.shape[1]}: give 1 to {points.shape[1] - 1}."
            )
        coarse, fine = points.repeat_interleave(num, 0)[: num * num], points[num:].repeat(num, 1, 1)
        mixed = space.images(torch.cat([coarse[:, :layers], fine[:, layers:]], dim=1))
        sources = space.images(points)
    return mixed.view(num, num, *mixed.shape[1:]), sources[:num], sources[num:]


class _Space:
    """The space of a generator in which images are combined: that of styles, or of latents."""

    def __init__(self, gan: GAN, options: Options) -> None:
        self.gan, self.options = gan, options
        self.network: Any = sampling.network_of(gan, averaged=options.averaged)
        self.styled = isinstance(self.network, Styled)
        if options.batch_size < 1:
            raise UserError(f"Batches of {options.batch_size} images were asked for; a batch has 1 or more.")

    @torch.no_grad()
    def points(self, num: int, *, one_class: bool = False) -> tuple[Tensor, Tensor | None]:
        """The latents of the first samples, (num, d), or their styles; and their labels."""
        gan, options = self.gan, self.options
        given, cut = options.labels, options.truncation
        if given is None or isinstance(given, str):
            counts, several = gan.class_counts, 1 if one_class else num
            drawn = sampling.choose_labels(
                gan.num_classes, several, seed=options.seed, labels=given, first=0, class_counts=counts
            )
            given = None if drawn is None else drawn.tolist()
        elif one_class and len(set(given)) > 1:
            raise UserError(
                f"The labels {list(given)[:8]} were given, but {type(gan).__name__} has no space of styles in which "
                "one class leads to another: give one label."
            )
        if given is not None:
            given = [given[i % len(given)] for i in range(num)]
        labels = sampling.choose_labels(gan.num_classes, num, seed=options.seed, labels=given, first=0)
        labels = None if labels is None else labels.to(gan.device)
        points = gan.latents.numbered(range(num), gan.generator.latent_dim, options.seed)
        if not self.styled:
            return sampling.truncated(gan, points, cut).to(gan.device), labels
        with torch.autocast(gan.device.type, enabled=False):
            points = self.network.mapping(points.to(gan.device), labels)
            return points if cut is None else self.network.truncate(points, cut.psi, cut.cutoff), labels

    def between(self, start: Tensor, end: Tensor, place: Tensor) -> Tensor:
        """The points at some places, (n,) in [0, 1], on the ways from ``start`` to ``end``, (n, ...) each."""
        place = place.view(-1, *[1] * (start.dim() - 1))
        curved = not self.styled and isinstance(self.gan.latents, Normal)
        return slerp(start, end, place) if curved else torch.lerp(start, end, place)

    @torch.no_grad()
    def images(self, points: Tensor, labels: Tensor | None = None) -> Tensor:
        """What the generator makes of points, on the CPU, with the noise of sample 0."""
        found, size, device = [], self.options.batch_size, self.gan.device
        for at in range(0, len(points), size):
            piece = points[at : at + size]
            classes = None if labels is None else labels[at : at + size]
            with (
                streams.numbered([0] * len(piece), self.options.seed, "sample", device=device),
                torch.autocast(device.type, enabled=False),
            ):
                made = self.network.synthesis(piece) if self.styled else self.network(piece, classes)
            found.append(made.float().cpu())
        return torch.cat(found)
