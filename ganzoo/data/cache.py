"""Pictures decoded once: an uint8 file on disk, memory-mapped, found by what it was made from.

A cache is a folder ``<root>/images/<key>`` with ``pixels.u8`` (rows of C*H*W bytes), ``labels.npy``,
``rows.npy`` (only if pictures were skipped) and ``meta.json``. It is built beside its place and moved there
when it is whole. A lock that the system releases when its holder dies makes one process build it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from ganzoo import files
from ganzoo.data.batch import Batch
from ganzoo.data.pictures import FORMAT, Fault, Labels, Part, Pictures, progress
from ganzoo.errors import UserError
from ganzoo.files import cache_root

_BLOCK = 1 << 13


class Cache(Dataset[Batch]):
    """The opened cache: a map from an array of indices to a :class:`Batch` of uint8 images (n, C, H, W).

    It pickles as its place only, so worker processes open the memory map themselves.
    """

    def __init__(self, folder: Path, *, labels: bool = False) -> None:
        self.folder, self.with_labels = folder, labels
        meta = json.loads((folder / "meta.json").read_text())
        self.shape: tuple[int, int, int] = tuple(meta["shape"])
        self.class_names: list[str] = meta["class_names"]
        self.content_hash: str = meta["content_hash"]
        self.skipped = [Fault(*fault) for fault in meta["skipped"]]
        self._num: int = meta["num"]
        self._open()

    def __len__(self) -> int:
        return self._num

    def __getitem__(self, indices: npt.ArrayLike) -> Batch:
        indices = np.asarray(indices)
        rows = indices if self._rows is None else self._rows[indices]
        labels = torch.from_numpy(self._labels[indices]) if self.with_labels and self._labels is not None else None
        return Batch(torch.from_numpy(self._pixels.take(rows, axis=0)), labels)

    @property
    def has_labels(self) -> bool:
        return self._labels is not None

    @property
    def class_counts(self) -> list[int]:
        """Images of each class; empty where batches carry no labels."""
        if not self.with_labels or self._labels is None:
            return []
        return [int(num) for num in np.bincount(self._labels, minlength=len(self.class_names))]

    @property
    def num_bytes(self) -> int:
        """Of all its images."""
        return self._num * int(np.prod(self.shape))

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_pixels", "_labels", "_rows")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def _open(self) -> None:
        # Views as plain arrays: indexing a np.memmap costs ten times as much as indexing an ndarray.
        pixels = np.memmap(self.folder / "pixels.u8", np.uint8, "r").reshape(-1, *self.shape)
        self._pixels = pixels.view(np.ndarray)
        self._labels, self._rows = _table(self.folder / "labels.npy"), _table(self.folder / "rows.npy")


def find(key: str, *, labels: bool = False, skip: bool = True) -> Cache | None:
    """The cache of that key, if it is there and whole, and lacks no picture unless ``skip`` allows that."""
    folder = cache_root() / "images" / key
    try:
        meta = json.loads((folder / "meta.json").read_text())
        if (folder / "pixels.u8").stat().st_size != meta["bytes"] or (meta["skipped"] and not skip):
            return None
        return Cache(folder, labels=labels)
    except (OSError, ValueError, KeyError):
        return None


def open_or_build(pictures: Pictures, *, labels: bool = False, skip: bool = False) -> Cache:
    """The cache of ``pictures``, decoded if it is not there; processes that start together build it once.

    Args:
        pictures: What it is made from.
        labels: Whether batches carry labels.
        skip: Whether pictures that cannot be decoded are left out.

    Raises:
        UserError: No pictures, corrupt ones unless they are skipped, or no room on the disk.
    """
    key = pictures.cache_name()
    found = find(key, labels=labels, skip=skip)
    if found is not None:
        return found
    if pictures.num == 0:
        raise UserError(f"There are no pictures in {pictures.title}; give a folder or archive of some.")
    images = cache_root() / "images"
    with files.one_at_a_time(images, key, "another process that decodes the same pictures"):
        if find(key, skip=skip) is None:
            _build(pictures, cache_root() / "images" / key, skip)
    return Cache(cache_root() / "images" / key, labels=labels)


def _build(pictures: Pictures, folder: Path, skip: bool) -> None:
    half = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(half, ignore_errors=True)  # left by a build that was killed
    _remove_abandoned(folder.parent)
    _check_disk(pictures)
    try:
        half.mkdir()
        faults = _fill(pictures, half)
        if faults and not skip:
            raise UserError(
                f"{len(faults)} of {pictures.num} pictures of {pictures.title} cannot be decoded: "
                f"{in_words(faults)}; replace them, or set corrupt to skip."
            )
        shutil.rmtree(folder, ignore_errors=True)  # damaged, or lacking pictures
        os.replace(half, folder)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise UserError(f"The disk is full: {_need(pictures)}.") from error
        raise
    finally:
        shutil.rmtree(half, ignore_errors=True)


def in_words(faults: Sequence[Fault]) -> str:
    """The first few pictures that cannot be decoded, each with its reason, and how many more there are."""
    named = ", ".join(f"{fault.name} ({fault.reason})" for fault in faults[:3])
    return named + (f" and {len(faults) - 3} more" if len(faults) > 3 else "")


def _fill(pictures: Pictures, folder: Path) -> list[Fault]:
    """Decode everything. Memory: a few parts, whatever the number of pictures. Written with plain writes, because
    a full disk under a memory map kills the process instead of raising."""
    num, shape = pictures.num, pictures.framing.shape
    faults: list[Fault] = []
    with open(folder / "pixels.u8", "wb") as pixels, open(folder / "digests", "w+b") as digests:
        for part in progress(pictures.decoded(), num, f"decoding {pictures.title}"):
            faults += part.faults
            _write(part, pixels, digests)
        pixels.truncate(num * int(np.prod(shape)))
        pixels.flush()
        os.fsync(pixels.fileno())
        labels = _without(faults, pictures.labels)
        content_hash = _content_hash(shape, labels, digests, num, faults)
    (folder / "digests").unlink()
    if labels.values is not None:
        np.save(folder / "labels.npy", labels.values)
    if faults:
        np.save(folder / "rows.npy", np.delete(np.arange(num), [fault.place for fault in faults]))
    meta = {
        "source": pictures.key(),
        "shape": shape,
        "num": num - len(faults),
        "bytes": num * int(np.prod(shape)),
        "class_names": labels.names,
        "skipped": sorted(faults),
        "content_hash": content_hash,
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=1))
    return sorted(faults)


def _write(part: Part, pixels: BinaryIO, digests: BinaryIO) -> None:
    for index, picture, digest in zip(part.indices.tolist(), part.pixels, part.digests, strict=True):
        pixels.seek(index * picture.size)
        pixels.write(np.ascontiguousarray(picture).data)
        digests.seek(index * len(digest))
        digests.write(digest)


def _without(faults: list[Fault], labels: Labels) -> Labels:
    if not faults or labels.values is None:
        return labels
    return Labels(np.delete(labels.values, [fault.place for fault in faults]), labels.names)


def _content_hash(shape: tuple[int, ...], labels: Labels, digests: BinaryIO, num: int, faults: list[Fault]) -> str:
    """SHA-256 of what training sees: shape, class names, each picture's own hash in their order, and labels."""
    total = hashlib.sha256(json.dumps([FORMAT, shape, labels.names]).encode())
    digests.truncate(32 * num)
    digests.seek(0)
    missing = np.array([fault.place for fault in faults], np.int64)
    for start in range(0, num, _BLOCK):
        rows = np.frombuffer(digests.read(32 * _BLOCK), np.uint8).reshape(-1, 32)
        here = missing[(missing >= start) & (missing < start + len(rows))] - start
        total.update(np.delete(rows, here, axis=0).tobytes())
        if labels.values is not None:
            total.update(labels.values[start : start + _BLOCK].astype("<i8").tobytes())
    return total.hexdigest()


def _table(path: Path) -> npt.NDArray[np.int64] | None:
    return np.load(path, mmap_mode="r").view(np.ndarray) if path.exists() else None


def _check_disk(pictures: Pictures) -> None:
    """Say what the cache will take, and refuse at once what cannot fit."""
    need = pictures.num * int(np.prod(pictures.framing.shape))
    if shutil.disk_usage(cache_root()).free < need + (1 << 24):
        raise UserError(f"Too little room on the disk: {_need(pictures)}.")
    where = cache_root() / "images"
    print(f"{pictures.title}: {pictures.num} pictures, a cache of {size_text(need)} in {where}", file=sys.stderr)


def _need(pictures: Pictures) -> str:
    need = pictures.num * int(np.prod(pictures.framing.shape))
    free = shutil.disk_usage(cache_root()).free
    return (
        f"the cache of {pictures.title} takes {size_text(need)} and {cache_root()} has {size_text(free)} free; "
        "make room, or set GANZOO_CACHE to a folder on another disk"
    )


def size_text(num_bytes: int) -> str:
    """Bytes as a user reads them."""
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.1f} MB"


def _remove_abandoned(images: Path) -> None:
    """Delete what killed builds of other pictures left: nobody holds their locks."""
    from filelock import FileLock, Timeout

    for half in images.glob("*.partial"):
        try:
            with FileLock(images / f"{half.name.removesuffix('.partial')}.lock", timeout=0):
                shutil.rmtree(half, ignore_errors=True)
        except Timeout:  # it is being built
            continue
