"""The latent whose image is nearest to a given one: Karras 2020, arXiv 1912.04958, section 5 and appendix D.

Differences from the paper:
- The distance is of pixels or of an extractor's features, not LPIPS, and images are not reduced to 256x256 for it.
- Generators without styles are searched in the space of their latents, from the nearest of some that are drawn.
- The pyramid of a noise map ends before a side is shorter than 8, or where one is odd: maps need not be squares.
- The noise that is added to w has the deviation 0.05 sigma_w t^2, which is of w's unit. The paper's
  N(0, 0.05 sigma_w t^2) does not say whether that is the variance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ganzoo import files, sampling, streams
from ganzoo.analysis.distances import Distance, Measure, Pixels
from ganzoo.analysis.noise_maps import autocorrelation, is_map, normalize_
from ganzoo.analysis.spaces import Space, SpaceName, Start, space_of
from ganzoo.errors import UserError
from ganzoo.replay import evaluating

if TYPE_CHECKING:
    from ganzoo.gan import GAN

KIND, FORMAT = "ganzoo projection", 1


@dataclass(frozen=True)
class Search:
    """How a latent is searched; the defaults are the paper's."""

    steps: int = 1000  #: of Adam with its default betas
    lr: float = 0.1  #: its largest learning rate
    jitter: float = 0.05  #: deviation of the noise that is added to points at first, as a share of their spread
    noise_weight: float = 1e5  #: weight of the regularization of noise maps
    move_noise: bool = True  #: whether noise maps are searched, too, or stay as they are drawn
    candidates: int = 256  #: without styles: drawn latents, the nearest of which is the beginning

    def __post_init__(self) -> None:
        least = {"steps": 1, "lr": 0, "jitter": 0, "noise_weight": 0, "candidates": 1}
        for name, low in least.items():
            value = getattr(self, name)
            if not low <= value < math.inf:
                raise UserError(f"A projection was given {name} {value}, which must be {low} or more, and finite.")


class Projection(NamedTuple):
    """What was found for N images, on the CPU."""

    space: SpaceName  #: z, w or w+
    latents: Tensor  #: z (N, d), w (N, D), or w+ (N, L, D) for L layers
    labels: Tensor | None  #: (N,), of conditional models; of styles: those that were given
    noise: dict[str, Tensor]  #: what the generator draws beside its latents, by purpose; maps are (N, C, H, W)
    images: Tensor  #: (N, C, H, W), what the generator makes of these
    start: Tensor  #: (N,), distances of the images that the search began with
    end: Tensor  #: (N,), distances of these images
    averaged: bool  #: whether the generator has the averaged weights


def project(
    gan: GAN,
    targets: Tensor,
    *,
    labels: Sequence[int] | None = None,
    space: SpaceName | None = None,
    distance: Distance | None = None,
    search: Search | None = None,
    averaged: bool = True,
    seed: int = 0,
    batch_size: int = 8,
    report: Callable[[str], None] | None = None,
) -> Projection:
    """The latents whose images are nearest to some targets.

    What is found for target i depends on it and on (seed, i), and on the batch size only by rounding. The model is left
    as it is.

    Args:
        gan: A model of images.
        targets: (N, C, H, W) of the model's shape in [-1, 1].
        labels: Class of each, for conditional models. Without them a search of z takes the class of the candidate that
            it begins with, and one of styles begins with the mean over all classes.
        space: Where to search: w (one style), w+ (a style for each layer) or z; none: w where there are styles, else z.
        distance: What is near; none: :class:`ganzoo.analysis.distances.Pixels`.
        search: Steps and the like; none: the paper's.
        averaged: Use the averaged weights where there are some.
        seed: Of candidates, noise maps, and the noise that is added to points.
        batch_size: Targets at a time.
        report: Told how far it is, in a line.

    Raises:
        UserError: The model makes no images, or others than these; labels or the space do not fit it.
    """
    shape = image_shape(gan)
    if targets.dim() != 4 or tuple(targets.shape[1:]) != shape or not len(targets) or batch_size < 1:
        raise UserError(
            f"Targets of shape {tuple(targets.shape)} were to be projected in batches of {batch_size}, but "
            f"{type(gan).__name__} takes 1 or more of {shape}: resize them."
        )
    search, distance = search or Search(), distance or Pixels()
    num, classes = len(targets), None
    if labels is not None:
        classes = sampling.choose_labels(gan.num_classes, num, seed=seed, labels=labels, first=0)
    network, device = sampling.network_of(gan, averaged=averaged), gan.device
    found = []
    with evaluating(network), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        descent = _Descent(
            space_of(gan, network, space, seed=seed, candidates=search.candidates), distance, search, averaged
        )
        for at in range(0, num, batch_size):
            piece = slice(at, min(at + batch_size, num))
            title = f"image {at + 1} to {piece.stop} of {num}"
            own = None if classes is None else classes[piece].to(device)
            with streams.numbered(range(num)[piece], seed, "projection", device=device):
                one = descent.run(targets[piece].to(device).float(), own, _telling(report, title))
            found.append(one)
    return _joined(found)


def render(gan: GAN, projection: Projection, *, batch_size: int = 64) -> Tensor:
    """The images (N, C, H, W) of a projection, or of one that was changed, on the CPU.

    To change it: ``projection._replace(latents=...)``, with as many rows as labels and noise have.
    """
    network, num = sampling.network_of(gan, averaged=projection.averaged), len(projection.latents)
    found = []
    with evaluating(network), torch.no_grad(), torch.autocast(gan.device.type, enabled=False):
        space = space_of(gan, network, projection.space, seed=0, candidates=1)
        for at in range(0, num, batch_size):
            numbers = range(num)[at : at + batch_size]
            piece, device = slice(at, numbers.stop), gan.device
            noise = {name: value[piece].to(device) for name, value in projection.noise.items()}
            labels = None if projection.labels is None else projection.labels[piece].to(device)
            with streams.numbered(numbers, 0, "projection", device=device), streams.kept(noise):
                found.append(space.images(projection.latents[piece].to(device), labels).cpu())
    return torch.cat(found)


def image_shape(gan: GAN) -> tuple[int, ...]:
    """(C, H, W) of a model's images.

    Raises:
        UserError: It makes points.
    """
    shape = tuple(gan.sample(1).shape[1:])
    if len(shape) != 3:
        raise UserError(
            f"{type(gan).__name__} makes points of shape {shape}, but what is projected is an image: give a model of "
            "images."
        )
    return shape


def save(projection: Projection, path: str | Path) -> None:
    """Write a projection, whole or not at all, as plain data and tensors."""
    with files.atomic(path) as file:
        torch.save({"kind": KIND, "format": FORMAT, **projection._asdict()}, file)


def load(path: str | Path) -> Projection:
    """What :func:`save` wrote; no code of the file is run.

    Raises:
        UserError: It is missing, damaged, or something else.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["kind"] != KIND or content["format"] != FORMAT:
            raise ValueError("another kind or format")
        return Projection(**{name: content[name] for name in Projection._fields})
    except Exception as error:  # a damaged file can make torch's reader fail in any way
        raise UserError(
            f"{path} is no projection that can be read ({type(error).__name__}): give a .pt file of ganzoo project."
        ) from error


class _Descent:
    """The search for the points of a batch."""

    def __init__(self, space: Space, distance: Distance, search: Search, averaged: bool) -> None:
        self.space, self.distance, self.search, self.averaged = space, distance, search, averaged

    def run(self, targets: Tensor, labels: Tensor | None, tell: Callable[[str], None]) -> Projection:
        """From the start to the end, inside of the numbered source of these targets."""
        measure, noise = self.distance(targets), dict[str, Tensor]()
        start = self.space.start(targets, labels, self.distance)
        points = start.points.clone(memory_format=torch.contiguous_format)
        with torch.no_grad():
            begin = measure(self._images(points, start.labels, noise))
        if not begin.isfinite().all():
            raise UserError("The distance from the target is not finite: the model's weights are damaged.")
        self._optimize(points, start, noise, measure, tell)
        with torch.no_grad():
            images = self._images(points, start.labels, noise)
            end = measure(images)
        return Projection(
            self.space.name,
            points.detach().cpu(),
            None if start.labels is None else start.labels.cpu(),
            {name: value.detach().cpu() for name, value in noise.items()},
            images.cpu(),
            begin.cpu(),
            end.cpu(),
            self.averaged,
        )

    def _optimize(
        self, points: Tensor, start: Start, noise: dict[str, Tensor], measure: Measure, tell: Callable[[str], None]
    ) -> None:
        """Move the points and the noise maps, in place."""
        search = self.search
        maps = [one for one in noise.values() if is_map(one)] if search.move_noise else []
        leaves = [one.requires_grad_() for one in (points, *maps)]
        optimizer = torch.optim.Adam(leaves)
        for step in range(search.steps):
            place = step / search.steps
            optimizer.param_groups[0]["lr"] = learning_rate(place, search.lr)
            deviation = jitter(place, search.jitter) * start.spread
            draw = streams.randn(*points.shape, purpose="jitter", device=points.device)
            images = self._images(points + deviation.view(-1, *[1] * (points.dim() - 1)) * draw, start.labels, noise)
            distances = measure(images)
            penalty = sum((autocorrelation(one) for one in maps), torch.zeros_like(distances))
            loss = (distances + search.noise_weight * penalty).sum()
            gradients = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
            for leaf, gradient in zip(leaves, gradients, strict=True):
                leaf.grad = gradient
            with torch.no_grad():
                points.grad = self.space.inward(points, gradients[0])
                optimizer.step()
                points.copy_(self.space.plausible(points))
                for one in maps:
                    normalize_(one)
            if step % 10 == 0:
                tell(f"step {step} of {search.steps}, distance {distances.mean().item():.4g}")
        for leaf in leaves:
            leaf.requires_grad_(False)

    def _images(self, points: Tensor, labels: Tensor | None, noise: dict[str, Tensor]) -> Tensor:
        with streams.kept(noise):
            return self.space.images(points, labels)


def learning_rate(place: float, peak: float) -> float:
    """At a place of the search in [0, 1]: from 0 up on a line in the first 5 %, down by a cosine in the last 25 %."""
    down = 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - place) / 0.25))
    return peak * min(1.0, place / 0.05) * down


def jitter(place: float, peak: float) -> float:
    """Deviation of the noise at a place of the search in [0, 1]: ``peak`` t^2, t from 1 to 0 in the first 75 %."""
    return peak * max(0.0, 1 - place / 0.75) ** 2


def _telling(report: Callable[[str], None] | None, title: str) -> Callable[[str], None]:
    return lambda text: None if report is None else report(f"{title}: {text}")


def _joined(found: list[Projection]) -> Projection:
    first = found[0]
    return Projection(
        first.space,
        torch.cat([one.latents for one in found]),
        None if first.labels is None else torch.cat([one.labels for one in found if one.labels is not None]),
        {name: torch.cat([one.noise[name] for one in found]) for name in first.noise},
        torch.cat([one.images for one in found]),
        torch.cat([one.start for one in found]),
        torch.cat([one.end for one in found]),
        first.averaged,
    )
