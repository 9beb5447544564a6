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


def normalize_weights(name: NormName, network: nn.Module) -> None:
    """For ``spectral``: spectral normalization (Miyato 2018) of every weight in the network, as it is by now."""
    if name == "spectral":
        for layer in [m for m in network.modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.Embedding)]:
            spectral_norm(layer)
