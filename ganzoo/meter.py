"""Scalars of many turns, kept as tensors until somebody reads them: no synchronization inside a turn."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


class Meter:
    """Collects detached scalars by name. Reading them is the only moment that waits for the device."""

    def __init__(self) -> None:
        self._fresh: dict[str, list[Tensor]] = {}
        self._read: dict[str, list[float]] = {}
        self._turns: dict[str, list[tuple[int, int]]] = {}  # (running number of the value, turn)
        self._count = 0

    def add(self, name: str, value: Tensor, turn: int) -> None:
        """Keep a scalar tensor under ``name``; ``turn`` is the number of the turn that it belongs to."""
        self._fresh.setdefault(name, []).append(value)
        self._turns.setdefault(name, []).append((self._count, turn))
        self._count += 1

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
        self._count = 0

    def first_bad(self) -> tuple[str, int] | None:
        """Name and turn of the earliest value that is not finite, or None."""
        found = [
            (count, name, turn)
            for name, values in self.values().items()
            for value, (count, turn) in zip(values, self._turns[name], strict=True)
            if not math.isfinite(value)
        ]
        return min(found)[1:] if found else None

    def state(self) -> dict[str, Any]:
        """Plain data for the checkpoint: a run that stops between two readings loses none."""
        values = {name: list(values) for name, values in self.values().items()}
        return {"values": values, "turns": {name: list(turns) for name, turns in self._turns.items()}}

    def load(self, state: dict[str, Any]) -> None:
        self.clear()
        self._read = {name: list(values) for name, values in state["values"].items()}
        self._turns = {name: [(count, turn) for count, turn in turns] for name, turns in state["turns"].items()}
        self._count = 1 + max((count for turns in self._turns.values() for count, _ in turns), default=-1)
