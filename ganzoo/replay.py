"""Passes through a network that leave no trace, and passes made again as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from ganzoo import streams


class Snapshot:
    """A network's statistics and the random numbers at one moment, so that the pass that follows can be made again."""

    def __init__(self, network: nn.Module) -> None:
        self.network, self.buffers, self.mark = network, _copies(network), streams.mark()

    @contextmanager
    def restored(self) -> Iterator[None]:
        """A pass inside the block draws and normalizes as the one after the snapshot did, and leaves no trace."""
        with streams.replay(self.mark), _lent(self.network, self.buffers):
            yield


def untouched(network: nn.Module) -> AbstractContextManager[None]:
    """A pass inside the block moves no statistic: running means, spectral vectors, and any other buffer."""
    return _lent(network, _copies(network))


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """A block in which the network is in evaluation mode; then each module is again in the mode that it was in."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def is_compiled(network: nn.Module) -> bool:
    """Whether torch compiles the network or a layer of it; such a pass cannot be differentiated twice."""
    return any(m._compiled_call_impl is not None or "_orig_mod" in m._modules for m in network.modules())


def has_hooks(network: nn.Module) -> bool:
    """Whether somebody looks at, or changes, what passes through a layer of the network."""
    return any(
        m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks
        for m in network.modules()
    )


def eager(network: nn.Module) -> AbstractContextManager[object]:
    """A block in which the network runs as it is written, compiled or not."""
    return torch.compiler.set_stance("force_eager") if is_compiled(network) else nullcontext()


Buffers = list[tuple[nn.Module, str, Tensor]]


def _copies(network: nn.Module) -> Buffers:
    return [(module, name, buffer.clone()) for module, name, buffer in _buffers(network)]


def _buffers(network: nn.Module) -> Buffers:
    return [(m, name, b) for m in network.modules() for name, b in m._buffers.items() if b is not None]


@contextmanager
def _lent(network: nn.Module, buffers: Buffers) -> Iterator[None]:
    """The network with copies of ``buffers`` in place of its own, which nothing can move meanwhile.

    Other tensors, and not other values in the same ones: autograd refuses a graph whose tensors have changed.
    """
    own = _buffers(network)
    with ExitStack() as stack:
        for module, name, buffer in own:
            stack.callback(module._buffers.__setitem__, name, buffer)
        for module, name, buffer in buffers:
            module._buffers[name] = buffer.clone()
        yield
