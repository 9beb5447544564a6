"""The loader: torch's own, one batch ahead of the training step."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from torch.utils.data import DataLoader

from ganzoo.data.batch import Batch


class Loader(DataLoader[Batch]):
    """torch's loader; without workers, a thread fetches the next batch while the step computes.

    A look-up in a memory map takes a tenth of a millisecond, so handing it to another process costs more than it saves.
    """

    def __iter__(self) -> Any:
        return super().__iter__() if self.num_workers else self._ahead()

    def _ahead(self) -> Iterator[Batch]:
        batches = super().__iter__()
        pool = ThreadPoolExecutor(1, "ganzoo-loader")
        try:
            coming = pool.submit(next, batches)
            while True:
                batch = coming.result()
                coming = pool.submit(next, batches)
                yield batch
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def leave_signals_to_the_parent(worker: int) -> None:
    """For a loader process: Ctrl-C, and a SIGTERM to the whole group, reach it too, and without batches the parent
    could not complete its cycle. After a SIGTERM it stays for half a minute, unless the parent ends it earlier."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(30))
