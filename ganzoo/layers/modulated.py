"""Modulated convolution: Karras 2020, arXiv 1912.04958, section 2.2.

Weights of sample n are w'_noik = s_ni w_oik (eq. 1), and demodulated w''_noik = w'_noik / sqrt(sum_ik w'_noik^2 + eps)
(eq. 3). They are never made: s is a factor of the input channels, and the root, one number per sample and output
channel, of the outputs. This is exact, and one dense convolution for the whole batch instead of a grouped one.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from ganzoo import streams
from ganzoo.layers.equalized import EqualizedLinear
from ganzoo.layers.filtered import for_up_convolution, up_convolution
from ganzoo.layers.twice import conv2d, leaky_relu_
from ganzoo.precision import at_least_float32, full_precision

NoiseMode = Literal["random", "fixed", "off"]

GAIN = math.sqrt(2)  #: of a leaky rectifier; it commutes with it, and is a factor of the layer before it


class ModulatedConv2d(nn.Module):
    """A convolution whose input channels each sample's style scales, with output maps of unit weight norm."""

    eps = 1e-8

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel_size: int,
        style_dim: int,
        *,
        up: bool = False,
        demodulate: bool = True,
        gain: float = 1.0,
        equalize: bool = True,
    ) -> None:
        """
        Args:
            inputs: Channels of the input.
            outputs: Channels of the output.
            kernel_size: 1 or 3.
            style_dim: Components of a style; an affine map of it, 1 at first, gives the scales.
            up: Whether the resolution is doubled, by a transposed convolution and a filter. For a kernel of 3.
            demodulate: Whether each output map's weights are divided by their norm.
            gain: Factor of the output.
            equalize: Whether weights have the equalized learning rate.
        """
        super().__init__()
        fan_in = inputs * kernel_size**2
        weight = torch.randn(outputs, inputs, kernel_size, kernel_size)
        self.weight = nn.Parameter(for_up_convolution(weight) if up else weight.to(memory_format=torch.channels_last))
        if not equalize:
            self.weight.data /= math.sqrt(fan_in)
        self.affine = EqualizedLinear(style_dim, inputs, bias_init=1.0, equalize=equalize)
        self.scale = 1 / math.sqrt(fan_in) if equalize else 1.0
        self.kernel_size, self.up, self.demodulate, self.gain = kernel_size, up, demodulate, gain

    def forward(self, x: Tensor, style: Tensor, offset: Tensor | None = None) -> Tensor:
        """The convolution times ``gain``, plus ``offset``.

        Args:
            x: (N, inputs, H, W).
            style: (N, style_dim).
            offset: (outputs,), added to the output maps.

        Returns:
            (N, outputs, H, W), or twice the size with ``up``, in the type that the convolution gives.
        """
        scales, factors = self.factors(style, half=x.dtype == torch.float16)
        if self.kernel_size == 1:
            return self._pointwise(x, scales, factors, offset)
        x = x * scales[:, :, None, None].to(x.dtype)
        y = up_convolution(x, self.weight) if self.up else conv2d(x, self.weight, padding=self.kernel_size // 2)
        if factors is not None:
            factors = factors[:, :, None, None].to(y.dtype)
        if offset is None:
            return y if factors is None else y * factors
        offset = offset[:, None, None].to(y.dtype)
        return y + offset if factors is None else torch.addcmul(offset, y, factors)

    def factors(self, style: Tensor, *, half: bool = False) -> tuple[Tensor, Tensor | None]:
        """Those of the input channels, (N, inputs), and of the output maps, (N, outputs); at least float32.

        In half precision scales are divided by their largest, which demodulation undoes, so that sums do not overflow.
        """
        with full_precision(style.device):
            scales = self.affine(at_least_float32(style)) * (self.scale if self.demodulate else self.scale * self.gain)
            if not self.demodulate:
                return scales, None
            if half:
                scales = scales / scales.abs().amax(dim=1, keepdim=True).clamp_min(self.eps)
            squares: Tensor = _SquaresOfKernels.apply(self.weight)
            return scales, torch.rsqrt(scales.square() @ squares.T + self.eps) * self.gain

    def _pointwise(self, x: Tensor, scales: Tensor, factors: Tensor | None, offset: Tensor | None) -> Tensor:
        """A 1x1 convolution with weights for each sample: for few outputs they are smaller than a scaled input."""
        weight = scales[:, :, None] * self.weight[:, :, 0, 0].T  # (N, inputs, outputs)
        if factors is not None:
            weight = weight * factors[:, None]
        positions = x.permute(0, 2, 3, 1).flatten(1, 2)  # (N, HW, inputs), a view in channels_last
        y = positions @ weight.to(x.dtype)
        if offset is not None:
            y = y + offset.to(y.dtype)
        return y.view(len(x), *x.shape[2:], -1).permute(0, 3, 1, 2)


class _SquaresOfKernels(torch.autograd.Function):
    """Sums over the squares of each kernel: (O, I, k, k) to (O, I).

    On a CPU position by position, as torch's sum is slow in these formats. Its derivative is one product, not three.
    """

    @staticmethod
    def forward(weight: Tensor) -> Tensor:
        if weight.device.type != "cpu" or weight.element_size() < 4:  # half precision is summed in a wider type
            return weight.square().sum(dim=(2, 3))
        first, *others = [position for row in weight.unbind(2) for position in row.unbind(2)]
        squares = first.square()
        for position in others:
            squares.addcmul_(position, position)
        return squares

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (weight,), (gradient,) = ctx.saved_tensors, gradients
        return cast(Tensor, weight) * (2 * gradient)[:, :, None, None]


class Styling(NamedTuple):
    """What the styled layers of a network have in common."""

    style_dim: int
    noise: bool = True  #: whether they add noise
    demodulate: bool = True  #: whether each output map's weights are divided by their norm
    equalize: bool = True  #: whether they have the equalized learning rate
    clamp: float | None = None  #: largest absolute value of features


class StyledConv(nn.Module):
    """Modulated convolution, noise with one learned strength for all channels, bias and leaky rectifier."""

    noise: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: tuple[int, int],
        options: Styling,
        *,
        up: bool = False,
        gain: float = GAIN,
    ) -> None:
        """
        Args:
            inputs: Channels of the input.
            outputs: Channels of the output.
            size: Height and width of the output.
            options: What all layers have in common.
            up: Whether the resolution is doubled.
            gain: Factor of the output.
        """
        super().__init__()
        kinds = {"demodulate": options.demodulate, "equalize": options.equalize}
        self.conv = ModulatedConv2d(inputs, outputs, 3, options.style_dim, up=up, gain=gain, **kinds)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.strength = nn.Parameter(torch.zeros(())) if options.noise else None
        self.register_buffer("noise", torch.randn(1, 1, *size) if options.noise else None)
        self.size, self.gain, self.clamp = size, gain, options.clamp

    def forward(self, x: Tensor, style: Tensor, noise: NoiseMode = "random", name: str = "noise") -> Tensor:
        """x: (N, inputs, H, W), style: (N, style_dim), and the purpose that random noise is drawn for."""
        x = self.conv(x, style, self.bias * self.gain)
        if self.strength is not None and noise != "off":
            drawn = self.noise
            if noise == "random":
                drawn = streams.randn(len(x), 1, *self.size, purpose=name, device=x.device)
            x = x + (drawn * (self.strength * self.gain)).to(x.dtype)
        return activate(x, self.clamp)


def activate(x: Tensor, clamp: float | None = None) -> Tensor:
    """The leaky rectifier, in the memory of x; its gain is in what came before: it commutes with positive factors."""
    x = leaky_relu_(x, 0.2)
    return x if clamp is None else x.clamp(-clamp, clamp)
