"""DiffAugment: Differentiable Augmentation for Data-Efficient GAN Training.

Zhao, Liu, Lin, Zhu and Han 2020, arXiv 2006.10738; the ranges are those of section 3.2 (color, translation, cutout).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ganzoo import streams
from ganzoo.augment.base import Augmentation, box, images_only, num_colours, per_sample, pick

Policy = Literal["color", "translation", "cutout"]

SHIFT = 1 / 8  #: largest translation, as a share of the image's side
CUT = 1 / 2  #: side of the cutout, as a share of the image's side


class DiffAugment(Augmentation):
    """Random color, translation and cutout of each image that the discriminator sees (Zhao 2020)."""

    capturable = True

    def __init__(self, policy: list[Policy] = ["color", "translation", "cutout"]) -> None:  # noqa: B006  never changed
        """
        Args:
            policy: Which changes, applied in this order: color, translation (filled with 0), cutout (to 0).
        """
        super().__init__()
        self.policy = pick("DiffAugment", "the policy", list(policy), ("color", "translation", "cutout"))

    def fits(self, data: Tensor) -> None:
        images_only(data, "DiffAugment")
        if "color" in self.policy:
            num_colours(data, "DiffAugment")

    def augment(self, data: Tensor, kimg: float = 0.0) -> Tensor:
        """Changed images (N, C, H, W). Alpha is moved and cut with its image, but not coloured."""
        self.fits(data)
        for change in self.policy:
            data = _CHANGES[change](data)
        return data


def color(data: Tensor) -> Tensor:
    """Brightness + U(-0.5, 0.5), then saturation * U(0, 2) around each pixel's mean over its colours, then contrast
    * U(0.5, 1.5) around the image's mean over its colours. The saturation of gray images is the identity."""
    num = num_colours(data, "DiffAugment")
    colours, alpha = data[:, :num], data[:, num:]
    draws = streams.rand(len(data), 3, purpose="diffaugment.color", device=data.device)
    brightness, saturation, contrast = (per_sample(draw, data) for draw in draws.unbind(1))
    colours = colours + (brightness - 0.5)
    if num == 3:
        gray = colours.mean(1, keepdim=True)
        colours = gray + (colours - gray) * (saturation * 2)
    mean = colours.mean((1, 2, 3), keepdim=True)
    colours = mean + (colours - mean) * (contrast + 0.5)
    return torch.cat([colours, alpha], 1) if alpha.shape[1] else colours


def translation(data: Tensor) -> Tensor:
    """A shift by whole pixels, uniform up to 1/8 of the side in both directions and axes; what is uncovered is 0."""
    draws = streams.rand(len(data), 2, purpose="diffaugment.translation", device=data.device)
    shifts = [_integers(draws[:, axis], 2 * bound + 1) - bound for axis, bound in enumerate(_bounds(data))]
    return shifted(data, shifts[0], shifts[1])


def shifted(data: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Images (N, C, H, W) moved by whole pixels (N,), int64; what is uncovered is 0."""
    height, width = data.shape[2:]
    y = torch.arange(height, device=data.device) - down[:, None]  # (N, H): where each row comes from
    x = torch.arange(width, device=data.device) - right[:, None]  # (N, W)
    inside = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None, :]
    source = y.clamp(0, height - 1)[:, :, None] * width + x.clamp(0, width - 1)[:, None, :]  # (N, H, W)
    index = source.flatten(1)[:, None].expand(-1, data.shape[1], -1)
    return data.flatten(2).gather(2, index).view_as(data) * inside[:, None]


def cutout(data: Tensor) -> Tensor:
    """A box of half of the sides set to 0, a part of which may lie outside.

    Its centre is uniform over the image: over the pixels for a box of odd length, and for one of even length over
    the edges between them, both borders included, so that no side of the image is cut more often than the other.
    """
    draws = streams.rand(len(data), 2, purpose="diffaugment.cutout", device=data.device)
    edges = []
    for axis, side in enumerate(data.shape[2:]):
        length = round(side * CUT)
        first = _integers(draws[:, axis], side + 1 - length % 2) - length // 2
        edges.append((first, first + length))
    return data * ~box(edges[0], edges[1], data)


def _bounds(data: Tensor) -> tuple[int, int]:
    """Largest shift per axis in pixels."""
    return round(data.shape[2] * SHIFT), round(data.shape[3] * SHIFT)


def _integers(draws: Tensor, num: int) -> Tensor:
    """Uniform numbers in [0, 1) as integers in [0, num)."""
    return (draws * num).long().clamp(max=num - 1)  # a product may round up to num


_CHANGES = {"color": color, "translation": translation, "cutout": cutout}
