"""What a loader yields."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """One micro-batch of one process: uint8 images (N, C, H, W) or float32 points (N, d), and int64 labels (N,)."""

    data: Tensor
    labels: Tensor | None
