"""Classes of pictures: from the folders they lie in, or from a CSV or JSON file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from ganzoo.data.pictures import Labels
from ganzoo.errors import UserError


def from_folders(names: Sequence[str]) -> Labels:
    """The first folder of each name is its class, numbered in order; none if a picture lies in no folder."""
    if not names or not all("/" in name for name in names):
        return Labels(None, [])
    return _in_order([name.split("/", 1)[0] for name in names])


def from_file(title: str, content: bytes, names: Sequence[str], below: Sequence[str]) -> Labels:
    """The classes that a file gives.

    CSV: the file's name in the first column, the class in the second; a header is recognised by naming no
    picture. JSON: {"name": class, ...} or a list of [name, class], also below a key "labels". Classes are
    numbers from 0, or words, which are numbered alphabetically.

    Args:
        title: Of the file, for errors.
        content: Of the file.
        names: Of all pictures, from the root.
        below: The same pictures, named from the split.

    Raises:
        UserError: No such format, a picture without a class, or a class that is no number from 0.
    """
    given = {str(PurePosixPath(name)): label for name, label in _pairs(title, content)}
    found = [given.get(name, given.get(short)) for name, short in zip(names, below, strict=True)]
    if missing := [name for name, label in zip(names, found, strict=True) if label is None]:
        raise UserError(
            f"{title} gives no label for {len(missing)} of {len(names)} pictures, such as {', '.join(missing[:3])}; "
            "add them, named as they lie below the root."
        )
    return _as_given([str(label) for label in found])


def _pairs(title: str, content: bytes) -> Iterable[tuple[str, Any]]:
    try:
        text = content.decode("utf-8-sig")
        if title.lower().endswith(".json"):
            data = json.loads(text)
            data = data.get("labels", data) if isinstance(data, dict) else data
            return [(name, label) for name, label in (data.items() if isinstance(data, dict) else data)]
        return [(row[0].strip(), row[1].strip()) for row in csv.reader(io.StringIO(text)) if row]
    except (ValueError, TypeError, IndexError) as error:
        raise UserError(
            f"{title} cannot be read as labels ({error}); give a CSV file with the columns name and class, or a JSON "
            "file with {name: class}."
        ) from error


def _as_given(classes: Sequence[str]) -> Labels:
    """Classes that are all numbers keep them; words are numbered alphabetically."""
    if not all(label.lstrip("-").isdecimal() for label in set(classes)):
        return _in_order(classes)
    values = np.array([int(label) for label in classes], np.int64)
    if values.min() < 0:
        raise UserError(f"The smallest label is {values.min()}; number the classes from 0.")
    return Labels(values, [str(i) for i in range(int(values.max()) + 1)])


def _in_order(classes: Sequence[str]) -> Labels:
    """Numbers in alphabetical order, but 10 after 9 where names are numbers."""
    names = sorted(set(classes), key=lambda name: (int(name) if name.isdecimal() else -1, name))
    places = {name: i for i, name in enumerate(names)}
    return Labels(np.array([places[label] for label in classes], np.int64), names)
