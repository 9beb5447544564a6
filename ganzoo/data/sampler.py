"""Which picture comes when: a function of the seed and of the place in an endless stream, and of nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from torch.utils.data import DistributedSampler

from ganzoo import streams
from ganzoo.errors import UserError

Indices = npt.NDArray[np.int64]

_AHEAD = 4096  # places looked up at once: the cost is in the number of calls, not in their size
_ROUNDS = 8


def check_divisible(batch_size: int, world: int, accumulate: int) -> None:
    """Refuse a joint batch that cannot be divided among processes and micro-batches.

    Raises:
        UserError: In that case.
    """
    if batch_size % (world * accumulate):
        raise UserError(
            f"A batch_size of {batch_size} cannot be divided among {world} processes with {accumulate} "
            f"micro-batches each; make it a multiple of {world * accumulate}."
        )


class EndlessSampler(DistributedSampler[Indices]):
    """Index arrays of the micro-batches of one process, without end.

    Place p of the stream holds entry ``p % num`` of the permutation of epoch ``p // num``. A joint batch covers
    ``batch_size`` places; micro-batch m of process r takes ``batch_size / (world * accumulate)`` of them, from
    the (m * world + r)-th such block. So processes are disjoint, and no world size changes what a batch holds. The
    size may change along the stream: a function of the place, so that it is the same for prefetching and after a
    resume.

    It derives from torch's DistributedSampler only because Lightning then leaves it in place.
    """

    def __init__(
        self,
        num: int | None,
        *,
        batch_size: int,
        sizes: Sequence[tuple[int, int]] = (),
        world: int = 1,
        rank: int = 0,
        accumulate: int = 1,
        seed: int = 0,
    ) -> None:
        """
        Args:
            num: Number of pictures; None for a source without end, whose places are their own indices.
            batch_size: Of the joint batch, over all processes and micro-batches.
            sizes: Pairs (place, size) in rising order: joint batches from this place on have that size.
            world: Number of processes.
            rank: This process.
            accumulate: Micro-batches per joint batch.
            seed: Of the order.

        Raises:
            UserError: The batch cannot be divided.
        """
        for size in (batch_size, *(size for _, size in sizes)):
            check_divisible(size, world, accumulate)
        super().__init__(range(num or 1), num_replicas=world, rank=rank, seed=seed)  # type: ignore[arg-type]  # a range
        self.num, self.accumulate, self.sizes = num, accumulate, [(0, batch_size), *sizes]
        self.start = 0  # images that were drawn before the next iterator

    def __iter__(self) -> Iterator[Indices]:
        for block in self.blocks():
            yield from block

    def blocks(self) -> Iterator[Indices]:
        """The same by blocks (k, micro) of successive micro-batches, some thousand places at a time."""
        start = self.start
        while True:
            size = [size for place, size in self.sizes if place <= start][-1]
            end = min((place for place, _ in self.sizes if place > start), default=None)
            ahead = max(1, min(_AHEAD, self.num or _AHEAD) // size)
            if end is not None:
                ahead = min(ahead, -(-(end - start) // size))  # the last one of this size may reach beyond the end
            batches = start + size * np.arange(ahead, dtype=np.int64)
            yield self.at(self.places(batches, size)).reshape(-1, self.micro(size))
            start += size * ahead

    def __len__(self) -> int:
        raise TypeError("the stream of pictures has no end, hence no length")

    def micro(self, size: int) -> int:
        """Pictures in a micro-batch of one process, of a joint batch of ``size``."""
        return size // (self.num_replicas * self.accumulate)

    def places(self, batches: Indices, size: int) -> Indices:
        """This process's places (k, accumulate, micro) of the joint batches of ``size`` that begin at ``batches``."""
        blocks = np.arange(self.accumulate, dtype=np.int64) * self.num_replicas + self.rank
        return batches[:, None, None] + blocks[:, None] * self.micro(size) + np.arange(self.micro(size))

    def at(self, places: Indices) -> Indices:
        """The index at each of these places of the stream, int64 of the same shape."""
        if self.num is None:
            return places
        epochs, entries = np.divmod(places, self.num)
        result = np.empty_like(places)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            result[here] = permute(entries[here], self.num, self.seed, "order", epoch)
        return result


def permute(entries: Indices, num: int, *key: int | str) -> Indices:
    """The given entries (k,) of a permutation of 0 to num - 1 that belongs to ``key``, without making all of it.

    A Feistel network on the smallest power of two that holds ``num``, repeated where it leaves the range (Black
    and Rogaway 2002, "Ciphers with arbitrary finite domains"): no memory, whatever the number of pictures.
    """
    bits = max(2, (num - 1).bit_length())
    low, high = np.uint64(bits // 2), np.uint64(bits - bits // 2)
    low_mask, high_mask = (np.uint64((1 << int(width)) - 1) for width in (low, high))
    keys = [np.uint64(streams.key(*key, i)) for i in range(_ROUNDS)]
    result = entries.astype(np.uint64)
    inside = np.zeros(result.shape, np.bool_)
    while not inside.all():
        todo = result[~inside]
        left, right = todo >> low, todo & low_mask
        for i in range(0, _ROUNDS, 2):
            left ^= _mix(right + keys[i]) & high_mask
            right ^= _mix(left + keys[i + 1]) & low_mask
        result[~inside] = left << low | right
        inside = result < num
    return result.astype(np.int64)


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Scrambled numbers: the finalizer of splitmix64 (Steele, Lea and Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
