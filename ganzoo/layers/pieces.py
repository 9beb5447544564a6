"""Networks that are linear in pieces: D(x) = <dD/dx, x> + what the biases add, for each sample.

In a network of convolutions and leaky rectifiers, where nothing but biases is added, rectifiers have the same signs for
c x and biases c b as for x and b, with any c > 0. So with a factor of all biases, the *unit*, which is 1, D is
homogeneous in inputs and units together, and is what their gradients say (Euler's theorem): D = <dD/dx, x> + dD/dunit.

Where a penalty has the gradient anyway, the loss can be computed from it. Then its derivative goes the penalty's way
through the network, in one sweep with the penalty's, and not a way of its own: each layer has one gradient of its
weight to compute instead of two, and none of its input.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from ganzoo.precision import is_autocast
from ganzoo.replay import has_hooks


class Origin(NamedTuple):
    """What outputs are homogeneous in."""

    inputs: Tensor  #: (N, ...)
    unit: Tensor  #: (N, 1, 1, 1), all 1


class _Remembered(NamedTuple):
    origin: Origin
    version: int  #: of the outputs, which grows when they are changed in place


_ORIGINS = WeakTensorKeyDictionary()


def unit_for(network: nn.Module, inputs: Tensor, kinds: tuple[type[nn.Module], ...]) -> Tensor | None:
    """A unit, (N, 1, 1, 1), where a penalty may ask for it: in passes that train, and are differentiated by the input.

    Args:
        network: The network.
        inputs: (N, ...).
        kinds: Of modules that are linear in pieces. With another one, as a trick may put in, or with hooks, which may
            change what passes, there is no unit.
    """
    if not (inputs.requires_grad and torch.is_grad_enabled() and all(p.requires_grad for p in network.parameters())):
        return None
    if is_autocast(inputs.device):
        return None
    if has_hooks(network) or any(type(m) not in kinds for m in network.modules()):
        return None
    return inputs.new_ones(len(inputs), 1, 1, 1).requires_grad_()


def remember(outputs: Tensor, inputs: Tensor, unit: Tensor | None) -> Tensor:
    """The outputs, (N,), of which :func:`origin` then knows what they are homogeneous in."""
    if unit is not None:
        _ORIGINS[outputs] = _Remembered(Origin(inputs, unit), outputs._version)
    return outputs


def origin(outputs: Tensor) -> Origin | None:
    """What a network's outputs are homogeneous in; none: not known to be, or no longer, as they were changed."""
    found: _Remembered | None = _ORIGINS.get(outputs)  # type: ignore[no-untyped-call]  # torch's
    return None if found is None or found.version != outputs._version else found.origin
