"""Which picture comes when: a function of the seed and of the place in an endless stream, and of nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DistributedSampler

from ganzoo import streams
from ganzoo.errors import UserError

Indices = npt.NDArray[np.int64]


class EndlessSampler(DistributedSampler[Indices]):
    """Index arrays of the micro-batches of one process, without end.

    Place p of the stream holds entry ``p % num`` of the permutation of epoch ``p // num``. A joint batch covers
    ``batch_size`` places; micro-batch m of process r takes ``batch_size / (world * accumulate)`` of them, from
    the (m * world + r)-th such block. So processes are disjoint, and no world size changes what a batch holds.

    It derives from torch's DistributedSampler only because Lightning then leaves it in place.
    """

    def __init__(
        self, num: int | None, *, batch_size: int, world: int = 1, rank: int = 0, accumulate: int = 1, seed: int = 0
    ) -> None:
        """
        Args:
            num: Number of pictures; None for a source without end, whose places are their own indices.
            batch_size: Of the joint batch, over all processes and micro-batches.
            world: Number of processes.
            rank: This process.
            accumulate: Micro-batches per joint batch.
            seed: Of the order.

        Raises:
            UserError: The batch cannot be divided.
        """
        if batch_size % (world * accumulate):
            raise UserError(
                f"A batch_size of {batch_size} cannot be divided among {world} processes with {accumulate} "
                f"micro-batches each; make it a multiple of {world * accumulate}."
            )
        super().__init__(range(num or 1), num_replicas=world, rank=rank, seed=seed)  # type: ignore[arg-type]
        self.num, self.batch_size, self.accumulate = num, batch_size, accumulate
        self.start = 0  # images that were drawn before the next iterator
        self._order: tuple[int, Indices] | None = None

    def __iter__(self) -> Iterator[Indices]:
        place = self.start
        while True:
            yield from self.joint_batch(place)
            place += self.batch_size

    def __len__(self) -> int:
        raise TypeError("the stream of pictures has no end, hence no length")

    def joint_batch(self, place: int) -> Iterator[Indices]:
        """This process's micro-batches of the joint batch that starts at ``place``."""
        micro = self.batch_size // (self.num_replicas * self.accumulate)
        for m in range(self.accumulate):
            first = place + (m * self.num_replicas + self.rank) * micro
            yield self.at(np.arange(first, first + micro, dtype=np.int64))

    def at(self, places: Indices) -> Indices:
        """The indices at these places of the stream."""
        if self.num is None:
            return places
        epochs, entries = np.divmod(places, self.num)
        result = np.empty_like(places)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            result[here] = self._permutation(epoch)[entries[here]]
        return result

    def _permutation(self, epoch: int) -> npt.NDArray[np.integer]:
        if self._order is None or self._order[0] != epoch:
            assert self.num is not None
            small = torch.int32 if self.num < 2**31 else torch.int64
            generator = streams.generator(self.seed, "order", epoch)
            self._order = epoch, torch.randperm(self.num, generator=generator, dtype=small).numpy()
        return self._order[1]
