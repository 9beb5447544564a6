"""What a programme does with a part of it that fails, or for which there is no time: a sentence, and on."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")
NO_TIME = "no time"


class Attempts:
    """Parts of a programme that ends at a time, and why some of them were left out."""

    def __init__(self, end: float = math.inf) -> None:
        """
        Args:
            end: By ``time.monotonic``, from which on nothing new is begun.
        """
        self.end = end
        self.left_out: dict[str, str] = {}  #: by the part's name

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self.end

    def __call__(self, name: str, function: Callable[[], T]) -> T | None:
        """What a function gives; None where its part fails or has failed before, and where there is no time."""
        if name in self.left_out:
            return None
        if self.is_over:
            self.left_out[name] = NO_TIME
            return None
        try:
            return function()
        except Exception as error:  # whatever it is, the other parts are measured
            self.left_out[name] = why(error)
        _release()  # what the error held is free by now
        return None


def why(error: Exception) -> str:
    """In a few words."""
    if isinstance(error, torch.OutOfMemoryError):
        return "no memory"
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _release() -> None:
    """Have the device's memory for what comes next."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
