"""Spectral normalization: Miyato 2018, arXiv 1802.05957, algorithm 1."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm as HookedSpectralNorm

from ganzoo.errors import UserError
from ganzoo.precision import full_precision

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class SpectralNormalization(_SpectralNorm):
    """W / sigma(W), where sigma is the largest singular value of W with one row per output channel.

    One step of the power iteration per forward pass in training mode, none in evaluation; a turn of training takes one,
    however many passes it has (:meth:`ganzoo.players.Player.moving`). It is torch's, outside of autocast: there the
    iteration's products would be of half precision, and sigma wrong in its third digit.
    """

    couples_samples = False

    def forward(self, weight: Tensor) -> Tensor:
        """weight: of any shape; returns the same shape."""
        with full_precision(weight.device):
            normalized: Tensor = super().forward(weight)
        return normalized

    def _power_method(self, weight_mat: Tensor, n_power_iterations: int) -> None:
        if not weight_mat.is_meta:  # where nothing is computed, the 15 first steps of all layers would take seconds
            super()._power_method(weight_mat, n_power_iterations)


def spectral_norm(layer: nn.Module) -> nn.Module:
    """Normalize the weight of a linear, convolutional, transposed convolutional or embedding layer, in place.

    The singular vectors start from torch's global generator and 15 steps of the power iteration.

    Raises:
        UserError: For a weight that is zero, which has no direction to begin with.
    """
    weight = layer.weight
    assert isinstance(weight, Tensor)
    if not weight.is_meta and not weight.any():
        raise UserError(
            f"Spectral normalization divides a weight by its largest singular value, but a {type(layer).__name__} "
            "starts at zero: start it from other values, or leave spectral normalization out."
        )
    outputs = 1 if isinstance(layer, TRANSPOSED) else 0
    parametrize.register_parametrization(layer, "weight", SpectralNormalization(weight, dim=outputs))
    return layer


def is_spectral(layer: nn.Module) -> bool:
    """Whether a weight of the layer is normalized, here or by either of torch's functions."""
    hooked = any(isinstance(hook, HookedSpectralNorm) for hook in layer._forward_pre_hooks.values())
    return hooked or any(isinstance(rule, _SpectralNorm) for rule in rules(layer))


def rules(layer: nn.Module) -> list[nn.Module]:
    """The parametrizations of a layer's weight, in order; none for a plain layer."""
    if not parametrize.is_parametrized(layer, "weight"):
        return []
    found = layer.parametrizations
    assert isinstance(found, nn.ModuleDict)
    weight = found["weight"]
    assert isinstance(weight, nn.ModuleList)
    return list(weight)
