"""Perceptual path length: how fast an image changes on the way between two latents (Karras 2019, sec. 4.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ganzoo.errors import UserError
from ganzoo.streams import generator


class PathLength(NamedTuple):
    """Of the paths that were not trimmed."""

    mean: float
    std: float
    num: int  #: how many these are


@torch.no_grad()
def path_length(
    generate: Callable[[Tensor], Tensor],
    distance: Callable[[Tensor, Tensor], Tensor],
    start: Tensor,
    end: Tensor,
    *,
    interpolation: Literal["slerp", "lerp"] = "slerp",
    position: Tensor | None = None,
    epsilon: float = 1e-4,
    trim: float = 0.01,
    batch_size: int = 64,
    seed: int = 0,
) -> PathLength:
    """The mean of d(g(z(t)), g(z(t + epsilon))) / epsilon^2 over paths, with t uniform in [0, 1].

    Args:
        generate: Latents (n, ...) to images; both ends of a step are in one batch. Labels and layer noise are its own
            business, and must be the same for both.
        distance: Two batches of images to a value for each pair, (n,), that grows with the square of a small change:
            LPIPS, or a squared distance of features. It crops and resizes, if that is wanted.
        start: Latents (N, d).
        end: Latents (N, d).
        interpolation: ``slerp`` in the space of the input, ``lerp`` in that of styles.
        position: t of each path, (N,); None: drawn. Zeros give the variant that measures at ends of paths.
        epsilon: Length of the step, as a share of the path.
        trim: Share of the shortest and of the longest paths that are left out; the published one is 1 %.
        batch_size: Paths at a time.
        seed: Of the draw of t.

    Raises:
        UserError: When trimming leaves no path.
    """
    if not 0 <= trim < 0.5 or not len(start):
        raise UserError(f"Of {len(start)} paths, a share of {trim} at either end was to be left out: give 0 to 0.49.")
    if position is None:
        position = torch.rand(len(start), generator=generator(seed, "path"))
    between = slerp if interpolation == "slerp" else torch.lerp
    found = []
    for a, b, t in zip(*(torch.split(x, batch_size) for x in (start, end, position)), strict=True):
        t = t.to(a)[:, None]
        images = generate(torch.cat([between(a, b, t), between(a, b, t + epsilon)]))
        found.append(distance(*images.chunk(2)).double().cpu() / epsilon**2)
    return _trimmed(torch.cat(found).numpy(), trim)


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


def _trimmed(values: npt.NDArray[np.float64], trim: float) -> PathLength:
    low = np.quantile(values, trim, method="lower")
    high = np.quantile(values, 1 - trim, method="higher")
    kept = values[(values >= low) & (values <= high)]
    return PathLength(float(kept.mean()), float(kept.std()), len(kept))
