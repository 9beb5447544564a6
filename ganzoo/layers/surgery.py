"""Changing a network that exists: find its first and last layer, put another layer in a place, draw weights anew."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ganzoo.errors import UserError
from ganzoo.layers.spectral import TRANSPOSED, is_spectral, rules, spectral_norm

WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)


def weighted_layers(network: nn.Module) -> dict[str, nn.Module]:
    """The linear and convolutional layers by their dotted names, in the order in which the network registered them."""
    return {name: module for name, module in network.named_modules() if isinstance(module, WEIGHTED)}


def first_layer(network: nn.Module) -> str:
    """Dotted name of the layer that sees the data: ``network.stem`` if there is one, else the first weighted layer."""
    return (_inside(network, "stem") or list(_some(network)))[0]


def first_layers(network: nn.Module) -> list[str]:
    """Dotted names of all layers that see the data: those that ``network.first_layers`` names, else the first one."""
    named: tuple[str, ...] | None = getattr(network, "first_layers", None)
    return list(named or [first_layer(network)])


def last_layer(network: nn.Module) -> str:
    """Dotted name of the layer that gives logits: ``network.head`` if there is one, else the last weighted layer."""
    return (_inside(network, "head") or list(_some(network)))[-1]


def replace(network: nn.Module, name: str, module: nn.Module) -> None:
    """Put ``module`` into the place with the dotted ``name``."""
    parent, _, attribute = name.rpartition(".")
    setattr(network.get_submodule(parent), attribute, module)


def redrawn(weight: Tensor) -> Tensor:
    """The elements of an initial weight in random order: another draw from the law of any initialization whose
    elements are independent and alike, whichever it was."""
    return weight.detach().flatten()[torch.randperm(weight.numel())].view_as(weight).clone()


def fresh_copy(network: nn.Module) -> nn.Module:
    """A network of the same architecture with other initial weights (:func:`redrawn`)."""
    twin = copy.deepcopy(network)
    with torch.no_grad():
        for p in twin.parameters():
            if p.dim() > 1:
                p.copy_(redrawn(p))
    return twin


def plain(layer: nn.Module, what: str) -> None:
    """Refuse a layer whose weight is computed from another one, as under spectral normalization.

    Raises:
        UserError: In that case; ``what`` is the part that wanted to change the layer.
    """
    if parametrize.is_parametrized(layer):
        raise UserError(
            f"{what} changes a layer whose weight is normalized already: name it before the part that normalizes, and "
            "leave the model's own discriminator_norm at one that is not spectral."
        )


def widened(layer: nn.Module, extra: int, what: str, *, zero: bool = False) -> nn.Module:
    """A copy of a layer that takes ``extra`` more input channels, behind the ones that it had.

    Weights that were there are kept; the new ones are drawn from the elements of the existing ones, hence from the law
    of their initialization, or are ``zero``. A spectrally normalized layer is normalized again.

    Raises:
        UserError: Where that cannot be done; ``what`` is the part that wanted it.
    """
    spectral = is_spectral(layer) and len(rules(layer)) == 1
    wide: Any = copy.deepcopy(layer)
    if spectral:
        parametrize.remove_parametrizations(wide, "weight", leave_parametrized=False)
    plain(wide, what)
    if getattr(wide, "groups", 1) > 1:
        raise UserError(f"{what} cannot add channels to a convolution of {wide.groups} groups: choose another network.")
    inputs = 0 if isinstance(wide, TRANSPOSED) else 1
    old = wide.weight.detach()
    shape = [extra if dim == inputs else size for dim, size in enumerate(old.shape)]
    new = old.new_zeros(shape) if zero else old.flatten()[torch.randint(old.numel(), (math.prod(shape),)).view(shape)]
    wide.weight = nn.Parameter(torch.cat([old, new], dim=inputs), requires_grad=wide.weight.requires_grad)
    size = "in_features" if isinstance(wide, nn.Linear) else "in_channels"
    setattr(wide, size, getattr(wide, size) + extra)
    return spectral_norm(wide) if spectral else wide


def _inside(network: nn.Module, attribute: str) -> list[str]:
    """Names of the weighted layers that are ``network.attribute`` or in it."""
    there = getattr(network, attribute, None)
    if not isinstance(there, nn.Module):
        return []
    return [f"{attribute}.{name}".rstrip(".") for name in weighted_layers(there)]


def _some(network: nn.Module) -> dict[str, nn.Module]:
    layers = weighted_layers(network)
    if not layers:
        raise UserError(f"{type(network).__name__} has no linear or convolutional layer that could be changed.")
    return layers
