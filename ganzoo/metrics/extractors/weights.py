"""Files of weights: nothing is deserialized before its SHA-256 is known to be the one that was asked for."""

from __future__ import annotations

import hashlib
import pickle
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch

from ganzoo import files
from ganzoo.errors import UserError
from ganzoo.files import cache_root, one_at_a_time


def sha256(path: str | Path) -> str:
    """The hash of a file, in hexadecimal digits.

    Raises:
        UserError: When the file cannot be read.
    """
    try:
        return files.sha256(path)
    except OSError as error:
        raise UserError(f"The weights {path} cannot be read ({error.strerror}); name a file that is there.") from error


@contextmanager
def checked(path: str | Path, expected: str) -> Iterator[BinaryIO]:
    """The opened file, once it is known to be the expected one.

    Args:
        path: Of the file.
        expected: Its SHA-256 in 64 hexadecimal digits.

    Raises:
        UserError: For another file.
    """
    if not re.fullmatch("[0-9a-fA-F]{64}", expected):
        raise UserError(f"The hash {expected!r} of weights was given; a SHA-256 has 64 hexadecimal digits.")
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below; its errors must not cover those of the block
    except OSError as error:
        raise UserError(f"The weights {path} cannot be read ({error.strerror}); name a file that is there.") from error
    with file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected.lower():
            raise UserError(
                f"The file {path} has the SHA-256 {found}, but {expected.lower()} was asked for, so it was not opened: "
                "get the right file, or give the hash of this one as weights_hash if you trust it."
            )
        file.seek(0)
        yield file


def read_state(path: str | Path, expected: str) -> dict[str, Any]:
    """The tensors of a ``state_dict`` in a file, on the CPU; no code of the file is run.

    Args:
        path: Of the file.
        expected: Its SHA-256.

    Raises:
        UserError: For another file, or one that holds anything but tensors.
    """
    with checked(path, expected) as file:
        try:
            state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
            raise UserError(f"The file {path} holds no plain tensors, as weights must be.") from error
    return state


def fetch(name: str, *, url: str, expected: str, what: str) -> Path:
    """The file of published weights: in ganzoo's cache or torch's, or downloaded into ganzoo's.

    Args:
        name: Of the file.
        url: Where it is published.
        expected: Its SHA-256.
        what: Whose weights these are, for the message.

    Raises:
        UserError: When it is nowhere, and cannot be downloaded.
    """
    place = cache_root() / "weights" / name
    for path in (place, Path(torch.hub.get_dir()) / "checkpoints" / name):
        if path.is_file():
            return path
    try:
        with one_at_a_time(place.parent, name, "the process that downloads these weights"):
            if not place.is_file():
                torch.hub.download_url_to_file(url, str(place), expected, progress=sys.stderr.isatty())
    except (OSError, RuntimeError) as error:  # no network, no room; a wrong hash
        raise UserError(
            f"The weights of {what} are not in {place} and could not be downloaded ({error}): get {url} on a machine "
            "with network and put it there, or name the file by the option weights."
        ) from error
    return place
