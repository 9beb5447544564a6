"""Equalized learning rate: Karras 2018, arXiv 1710.10196, section 4.1."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from ganzoo.layers import twice
from ganzoo.layers.spectral import TRANSPOSED


class Equalized(nn.Module):
    """The weight times a constant at run time, so that an adaptive optimizer moves all layers at the same speed."""

    def __init__(self, scale: float) -> None:
        """
        Args:
            scale: The constant, gain / sqrt(fan-in).
        """
        super().__init__()
        self.scale = scale

    def forward(self, weight: Tensor) -> Tensor:
        """weight: of any shape; returns the same shape."""
        return weight * self.scale


def equalized(layer: nn.Module, gain: float = math.sqrt(2)) -> nn.Module:
    """Draw a linear or convolutional layer's weight anew from N(0, 1), and scale it at run time; biases start at 0.

    For inputs of mean square 1 the outputs have variance gain^2: that of He's initialization by default (He 2015,
    equation 10).
    """
    assert isinstance(layer.weight, Tensor)
    nn.init.normal_(layer.weight)
    if isinstance(layer.bias, Tensor):
        nn.init.zeros_(layer.bias)
    parametrize.register_parametrization(layer, "weight", Equalized(gain / math.sqrt(fan_in(layer))))
    return layer


def fan_in(layer: Any) -> float:
    """How many inputs each output is a sum of; for transposed convolutions, away from the border and on average."""
    if isinstance(layer, nn.Linear):
        return layer.in_features
    fan = layer.in_channels / layer.groups * math.prod(layer.kernel_size)
    return float(fan / math.prod(layer.stride) if isinstance(layer, TRANSPOSED) else fan)


class EqualizedLinear(nn.Linear):
    """y = gain (x W^T / sqrt(fan-in) + b) with W from N(0, 1): a linear layer whose constants are factors at run time.

    With ``lr_multiplier`` m, W is drawn from N(0, 1/m^2) and both terms are multiplied by m: the same function at the
    start, which an adaptive optimizer moves m times as fast (Karras 2019, appendix C). So a ``gain`` of sqrt(2) is
    that of a rectifier behind it, and of He's initialization.
    """

    couples_samples = False

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        bias: bool = True,
        bias_init: float = 0.0,
        gain: float = 1.0,
        lr_multiplier: float = 1.0,
        equalize: bool = True,
    ) -> None:
        """
        Args:
            inputs: Components of the input.
            outputs: Components of the output.
            bias: Whether b is added.
            bias_init: b at the start.
            gain: Standard deviation of outputs for inputs of mean square 1.
            lr_multiplier: Factor of the speed of learning.
            equalize: Whether the constant of the weight is a factor at run time; else W is drawn with it.
        """
        super().__init__(inputs, outputs, bias)
        self.scales = draw_scaled(self, gain, bias_init, lr_multiplier, equalize)

    def forward(self, x: Tensor) -> Tensor:
        x, weight, bias = scaled(self, x, self.scales)
        return F.linear(x, weight, bias)


class EqualizedConv2d(twice.Conv2d):
    """y = gain (x * W / sqrt(fan-in) + b) with W from N(0, 1), as in :class:`EqualizedLinear`; it keeps the size."""

    couples_samples = False

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int | None = None,
        bias: bool = True,
        gain: float = 1.0,
        equalize: bool = True,
    ) -> None:
        """
        Args:
            inputs: Channels of the input.
            outputs: Channels of the output.
            kernel_size: Rows and columns of the kernel, an odd number.
            stride: Rows and columns from one output to the next.
            padding: Zeros on each side; none: those that keep the size at stride 1.
            bias: Whether a number is added to each output channel.
            gain: Standard deviation of outputs for inputs of mean square 1.
            equalize: Whether the constant of the weight is a factor at run time; else W is drawn with it.
        """
        padding = kernel_size // 2 if padding is None else padding
        super().__init__(inputs, outputs, kernel_size, stride, padding, bias=bias)
        self.scales = draw_scaled(self, gain, 0.0, 1.0, equalize)

    def forward(self, x: Tensor) -> Tensor:
        x, weight, bias = scaled(self, x, self.scales)
        y: Tensor = self._conv_forward(x, weight, bias)
        return y


Scales = tuple[float, float]


def draw_scaled(
    layer: nn.Linear | nn.Conv2d, gain: float, bias_init: float, lr_multiplier: float, equalize: bool
) -> Scales:
    """Draw a layer's weight, set its bias, and return the factors of both at run time."""
    constant = gain / math.sqrt(fan_in(layer))
    scale = lr_multiplier * (constant if equalize else 1.0)
    nn.init.normal_(layer.weight, std=constant / scale)
    if layer.bias is not None:
        nn.init.constant_(layer.bias, bias_init / lr_multiplier)
    return scale, gain * lr_multiplier


def scaled(layer: nn.Linear | nn.Conv2d, x: Tensor, scales: Scales) -> tuple[Tensor, Tensor, Tensor | None]:
    """What a layer is computed from, with its factor on the smaller one of x and the weight."""
    bias = layer.bias if layer.bias is None or scales[1] == 1.0 else layer.bias * scales[1]
    if scales[0] == 1.0:
        return x, layer.weight, bias
    if x.numel() < layer.weight.numel():
        return x * scales[0], layer.weight, bias
    return x, layer.weight * scales[0], bias
