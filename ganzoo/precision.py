"""Where 32 bits are needed whatever the precision of the run: statistics, penalties, backward passes."""

from __future__ import annotations

import platform
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def is_autocast(device: torch.device) -> bool:
    """Whether operations on the device are cast here; torch itself does not know the meta device."""
    return device.type != "meta" and torch.is_autocast_enabled(device.type)


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """A block outside of autocast. Entering torch's own costs 10 us, so it is left out where autocast is off."""
    return torch.autocast(device.type, enabled=False) if is_autocast(device) else nullcontext()


def at_least_float32(x: Tensor) -> Tensor:
    """x in float32, or in float64 if it is that already: for statistics of what autocast made half-precision."""
    return x if x.dtype == torch.float64 else x.float()


def lacks_bfloat16_units() -> bool:
    """Whether this processor has nothing that computes in bfloat16; False where torch does not know, as on ARM."""
    ask: Callable[[], bool] | None = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    if ask is None or platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    tiles: Callable[[], bool] = getattr(torch.cpu, "_is_amx_tile_supported", ask)
    return not (ask() or tiles())
