"""Networks whose resolution grows while they are trained: Karras 2018, arXiv 1710.10196, section 2 and figure 2.

All levels exist from the start. ``level`` is the highest one in use; while it fades in, ``alpha`` is its share.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganzoo.precision import at_least_float32


class Growable(nn.Module):
    """Base of networks with levels, each with twice the resolution of the one below.

    A subclass has one module for each level in ``blocks`` and in ``ports``, or says itself which parameters rest. A
    port is where images leave a generator or enter a discriminator. In training a network speaks images of its present
    resolution; in evaluation mode of the full one: a generator repeats pixels, a discriminator takes means. Level and
    alpha are part of the state dictionary.
    """

    first_resolution = 4
    blocks: nn.ModuleList
    ports: nn.ModuleList

    def __init__(self, num_levels: int, *arguments: Any, **options: Any) -> None:
        """
        Args:
            num_levels: How many levels there are; all of them are in use until :meth:`set_level` is called.
            arguments: What the constructor of the base that comes next is given, where a subclass has two.
            options: The same by name.
        """
        super().__init__(*arguments, **options)
        self.num_levels, self.level, self.alpha = num_levels, num_levels - 1, 1.0
        self._grows = False

    def set_level(self, level: int, alpha: float = 1.0) -> None:
        """Use the levels up to ``level``, the last one with a share of ``alpha`` in [0, 1]; 1: the old path is left."""
        self.level, self.alpha, self._grows = level, alpha, True

    @property
    def fading(self) -> bool:
        """Whether the port of the level below is still in use."""
        return self.alpha < 1 and self.level > 0

    @property
    def resolution(self) -> int:
        """Height and width of images at the present level."""
        return self.resolution_of(self.level)

    @property
    def full_resolution(self) -> int:
        """Height and width of images at the last level."""
        return self.resolution_of(self.num_levels - 1)

    def resolution_of(self, level: int) -> int:
        """Height and width of images at a level."""
        return self.first_resolution << level

    def dormant(self) -> list[nn.Parameter]:
        """The parameters that passes at the present level do not use."""
        ports = {self.level, self.level - self.fading}
        unused = [*self.blocks[self.level + 1 :], *(p for at, p in enumerate(self.ports) if at not in ports)]
        return [p for module in unused for p in module.parameters()]

    def enlarged(self, images: Tensor) -> Tensor:
        """Images of a level at twice the size, as a generator shows them when the next level begins to fade in."""
        return upsampled(images)

    def get_extra_state(self) -> Tensor:
        """Level and alpha, for the state dictionary."""
        return torch.tensor([self.level, self.alpha], dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        """Level and alpha of a state dictionary, unless nobody moves them here: then all levels stay in use."""
        level, alpha = state.tolist()
        if self._grows:
            self.set_level(int(level), alpha)


def upsampled(images: Tensor, factor: int = 2) -> Tensor:
    """Images (N, C, H, W) with each pixel repeated: (N, C, factor H, factor W)."""
    return F.interpolate(images, scale_factor=float(factor), mode="nearest") if factor > 1 else images


def pooled(images: Tensor, factor: int = 2) -> Tensor:
    """Images (N, C, H, W) with the mean of each square of pixels: (N, C, H / factor, W / factor)."""
    return F.avg_pool2d(images, factor) if factor > 1 else images


def blended(old: Tensor, new: Tensor, alpha: float) -> Tensor:
    """``old`` for an alpha of 0, ``new`` for 1, both exactly, and a straight line between; at least float32."""
    return torch.lerp(at_least_float32(old), at_least_float32(new), alpha)


def real_at_level(images: Tensor, network: Growable) -> Tensor:
    """Full images (N, C, S, S) as a network in training is shown them, (N, C, r, r) at its resolution r.

    While a level fades in they are blended with what the level below could show, enlarged as generated images are.
    """
    now = pooled(images, images.shape[-1] // network.resolution)
    return blended(network.enlarged(pooled(now)), now, network.alpha) if network.fading else now
