"""What passes through a network: the shapes that its modules take and give, seen in one pass that changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ganzoo.errors import UserError
from ganzoo.layers.surgery import last_layer
from ganzoo.replay import evaluating


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

    hooks = [module.register_forward_hook(note(name)) for name, module in network.named_modules() if name]
    hooks.append(network.register_forward_pre_hook(lambda *_: calls.clear()))
    try:
        with evaluating(network), torch.random.fork_rng(devices=[]):
            output = network(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return calls, output


@contextmanager
def features_of(network: nn.Module, layer: str | None) -> Iterator[list[tuple[Tensor, Any]]]:
    """Inside the block, each forward pass of ``network`` adds (features, output of the network) to the list.

    Args:
        network: A discriminator.
        layer: Dotted name of the layer whose output is kept; none: the input of the last layer.

    Raises:
        UserError: In a pass where the layer gives something else than one tensor.
    """
    passes: list[tuple[Tensor, Any]] = []
    latest: list[Tensor] = []

    def enters(module: nn.Module, args: tuple[Any, ...]) -> None:
        latest[:] = [args[0]]

    def leaves(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if not isinstance(output, Tensor):
            raise UserError(f"The layer {layer} gives no single tensor whose mean could be matched: name another one.")
        latest[:] = [output.clone()]  # the activation behind the layer may work in place

    def ends(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if latest:
            passes.append((latest.pop(), output))

    with ExitStack() as stack:
        if layer is None:
            stack.callback(network.get_submodule(last_layer(network)).register_forward_pre_hook(enters).remove)
        else:
            stack.callback(network.get_submodule(layer).register_forward_hook(leaves).remove)
        stack.callback(network.register_forward_hook(ends).remove)
        yield passes
