"""Geometric transformations of images: homogeneous matrices, and sampling that can be differentiated twice.

Coordinates are in pixels from the centre of the image, (x, y, 1), x to the right and y downwards. A transformation is
given by its inverse: the matrix that takes a pixel of the result to the place in the source that it shows. Outside of
the image the source continues by reflection about the centres of its outermost pixels.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

#: Low-pass filter of the sym6 wavelet: 12 taps, orthonormal to its own even shifts, with 6 vanishing moments
#:, the least asymmetric of its kind
#: (Daubechies 1992).
SYM6 = (
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633,
    0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252,
    -0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148,
)  # fmt: skip
_BEFORE = 5  #: taps before the middle of the filter
_DELAY = sum((k - _BEFORE) * tap for k, tap in enumerate(SYM6)) / sum(SYM6)  #: where it puts a coarse pixel's centre
_MARGIN = 3  #: pixels beyond the border that the fine image covers: the reach of the filter that makes it coarse again

_BILINEAR, _NEAREST, _REFLECTION = 0, 1, 2  # torch's numbers for the modes of grid_sampler_2d


def translation(x: Tensor, y: Tensor) -> Tensor:
    """Matrices (N, 3, 3) that move by (x, y)."""
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    return _matrices([[one, zero, x], [zero, one, y], [zero, zero, one]])


def scaling(x: Tensor, y: Tensor) -> Tensor:
    """Matrices (N, 3, 3) that enlarge by x and y."""
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    return _matrices([[x, zero, zero], [zero, y, zero], [zero, zero, one]])


def rotation(angle: Tensor) -> Tensor:
    """Matrices (N, 3, 3) that turn x towards y by an angle."""
    return _rotation(angle.cos(), angle.sin())


def quarter_turns(num: Tensor) -> Tensor:
    """Matrices (N, 3, 3) that turn x towards y by whole multiples of 90 degrees, with exact entries."""
    angle = num * (torch.pi / 2)
    return _rotation(angle.cos().round(), angle.sin().round())


def blit_inverse(flip: Tensor, turns: Tensor, right: Tensor, down: Tensor) -> Tensor:
    """Inverse of: a mirroring of x where ``flip`` is 1, then turns by 90 degrees, then a shift. All are (N)."""
    one = torch.ones_like(right)
    return scaling(1 - 2 * flip, one) @ quarter_turns(-turns) @ translation(-right, -down)


def affine_inverse(
    scale: Tensor, before: Tensor, stretch: Tensor, after: Tensor, right: Tensor, down: Tensor
) -> Tensor:
    """Inverse of: a scaling, a rotation, a scaling of x by ``stretch`` and of y by its inverse, another rotation, then
    a shift. All are (N)."""
    unscaled = scaling(1 / scale, 1 / scale) @ rotation(-before)
    return unscaled @ scaling(1 / stretch, stretch) @ rotation(-after) @ translation(-right, -down)


def move_pixels(images: Tensor, inverse: Tensor) -> Tensor:
    """Images (N, C, H, W) under transformations that take pixels to pixels: values are moved, none is computed."""
    height, width = images.shape[2:]
    places = _sources(images, inverse, _centred(width, images), _centred(height, images))
    last = constant(((width - 1,), (height - 1,)), images.dtype, images.device)
    return _sample(images, places * (2 / last.clamp(1)), (height, width), _NEAREST)


def warp(images: Tensor, inverse: Tensor) -> Tensor:
    """Images (N, C, H, W) under any affine transformations, against aliasing (Karras 2020, appendix B).

    Both sides are doubled by the sym6 wavelet filter, the fine image is sampled bilinearly, and the result is halved by
    the mirrored filter. The two filters undo each other, so the identity is the identity up to rounding, and a shift by
    whole pixels is exact inside.
    """
    height, width = images.shape[2:]
    up_rows, down_rows = resampling(height, images.dtype, images.device)
    up_columns, down_columns = resampling(width, images.dtype, images.device)
    fine = up_rows @ images @ up_columns.T  # (N, C, 2 (H + 6), 2 (W + 6))
    places = _sources(images, inverse, _fine_centred(width, images), _fine_centred(height, images))
    grid = _fine_grid(places, height, width)
    sampled = _sample(fine, grid, (2 * (height + _BEFORE), 2 * (width + _BEFORE)), _BILINEAR)
    return down_rows @ sampled @ down_columns.T  # (N, C, H, W)


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # what is kept here must be fit for training, too
def resampling(size: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """The two filters along one axis as matrices: up (2 (size + 6), size) and down (size, 2 size + 10).

    Fine pixel 0 of the first lies ``2 * _MARGIN`` fine pixels before the image, that of the second 5 before it.
    """
    taps = torch.tensor(SYM6, dtype=torch.float64)
    up = torch.zeros(2 * (size + 2 * _MARGIN), size, dtype=torch.float64)
    for n in range(len(up)):
        fine = n - 2 * _MARGIN
        for k, tap in enumerate(taps):  # u[n] = sum_i h[n - 2 i + 5] x[i]
            pixel, odd = divmod(fine + _BEFORE - k, 2)
            if not odd:
                up[n, reflected(pixel, size)] += tap
    down = torch.zeros(size, 2 * size + 2 * _BEFORE, dtype=torch.float64)
    for i in range(size):
        down[i, 2 * i : 2 * i + len(taps)] = taps  # y[i] = sum_n h[n - 2 i + 5] v[n]
    return up.to(device, dtype), down.to(device, dtype)


@lru_cache(maxsize=256)
@torch.inference_mode(False)
def constant(rows: tuple[tuple[float, ...], ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A small matrix, brought to the device once: each time would wait for it."""
    return torch.tensor(rows, dtype=dtype, device=device)


def reflected(pixel: int, size: int) -> int:
    """The pixel of 0 to size - 1 that a pixel outside shows, by reflection about the outermost centres."""
    period = max(2 * (size - 1), 1)
    return min(pixel % period, period - pixel % period) if size > 1 else 0


def _sources(images: Tensor, inverse: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Where each pixel of the result comes from: (N, 2, rows * columns), x and y from the image's centre."""
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    pixels = torch.stack([columns, rows, torch.ones_like(rows)]).flatten(1)  # (3, rows * columns)
    return inverse[:, :2].to(images.dtype) @ pixels


def _centred(size: int, like: Tensor) -> Tensor:
    """Coordinates of the pixels."""
    return torch.arange(size, dtype=like.dtype, device=like.device) - (size - 1) / 2


def _fine_centred(size: int, like: Tensor) -> Tensor:
    """Coordinates, in pixels, of the fine pixels that the filter ``down`` reads."""
    fine = torch.arange(-_BEFORE, 2 * size + _BEFORE, dtype=like.dtype, device=like.device)
    return (fine - _DELAY) / 2 - (size - 1) / 2


def _fine_grid(places: Tensor, height: int, width: int) -> Tensor:
    """Places, in pixels from the centre, in the fine image, for the sampler.

    The margin of the fine image shows the reflection through the filter; farther out the place itself is reflected.
    """
    last = constant(((width - 1,), (height - 1,)), places.dtype, places.device)
    period = (2 * last).clamp(1)
    folded = places + last / 2
    folded.addcmul_((folded / period).round_(), period, value=-1).abs_().sub_(last / 2)
    folded = torch.where(places.abs() <= last / 2 + _MARGIN, places, folded)
    # Fine pixel n shows the place of n = 2 x + _DELAY from the image's first pixel; the outermost ones are -1 and 1.
    end = 2 * (last + 1 + 2 * _MARGIN) - 1
    return folded.mul_(4 / end).add_((2 * last + 4 * _MARGIN + 2 * _DELAY - end) / end)


def _rotation(cos: Tensor, sin: Tensor) -> Tensor:
    one, zero = torch.ones_like(cos), torch.zeros_like(cos)
    return _matrices([[cos, -sin, zero], [sin, cos, zero], [zero, zero, one]])


def _matrices(rows: list[list[Tensor]]) -> Tensor:
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def _sample(images: Tensor, places: Tensor, shape: tuple[int, int], mode: int) -> Tensor:
    """Images at the sampler's places (N, 2, H * W), (N, C, H, W) with the given height and width."""
    grid = places.view(len(images), 2, *shape).permute(0, 2, 3, 1)
    result: Tensor = _Sample.apply(images, grid, mode)
    return result


class _Sample(torch.autograd.Function):
    """Torch's sampler as what it is, a linear map of the images: its derivative is the adjoint map, whose derivative is
    the map again. (Torch's own has no second derivative.) The grid takes no gradient."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, grid: Tensor, mode: int) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.shape, ctx.mode = images.shape, mode
        return torch.grid_sampler_2d(images, grid, mode, _REFLECTION, True)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _SampleAdjoint.apply(gradient, *ctx.saved_tensors, ctx.shape, ctx.mode), None, None


class _SampleAdjoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gradient: Tensor, grid: Tensor, shape: torch.Size, mode: int) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.mode = mode
        no_images = gradient.new_zeros(1).expand(shape)  # only the shape is of interest
        result: Tensor = torch.ops.aten.grid_sampler_2d_backward(
            gradient, no_images, grid, mode, _REFLECTION, True, [True, False]
        )[0]
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _Sample.apply(gradient, *ctx.saved_tensors, ctx.mode), None, None, None
