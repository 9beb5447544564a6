"""A stream whose batches change their size: a function of the place, on any rank and after any stop."""

from __future__ import annotations

from itertools import chain, islice

import numpy as np
import pytest

from ganzoo.data.sampler import EndlessSampler
from ganzoo.errors import UserError
from tests.mutants import kills

SIZES = [(60, 6), (61, 24), (200, 12)]


def walk(first: int, num: int) -> list[tuple[int, int]]:
    """(place, size) of so many joint batches, one after the other; at first they are of 12."""
    found, place = [], 0
    while len(found) < num:
        size = 12
        for start, other in SIZES:
            if place >= start:
                size = other
        found.append((place, size))
        place += size
    return found[first:]


def stream(cls: type[EndlessSampler], num: int, *, start: int = 0, **options: int) -> list[list[int]]:
    """Micro-batches of places: a source without end gives each place as its own index."""
    sampler = cls(None, batch_size=12, sizes=SIZES, **options)
    sampler.start = start
    return [batch.tolist() for batch in islice(sampler, num)]


def check_batches(cls: type[EndlessSampler]) -> None:
    """Every place once and in order; a batch that began before a boundary keeps its size beyond it."""
    given = stream(cls, 30)
    assert [(batch[0], len(batch)) for batch in given] == walk(0, 30)
    assert list(chain(*given)) == list(range(sum(size for _, size in walk(0, 30))))


class LooksOnce(EndlessSampler):
    """A size per look-ahead, not per batch."""

    def __iter__(self):
        start = self.start
        while True:
            size = [size for place, size in self.sizes if place <= start][-1]
            batches = start + size * np.arange(10, dtype=np.int64)
            yield from self.at(self.places(batches, size)).reshape(-1, self.micro(size))
            start += size * 10


class StopsAtTheBoundary(EndlessSampler):
    """Skips what is left before a boundary in place of reaching beyond it."""

    def __iter__(self):
        start = self.start
        while True:
            size = [size for place, size in self.sizes if place <= start][-1]
            end = min((place for place, _ in self.sizes if start < place < start + size), default=None)
            if end is None:
                yield from self.at(self.places(np.array([start]), size)).reshape(-1, self.micro(size))
            start = start + size if end is None else end


def test_sizes_along_the_stream() -> None:
    check_batches(EndlessSampler)
    kills(check_batches, LooksOnce)
    kills(check_batches, StopsAtTheBoundary)


@pytest.mark.parametrize("done", [1, 4, 5, 6, 7, 11, 12, 20])
def test_taken_up_again_at_any_batch(done: int) -> None:
    assert stream(EndlessSampler, 12, start=walk(0, done + 1)[-1][0]) == stream(EndlessSampler, done + 12)[done:]


@pytest.mark.parametrize(("world", "accumulate"), [(2, 1), (1, 3), (3, 2)])
def test_ranks_and_micro_batches_share_each_batch(world: int, accumulate: int) -> None:
    whole = stream(EndlessSampler, 20)
    ranks = [
        stream(EndlessSampler, 20 * accumulate, world=world, rank=rank, accumulate=accumulate) for rank in range(world)
    ]
    for k in range(20):
        blocks = [ranks[r][k * accumulate + m] for m in range(accumulate) for r in range(world)]
        assert list(chain(*blocks)) == whole[k]


def test_each_size_must_be_divisible() -> None:
    with pytest.raises(UserError, match=r"batch_size of 6 .* 4 processes"):
        EndlessSampler(100, batch_size=12, sizes=[(0, 8), (50, 6)], world=4)
