"""Scalars of many turns, kept as tensors until somebody reads them: no synchronization inside a turn."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Meter:
    """Collects detached scalars by name. Reading them is the only moment that waits for the device."""

    def __init__(self) -> None:
        self._fresh: dict[str, list[Tensor]] = {}
        self._read: dict[str, list[float]] = {}
        self._turns: dict[str, list[int]] = {}

    def add(self, name: str, value: Tensor, turn: int) -> None:
        """Keep a scalar tensor under ``name``; ``turn`` is the number of the turn that it belongs to."""
        self._fresh.setdefault(name, []).append(value)
        self._turns.setdefault(name, []).append(turn)

    def values(self) -> dict[str, list[float]]:
        """All values by name since the last :meth:`clear`, in the order of their turns."""
        for name, fresh in self._fresh.items():
            self._read.setdefault(name, []).extend(torch.stack(fresh).tolist())
        self._fresh.clear()
        return self._read

    def means(self) -> dict[str, float]:
        """The mean by name since the last :meth:`clear`."""
        return {name: math.fsum(values) / len(values) for name, values in self.values().items()}

    def clear(self) -> None:
        for kept in (self._fresh, self._read, self._turns):
            kept.clear()

    def first_bad(self) -> tuple[str, int] | None:
        """Name and turn of the earliest value that is not finite, or None."""
        found = [
            (turn, name)
            for name, values in self.values().items()
            for value, turn in zip(values, self._turns[name], strict=True)
            if not math.isfinite(value)
        ]
        return (min(found)[1], min(found)[0]) if found else None

    def state(self) -> dict[str, list[list[float]]]:
        """Plain data for the checkpoint: a run that stops between two readings loses none."""
        return {name: [list(values), [float(t) for t in self._turns[name]]] for name, values in self.values().items()}

    def load(self, state: dict[str, list[list[float]]]) -> None:
        self.clear()
        self._read = {name: list(values) for name, (values, _) in state.items()}
        self._turns = {name: [int(t) for t in turns] for name, (_, turns) in state.items()}
