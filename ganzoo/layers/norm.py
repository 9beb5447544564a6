"""Normalization by name, for models that leave the choice to the recipe."""

from __future__ import annotations

from typing import Literal

from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

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


def weight_norm(name: NormName, layer: nn.Module) -> nn.Module:
    """The layer itself, with spectral normalization (Miyato 2018) of its weight for ``spectral``."""
    return spectral_norm(layer) if name == "spectral" else layer
