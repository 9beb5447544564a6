"""Changing a network that exists: find its first and last layer, put another layer in a place, draw weights anew."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ganzoo.errors import UserError

WEIGHTED = (
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d
)  # fmt: skip


def weighted_layers(network: nn.Module) -> dict[str, nn.Module]:
    """The linear and convolutional layers by their dotted names, in the order in which the network registered them."""
    return {name: module for name, module in network.named_modules() if isinstance(module, WEIGHTED)}


def first_layer(network: nn.Module) -> str:
    """Dotted name of the layer that sees the data: ``network.stem`` if there is one, else the first weighted layer."""
    return _named(network, "stem") or next(iter(_some(network)))


def last_layer(network: nn.Module) -> str:
    """Dotted name of the layer that gives logits: ``network.head`` if there is one, else the last weighted layer."""
    return _named(network, "head") or list(_some(network))[-1]


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


def _named(network: nn.Module, attribute: str) -> str | None:
    return attribute if isinstance(getattr(network, attribute, None), WEIGHTED) else None


def _some(network: nn.Module) -> dict[str, nn.Module]:
    layers = weighted_layers(network)
    if not layers:
        raise UserError(f"{type(network).__name__} has no linear or convolutional layer that could be changed.")
    return layers
