"""Random numbers keyed by what they are for, so that they need no state.

Numbers are drawn for the joint batch (all ranks, all accumulation steps) from a generator seeded with
(seed, cycle, turn, purpose); each process takes its rows. So ranks differ, two processes equal one, and a
resumed run draws what the uninterrupted one would have drawn, with nothing about it in the checkpoint.

Inside :func:`stream`, the functions :func:`randn`, :func:`rand` and :func:`randint` draw keyed numbers.
Inside :func:`numbered` they draw for numbered samples, each from generators of its own.
Inside :func:`kept` they draw once for each purpose, and get the same again.
Outside of these they draw from torch's global generator.
Inside :func:`made_by` all streams are of another kind, which may note what is drawn.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ganzoo.errors import UserError

_CPU = torch.device("cpu")
_MASK = (1 << 64) - 1


def key(*parts: int | str) -> int:
    """A 63-bit number that depends on every part and on their order (splitmix64 over the parts).

    Python's own ``hash`` is salted for strings, hence not used.
    """
    state = 0x9E3779B97F4A7C15
    for part in parts:
        number = zlib.crc32(part.encode()) if isinstance(part, str) else int(part)
        state = (state ^ (number & _MASK)) + 0x9E3779B97F4A7C15 & _MASK
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & _MASK
        state ^= state >> 31
    return state >> 1


def generator(*parts: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on ``device``, seeded with :func:`key` of the parts."""
    return torch.Generator(device).manual_seed(key(*parts))


def seed_global(device: torch.device, *parts: int | str) -> None:
    """Seed the generators that foreign code draws from (``torch.manual_seed`` costs 100 times as much).

    Inside :func:`made_by` they are left alone: what notes keyed draws has no place for others.
    """
    if _kind is not Stream:
        return
    torch.default_generator.manual_seed(key(*parts))
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(key(*parts))


#: A draw of this shape, from this generator, on this device.
Draw = Callable[[tuple[int, ...], torch.Generator, torch.device], Tensor]


@dataclass
class Stream:
    """The source of one turn: this process has the ``num`` rows from ``start`` of a joint batch of ``total``."""

    parts: tuple[int | str, ...]
    start: int
    num: int
    total: int
    device: torch.device
    generators: dict[str, Any] = field(default_factory=dict)  #: by purpose; each has ``clone_state``

    def draw(self, draw: Draw, num: int, shape: tuple[int, ...], purpose: str) -> Tensor:
        """The rows of this process, drawn on the device.

        A draw of some rows per sample is joint. One of another size is no draw per sample: all processes get the same.
        """
        if purpose not in self.generators:
            self.generators[purpose] = generator(*self.parts, purpose, device=self.device)
        source = self.generators[purpose]
        per_sample, rest = divmod(num, self.num)
        if rest or not per_sample:
            return draw((num, *shape), source, self.device)
        start = self.start * per_sample
        return draw((self.total * per_sample, *shape), source, self.device)[start : start + num]


@dataclass
class Numbered(Stream):
    """The source of samples with numbers: sample i draws from generators of its own, always on the CPU."""

    numbers: Sequence[int] = ()

    def draw(self, draw: Draw, num: int, shape: tuple[int, ...], purpose: str) -> Tensor:
        """What belongs to the samples, sample by sample.

        Raises:
            UserError: It is no draw per sample, so that a sample would depend on which others are drawn with it.
        """
        per_sample, rest = divmod(num, self.num)
        if rest or not per_sample:
            raise UserError(
                f"{num} rows of {purpose!r} were drawn for {self.num} samples, but each has to have its own: draw one "
                "row per sample."
            )
        drawn = {i: draw((per_sample, *shape), self._of(i, purpose), _CPU) for i in dict.fromkeys(self.numbers)}
        return torch.cat([drawn[i] for i in self.numbers]).to(self.device)

    def _of(self, number: int, purpose: str) -> torch.Generator:
        name = f"{number}/{purpose}"
        if name not in self.generators:
            self.generators[name] = generator(*self.parts, number, purpose)
        found: torch.Generator = self.generators[name]
        return found


#: Makes a stream of the arguments of :class:`Stream`.
Kind = Callable[[tuple[int | str, ...], int, int, int, torch.device], Stream]

_current: Stream | None = None
_kind: Kind = Stream


@contextmanager
def made_by(kind: Kind) -> Iterator[None]:
    """Streams that are opened inside the block are of this kind; they draw what others would."""
    global _kind
    outer, _kind = _kind, kind
    try:
        yield
    finally:
        _kind = outer


@contextmanager
def stream(*parts: int | str, start: int, num: int, total: int, device: torch.device) -> Iterator[None]:
    """Draws inside the block belong to the ``num`` rows from ``start`` of a joint batch of ``total`` rows."""
    with _within(_kind(parts, start, num, total, device)):
        yield


@contextmanager
def numbered(numbers: Sequence[int], *parts: int | str, device: torch.device) -> Iterator[Numbered]:
    """Draws inside the block belong to samples with these numbers, and end on ``device``.

    What sample i gets depends on (parts, i) alone: not on the other numbers or the device. A number that is there
    twice gets the same twice.
    """
    source = Numbered(parts, 0, len(numbers), len(numbers), device, numbers=numbers)
    with _within(source):
        yield source


@dataclass
class _Kept(Stream):
    """A source in front of another one, from which each purpose is drawn once."""

    values: dict[str, Tensor] = field(default_factory=dict)
    behind: Stream | None = None

    def draw(self, draw: Draw, num: int, shape: tuple[int, ...], purpose: str) -> Tensor:
        if purpose not in self.values:
            assert self.behind is not None
            self.values[purpose] = self.behind.draw(draw, num, shape, purpose)
        value = self.values[purpose]
        if value.shape != (num, *shape):
            raise UserError(
                f"Numbers of shape {(num, *shape)} were drawn for {purpose!r}, where {tuple(value.shape)} were kept: "
                "give each draw of a network a purpose of its own."
            )
        return value


@contextmanager
def kept(values: dict[str, Tensor]) -> Iterator[None]:
    """Draws inside the block are those in ``values``, by purpose; what is not there is drawn, and put there.

    So passes of a network can share what it draws, and somebody can change it. The block is inside of :func:`stream`
    or :func:`numbered`, which the missing numbers are drawn from.

    Raises:
        UserError: Another shape is drawn than was kept.
    """
    assert _current is not None, "there is no source to keep numbers of"
    outer = _current
    with _within(
        _Kept(outer.parts, outer.start, outer.num, outer.total, outer.device, outer.generators, values, outer)
    ):
        yield


@contextmanager
def _within(source: Stream) -> Iterator[None]:
    global _current
    outer, _current = _current, source
    try:
        yield
    finally:
        _current = outer


@contextmanager
def thinned(step: int, purpose: str) -> Iterator[None]:
    """Draws inside the block are for every ``step``-th sample of the joint batch, the first one included.

    ``step`` divides this process's number of samples. Each block of a turn with the same ``purpose`` draws the same.
    """
    if _current is None:
        yield
        return
    start, num, total = (n // step for n in (_current.start, _current.num, _current.total))
    with stream(*_current.parts, purpose, start=start, num=num, total=total, device=_current.device):
        yield


@dataclass(frozen=True)
class Mark:
    """Where keyed and global random numbers stood at one moment."""

    keyed: dict[str, Any]
    foreign: list[tuple[torch.Generator, Tensor]]


def mark() -> Mark:
    """Where this turn's random numbers stand now. Inside :func:`made_by` foreign ones are not looked at."""
    foreign = [torch.default_generator] if _kind is Stream else []
    if foreign and _current is not None and _current.device.type == "cuda":
        foreign.append(torch.cuda.default_generators[_current.device.index or 0])
    return Mark(
        {purpose: g.clone_state() for purpose, g in (_current.generators if _current else {}).items()},
        [(g, g.get_state()) for g in foreign],
    )


@contextmanager
def replay(since: Mark) -> Iterator[None]:
    """Draws inside the block are those that followed the mark; behind it everything goes on as before."""
    now, stream_, outer = mark(), _current, _current.generators if _current else {}
    try:
        if stream_ is not None:
            stream_.generators = {purpose: g.clone_state() for purpose, g in since.keyed.items()}
        for g, state in since.foreign:
            g.set_state(state)
        yield
    finally:
        if stream_ is not None:
            stream_.generators = outer
        for g, state in now.foreign:
            g.set_state(state)


def randn(num: int, *shape: int, purpose: str, device: torch.device | None = None) -> Tensor:
    """Standard normal numbers, shape (num, *shape), float32: this process's rows of the joint draw."""
    if _current is None:
        return torch.randn(num, *shape, device=device)
    return _current.draw(_randn, num, shape, purpose)


def rand(num: int, *shape: int, purpose: str, device: torch.device | None = None) -> Tensor:
    """Uniform numbers in [0, 1), shape (num, *shape), float32: this process's rows of the joint draw."""
    if _current is None:
        return torch.rand(num, *shape, device=device)
    return _current.draw(_rand, num, shape, purpose)


def randint(high: int, num: int, *, purpose: str, device: torch.device | None = None) -> Tensor:
    """Integers in [0, high), shape (num,), int64: this process's rows of the joint draw."""
    if _current is None:
        return torch.randint(high, (num,), device=device)
    return _current.draw(lambda shape, g, d: torch.randint(high, shape, generator=g, device=d), num, (), purpose)


def _randn(shape: tuple[int, ...], source: torch.Generator, device: torch.device) -> Tensor:
    return torch.randn(shape, generator=source, device=device)


def _rand(shape: tuple[int, ...], source: torch.Generator, device: torch.device) -> Tensor:
    return torch.rand(shape, generator=source, device=device)
