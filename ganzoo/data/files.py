"""Where picture files lie: a folder, a zip or a tar, read recursively, nothing ever unpacked to disk."""

from __future__ import annotations

import hashlib
import lzma
import os
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import Any

from ganzoo.errors import UserError

SUFFIXES = frozenset(".png .jpg .jpeg .jpe .jfif .webp .gif .bmp .tif .tiff .ppm .pgm .pbm .pnm .jp2 .avif".split())

Reader = Callable[[], bytes]


def open_files(path: str) -> Files:
    """The files at ``path``. Raises UserError if it is neither a folder, a zip nor a tar."""
    place = Path(os.path.expandvars(path)).expanduser().resolve()
    if place.is_dir():
        return Folder(place)
    if not place.exists():
        raise UserError(f"There is nothing at {path}; give a folder of pictures, or a zip or tar archive of one.")
    try:
        if zipfile.is_zipfile(place):
            return Zip(place)
        if tarfile.is_tarfile(place):
            return Tar(place)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error}); check its permissions.") from error
    raise UserError(f"{path} is neither a folder nor a zip or tar archive that is whole; give one of these.")


class Files(ABC):
    """Files below one root, named by their path from it, with ``/`` between the parts."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def names(self) -> list[str]:
        """The names of all pictures, sorted; chosen by suffix, hidden files left out."""
        return sorted(set(self._names()))

    def stamp(self) -> Any:
        """Plain data that changes when the files change: names, sizes and times, without reading them."""
        stat = self.path.stat()
        return [str(self.path), stat.st_size, stat.st_mtime_ns]

    @abstractmethod
    def _names(self) -> Iterator[str]: ...

    @abstractmethod
    def read(self, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Reader, int]]:
        """Each wanted file in the order that is cheapest: name, reader (for any thread), bytes held in memory."""

    def find(self, name: str) -> bytes | None:
        """The content of one file."""
        return next((reader() for _, reader, _ in self.read(lambda other: other == name)), None)


class Folder(Files):
    """A folder on disk."""

    def _names(self) -> Iterator[str]:
        return (name for name, _, _ in self._walk(self.path, ""))

    def stamp(self) -> Any:
        digest = hashlib.sha256()
        for name, size, time in sorted(self._walk(self.path, "")):
            digest.update(f"{name}\0{size}\0{time}\n".encode(errors="surrogateescape"))
        return [str(self.path), digest.hexdigest()]

    def read(self, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Reader, int]]:
        for name in self.names:
            if wanted(name):
                yield name, (self.path / name).read_bytes, 0

    def find(self, name: str) -> bytes | None:
        path = self.path / name
        return path.read_bytes() if path.is_file() else None

    def _walk(self, folder: Path, prefix: str) -> Iterator[tuple[str, int, int]]:
        """Name, size in bytes and time in nanoseconds of every picture."""
        with os.scandir(folder) as entries:
            for entry in entries:
                name = prefix + entry.name
                if entry.is_dir():
                    if not entry.name.startswith((".", "__MACOSX")):
                        yield from self._walk(Path(entry.path), f"{name}/")
                elif is_picture(entry.name):
                    try:
                        stat = entry.stat()
                    except FileNotFoundError:  # a link to nowhere: named later, with the pictures that are corrupt
                        yield name, 0, 0
                    else:
                        yield name, stat.st_size, stat.st_mtime_ns


class Zip(Files):
    """A zip archive: any member can be read at any time."""

    def _names(self) -> Iterator[str]:
        with self._open() as archive:
            yield from (name for name in archive.namelist() if is_picture(name))

    def read(self, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Reader, int]]:
        archive = self._open()  # the readers keep it open for as long as any of them is needed
        for name in sorted(archive.namelist()):
            if wanted(name):
                yield name, partial(archive.read, name), 0

    def _open(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)
        except (zipfile.BadZipFile, OSError) as error:
            raise _damaged(self.path, 0, error) from error


class Tar(Files):
    """A tar archive, compressed or not: a stream, read from its start to its end."""

    def _names(self) -> Iterator[str]:
        return (name for name, _ in self._members(lambda name: False) if is_picture(name))

    def read(self, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Reader, int]]:
        for name, data in self._members(wanted):
            if data is not None:
                yield name, partial(bytes, data), len(data)

    def _members(self, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes | None]]:
        """Every file's name, and the content of those wanted."""
        num = 0
        try:
            with tarfile.open(self.path, "r|*") as archive:
                while (member := archive.next()) is not None:
                    archive.members.clear()  # type: ignore[attr-defined]  # else it keeps every header
                    if member.isreg():
                        name = member.name.removeprefix("./")
                        yield name, _content(archive, member) if wanted(name) else None
                        num += 1
        except (tarfile.TarError, EOFError, OSError, lzma.LZMAError, zlib.error) as error:
            raise _damaged(self.path, num, error) from error


def is_picture(name: str) -> bool:
    """Whether the name is that of a picture: by suffix, and not hidden."""
    parts = PurePosixPath(name).parts
    hidden = any(part.startswith((".", "__MACOSX")) for part in parts)
    return not hidden and PurePosixPath(name).suffix.lower() in SUFFIXES


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None  # regular files only
    return file.read()


def _damaged(path: Path, num: int, error: Exception) -> UserError:
    return UserError(f"The archive {path} is damaged after {num} files ({error}); get a whole copy of it.")
