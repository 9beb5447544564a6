"""Noise maps that are searched, and kept white so that they take no part of the image: Karras 2020, appendix D."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def is_map(noise: Tensor) -> bool:
    """Whether numbers that a generator draws are maps (N, C, H, W), which have neighbours and a variance."""
    return noise.dim() == 4 and noise.is_floating_point() and min(noise.shape[2:]) > 1


def autocorrelation(noise: Tensor) -> Tensor:
    """How far noise maps (N, C, H, W) are from white, (N,): sums of squared correlations of neighbours at all scales.

    L_ij of appendix D: at each scale the means of n(x, y) n(x - 1, y) and of n(x, y) n(x, y - 1), wrapped at the edges.
    The next scale has the averages of 2x2 pixels times 2, which keeps the variance of white noise.
    """
    total = torch.zeros(len(noise), dtype=noise.dtype, device=noise.device)
    while True:
        for side in (2, 3):
            total = total + (noise * noise.roll(1, side)).mean(dim=(2, 3)).square().sum(dim=1)
        if min(noise.shape[2:]) < 16 or noise.shape[2] % 2 or noise.shape[3] % 2:
            return total
        noise = F.avg_pool2d(noise, 2) * 2


def normalize_(noise: Tensor) -> None:
    """Each map of (N, C, H, W) to zero mean and unit variance, in place; a constant one to zero."""
    noise.sub_(noise.mean(dim=(2, 3), keepdim=True))
    noise.mul_(noise.square().mean(dim=(2, 3), keepdim=True).clamp_min(1e-12).rsqrt())
