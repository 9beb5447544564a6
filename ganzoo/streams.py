"""Random numbers keyed by what they are for, so that they need no state.

Numbers are drawn for the joint batch (all ranks, all accumulation steps) from a generator seeded with
(seed, cycle, turn, purpose); each process takes its rows. So ranks differ, two processes equal one, and a
resumed run draws what the uninterrupted one would have drawn, with nothing about it in the checkpoint.

Inside :func:`stream`, the functions :func:`randn`, :func:`rand` and :func:`randint` draw keyed numbers.
Outside of it they draw from torch's global generator.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

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
    """Seed the generators that foreign code draws from (``torch.manual_seed`` costs 100 times as much)."""
    torch.default_generator.manual_seed(key(*parts))
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(key(*parts))


@dataclass
class Stream:
    """The source of one turn: ``start`` is this process's first row of the ``total`` rows of the joint batch."""

    parts: tuple[int | str, ...]
    start: int
    total: int
    device: torch.device
    generators: dict[str, torch.Generator] = field(default_factory=dict)

    def of(self, purpose: str) -> torch.Generator:
        if purpose not in self.generators:
            self.generators[purpose] = generator(*self.parts, purpose, device=self.device)
        return self.generators[purpose]


_current: Stream | None = None


@contextmanager
def stream(*parts: int | str, start: int, total: int, device: torch.device) -> Iterator[None]:
    """Draws inside the block belong to the rows from ``start`` of a joint batch of ``total`` rows."""
    global _current
    outer, _current = _current, Stream(parts, start, total, device)
    try:
        yield
    finally:
        _current = outer


def randn(num: int, *shape: int, purpose: str, device: torch.device | None = None) -> Tensor:
    """Standard normal numbers, shape (num, *shape), float32: this process's rows of the joint draw."""
    if _current is None:
        return torch.randn(num, *shape, device=device)
    total = torch.randn(_rows(num), *shape, generator=_current.of(purpose), device=_current.device)
    return total[_slice(num)]


def rand(num: int, *shape: int, purpose: str, device: torch.device | None = None) -> Tensor:
    """Uniform numbers in [0, 1), shape (num, *shape), float32: this process's rows of the joint draw."""
    if _current is None:
        return torch.rand(num, *shape, device=device)
    total = torch.rand(_rows(num), *shape, generator=_current.of(purpose), device=_current.device)
    return total[_slice(num)]


def randint(high: int, num: int, *, purpose: str, device: torch.device | None = None) -> Tensor:
    """Integers in [0, high), shape (num,), int64: this process's rows of the joint draw."""
    if _current is None:
        return torch.randint(high, (num,), device=device)
    total = torch.randint(high, (_rows(num),), generator=_current.of(purpose), device=_current.device)
    return total[_slice(num)]


def _rows(num: int) -> int:
    """Rows of the joint draw; a draw of another size than the batch is joint in the same proportion."""
    assert _current is not None
    return max(_current.total, _current.start + num)


def _slice(num: int) -> slice:
    assert _current is not None
    return slice(_current.start, _current.start + num)
