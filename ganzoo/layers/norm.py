"""Normalization by name, for models that leave the choice to the recipe."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ganzoo.layers.equalized import EqualizedConv2d, EqualizedLinear
from ganzoo.layers.spectral import is_spectral, spectral_norm
from ganzoo.layers.surgery import WEIGHTED
from ganzoo.precision import at_least_float32

NormName = Literal["batch", "none", "instance", "layer", "spectral"]


def activation_norm(name: NormName, channels: int) -> nn.Module:
    """The layer behind a convolution of so many channels; the identity for ``none`` and ``spectral``.

    ``layer`` normalizes each sample over channels and positions (Ba 2016), as GroupNorm with one group.
    """
    if name == "batch":
        return nn.BatchNorm2d(channels)
    if name == "instance":
        return nn.InstanceNorm2d(channels, affine=True)
    if name == "layer":
        return nn.GroupNorm(1, channels)
    return nn.Identity()


def normalize_weights(name: NormName, network: nn.Module) -> None:
    """For ``spectral``: spectral normalization (Miyato 2018) of every weight in the network, as it is by now."""
    if name == "spectral":
        normalize_all(network)


def normalize_all(network: nn.Module) -> None:
    """Spectral normalization of all linear, convolutional and embedding layers that have none yet.

    It takes the place of the constant of an equalized learning rate, which would make each layer's norm as small.
    """
    for layer in [m for m in network.modules() if isinstance(m, (*WEIGHTED, nn.Embedding))]:
        if not is_spectral(layer):
            spectral_norm(layer)
            if isinstance(layer, EqualizedConv2d | EqualizedLinear):
                layer.scales = 1.0, layer.scales[1]


class PixelNormLayer(nn.Module):
    """Each feature vector divided by its root mean square over the channels (Karras 2018, sec. 4.2)."""

    couples_samples = False

    def __init__(self, eps: float = 1e-8) -> None:
        """
        Args:
            eps: Added to the mean square.
        """
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, ...); returns the same shape, with mean square 1 over the channels at each position."""
        h = at_least_float32(x)
        return (h * torch.rsqrt(h.square().mean(dim=1, keepdim=True) + self.eps)).to(x.dtype)
