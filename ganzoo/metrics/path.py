"""Perceptual path length: how fast an image changes on the way between two latents (Karras 2019, sec. 4.1).

The mean of d(g(z(t)), g(z(t + epsilon))) / epsilon^2 over paths, with t uniform in [0, 1] or at the path's end.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ganzoo.errors import UserError

Interpolation = Literal["slerp", "lerp"]


class PathLength(NamedTuple):
    """Of the paths that were not trimmed."""

    mean: float
    std: float
    num: int  #: how many these are


def step(
    start: Tensor, end: Tensor, position: Tensor, *, interpolation: Interpolation, epsilon: float
) -> tuple[Tensor, Tensor]:
    """The points at t and at t + epsilon on the ways between latents.

    Args:
        start: (N, ...).
        end: (N, ...).
        position: t of each path, (N,), in [0, 1].
        interpolation: ``slerp`` on great circles, of vectors (N, d), or ``lerp`` on straight lines.
        epsilon: Length of the step, as a share of the path.
    """
    t = position.to(start).view(-1, *[1] * (start.dim() - 1))
    between = slerp if interpolation == "slerp" else torch.lerp
    return between(start, end, t), between(start, end, t + epsilon)


def lengths(first: Tensor, second: Tensor, epsilon: float) -> Tensor:
    """Squared distances of features (N, D) of both ends of steps, divided by epsilon^2: (N,), float64."""
    return (first.double() - second.double()).square().sum(1) / epsilon**2


def trimmed(lengths: Tensor, trim: float = 0.01) -> PathLength:
    """The mean over paths without the shortest and the longest ones.

    Args:
        lengths: (N,).
        trim: Share that is left out at either end; the published one is 1 %.

    Raises:
        UserError: When there is no path.
    """
    if not 0 <= trim < 0.5 or not len(lengths):
        raise UserError(f"Of {len(lengths)} paths, a share of {trim} at either end was to be left out: give 0 to 0.49.")
    values = lengths.double().cpu().numpy()
    low, high = np.quantile(values, trim, method="lower"), np.quantile(values, 1 - trim, method="higher")
    kept = values[(values >= low) & (values <= high)]
    return PathLength(float(kept.mean()), float(kept.std()), len(kept))


def slerp(start: Tensor, end: Tensor, t: Tensor) -> Tensor:
    """The point at t on the great circle between two directions; the length is interpolated linearly.

    A generator that normalizes its input sees what Karras 2019 describes, and any other one latents of a usual length.

    Args:
        start: (N, d).
        end: (N, d).
        t: (N, 1); 0 is the start.
    """
    lengths = [x.norm(dim=1, keepdim=True) for x in (start, end)]
    a, b = start / lengths[0], end / lengths[1]
    cosine = (a * b).sum(1, keepdim=True)
    across = b - cosine * a
    sine = across.norm(dim=1, keepdim=True)
    angle = t * torch.atan2(sine, cosine)
    aside = across / sine.clamp_min(torch.finfo(a.dtype).tiny)  # of equal directions: zero
    point: Tensor = (a * angle.cos() + aside * angle.sin()) * torch.lerp(lengths[0], lengths[1], t)
    return point
