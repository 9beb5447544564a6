"""What depends on how Lightning works inside: kept in one place, and pinned by tests.

Checked with lightning 2.6.6.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.strategies import SingleDeviceStrategy


def callbacks_of(trainer: L.Trainer) -> list[L.Callback]:
    """All callbacks of a trainer, in the order in which they act."""
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set by a connector
    return callbacks


def count_steps_of(optimizers: Mapping[Any, LightningOptimizer], name: str, trainer: L.Trainer) -> None:
    """Have ``global_step`` count one optimizer; Lightning counts the steps of all (Lightning #17958).

    It sets its hooks anew before each training step, so this is called in each.
    """
    profiler = trainer.profiler  # type: ignore[attr-defined]  # set by a connector, without a declaration
    for other, optimizer in optimizers.items():
        if other != name:
            optimizer._on_before_step = lambda: profiler.start("optimizer_step")
            optimizer._on_after_step = lambda: profiler.stop("optimizer_step")


@contextmanager
def uncounted(optimizer: LightningOptimizer) -> Iterator[None]:
    """A step inside the block is none for Lightning."""
    hooks = optimizer._on_before_step, optimizer._on_after_step
    try:
        optimizer._on_before_step = optimizer._on_after_step = _do_nothing
        yield
    finally:
        optimizer._on_before_step, optimizer._on_after_step = hooks


def _do_nothing() -> None:
    pass


def adds_nothing(trainer: L.Trainer, module: L.LightningModule, base: type) -> bool:
    """Whether Lightning's part in ``manual_backward`` and ``optimizer.step`` would do nothing, at 0.3 ms per cycle.

    It is needed for several devices, for a loss scaler or a plugin, and where somebody listens to its hooks.

    Args:
        trainer: The trainer of the run.
        module: The model.
        base: Its base class whose own hooks the caller takes care of.
    """
    alone = type(trainer.strategy) is SingleDeviceStrategy
    precision = trainer.precision_plugin
    known = type(precision) in (Precision, MixedPrecision) and getattr(precision, "scaler", None) is None
    hooks = ("on_before_backward", "on_after_backward", "on_before_optimizer_step")
    listeners: list[tuple[object, type]] = [*((c, L.Callback) for c in callbacks_of(trainer)), (module, base)]
    heard = any(getattr(type(who), hook) is not getattr(of, hook) for who, of in listeners for hook in hooks)
    overridden = any(getattr(type(module), name) is not getattr(base, name) for name in ("backward", "optimizer_step"))
    return alone and known and not heard and not overridden
