"""Files that are either the old ones or the new ones, whenever the process is killed, and where they are kept."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ganzoo.errors import TrainingError, UserError


def cache_root() -> Path:
    """The folder of everything that ganzoo keeps between runs: ``GANZOO_CACHE``, or the user's cache folder."""
    if chosen := os.environ.get("GANZOO_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ganzoo"


@contextmanager
def atomic(path: str | Path, mode: str = "wb", **kwargs: Any) -> Iterator[IO[Any]]:
    """An open file that takes the place of ``path`` when the block ends, and leaves no trace when it fails.

    The content is on the disk before it gets its name, so that a crash at any moment leaves a whole file.

    Args:
        path: The file's name; its folder is created.
        mode: ``wb`` or ``w``.
        kwargs: Further arguments of :func:`open`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        with open(temporary, mode, **kwargs) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_json(path: str | Path, content: Any, *, allow_nan: bool = True) -> None:
    """Write plain data as JSON, whole or not at all.

    Args:
        path: The file's name; its folder is created.
        content: Dictionaries, lists, numbers, text.
        allow_nan: Whether NaN and infinities, which strict JSON has no words for, are written as Python reads them.

    Raises:
        ValueError: A number is not finite, and must be.
    """
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=allow_nan)
    with atomic(path, "w", encoding="utf-8") as file:
        file.write(text + "\n")


def sha256(path: str | Path) -> str:
    """The hash of a file's content, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def link(source: str | Path, target: str | Path) -> None:
    """Give the file ``source`` the second name ``target``, replacing what has it; copied where links don't work."""
    source, target = Path(source), Path(target)
    temporary = _temporary(target)
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:  # some network and memory-card file systems have no links
        with open(source, "rb") as content, atomic(target) as file:
            shutil.copyfileobj(content, file)
        return
    os.replace(temporary, target)
    temporary.unlink(missing_ok=True)  # replacing a name of the very same file does nothing
    _sync_folder(target.parent)


def remove_leftovers(folder: str | Path) -> None:
    """Delete what writes that were killed left in ``folder``."""
    for path in Path(folder).glob(".*.tmp"):
        path.unlink(missing_ok=True)


@contextmanager
def one_at_a_time(folder: Path, key: str, holder: str) -> Iterator[None]:
    """Hold the lock of ``key`` in a folder of the cache; the system frees it when its holder dies.

    Args:
        folder: It is made if it is not there.
        key: A name for what is built inside the block.
        holder: Who may have the lock, to say what this process waits for.

    Raises:
        UserError: The folder cannot be written.
    """
    from filelock import FileLock, Timeout

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{key}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"waiting for {holder}", file=sys.stderr)
            lock.acquire()
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error}); set GANZOO_CACHE to another folder.") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn an error of the disk inside the block into a sentence.

    Args:
        what: The thing that is written, as the sentence's subject.

    Raises:
        TrainingError: For every OSError, as that of a full disk.
    """
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"{what} could not be written ({error.strerror or error}): see that the disk has room and that the run's "
            "folder can be written to."
        ) from error


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


def _sync_folder(folder: Path) -> None:
    """Names are on the disk only when their folder is."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
