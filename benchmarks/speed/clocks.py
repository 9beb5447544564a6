"""What the benchmarks share: time of the process, which a busy machine changes least, and of the wall; and silence."""

from __future__ import annotations

import logging
import time
import warnings
from functools import cache
from typing import NamedTuple

import torch


class Clocks(NamedTuple):
    """Seconds."""

    cpu: float  #: of this process, over all its threads
    wall: float

    def __sub__(self, other: Clocks) -> Clocks:
        return Clocks(self.cpu - other.cpu, self.wall - other.wall)

    def per(self, num: float) -> Clocks:
        return Clocks(self.cpu / num, self.wall / num)


@cache
def _has_gpu() -> bool:
    """Asked once: the question opens a library each time."""
    return torch.cuda.is_available()


def now() -> Clocks:
    """Both clocks, when the device has done what it was given."""
    if _has_gpu():
        torch.cuda.synchronize()
    return Clocks(time.process_time(), time.perf_counter())


def silence() -> None:
    """No advice of Lightning's between the numbers."""
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(lambda record: False)
