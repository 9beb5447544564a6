"""Colour transformations of images as affine maps of their colours, and gains of their frequency bands.

The colour space is centred at mid-gray, 0 of [-1, 1]; the luma axis is v = (1, 1, 1) / sqrt(3).
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from ganzoo.augment.base import num_colours, per_sample
from ganzoo.augment.geometry import constant, reflected

#: Low-pass filter of the sym2 wavelet (Daubechies 1992).
SYM2 = tuple((a + b * 3**0.5) / (4 * 2**0.5) for a, b in ((1, 1), (3, 1), (3, -1), (1, -1)))
NUM_BANDS = 4
_CROSS = ((0, -1, 1), (1, 0, -1), (-1, 1, 0))  #: the cross product with (1, 1, 1)


def colour_matrix(
    *, brightness: Tensor, contrast: Tensor, flip: Tensor, hue: Tensor, saturation: Tensor
) -> tuple[Tensor, Tensor]:
    """The map ``matrix @ rgb + offset``: matrices (N, 3, 3) and offsets (N), the same for each colour.

    Equal to the product of homogeneous matrices, from the first applied to the last: a shift of all colours by
    ``brightness``, a scaling by ``contrast``, with ``flip`` 1 a reflection of the luma axis, a rotation by ``hue``
    around it, and a scaling of what is orthogonal to it by ``saturation``. All arguments are (N).
    """
    luma = torch.full((3, 3), 1 / 3, dtype=hue.dtype, device=hue.device)  # v v^T
    chroma = torch.eye(3, dtype=hue.dtype, device=hue.device) - luma
    turn = constant(_CROSS, hue.dtype, hue.device) / 3**0.5  # v x ...
    sign = 1 - 2 * flip
    rotated = hue.cos()[:, None, None] * chroma + hue.sin()[:, None, None] * turn
    matrix = sign[:, None, None] * luma + saturation[:, None, None] * rotated
    return contrast[:, None, None] * matrix, contrast * sign * brightness


def colour(images: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    """Images (N, C, H, W) under :func:`colour_matrix`. Gray images follow the luma axis; alpha stays as it is."""
    num = num_colours(images, "A colour matrix")
    colours, alpha = images[:, :num], images[:, num:]
    if num == 1:
        luma = matrix.sum((1, 2)) / 3  # v^T matrix v
        colours = colours * per_sample(luma, images)
    else:
        colours = (matrix.to(images.dtype) @ colours.flatten(2)).view_as(colours)
    colours = colours + per_sample(offset, images)
    return torch.cat([colours, alpha], 1) if alpha.shape[1] else colours


def amplify(images: Tensor, gains: Tensor) -> Tensor:
    """Images (N, C, H, W) whose octave bands are scaled by gains (N, 4), from [0, pi/8] to [pi/2, pi]."""
    gains = gains.to(images.dtype)
    rows, columns = (
        torch.einsum("nb,bij->nij", gains, bands(side, images.dtype, images.device)) for side in images.shape[2:]
    )
    return rows[:, None] @ images @ columns[:, None].mT


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def bands(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Filters of the four bands along an axis that continues by reflection, as matrices (4, size, size).

    With the half-band filter P(z) = H(z) H(1/z) / 2 of sym2, P(z) + P(-z) = 1, the bands are P(z) P(z^2) P(z^4),
    P(z) P(z^2) P(-z^4), P(z) P(-z^2) and P(-z): without phase, and their sum is the identity.
    """
    taps = torch.tensor(SYM2, dtype=torch.float64)
    low = torch.stack(
        [(taps[max(0, m) : 4 + min(0, m)] * taps[max(0, -m) : 4 - max(0, m)]).sum() for m in range(-3, 4)]
    )
    low = low / 2  # P, taps -3 to 3
    high = -low
    high[3] += 1  # P(-z) = 1 - P(z)
    filters = []
    path = torch.ones(1, dtype=torch.float64)
    for octave in range(NUM_BANDS - 1):
        filters.append(_convolved(path, high, 2**octave))
        path = _convolved(path, low, 2**octave)
    result = torch.zeros(NUM_BANDS, size, size, dtype=torch.float64)
    for band, kernel in enumerate([path, *reversed(filters)]):
        reach = len(kernel) // 2
        for i in range(size):
            for k, tap in enumerate(kernel):
                result[band, i, reflected(i + k - reach, size)] += tap
    return result.to(device, dtype)


def _convolved(first: Tensor, second: Tensor, spacing: int) -> Tensor:
    """The product of two filters, the taps of the second being ``spacing`` apart."""
    spread = torch.zeros((len(second) - 1) * spacing + 1, dtype=second.dtype)
    spread[::spacing] = second
    length = len(first) + len(spread) - 1
    padded = torch.nn.functional.pad(first, (len(spread) - 1, len(spread) - 1)).unfold(0, len(spread), 1)
    return (padded @ spread.flip(0))[:length]
