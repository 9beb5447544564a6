"""The nearest valid name of a mistyped one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, names: Iterable[str]) -> str | None:
    """The name that resembles ``word`` most, in any case of letters; None if none does."""
    by_lower = {name.lower(): name for name in sorted(names)}
    found = difflib.get_close_matches(word.lower(), by_lower, 1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """A clause to end a sentence with, or nothing."""
    name = nearest(word, names)
    return f"; did you mean {name}?" if name else ""
