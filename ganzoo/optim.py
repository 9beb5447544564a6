"""Optimizers as parts: a small object that a recipe can name, which builds the torch optimizer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ganzoo.config import Configurable
from ganzoo.errors import UserError


class Optimizer(Configurable):
    """Builds a torch optimizer over the parameters of one player."""

    def __call__(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        raise NotImplementedError(f"{type(self).__name__} must define __call__(parameters).")


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015), with the fused kernel where the device has one."""

    def __init__(
        self,
        lr: float = 2e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        *,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        """
        Args:
            lr: Learning rate.
            betas: Decay of the first and the second moment.
            eps: Added to the root of the second moment.
            weight_decay: L2 penalty on the weights.
        """
        _check_lr(lr)
        if not all(0 <= beta < 1 for beta in betas):
            raise UserError(f"The betas were {list(betas)}, but each must be in [0, 1).")
        self.lr, self.eps, self.weight_decay = lr, eps, weight_decay
        self.betas = (float(betas[0]), float(betas[1]))  # torch refuses an int such as 0

    def __call__(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        given = list(parameters)
        fused = all(p.device.type in ("cpu", "cuda") and _is_dense(p) for p in given)
        return _Adam(given, lr=self.lr, betas=self.betas, eps=self.eps, weight_decay=self.weight_decay, fused=fused)


class RMSprop(Optimizer):
    """RMSprop, the optimizer of WGAN with weight clipping (Arjovsky 2017)."""

    def __init__(self, lr: float = 5e-5, alpha: float = 0.99, *, eps: float = 1e-8, momentum: float = 0.0) -> None:
        """
        Args:
            lr: Learning rate.
            alpha: Decay of the mean square.
            eps: Added to the root of the mean square.
            momentum: Momentum of the step.
        """
        _check_lr(lr)
        self.lr, self.alpha, self.eps, self.momentum = lr, alpha, eps, momentum

    def __call__(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.RMSprop(parameters, self.lr, self.alpha, self.eps, momentum=self.momentum)


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum in Goodfellow's 2014 experiments."""

    def __init__(self, lr: float = 0.1, momentum: float = 0.0) -> None:
        """
        Args:
            lr: Learning rate.
            momentum: Momentum of the step.
        """
        _check_lr(lr)
        self.lr, self.momentum = lr, momentum

    def __call__(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, self.lr, self.momentum)


def can_be_recorded(optimizer: torch.optim.Optimizer) -> bool:
    """Whether torch has a form of its step that a graph may hold: that of the fused Adam."""
    return all(group.get("fused") and "capturable" in group for group in optimizer.param_groups)


@contextmanager
def rates_in_tensors(optimizer: torch.optim.Optimizer, rates: Sequence[Tensor]) -> Iterator[None]:
    """Inside the block a step reads the learning rates of its groups from tensors, and torch lets it be recorded."""
    groups = optimizer.param_groups
    before = [(group["lr"], group["capturable"]) for group in groups]
    try:
        for group, rate in zip(groups, rates, strict=True):
            group["lr"], group["capturable"] = rate, True
        yield
    finally:
        for group, (rate_before, capturable) in zip(groups, before, strict=True):
            group["lr"], group["capturable"] = rate_before, capturable


class _Adam(torch.optim.Adam):
    """torch's Adam, with two differences.

    Where the parameters are on the CPU there is no check for graph capture in each step: on a machine without a GPU it
    opens the NVML library anew, which takes 0.3 ms.

    The fused kernel is given each tensor as the line of numbers that it is in memory. On a CPU it copies tensors of
    other memory formats than the usual one, and mixes up the numbers of a parameter and of a gradient or moment in
    another format than the parameter's, without a word; on a GPU it refuses those.
    """

    def _init_group(self, group: dict[str, Any], *lists: list[Tensor]) -> Any:
        found = super()._init_group(group, *lists)  # type: ignore[no-untyped-call]  # torch's, which has no public way
        if group["fused"]:
            tensors = lists[:4]  # parameters, gradients, first and second moments
            for i, given in enumerate(zip(*tensors, strict=True)):
                if not all(tensor.is_contiguous() for tensor in given):
                    for one, line in zip(tensors, self._lines(*given), strict=True):
                        one[i] = line
        return found

    def _lines(self, p: Tensor, gradient: Tensor, first: Tensor, second: Tensor) -> list[Tensor]:
        """Each as one dimension, in the order of the parameter's memory."""
        state = self.state[p]
        state["exp_avg"], state["exp_avg_sq"] = moments = _arranged(first, p), _arranged(second, p)
        return [x.as_strided((x.numel(),), (1,)) for x in (p, _arranged(gradient, p), *moments)]

    def _accelerator_graph_capture_health_check(self) -> None:
        if self.param_groups[0]["params"][0].device.type != "cpu":
            super()._accelerator_graph_capture_health_check()

    def _cuda_graph_capture_health_check(self) -> None:  # its name in torch < 2.14
        if self.param_groups[0]["params"][0].device.type != "cpu":
            super()._cuda_graph_capture_health_check()


def _is_dense(x: Tensor) -> bool:
    """Whether its numbers are all that is between its first and its last one in memory."""
    last = sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
    return x.is_contiguous() or last + 1 == x.numel()


def _arranged(x: Tensor, like: Tensor) -> Tensor:
    """The same values in the memory format of another tensor; itself where it has that."""
    return x if x.stride() == like.stride() else torch.empty_like(like).copy_(x)


def _check_lr(lr: float) -> None:
    if not lr >= 0:
        raise UserError(f"The learning rate was {lr}, but it must be 0 or more.")
