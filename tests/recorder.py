"""A device's graphs on the CPU: the operations below autograd are noted and executed again, without any of our Python.

It keeps the rules of CUDA graphs. Recording computes nothing: whatever it changed is put back, and whatever it made is
spoiled. A replay reads and writes the tensors of the recording. An operation whose result Python needs is refused.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
#: These would make a GPU wait, or copy from the host, which cannot be recorded.
REFUSED = {
    *(aten._local_scalar_dense, aten.is_nonzero, aten.equal, aten.nonzero, aten.masked_select, aten.lift_fresh),
    *(aten._unique2, aten.unique_dim, aten.unique_consecutive, aten.repeat_interleave.Tensor),
}
BY_INDEX = {aten.index, aten.index_put, aten.index_put_}


def tensors(tree: Any) -> list[Tensor]:
    return [x for x in tree_leaves(tree) if isinstance(x, Tensor)]


def storage(x: Tensor) -> int:
    return x.untyped_storage()._cdata


def spoil(x: Tensor) -> None:
    if x.is_floating_point():
        x.fill_(float("nan"))
    elif x.dtype != torch.bool and not x.is_complex():
        x.fill_(0)


class Noting(TorchDispatchMode):
    """Notes operations, and what the tensors that they find were before."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[Tensor | None]]] = []
        self.made: dict[int, Tensor] = {}  # by storage, which is kept so that no other one has its name
        self.found: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        by_mask = func.overloadpacket in BY_INDEX and any(i is not None and i.dtype == torch.bool for i in args[1])
        if by_mask or func in REFUSED or func.overloadpacket in REFUSED:
            raise RuntimeError(f"{func} cannot be recorded")
        given = tensors((args, kwargs))
        for x in given:
            if storage(x) not in self.made and storage(x) not in self.found:
                self.found[storage(x)] = x, _bytes(x).clone()
        result = func(*args, **kwargs)
        known = {storage(x) for x in given}
        fresh = [x if isinstance(x, Tensor) and storage(x) not in known else None for x in tree_leaves(result)]
        for x in fresh:
            if x is not None:
                self.made[storage(x)] = x
        if any(x is not None for x in fresh) or func._schema.is_mutable:
            self.operations.append((func, args, kwargs, fresh))
        return result


def _bytes(x: Tensor) -> Tensor:
    """The whole memory that a tensor is a part of."""
    return torch.empty(0, dtype=torch.uint8).set_(x.detach().untyped_storage())


class Recorder:
    """Takes the place of :class:`ganzoo.graphs.CUDARecorder`."""

    recorded = replayed = 0

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def aside(self):
        return nullcontext()

    def wait(self) -> None:
        pass

    def record(self, function):
        with Noting() as noting:
            made = function()
        for x, before in noting.found.values():
            with torch.no_grad():
                _bytes(x).copy_(before)
        for x in noting.made.values():
            with torch.no_grad():
                spoil(x.detach())
        noting.found.clear()
        Recorder.recorded += 1

        @torch.no_grad()
        @torch.autocast("cpu", enabled=False)  # the operations are those below it
        def replay() -> None:
            for func, args, kwargs, fresh in noting.operations:
                for x, now in zip(fresh, tree_leaves(func(*args, **kwargs)), strict=True):
                    if x is not None:
                        x.copy_(now)
            Recorder.replayed += 1

        return made, replay
