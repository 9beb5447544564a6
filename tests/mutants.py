"""A known answer is worth something if a wrong implementation misses it: checks that mutants must fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest

T = TypeVar("T")


def kills(check: Callable[[T], object], mutant: T) -> None:
    """``check`` holds for the right implementation and must fail for this wrong one, by an assertion."""
    with pytest.raises(AssertionError):
        check(mutant)
