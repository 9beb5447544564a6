"""What differs from turn to turn, in tensors of its own: random numbers, and numbers that follow a schedule.

A recorded graph reads the same tensors each time that it is replayed. So the numbers of a turn are noted while it runs
as usual; then those of another turn can be put into the same tensors, and are exactly what that turn would have drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ganzoo import streams
from ganzoo.schedules import Schedule
from ganzoo.streams import Draw, Stream


class NotOnTape(RuntimeError):
    """A turn asks for a number that the turns before it did not."""


class _Source(NamedTuple):
    """A generator of a turn: what is behind the turn's own parts in its key, its rows, and its purpose."""

    behind: tuple[int | str, ...]
    start: int
    num: int
    total: int
    purpose: str


class _Drawn(NamedTuple):
    """One draw of a generator."""

    draw: Draw
    num: int
    shape: tuple[int, ...]
    value: Tensor


class Tape:
    """The numbers of a turn. First one turn is noted; then the tape is filled for others that are played."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._drawn: dict[_Source, list[_Drawn]] = {}  # in the order of each generator's draws
        self._scheduled: dict[tuple[Schedule, float], Tensor] = {}
        self._open: dict[_Source, Stream] = {}  # while a turn is noted: where its numbers come from
        self._parts: tuple[int | str, ...] = ()
        self._kimg = 0.0
        self._noting = False

    @contextmanager
    def noting(self, *parts: int | str, kimg: float) -> Iterator[None]:
        """A turn whose streams have these parts runs inside the block; its numbers are those without a tape."""
        self._parts, self._kimg, self._noting = parts, kimg, True
        try:
            with self.played():
                yield
        finally:
            self._noting = False
            self._open.clear()

    @contextmanager
    def played(self) -> Iterator[None]:
        """Draws inside the block get the tensors of the tape."""
        with streams.made_by(partial(_Taped, self)):
            yield

    def fill(self, *parts: int | str, kimg: float) -> None:
        """Put in what a turn draws whose streams have these parts, and what schedules say at its time."""
        for source, drawn in self._drawn.items():
            stream = self._stream(source, parts)
            for one in drawn:
                one.value.copy_(stream.draw(one.draw, one.num, one.shape, source.purpose))
        for (schedule, factor), value in self._scheduled.items():
            value.fill_(schedule(kimg) * factor)

    def scheduled(self, schedule: Schedule, factor: float) -> Tensor:
        """``factor`` times what a schedule says, a float32 scalar.

        Raises:
            NotOnTape: It was not asked for while a turn was noted.
        """
        known = self._scheduled.get((schedule, factor))
        if known is None:
            if not self._noting:
                raise NotOnTape(f"{type(schedule).__name__} was asked for in this turn alone")
            value = schedule(self._kimg) * factor
            known = self._scheduled[schedule, factor] = torch.full((), value, device=self.device)
        return known

    def drawn(self, source: _Source, place: int, draw: Draw, num: int, shape: tuple[int, ...]) -> Tensor:
        """Draw number ``place`` of a generator; what is drawn again from a mark has the same place.

        Raises:
            NotOnTape: Another shape was drawn there while a turn was noted, or nothing.
        """
        known = self._drawn.setdefault(source, [])
        if place == len(known) and self._noting:
            if source not in self._open:
                self._open[source] = self._stream(source, self._parts)
            known.append(_Drawn(draw, num, shape, self._open[source].draw(draw, num, shape, source.purpose)))
        if place >= len(known) or (known[place].num, known[place].shape) != (num, shape):
            raise NotOnTape(f"{source.purpose} was drawn in another order than in the turn before")
        return known[place].value.detach()

    def source(self, stream: Stream, purpose: str) -> _Source:
        """Which generator of the turn a stream draws from."""
        return _Source(stream.parts[len(self._parts) :], stream.start, stream.num, stream.total, purpose)

    def _stream(self, source: _Source, parts: tuple[int | str, ...]) -> Stream:
        return Stream((*parts, *source.behind), source.start, source.num, source.total, self.device)


@dataclass
class _Place:
    """How often a generator was drawn from."""

    value: int = 0

    def clone_state(self) -> _Place:
        return _Place(self.value)


class _Taped(Stream):
    """A source that draws from a tape."""

    def __init__(
        self, tape: Tape, parts: tuple[int | str, ...], start: int, num: int, total: int, device: torch.device
    ) -> None:
        super().__init__(parts, start, num, total, device)
        self.tape = tape

    def draw(self, draw: Draw, num: int, shape: tuple[int, ...], purpose: str) -> Tensor:
        place = self.generators.setdefault(purpose, _Place())
        place.value += 1
        return self.tape.drawn(self.tape.source(self, purpose), place.value - 1, draw, num, shape)
