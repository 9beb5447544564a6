"""One pass through an extractor: all that scores need of some images, and nothing that they do not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ganzoo import joint
from ganzoo.metrics.extractors.base import Extractor
from ganzoo.metrics.statistics import Bank, Moments

Progress = Callable[[int], None]  #: is told how many images are done


@dataclass
class Collected:
    """What an extractor saw in some images."""

    moments: Moments
    rows: Tensor | None = None  #: (N, D) float32, where they are kept
    logits: Tensor | None = None  #: (N, K) float32, where they are kept

    @property
    def num(self) -> int:
        """How many images."""
        return self.moments.num

    def to(self, device: torch.device) -> Collected:
        """The same with rows and logits on ``device``; moments stay, as their scores are computed on the CPU."""
        rows, logits = (None if x is None else x.to(device) for x in (self.rows, self.logits))
        return Collected(self.moments, rows, logits)


def collect(
    batches: Iterable[Tensor],
    extractor: Extractor,
    *,
    limit: int,
    rows: bool,
    logits: bool,
    deadline: float | None = None,
    progress: Progress | None = None,
) -> Collected:
    """Pass images through an extractor.

    Args:
        batches: uint8 (n, C, H, W).
        extractor: Its weights are loaded.
        limit: How many images there are.
        rows: Keep each feature vector, for scores that compare neighbours or subsets.
        logits: Keep each image's logits.
        deadline: Of ``time.monotonic()``, behind which no further batch is begun.
        progress: Is told how many images are done.
    """
    moments = Moments(extractor.num_features)
    banks = [Bank(limit) if keep else None for keep in (rows, logits)]
    for images in batches:
        seen = extractor(images)
        moments.update(seen.features)
        for bank, found in zip(banks, seen, strict=True):
            if bank is not None and found is not None:
                bank.update(found)
        if progress is not None:
            progress(moments.num)
        if deadline is not None and time.monotonic() >= deadline:
            break
    kept = [bank.rows if bank is not None else None for bank in banks]
    return Collected(moments, *kept)


def gathered(own: Collected) -> Collected | None:
    """What all processes collected, in the order of their ranks, on the first one; None on the others.

    All must call it, with images of one extractor.
    """
    if joint.num_processes() == 1:
        return own
    states = {name: joint.rows(value[None]) for name, value in own.moments.state().items()}
    rows, logits = (None if x is None else joint.rows(x) for x in (own.rows, own.logits))
    if states["num"] is None:
        return None
    moments = Moments(own.moments.dim)
    for rank in range(joint.num_processes()):
        moments.merge(Moments.from_state({name: x[rank] for name, x in states.items() if x is not None}))
    return Collected(moments, rows, logits)
