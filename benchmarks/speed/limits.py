"""What a machine can do at best, and how much memory a process took at most."""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path

import torch

from benchmarks.speed.clocks import Clocks, now


@torch.no_grad()
def ceiling(device: torch.device, dtype: torch.dtype = torch.float32) -> Clocks:
    """FLOP/s, by both clocks, of the better one of two dense operations, on the threads that there are.

    A product of two matrices of 2048x2048, and a 3x3 convolution of 256 to 256 channels on 32 images of 32x32 in
    channels_last.
    """
    a, b = torch.randn(2, 2048, 2048, device=device, dtype=dtype)
    images = torch.randn(32, 256, 32, 32, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    weight = torch.randn(256, 256, 3, 3, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    best = Clocks(0.0, 0.0)
    repeats = 1 if device.type == "cpu" else 50
    for flop, function in (
        (2 * 2048**3, lambda: a @ b),
        (2 * 32 * 32 * 32 * 256 * 256 * 9, lambda: torch.conv2d(images, weight, padding=1)),
    ):
        function()
        begin = now()
        for _ in range(repeats):
            function()
        seconds = now() - begin
        best = Clocks(*(max(old, flop * repeats / spent) for old, spent in zip(best, seconds, strict=True)))
    return best


def reset_peak_memory() -> None:
    """Have the peak begin anew, where the system can."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):  # Linux alone; elsewhere the peak is that of all that the process did
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int:
    """Bytes: of tensors on a GPU, else of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError, StopIteration):
        return resident("VmHWM")
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def resident(kind: str) -> int:
    """Bytes of this process's memory, now (``VmRSS``) or at most (``VmHWM``). Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(kind)))
