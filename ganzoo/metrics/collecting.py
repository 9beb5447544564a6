"""One pass through an extractor: all that scores need of some images, and nothing that they do not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ganzoo import joint
from ganzoo.metrics.extractors.base import Extractor
from ganzoo.metrics.statistics import Bank, Moments

Progress = Callable[[int], None]  #: is told how many images are done


@dataclass(frozen=True)
class Needs:
    """What scores need of some images."""

    moments: bool = False
    rows: bool = False  #: each feature vector, for scores that compare neighbours, subsets or classes
    logits: bool = False
    labels: bool = False
    steps: bool = False  #: how far images move with the latents
    pixels: int | None = None  #: of so many of the first images; 0 where other processes have them

    @property
    def features(self) -> bool:
        """Whether images have to pass through the extractor."""
        return self.moments or self.rows or self.logits


@dataclass
class Collected:
    """What was seen of some images."""

    num: int  #: how many
    moments: Moments | None = None
    rows: Tensor | None = None  #: (N, D) float32
    logits: Tensor | None = None  #: (N, K) float32
    labels: Tensor | None = None  #: (N,) int64
    steps: Tensor | None = None  #: (N,) float64: lengths of steps on paths
    pixels: Tensor | None = None  #: (n, C, H, W) uint8, of the first images

    def to(self, device: torch.device) -> Collected:
        """The same with rows and logits on ``device``; scores of the rest are computed on the CPU."""
        rows, logits = (None if x is None else x.to(device) for x in (self.rows, self.logits))
        return replace(self, rows=rows, logits=logits)


def collect(
    batches: Iterable[Tensor],
    extractor: Extractor | None,
    needs: Needs,
    *,
    limit: int,
    steps: Iterable[Tensor] | None = None,
    deadline: float | None = None,
    progress: Progress | None = None,
) -> Collected:
    """Pass images through an extractor.

    Args:
        batches: uint8 (n, C, H, W).
        extractor: Its weights are loaded; none where no features are needed.
        needs: What is kept of them; labels are the caller's.
        limit: How many images there are.
        steps: Lengths of as many steps as a batch has images, (n,), one after the other.
        deadline: Of ``time.monotonic()``, behind which no further batch is begun.
        progress: Is told how many images are done.
    """
    kept = Collected(0, Moments(extractor.num_features) if extractor and needs.moments else None)
    banks = [Bank(limit) if keep else None for keep in (needs.rows, needs.logits)]
    pixels, lengths, further = list[Tensor](), list[Tensor](), iter(steps or ())
    for images in batches:
        if needs.pixels is not None:
            pixels.append(images[: max(0, needs.pixels - kept.num)].cpu())
        if extractor is not None and needs.features:
            seen = extractor(images)
            if kept.moments is not None:
                kept.moments.update(seen.features)
            for bank, found in zip(banks, seen, strict=True):
                if bank is not None and found is not None:
                    bank.update(found)
        lengths.extend([next(further)] if steps is not None else [])
        kept.num += len(images)
        if progress is not None:
            progress(kept.num)
        if deadline is not None and time.monotonic() >= deadline:
            break
    kept.rows, kept.logits = (bank.rows if bank is not None else None for bank in banks)
    kept.pixels = torch.cat(pixels) if pixels else None
    kept.steps = torch.cat(lengths) if lengths else None
    return kept


def gathered(own: Collected) -> Collected | None:
    """What all processes collected, in the order of their ranks, on the first one; None on the others.

    All must call it, each with an image or more and for the same scores; processes have contiguous shares.
    """
    if joint.num_processes() == 1:
        return own
    numbers = joint.rows(torch.tensor([own.num]))
    states = {name: joint.rows(value[None]) for name, value in own.moments.state().items()} if own.moments else {}
    found = [None if x is None else joint.rows(x) for x in (own.rows, own.logits, own.labels, own.steps, own.pixels)]
    if numbers is None:
        return None
    moments = None if own.moments is None else Moments(own.moments.dim)
    for rank in range(joint.num_processes() if moments else 0):
        assert moments is not None
        moments.merge(Moments.from_state({name: x[rank] for name, x in states.items() if x is not None}))
    return Collected(int(numbers.sum()), moments, *found)
