"""Scalars of many turns, kept as tensors until somebody reads them: no synchronization inside a turn."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ganzoo.plan import Clock


class Meter:
    """Collects detached scalars by name. Reading them is the only moment that waits for the device."""

    limit = 4096  #: so many values of a name are kept one by one; then they become a sum

    def __init__(self) -> None:
        self._fresh: dict[str, list[Tensor]] = {}
        self._read: dict[str, list[float]] = {}
        self._turns: dict[str, list[tuple[int, int]]] = {}  # (running number of the value, turn)
        self._sums: dict[str, tuple[float, int]] = {}  # sum and number of the values that are no longer kept
        self._bad: tuple[int, str, int] | None = None  # the earliest of those that was not finite
        self._count = 0
        self._aside: list[tuple[str, Tensor]] | None = None
        self.passing: dict[str, Tensor] = {}  #: for the next row alone: what was measured at an end that may be moved
        self.scores: dict[str, tuple[int, float]] = {}  #: the last score of each name, and at how many images

    def add(self, name: str, value: Tensor, turn: int) -> None:
        """Keep a scalar tensor under ``name``; ``turn`` is the number of the turn that it belongs to."""
        if self._aside is not None:
            self._aside.append((name, value))
            return
        turns = self._turns.setdefault(name, [])
        if len(turns) >= self.limit:
            self._fold(name)
            turns = self._turns.setdefault(name, [])
        self._fresh.setdefault(name, []).append(value)
        turns.append((self._count, turn))
        self._count += 1

    @contextmanager
    def aside(self) -> Iterator[list[tuple[str, Tensor]]]:
        """What is added inside the block is not kept, but given back by name, in order."""
        self._aside = []
        try:
            yield self._aside
        finally:
            self._aside = None

    def score(self, name: str, value: float, clock: Clock, *, passing: bool = False) -> None:
        """Keep a score of the weights as they are now, in place of an older one: a row has no mean of scores.

        Args:
            name: As in the log.
            value: The score.
            clock: The time.
            passing: It was measured at an end that may be moved, so it is for the next row alone.
        """
        kept = torch.tensor(value, dtype=torch.float64)
        if passing:
            self.passing[name] = kept
        else:
            self.scores[name] = clock.images, value
            for older in (self._fresh, self._read, self._turns, self._sums):
                older.pop(name, None)
            self.add(name, kept, clock.g_turns)

    def values(self) -> dict[str, list[float]]:
        """All values by name since the last :meth:`clear`, in the order of their turns."""
        for name, fresh in self._fresh.items():
            self._read.setdefault(name, []).extend(torch.stack(fresh).tolist())
        self._fresh.clear()
        return self._read

    def means(self) -> dict[str, float]:
        """The mean by name since the last :meth:`clear`."""
        means = {}
        for name, values in self.values().items():
            total, number = self._sums.get(name, (0.0, 0))
            means[name] = (total + math.fsum(values)) / (number + len(values))
        return means

    def take_passing(self) -> dict[str, float]:
        """The values in ``passing``, which is empty then. They are in no checkpoint."""
        taken = {name: value.item() for name, value in self.passing.items()}
        self.passing.clear()
        return taken

    def clear(self) -> None:
        for kept in (self._fresh, self._read, self._turns, self._sums):
            kept.clear()
        self._count, self._bad = 0, None

    def first_bad(self) -> tuple[str, int] | None:
        """Name and turn of the earliest value that is not finite, or None."""
        found = [bad for bad in map(self._first_bad_of, self.values()) if bad is not None]
        found += [self._bad] if self._bad is not None else []
        return min(found)[1:] if found else None

    def state(self) -> dict[str, Any]:
        """Plain data for the checkpoint: a run that stops between two readings loses none."""
        return {
            "values": {name: list(values) for name, values in self.values().items()},
            "turns": {name: list(turns) for name, turns in self._turns.items()},
            "sums": dict(self._sums),
            "bad": self._bad,
            "count": self._count,
        }

    def load(self, state: dict[str, Any]) -> None:
        self.clear()
        self._read = {name: list(values) for name, values in state["values"].items()}
        self._turns = {name: [(count, turn) for count, turn in turns] for name, turns in state["turns"].items()}
        self._sums = {name: (total, number) for name, (total, number) in state["sums"].items()}
        self._bad, self._count = state["bad"], state["count"]

    def _first_bad_of(self, name: str) -> tuple[int, str, int] | None:
        pairs = zip(self.values()[name], self._turns[name], strict=True)
        return next(((count, name, turn) for value, (count, turn) in pairs if not math.isfinite(value)), None)

    def _fold(self, name: str) -> None:
        """Replace the kept values of a name by their sum."""
        values = self.values()[name]
        bad = self._first_bad_of(name)
        if bad is not None and (self._bad is None or bad < self._bad):
            self._bad = bad
        total, number = self._sums.get(name, (0.0, 0))
        self._sums[name] = total + math.fsum(values), number + len(values)
        del self._read[name], self._turns[name]
