"""The two players: a network, its optimizer's settings, and how it is kept still while the other one moves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.parametrize import ParametrizationList

from ganzoo.config import Configurable
from ganzoo.errors import UserError
from ganzoo.optim import Optimizer
from ganzoo.parts import PlayerName
from ganzoo.precision import full_precision
from ganzoo.schedules import Schedule, value_at


class Clip(Configurable):
    """Clipping of one network's gradient, after averaging over ranks and on unscaled values."""

    def __init__(self, norm: float | None = None, *, value: float | None = None) -> None:
        """
        Args:
            norm: Largest Euclidean norm of the whole gradient.
            value: Largest absolute value of a component, applied first.
        """
        for name, bound in (("norm", norm), ("value", value)):
            if bound is not None and not bound > 0:
                raise UserError(f"The clipping {name} was {bound}, but a bound must be above 0.")
        self.norm, self.value = norm, value

    def __call__(self, parameters: Sequence[nn.Parameter]) -> None:
        if self.value is not None:
            nn.utils.clip_grad_value_(parameters, self.value)
        if self.norm is not None:
            nn.utils.clip_grad_norm_(parameters, self.norm)


class Player:
    """One side of the game. Modules are owned by the GAN; this object only refers to them."""

    def __init__(
        self,
        name: PlayerName,
        network: nn.Module,
        extra: Sequence[nn.Module],
        *,
        optimizer: Optimizer,
        lr_schedule: float | Schedule,
        clip: Clip | None,
    ) -> None:
        self.name, self.network, self.modules = name, network, [network, *extra]
        self.optimizer, self.lr_schedule, self.clip = optimizer, lr_schedule, clip
        self.parameters = list(dict.fromkeys(p for module in self.modules for p in module.parameters()))
        self.dormant: frozenset[nn.Parameter] = frozenset()  #: those that take no part for now
        self.on_device()

    def on_device(self) -> None:
        """Look the buffers up again: moving a module to another device replaces them."""
        self._switches = [switch for module in self.modules for switch in _switches(module)]
        self._buffers = _other_buffers(self.network)
        self._spectral = [found for module in self.modules for found in _spectral(module)]

    @property
    def trained(self) -> list[nn.Parameter]:
        """The parameters that are not frozen for good."""
        return [p for p in self.parameters if p.requires_grad]

    @property
    def active(self) -> list[nn.Parameter]:
        """The trained parameters that take part now: the others have no gradient, on any rank."""
        return [p for p in self.trained if p not in self.dormant] if self.dormant else self.trained

    def float_buffers(self) -> list[torch.Tensor]:
        """Statistics that ranks must share."""
        return [b for module in self.modules for b in module.buffers() if b.is_floating_point()]

    def new_optimizer(self) -> torch.optim.Optimizer:
        """An optimizer of all trained parameters."""
        optimizer = self.optimizer(self.trained)
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        # Lightning leaves unscaling to a fused optimizer, after the hook that clips; this makes it unscale before.
        optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]  # torch's own protocol
        return optimizer

    def set_hyperparameters(self, optimizer: torch.optim.Optimizer) -> None:
        """Give an optimizer whose state was restored the recipe's settings: a resume may have changed them."""
        for group, fresh in zip(optimizer.param_groups, self.optimizer(self.trained).param_groups, strict=True):
            group.update({name: value for name, value in fresh.items() if name != "params"})
            group["initial_lr"] = group["lr"]

    def set_learning_rate(self, optimizer: torch.optim.Optimizer, kimg: float) -> None:
        """What the schedule says at a time."""
        factor = value_at(self.lr_schedule, kimg)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """No parameter takes a gradient inside the block; each gets back the flag that it had (FreezeD survives)."""
        moving = [p for p in self.parameters if p.requires_grad]
        try:
            for p in moving:
                p.requires_grad = False
            yield
        finally:
            for p in moving:
                p.requires_grad = True

    @contextmanager
    def moving(self, *, steps: bool = True) -> Iterator[None]:
        """The spectral vectors take one step of the power iteration, then rest: a turn has one set of weights.

        So it matters for nothing else how many passes a turn makes, and in how many pieces. Where ``steps`` is false
        they rest from the start: the step was taken before a pass that this turn goes back through.
        """
        for weight, _ in self._spectral if steps else ():
            with torch.no_grad(), full_precision(weight.original.device):
                weight()
        try:
            for _, rule in self._spectral:
                rule.training = False
            yield
        finally:
            for _, rule in self._spectral:
                rule.training = True

    @contextmanager
    def resting(self) -> Iterator[None]:
        """No statistic moves inside the block: running means, spectral vectors and any other float buffer.

        Buffers of parts are their own business: a part of this player may count something in the other one's turns.
        Batch normalization still uses the batch's statistics, as in training; it only stops recording them.
        """
        for holder, attribute, value in self._switches:
            setattr(holder, attribute, value)
        kept = [buffer.clone() for buffer in self._buffers]
        try:
            yield
        finally:
            for holder, attribute, value in self._switches:
                setattr(holder, attribute, not value)
            for buffer, before in zip(self._buffers, kept, strict=True):
                buffer.copy_(before)


def _spectral(module: nn.Module) -> list[tuple[Any, _SpectralNorm]]:
    """(parametrized tensor, its rule) of all spectral normalizations."""
    tensors = [child for child in module.modules() if isinstance(child, ParametrizationList)]
    return [(tensor, rule) for tensor in tensors for rule in tensor if isinstance(rule, _SpectralNorm)]


def _switches(module: nn.Module) -> list[tuple[Any, str, bool]]:
    """(holder, attribute, value at rest) of the normalizations that can be told to stop recording."""
    found: list[tuple[Any, str, bool]] = []
    for child in module.modules():
        if isinstance(child, _NormBase) and child.track_running_stats:
            found.append((child, "track_running_stats", False))
        elif isinstance(child, _SpectralNorm):
            found.append((child, "training", False))
    return found


def _other_buffers(module: nn.Module) -> list[torch.Tensor]:
    """Float buffers of modules of unknown kind, which are restored after a rest."""
    known = (_NormBase, _SpectralNorm)
    return [
        buffer
        for child in module.modules()
        if not isinstance(child, known)
        for buffer in child.buffers(recurse=False)
        if buffer.is_floating_point()
    ]
