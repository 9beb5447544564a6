"""Equalized learning rate: Karras 2018, arXiv 1710.10196, section 4.1."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

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
