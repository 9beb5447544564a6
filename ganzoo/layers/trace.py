"""What passes through a network: the shapes that its modules take and give, seen in one pass that changes nothing."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Call(NamedTuple):
    """A call of a module, with a single tensor in and out."""

    name: str  #: dotted name of the module
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@torch.no_grad()
def trace(network: nn.Module, *inputs: Any) -> tuple[list[Call], Any]:
    """The calls in the order in which they ended, and the network's output.

    In evaluation mode, so that no statistic moves; torch's random numbers are left as they were. What the network's own
    hooks run before the pass is not part of it.
    """
    calls: list[Call] = []

    def note(name: str) -> Any:
        def hook(module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
            if len(given) >= 1 and isinstance(given[0], Tensor) and isinstance(output, Tensor):
                calls.append(Call(name, tuple(given[0].shape), tuple(output.shape)))

        return hook

    training = [module for module in network.modules() if module.training]
    hooks = [module.register_forward_hook(note(name)) for name, module in network.named_modules() if name]
    hooks.append(network.register_forward_pre_hook(lambda *_: calls.clear()))
    try:
        with torch.random.fork_rng(devices=[]):
            output = network.eval()(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
        for module in training:
            module.training = True
    return calls, output
