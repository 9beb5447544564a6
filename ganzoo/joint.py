"""Statistics over the joint batch of all processes, with the gradient that one process would have."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def mean(x: Tensor) -> Tensor:
    """The mean of ``x`` over all processes, elementwise; ``x`` itself where there is one. All of them must call it.

    Gradients flow to every process: where the loss is the mean of the processes' losses, as it is when gradients are
    averaged, the gradient equals that of one process with the joint batch.
    """
    return _Mean.apply(x) if num_processes() > 1 else x


def first(x: Tensor) -> Tensor:
    """The first process's ``x``, without a gradient. All processes must call it with tensors of one shape."""
    if num_processes() == 1:
        return x.detach()
    shared = x.detach().clone().contiguous()
    dist.broadcast(shared, 0)
    return shared


def num_processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class _Mean(torch.autograd.Function):
    """A mean over processes whose backward pass is a mean over processes, too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _averaged(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        mean: Tensor = _Mean.apply(gradient)  # may be differentiated again
        return mean


def _averaged(x: Tensor) -> Tensor:
    total = x.detach().clone().contiguous()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def rows(x: Tensor) -> Tensor | None:
    """The rows of all processes in the order of their ranks, on the first process; None on the others.

    All processes must call it with tensors that differ in their number of rows alone, by few.
    """
    if num_processes() == 1:
        return x
    device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
    numbers = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(num_processes())]
    dist.all_gather(numbers, torch.tensor([len(x)], device=device))
    longest = max(int(number) for number in numbers)
    padded = torch.zeros(longest, *x.shape[1:], dtype=x.dtype, device=device)
    padded[: len(x)] = x
    found = [torch.empty_like(padded) for _ in numbers] if dist.get_rank() == 0 else None
    dist.gather(padded, found, 0)
    if found is None:
        return None
    return torch.cat([part[: int(number)] for part, number in zip(found, numbers, strict=True)]).to(x.device)
