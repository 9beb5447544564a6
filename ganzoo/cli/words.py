"""The nearest valid name of a mistyped one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, names: Iterable[str]) -> str | None:
    """The name that resembles ``word`` most, in any case of letters; None if none does."""
    by_lower = {name.lower(): name for name in sorted(names)}
    found = difflib.get_close_matches(word.lower(), by_lower, 1, cutoff=0.6 if len(word) > 3 else 0.5)
    return by_lower[found[0]] if found else None


def did_you_mean(word: str, names: Iterable[str], otherwise: str = "") -> str:
    """The end of a sentence about a name that does not exist: the nearest one, else what to do instead."""
    name = nearest(word, names)
    if name:
        return f": did you mean {name}?"
    return f": {otherwise}." if otherwise else "."
