"""ADA: Training Generative Adversarial Networks with Limited Data.

Karras, Aittala, Hellsten, Laine, Lehtinen and Aila 2020, arXiv 2006.06676; the pipeline is that of appendix B.

Differences from the paper:
- Beyond the border images continue by endless reflection, instead of by a padding of a finite, computed width.
- An image that no change of resampling was drawn for is not resampled, so that it keeps its values exactly. The paper
  sends every image through the wavelet filters.
- Images that are not square are turned by 180 degrees only.
- Gray images follow the luma axis; alpha is moved and cut with its image, but neither coloured, filtered nor noisy.
- p does not rise above 1.

On CUDA the derivative of the geometric part adds its terms in no fixed order, as torch's own sampling does: two runs
differ by rounding, and ``trainer.deterministic: true`` refuses it (``warn`` does not).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ganzoo import streams
from ganzoo.augment import colour, geometry
from ganzoo.augment.adaptive import AdaptiveProbability
from ganzoo.augment.base import Augmentation, box, images_only, num_colours, per_sample, pick
from ganzoo.schedules import Schedule

Group = Literal["blit", "geometric", "color", "filter", "noise", "cutout"]

POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)  #: expected power of the four bands in natural images


class ADA(AdaptiveProbability, Augmentation):
    """Adaptive discriminator augmentation (Karras 2020): each change is made with probability p, which adapts."""

    def __init__(
        self,
        groups: list[Group] = ["blit", "geometric", "color"],  # noqa: B006  never changed
        *,
        p: float | Schedule = 0.0,
        target: float | None = 0.6,
        speed_kimg: float = 500.0,
        interval: int = 4,
    ) -> None:
        """
        Args:
            groups: Which changes: blit (mirroring, turns by 90 degrees, shifts by whole pixels), geometric (scaling,
                rotation, stretching, shifts), color (brightness, contrast, luma flip, hue, saturation), filter (gains
                of frequency bands), noise and cutout. The paper's choice is the first three.
            p: Probability of each change at the start; with target null it stays, or follows a schedule of kimg.
            target: Mean sign of D(real) that p is adapted to; null: p is not adapted.
            speed_kimg: Thousands of real images in which p can go from 0 to 1.
            interval: Turns of the discriminator after which p moves.
        """
        super().__init__(p, target=target, speed_kimg=speed_kimg, interval=interval)
        allowed = ("blit", "geometric", "color", "filter", "noise", "cutout")
        self.groups = pick("ADA", "the groups", list(groups), allowed)

    def fits(self, data: Tensor) -> None:
        images_only(data, "ADA")
        if {"color", "filter", "noise"} & set(self.groups):
            num_colours(data, "ADA")

    def augment(self, data: Tensor, kimg: float = 0.0) -> Tensor:
        """Changed images (N, C, H, W); ``data`` itself where p is known to be 0, its exact values where p is 0."""
        self.fits(data)
        if self.never:
            return data
        data = self._place(data)
        for group in self.groups:
            if group in _VALUES:
                data = _VALUES[group](data, self.p)
        return data

    def _place(self, data: Tensor) -> Tensor:
        """All changes of place, as one matrix per image."""
        inverse = torch.eye(3, device=data.device).expand(len(data), 3, 3)
        placed = data
        if "blit" in self.groups:
            inverse = _blit(data, self.p)
            placed = geometry.move_pixels(data, inverse)
        if "geometric" in self.groups:
            further, warped = _affine(data, self.p)
            placed = torch.where(warped[:, None, None, None], geometry.warp(data, inverse @ further), placed)
        return placed


def _blit(data: Tensor, p: Tensor) -> Tensor:
    """Random changes that take pixels to pixels, (N, 3, 3)."""
    height, width = data.shape[2:]
    flip, turn, shift = _gates(data, p, 3, "blit")
    mirrored, turns, x, y = _uniform(data, 4, "blit")
    turns = (turns * 4).floor() if height == width else (turns * 2).floor() * 2
    zero = torch.zeros_like(x)
    return geometry.blit_inverse(
        torch.where(flip, (mirrored * 2).floor(), zero),
        torch.where(turn, turns, zero),
        torch.where(shift, ((x - 0.5) * 0.25 * width).round(), zero),
        torch.where(shift, ((y - 0.5) * 0.25 * height).round(), zero),
    )


def _affine(data: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """Random changes that need resampling, (N, 3, 3), and which images have one, (N)."""
    height, width = data.shape[2:]
    p_rotation = 1 - (1 - p).sqrt()  # so that one of two rotations, or both, happen with probability p
    draws = streams.rand(len(data), 5, purpose="ada.geometric.gates", device=data.device)
    gates = draws < torch.stack([p, p_rotation, p, p_rotation, p])
    scale, before, stretch, after, shift = gates.unbind(1)
    angle, angle_after = ((u * 2 - 1) * torch.pi for u in _uniform(data, 2, "geometric"))
    log_scale, log_stretch, x, y = _normal(data, 4, "geometric")
    zero = torch.zeros_like(x)
    inverse = geometry.affine_inverse(
        torch.where(scale, log_scale * 0.2, zero).exp2(),
        torch.where(before, angle, zero),
        torch.where(stretch, log_stretch * 0.2, zero).exp2(),
        torch.where(after, angle_after, zero),
        torch.where(shift, x * (0.125 * width), zero),
        torch.where(shift, y * (0.125 * height), zero),
    )
    return inverse, gates.any(1)


def _color(data: Tensor, p: Tensor) -> Tensor:
    """Random changes of colour."""
    bright, contrast, flip, hue, saturation = gates = _gates(data, p, 5, "color")
    flipped, angle = _uniform(data, 2, "color")
    shift, log_contrast, log_saturation = _normal(data, 3, "color")
    zero = torch.zeros_like(shift)
    matrix, offset = colour.colour_matrix(
        brightness=torch.where(bright, shift * 0.2, zero),
        contrast=torch.where(contrast, log_contrast * 0.5, zero).exp2(),
        flip=torch.where(flip, (flipped * 2).floor(), zero),
        hue=torch.where(hue, (angle * 2 - 1) * torch.pi, zero),
        saturation=torch.where(saturation, log_saturation, zero).exp2(),
    )
    return torch.where(_any(gates), colour.colour(data, matrix, offset), data)


def _filter(data: Tensor, p: Tensor) -> Tensor:
    """Random gains of the bands, each normalized so that the power of a natural image would stay."""
    gates, normal = _gates(data, p, colour.NUM_BANDS, "filter"), _normal(data, colour.NUM_BANDS, "filter")
    gains = torch.ones(len(data), colour.NUM_BANDS, device=data.device)
    for band, power in enumerate(POWER):
        gain = torch.where(gates[band], normal[band], torch.zeros_like(normal[band])).exp2()
        gain, others = (x * (1 + power * (gain.square() - 1)).rsqrt() for x in (gain, torch.ones_like(gain)))
        gains = torch.stack([gains[:, b] * (gain if b == band else others) for b in range(colour.NUM_BANDS)], 1)
    num = num_colours(data, "ADA")
    filtered = torch.cat([colour.amplify(data[:, :num], gains), data[:, num:]], 1)
    return torch.where(_any(gates), filtered, data)


def _noise(data: Tensor, p: Tensor) -> Tensor:
    """Gaussian noise of random strength."""
    (gate,), (std,) = _gates(data, p, 1, "noise"), _normal(data, 1, "noise")
    num = num_colours(data, "ADA")
    noise = streams.randn(len(data), num, *data.shape[2:], purpose="ada.noise.pixels", device=data.device)
    noise = per_sample(torch.where(gate, std.abs() * 0.1, torch.zeros_like(std)), data) * noise.to(data.dtype)
    return torch.cat([data[:, :num] + noise, data[:, num:]], 1)


def _cutout(data: Tensor, p: Tensor) -> Tensor:
    """A box of half of the sides set to 0, its centre anywhere in the image."""
    (gate,) = _gates(data, p, 1, "cutout")
    x, y = _uniform(data, 2, "cutout")
    height, width = data.shape[2:]
    rows, columns = (
        (((centre - 0.25) * side).round(), ((centre + 0.25) * side).round())
        for centre, side in ((y, height), (x, width))
    )
    return data * ~(box(rows, columns, data) & gate[:, None, None, None])


_VALUES = {"color": _color, "filter": _filter, "noise": _noise, "cutout": _cutout}


def _gates(data: Tensor, p: Tensor, num: int, group: str) -> tuple[Tensor, ...]:
    """Whether each of so many changes is made, (N) each."""
    return (streams.rand(len(data), num, purpose=f"ada.{group}.gates", device=data.device) < p).unbind(1)


def _uniform(data: Tensor, num: int, group: str) -> tuple[Tensor, ...]:
    """So many uniform numbers in [0, 1) for each image, (N) each."""
    return streams.rand(len(data), num, purpose=f"ada.{group}.uniform", device=data.device).unbind(1)


def _normal(data: Tensor, num: int, group: str) -> tuple[Tensor, ...]:
    """So many standard normal numbers for each image, (N) each."""
    return streams.randn(len(data), num, purpose=f"ada.{group}.normal", device=data.device).unbind(1)


def _any(gates: tuple[Tensor, ...]) -> Tensor:
    """Which images have one of the changes, (N, 1, 1, 1)."""
    return torch.stack(gates).any(0)[:, None, None, None]
