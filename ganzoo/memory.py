"""Memory on a CPU: glibc gives freed memory back to the system, which then fills each page anew when it is asked again.

A cycle of a GAN frees and asks for the same tens of megabytes again and again: 2 to 6 % of its time went there.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from typing import Any

#: Whoever sets one of these has another plan.
VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES")

kept = False  #: whether the process keeps what is freed

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's numbers of these settings
_MOST, _OWN = 2**30, 2**25  # the second is where glibc's own, growing bound ends, and the most before glibc 2.35


def keep_freed() -> bool:
    """Have the process keep what is freed for its next use, where its allocator is glibc's; returns whether it does."""
    global kept
    library = _glibc()
    if library is None or any(name in os.environ for name in VARIABLES):
        return False
    set_size = any(library.mallopt(_MMAP_THRESHOLD, size) for size in (_MOST, _OWN))
    kept = bool(set_size and library.mallopt(_TRIM_THRESHOLD, 2**31 - 1))
    return kept


def give_back() -> None:
    """End what :func:`keep_freed` began: large blocks come from the system and go back to it, free ones at once."""
    global kept
    if kept and (library := _glibc()):
        kept = False
        library.mallopt(_MMAP_THRESHOLD, _OWN)
        library.mallopt(_TRIM_THRESHOLD, 2 * _OWN)
        library.malloc_trim(0)


def _glibc() -> Any:
    """The C library of the process, if it is glibc."""
    with suppress(OSError, TypeError):  # no such library on Windows
        library = ctypes.CDLL(None)
        return library if hasattr(library, "gnu_get_libc_version") else None
    return None
