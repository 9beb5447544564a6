"""Images that live on the device: batches are looked up there, with no loader, and no copy for each of them."""

from __future__ import annotations

from collections.abc import Generator
from typing import Literal

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import Dataset

from ganzoo.data.batch import Batch
from ganzoo.data.cache import Cache, size_text
from ganzoo.data.sampler import EndlessSampler

SHARE = 0.25  #: of the device's free memory, which data may take unasked: networks and a turn's activations come later
_CHUNK = 1 << 26  # bytes read from the cache at a time


class ResidentLoader:
    """The batches that :class:`ganzoo.data.loader.Loader` gives, in the same order, made on the device.

    Indices are sent some thousand places at a time and never waited for, so that a step's host has nothing to do for
    its data. Every process holds the whole set: its places go all over it.
    """

    def __init__(self, dataset: Cache, sampler: EndlessSampler, device: torch.device) -> None:
        self.sampler, self.device = sampler, device
        self.images, self.labels = _on(dataset, device)

    def __iter__(self) -> Generator[Batch]:
        for block in self.sampler.blocks():
            places = torch.from_numpy(block)
            if self.device.type == "cuda":
                places = places.pin_memory()  # else the copy would wait for what the device is doing
            for rows in places.to(self.device, non_blocking=True):
                labels = None if self.labels is None else self.labels.index_select(0, rows)
                yield Batch(self.images.index_select(0, rows), labels)


def settle(
    dataset: Dataset[Batch], sampler: EndlessSampler, device: torch.device, wanted: bool | Literal["auto"]
) -> ResidentLoader | None:
    """The loader of images on the device; None if they stay where they are, with a sentence where that is a loss.

    Args:
        dataset: What batches are taken from.
        sampler: Their order.
        device: That trains.
        wanted: Whether to; ``auto``: on a GPU, if they take at most :data:`SHARE` of the memory that is free.
    """
    if wanted is False or (wanted == "auto" and device.type != "cuda"):
        return None
    if not isinstance(dataset, Cache):
        if wanted is True:
            rank_zero_warn(
                f"data.on_device is true, but {type(dataset).__name__} is no cache of uint8 images: its batches come "
                "from a loader."
            )
        return None
    free = free_memory(device)
    if free is not None and dataset.num_bytes > free * (SHARE if wanted == "auto" else 1.0):
        most = f", of which data take up to {SHARE:.0%} unless data.on_device is true" if wanted == "auto" else ""
        rank_zero_warn(
            f"The images take {size_text(dataset.num_bytes)} and {device} has {size_text(free)} free{most}: batches "
            "come from a loader."
        )
        return None
    return ResidentLoader(dataset, sampler, device)


def free_memory(device: torch.device) -> int | None:
    """Bytes that new tensors may take, with what torch's allocator keeps unused; None where nobody can say."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def _on(dataset: Cache, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """All images (num, C, H, W), uint8, and labels (num,), int64, or None; read a piece at a time."""
    images = torch.empty((len(dataset), *dataset.shape), dtype=torch.uint8, device=device)
    labels = torch.empty(len(dataset), dtype=torch.int64, device=device)
    labelled = False
    step = max(1, _CHUNK // int(np.prod(dataset.shape)))
    for start in range(0, len(dataset), step):
        piece = dataset[np.arange(start, min(start + step, len(dataset)))]
        images[start : start + step] = piece.data
        if labelled := piece.labels is not None:
            labels[start : start + step] = piece.labels
    return images, labels if labelled else None
