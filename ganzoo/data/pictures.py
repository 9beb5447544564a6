"""What a cache is made from: many pictures of one shape, decoded in parallel, in parts."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ganzoo.data.framing import Framing, Pixels

FORMAT = 1  # of the cache
PART_BYTES = 1 << 20  # decoded; a few parts are in memory at a time


class Part(NamedTuple):
    """Some decoded pictures: their places in the order of names, and those that could not be decoded."""

    indices: npt.NDArray[np.int64]
    pixels: Sequence[Pixels]  # each (C, H, W)
    digests: list[bytes]  # SHA-256 of each picture's pixels
    faults: list[Fault]


class Fault(NamedTuple):
    """A picture that could not be decoded."""

    place: int
    name: str
    reason: str


class Labels(NamedTuple):
    """A class per picture, int64 (num,), or None; and the names of the classes."""

    values: npt.NDArray[np.int64] | None
    names: list[str]


class Pictures(ABC):
    """Pictures in a fixed order, and how they are framed."""

    title: str
    framing: Framing

    def cache_name(self) -> str:
        """A name for the cache that changes with everything the pixels and labels depend on."""
        return hashlib.sha256(json.dumps(self.key(), sort_keys=True).encode()).hexdigest()[:24]

    def key(self) -> dict[str, Any]:
        return {"format": FORMAT, "source": self.stamp(), "framing": self.framing.__dict__}

    @abstractmethod
    def stamp(self) -> Any:
        """Plain data that identifies the source without reading all of it."""

    @property
    @abstractmethod
    def num(self) -> int: ...

    @property
    @abstractmethod
    def labels(self) -> Labels: ...

    @abstractmethod
    def tasks(self) -> Iterator[Callable[[], Part]]:
        """What decodes the parts; each may run in a thread of its own."""

    def decoded(self) -> Iterator[Part]:
        """All parts, in the order of :meth:`tasks`, decoded by as many threads as there are processors.

        Threads, because Pillow lets go of the interpreter's lock while it decodes and resizes.
        """
        num_threads = _num_processors()
        with ThreadPoolExecutor(num_threads) as pool:
            tasks = self.tasks()
            waiting: deque[Future[Part]] = deque(pool.submit(task) for task in islice(tasks, num_threads + 1))
            try:
                while waiting:
                    yield waiting.popleft().result()
                    waiting.extend(pool.submit(task) for task in islice(tasks, 1))
            finally:
                for future in waiting:
                    future.cancel()


def part(indices: Sequence[int], pixels: Iterable[Pixels], faults: list[Fault] | None = None) -> Part:
    """A :class:`Part` with its digests, computed in the thread that decoded it."""
    pixels = list(pixels)
    digests = [hashlib.sha256(np.ascontiguousarray(x).data).digest() for x in pixels]
    return Part(np.asarray(indices, np.int64), pixels, digests, faults or [])


def part_size(framing: Framing) -> int:
    """How many pictures make a part."""
    return max(1, min(1024, PART_BYTES // int(np.prod(framing.shape))))


def progress(parts: Iterator[Part], total: int, text: str) -> Iterator[Part]:
    """The same parts, with a bar on the terminal if there is one."""
    if not sys.stderr.isatty():
        yield from parts
        return
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ImportError:
        yield from parts
        return
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(text, total=total)
        for one in parts:
            yield one
            bar.advance(task, len(one.indices) + len(one.faults))


def _num_processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
