"""Changes of resolution by 2 with a low-pass filter: Karras 2020, arXiv 1912.04958; the filter is [1, 3, 3, 1].

A filter is a depthwise convolution, which is fastest in channels_last. Its derivative is a filter again and computed as
one: torch's derivative of the derivative of a convolution takes longer. To fold the filter into the weights of the
convolution next to it takes 4 times the products, and 3 to 14 times as long.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ganzoo.layers import twice
from ganzoo.precision import full_precision

Taps = tuple[float, ...]

#: Weights of the filter along either axis; they are divided by their sum. An odd number of them is not symmetric to the
#: pixels of the other resolution: upsampling then keeps values at even positions, and downsampling looks around those.
TAPS: Taps = (1.0, 3.0, 3.0, 1.0)


def downsample(x: Tensor, taps: Taps = TAPS) -> Tensor:
    """x: (N, C, 2H, 2W), of even sizes; returns every second value of the filtered images, (N, C, H, W)."""
    return _filter(x, kernel(taps, 1.0, x.dtype, x.device), _Step(2, _margin(taps)))


def upsample(x: Tensor, taps: Taps = TAPS) -> Tensor:
    """x: (N, C, H, W); returns (N, C, 2H, 2W): zeros between the values, filtered, with the mean as before."""
    odd = len(taps) % 2
    return _filter(x, kernel(taps, 4.0, x.dtype, x.device), _Step(2, _margin(taps), transposed=True, extra=(odd, odd)))


def blur(x: Tensor, padding: int, taps: Taps = TAPS, *, gain: float = 1.0) -> Tensor:
    """x: (N, C, H, W); returns the filtered images times ``gain``, (N, C, H + 2 padding - T + 1, ...) for T taps."""
    return _filter(x, kernel(taps, gain, x.dtype, x.device), _Step(1, padding))


def before_strided(x: Tensor, taps: Taps = TAPS) -> Tensor:
    """x: (N, C, 2H, 2W); returns (N, C, 2H + 1, 2W + 1), which a 3x3 convolution of stride 2 takes to (H, W)."""
    return blur(x, len(taps) // 2, taps)


def up_convolution(x: Tensor, weight: Tensor, taps: Taps = TAPS) -> Tensor:
    """A transposed 3x3 convolution of stride 2, then the filter: (N, I, H, W) to (N, O, 2H, 2W).

    Args:
        x: (N, I, H, W).
        weight: (O, I, 3, 3). Output position 2p + q of the convolution sees input p times weight q.
        taps: Weights of the filter.
    """
    return blur(twice.conv_transpose2d(x, weight.transpose(0, 1), stride=2), _margin(taps), taps, gain=4.0)


def for_up_convolution(weight: Tensor) -> Tensor:
    """The weight, (O, I, 3, 3), in the memory format of its gradient there, in which no pass copies it."""
    return weight.transpose(0, 1).contiguous(memory_format=torch.channels_last).transpose(0, 1)


@cache
def kernel(taps: Taps, gain: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The filter of both axes, (T, T), with the sum ``gain``. Kept, as to bring it to a GPU would wait for the GPU."""
    with torch.inference_mode(False), torch.no_grad():
        line = torch.tensor(taps, dtype=torch.float64)
        square = torch.outer(line, line)
        return (square * (gain / square.sum())).to(device, dtype)


class _Step(NamedTuple):
    """A depthwise convolution, or the transposed one that takes its outputs to its inputs."""

    stride: int
    padding: int
    transposed: bool = False
    extra: tuple[int, int] = (0, 0)  #: rows and columns that a transposed one adds to reach the size of the input


class _Filter(torch.autograd.Function):
    """Linear in x; its backward pass is the adjoint filter, which may be differentiated again, and so on."""

    @staticmethod
    def forward(x: Tensor, kernel: Tensor, step: _Step) -> Tensor:
        channels = x.shape[1]
        weight = kernel.expand(channels, 1, *kernel.shape)
        with full_precision(x.device):  # the result has the type of x
            if step.transposed:
                return F.conv_transpose2d(x, weight, None, step.stride, step.padding, step.extra, channels)
            return F.conv2d(x, weight, None, step.stride, step.padding, 1, channels)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, _Step], output: Tensor) -> None:
        x, ctx.kernel, ctx.step = inputs
        size, step = len(ctx.kernel), ctx.step
        extra = [(side + 2 * step.padding - size) % step.stride for side in x.shape[2:]]
        ctx.extra = (extra[0], extra[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,), step = gradients, ctx.step
        if step.stride == 1:  # a convolution, with the kernel turned round, is faster than a transposed one
            return _filter(gradient, ctx.kernel.flip(0, 1), _Step(1, len(ctx.kernel) - 1 - step.padding)), None, None
        adjoint = _Step(step.stride, step.padding, not step.transposed, (0, 0) if step.transposed else ctx.extra)
        return _filter(gradient, ctx.kernel, adjoint), None, None


def _filter(x: Tensor, kernel: Tensor, step: _Step) -> Tensor:
    filtered: Tensor = _Filter.apply(x, kernel, step)
    return filtered


def _margin(taps: Taps) -> int:
    """Padding with which a change by 2 keeps the images where they were."""
    return (len(taps) - 1) // 2
