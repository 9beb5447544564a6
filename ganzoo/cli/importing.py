"""Torch and Lightning are imported a fifth faster while nothing is collected."""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Imports inside the block are not interrupted by the garbage collector, and it never looks at their objects later.

    Modules make some hundred thousand objects, which stay, and are looked through again and again while there are more
    of them. Where Lightning is loaded already there is nothing to gain, and this does nothing: objects of a program
    around ganzoo are its own.
    """
    if "lightning" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
        gc.freeze()
        atexit.register(gc.unfreeze)  # what is frozen at the end looks like a leak to some libraries, which say so
    finally:
        gc.enable()
