"""A convolution, the gradient of its input and that of its weight: what its derivatives of any order are made of.

oneDNN computes them, and on a CPU something faster where that is known: rows of images instead of images, or products
of matrices.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Step(NamedTuple):
    """What a convolution is beside its weight."""

    padding: int = 0
    groups: int = 1
    stride: int = 1
    transposed: bool = False

    def side(self, side: int, size: int) -> int:
        """Rows or columns that kernels of that size make of so many."""
        if self.transposed:
            return self.stride * (side - 1) + size - 2 * self.padding
        return (side + 2 * self.padding - size) // self.stride + 1


def plain(x: Tensor, weight: Tensor, bias: Tensor | None, step: Step) -> Tensor:
    """torch's own."""
    if step.transposed:
        return F.conv_transpose2d(x, weight, bias, step.stride, step.padding, 0, step.groups)
    return F.conv2d(x, weight, bias, step.stride, step.padding, 1, step.groups)


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, step: Step) -> Tensor:
    """The convolution of x by the weight, plus the bias."""
    if step.transposed and bias is None and _is_better_spread(x, weight, step):
        return _spread(x, weight, step)
    if not _is_pointwise(x, weight, step):
        return plain(x, weight, bias, step)
    return _images(plain(_rows(x), weight, bias, step), len(x))


def of_input(gradient: Tensor, weight: Tensor, shape: torch.Size, step: Step) -> Tensor:
    """The gradient of x, of that shape."""
    if not step.transposed and _is_better_spread(gradient, weight, step):
        return _spread(gradient, weight, step, shape)
    if not _is_pointwise(gradient, weight, step):
        return _backward(gradient, _blank(shape, gradient), weight, step, (0,))[0]
    rows = _rows(gradient)
    x = _blank(torch.Size([len(rows), shape[1], *rows.shape[2:]]), gradient)
    return _images(_backward(rows, x, weight, step, (0,))[0], len(gradient))


def of_weight(gradient: Tensor, x: Tensor, shape: torch.Size, step: Step) -> Tensor:
    """The gradient of the weight, of that shape."""
    small, large = (x, gradient) if step.transposed else (gradient, x)
    if _is_better_by_product(small, shape, step):
        return _product(small, large, shape, step)
    return _of_parameters(gradient, x, shape, step, (1,))[0]


def of_weight_and_bias(gradient: Tensor, x: Tensor, shape: torch.Size, step: Step) -> list[Tensor]:
    """Both at once, in less time."""
    if _is_better_by_product(gradient, shape, step):
        return [_product(gradient, x, shape, step), gradient.sum((0, 2, 3))]
    return _of_parameters(gradient, x, shape, step, (1, 2))


def _of_parameters(gradient: Tensor, x: Tensor, shape: torch.Size, step: Step, which: tuple[int, ...]) -> list[Tensor]:
    weight = _blank(shape, x)
    if _is_pointwise(x, weight, step):
        gradient, x = _rows(gradient), _rows(x)
    return _backward(gradient, x, weight, step, which)


def _backward(gradient: Tensor, x: Tensor, weight: Tensor, step: Step, which: tuple[int, ...]) -> list[Tensor]:
    """What is asked for of the gradients of x, 0, of the weight, 1, and of the bias, 2."""
    sides = [step.stride] * 2, [step.padding] * 2, [1, 1]
    mask, biases = [i in which for i in range(3)], [gradient.shape[1]]
    found = torch.ops.aten.convolution_backward(
        gradient, x, weight, biases, *sides, step.transposed, [0, 0], step.groups, mask
    )
    return [found[i] for i in which]


def _is_pointwise(x: Tensor, weight: Tensor, step: Step) -> bool:
    """Whether the convolution is one of single positions, on a CPU.

    There, batches of fewer than 16 images go another, slower way than oneDNN's. Rows of images are images, too.
    """
    return x.device.type == "cpu" and weight.shape[2:] == (1, 1) and step == Step(groups=step.groups)


def _is_better_by_product(small: Tensor, shape: torch.Size, step: Step) -> bool:
    """Whether on a CPU a product of matrices is faster than oneDNN's gradient of the weight.

    So it was for few positions, and for wide layers with strides, 1.1 to 2.2 times; elsewhere it took up to 2 times as
    long. Its matrix of windows has a bound.
    """
    num_maps, num_outputs, height, width = small.shape
    positions = num_maps * height * width
    if small.device.type != "cpu" or step.groups > 1 or shape[2:] == (1, 1) or positions > 2048:
        return False
    return positions <= 128 or (step.stride > 1 and (height * width <= 16 or num_outputs * shape[1] >= 2**16))


def _is_better_spread(small: Tensor, weight: Tensor, step: Step) -> bool:
    """The same of a transposed convolution: 1.3 times for maps of 4x4, no gain for those of 8x8."""
    few = small.shape[2] * small.shape[3] <= 16 and step.stride > 1 and weight.shape[2:] != (1, 1)
    return few and small.device.type == "cpu" and step == Step(stride=step.stride, transposed=step.transposed)


def _spread(small: Tensor, weight: Tensor, step: Step, shape: torch.Size | None = None) -> Tensor:
    """A transposed convolution: each position of the maps times the kernels, added up where they come to lie.

    Args:
        small: (N, S, h, w).
        weight: (S, L, k, k).
        step: What the convolution is.
        shape: Of the result, (N, L, H, W); there may be rows and columns at its end that nothing reaches.
    """
    (num, _, *sides), size, stride = small.shape, weight.shape[2], step.stride
    height, width = (step.side(side, size) for side in sides) if shape is None else shape[2:]
    kernels = weight.permute(0, 2, 3, 1).flatten(1)  # a view in channels_last
    spread = (small.permute(0, 2, 3, 1).flatten(0, 2) @ kernels).view(num, *sides, size, size, weight.shape[1])
    large = small.new_zeros(num, height, width, weight.shape[1])
    for i in range(size):
        for j in range(size):
            rows, columns = (slice(k, k + stride * side, stride) for k, side in zip((i, j), sides, strict=True))
            large[:, rows, columns] += spread[:, :, :, i, j]
    return large.permute(0, 3, 1, 2).data  # which autograd does not take for a view, so that it may be changed


def _product(small: Tensor, large: Tensor, shape: torch.Size, step: Step) -> Tensor:
    """The gradient of the weight: each position of the smaller maps times its window of the larger ones.

    Args:
        small: (N, S, h, w).
        large: (N, L, H, W).
        shape: Of the weight, (S, L, k, k).
        step: What the convolution is.
    """
    num, outputs, height, width = small.shape
    size, inputs = shape[2], shape[1]
    maps = F.pad(large.permute(0, 2, 3, 1), [0, 0, *[step.padding] * 4]).contiguous()
    image, row, column, _ = maps.stride()
    sides = (num, height, width, size, size, inputs), (image, row * step.stride, column * step.stride, row, column, 1)
    windows = maps.as_strided(*sides).reshape(num * height * width, size * size * inputs)
    positions = small.permute(0, 2, 3, 1).reshape(-1, outputs)
    return (positions.T @ windows).view(outputs, size, size, inputs).permute(0, 3, 1, 2)


def _rows(x: Tensor) -> Tensor:
    """(N, C, H, W) as (N H, C, 1, W), a view in channels_last."""
    x = x.contiguous(memory_format=torch.channels_last)
    return x.permute(0, 2, 3, 1).flatten(0, 1)[:, None].permute(0, 3, 1, 2)


def _images(rows: Tensor, num: int) -> Tensor:
    """The other way."""
    num_rows, channels, _, width = rows.shape
    images = rows.permute(0, 2, 3, 1).reshape(num, num_rows // max(num, 1), width, channels).permute(0, 3, 1, 2)
    return images.data  # which autograd does not take for a view, so that it may be changed


def _blank(shape: torch.Size, like: Tensor) -> Tensor:
    """Never read."""
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)
