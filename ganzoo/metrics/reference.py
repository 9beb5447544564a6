"""Statistics of real images, computed once: a folder in the cache, found by all that they depend on.

The folder ``<GANZOO_CACHE>/references/<key>`` has ``moments.pt``, ``rows.npy`` (only if a score wanted the feature
vectors themselves), ``labels.npy`` (where there are labels) and ``meta.json``. It is built beside its place and moved
there when it is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ganzoo import files, streams
from ganzoo.config import build
from ganzoo.errors import UserError
from ganzoo.metrics.collecting import Collected, Needs, Progress, collect
from ganzoo.metrics.extractors.base import Extractor
from ganzoo.metrics.statistics import Moments, keyed

FORMAT = 1


class Images(Protocol):
    """What is asked of a data module: :class:`ganzoo.data.ImageData` has it."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def num(self) -> int | None: ...

    @property
    def num_classes(self) -> int: ...

    @property
    def class_names(self) -> list[str]: ...

    @property
    def content_hash(self) -> str: ...

    @property
    def dataset(self) -> Any: ...


@dataclass
class Reference:
    """What scores need of the real images."""

    title: str
    split: str
    content_hash: str
    collected: Collected

    @property
    def class_counts(self) -> list[int]:
        """Images of each class; empty for data without labels."""
        labels = self.collected.labels
        return [] if labels is None else torch.bincount(labels).tolist()


def check(data: Any) -> None:
    """Refuse data that are no images.

    Raises:
        UserError: They are points.
    """
    if len(data.shape) != 3:
        raise UserError(f"{type(data).__name__} holds points, not images, which these scores compare.")


def open_or_build(
    data: Images, extractor: Extractor, *, rows: bool, batch_size: int = 64, progress: Progress | None = None
) -> Reference:
    """The reference statistics of all images of ``data``; processes that start together compute them once.

    Args:
        data: The images, as bytes: neither flipped nor scaled.
        extractor: Its weights are loaded.
        rows: Whether the feature vectors themselves are needed.
        batch_size: How many images at a time.
        progress: Is told how many images are done.
    """
    check(data)
    facts, folder = _key(data, extractor), files.cache_root() / "references"
    place = folder / hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]
    labelled = data.num_classes > 0
    if (found := _find(place, rows, labelled)) is None:
        with files.one_at_a_time(folder, place.name, "another process that looks at the same images"):
            if (found := _find(place, rows, labelled)) is None:
                _build(data, extractor, place, facts, rows, batch_size, progress)
                found = _find(place, rows, labelled)
    if found is None:
        raise UserError(f"The statistics in {place} cannot be read: delete that folder.")
    title, split = title_of(data)
    return Reference(title, split, data.content_hash, found)


def unseen(data: Images, *, labels: bool) -> Reference:
    """The reference for scores that compare no features of it.

    Args:
        data: The images.
        labels: Whether labels are needed, where there are some.
    """
    assert data.num is not None
    found = labels_of(data) if labels and data.num_classes else None
    return Reference(*title_of(data), data.content_hash, Collected(data.num, labels=found))


def labels_of(data: Images) -> Tensor:
    """The classes of all images, (N,) int64."""
    return torch.cat([labels for _, labels in _labelled(data, 1024) if labels is not None])


def drawn(data: Images, num: int, *, seed: int) -> Tensor:
    """Up to ``num`` of the images, uint8 (n, C, H, W): a keyed draw, of which fewer are the first ones."""
    assert data.num is not None
    order = np.argsort(keyed(streams.key(seed, "pixels"), np.arange(data.num)), kind="stable")[:num]
    found: Tensor = data.dataset[order].data
    return found


def title_of(data: Any) -> tuple[str, str]:
    """Name and split of data, for people; without its place on the disk."""
    title = str(getattr(getattr(data, "pictures", None), "title", type(data).__name__))
    split = getattr(data, "split", None)
    return f"{title}, {data.shape[1]}x{data.shape[2]}", "all" if split in (None, "", ".") else str(split)


def with_split(data: Any, split: str) -> Any:
    """The same data with the split that a protocol wants, where they are the training or the test set of something."""
    if getattr(data, "split", None) not in ("train", "test") or split not in ("train", "test") or data.split == split:
        return data
    config = data.config()
    config["init_args"]["split"] = split
    return build(config)


def batches(data: Images, batch_size: int) -> Iterator[Tensor]:
    """All images of a data set in order, uint8 (n, C, H, W)."""
    for images, _ in _labelled(data, batch_size):
        yield images


def _labelled(data: Images, batch_size: int) -> Iterator[tuple[Tensor, Tensor | None]]:
    assert data.num is not None
    for start in range(0, data.num, batch_size):
        batch = data.dataset[np.arange(start, min(start + batch_size, data.num))]
        yield batch.data, batch.labels


def _key(data: Images, extractor: Extractor) -> dict[str, Any]:
    """Everything that the statistics depend on. The content's hash changes with the size of the images, too."""
    return {
        "format": FORMAT,
        "content": data.content_hash,
        "shape": list(data.shape),
        "extractor": extractor.name,
        "weights": extractor.weights_hash,
        "resize": extractor.resize,
        "options": extractor.config(),
    }


def _build(
    data: Images,
    extractor: Extractor,
    place: Path,
    facts: dict[str, Any],
    rows: bool,
    batch_size: int,
    progress: Progress | None,
) -> None:
    assert data.num is not None
    print(
        f"{title_of(data)[0]}: features of {data.num:,} images by {extractor.name}, kept in the cache", file=sys.stderr
    )
    needs = Needs(moments=True, rows=rows)
    labels = list[Tensor]()

    def images() -> Iterator[Tensor]:
        for pixels, found in _labelled(data, batch_size):
            labels.extend([] if found is None else [found])
            yield pixels

    collected = collect(images(), extractor, needs, limit=data.num, progress=progress)
    assert collected.moments is not None
    half = place.with_name(f"{place.name}.partial")
    shutil.rmtree(half, ignore_errors=True)  # left by a build that was killed
    try:
        half.mkdir()
        torch.save(collected.moments.state(), half / "moments.pt")
        if collected.rows is not None:
            np.save(half / "rows.npy", collected.rows.numpy())
        if labels:
            np.save(half / "labels.npy", torch.cat(labels).numpy())
        files.write_json(half / "meta.json", {"key": facts, "num": collected.num})
        shutil.rmtree(place, ignore_errors=True)  # it is damaged, or lacks the rows
        os.replace(half, place)
    except OSError as error:
        raise UserError(
            f"The statistics of the reference cannot be written to {place.parent} ({error.strerror}): make room, or "
            "set GANZOO_CACHE to a folder on another disk."
        ) from error
    finally:
        shutil.rmtree(half, ignore_errors=True)


def _find(place: Path, rows: bool, labelled: bool) -> Collected | None:
    """What is in the cache, if it is whole and has what is needed."""
    try:
        meta = json.loads((place / "meta.json").read_text(encoding="utf-8"))
        moments = Moments.from_state(torch.load(place / "moments.pt", weights_only=True))
        kept = torch.from_numpy(np.load(place / "rows.npy")) if rows else None
        labels = torch.from_numpy(np.load(place / "labels.npy")) if labelled else None
        if moments.num != meta["num"] or (kept is not None and kept.shape != (moments.num, moments.dim)):
            return None
        if labels is not None and labels.shape != (moments.num,):
            return None
        return Collected(moments.num, moments, kept, labels=labels)
    except Exception:  # a damaged file can make a reader fail in any way; it is built anew
        return None
