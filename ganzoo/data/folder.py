"""Pictures in files: any tree or archive of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from ganzoo.data.files import Files, Reader, open_files
from ganzoo.data.framing import Framing
from ganzoo.data.images import ImageData
from ganzoo.data.labels import from_file, from_folders
from ganzoo.data.pictures import PART_BYTES, Fault, Labels, Part, Pictures, part, part_size
from ganzoo.errors import UserError

_SPLITS = frozenset({"train", "training", "test", "testing", "val", "valid", "validation"})


class ImageFolder(ImageData):
    """Your own pictures: a folder, zip or tar of PNG, JPEG, WebP, GIF, TIFF..., read recursively."""

    def __init__(self, path: str, *, split: str | None = None, labels_file: str | None = None, **options: Any) -> None:
        """
        Args:
            path: The folder or archive (.zip, .tar, .tar.gz, .tar.xz, ...).
            split: Read only what lies below this sub-folder, such as train; '.' reads everything. It must be given
                if the top folders are train, test and the like.
            labels_file: CSV or JSON with a label for each picture; looked up beside the pictures, then as a path of
                its own. Without it, the folder just below the root or the split is the class.
            **options: Of the base.
        """
        super().__init__(**options)
        self.files = open_files(path)
        self.split, self.labels_file = split, labels_file

    @cached_property
    def pictures(self) -> FilePictures:
        return FilePictures(self.files, self.framing, split=self.split, labels_file=self.labels_file)


class FilePictures(Pictures):
    """Picture files below one root or split, in the order of their names."""

    def __init__(self, files: Files, framing: Framing, *, split: str | None, labels_file: str | None) -> None:
        self.files, self.framing = files, framing
        self.split, self.labels_file = split, labels_file
        self.prefix = "" if split in (None, ".", "") else f"{split}".strip("/") + "/"
        self.title = f"{files.path.name}/{self.prefix}".rstrip("/")

    def stamp(self) -> Any:
        return {"files": self.files.stamp(), "split": self.split, "labels": [self.labels_file, self._labels_stamp()]}

    @cached_property
    def names(self) -> list[str]:
        """Names of the pictures from the root, sorted.

        Raises:
            UserError: The split does not exist, or must be chosen.
        """
        top = sorted({name.split("/")[0] for name in self.files.names if "/" in name})
        if self.split is None and len(top) > 1 and _SPLITS.issuperset(name.lower() for name in top):
            raise UserError(
                f"{self.title} has the splits {', '.join(top)}; choose one with split, or give split='.' to mix them."
            )
        names = [name for name in self.files.names if name.startswith(self.prefix)]
        if self.files.names and not names:
            raise UserError(
                f"There are no pictures below {self.split!r} in {self.files.path.name}; its folders are "
                f"{', '.join(top[:10]) or 'none'}."
            )
        return names

    @property
    def num(self) -> int:
        return len(self.names)

    @cached_property
    def labels(self) -> Labels:
        below = [name.removeprefix(self.prefix) for name in self.names]
        if self.labels_file is None:
            return from_folders(below)
        return from_file(self.labels_file, self._read_labels(self.labels_file), self.names, below)

    def _read_labels(self, name: str) -> bytes:
        for place in (self.prefix + name, name):
            if (content := self.files.find(place)) is not None:
                return content
        try:
            return Path(name).expanduser().read_bytes()
        except OSError as error:
            raise UserError(
                f"The labels_file {name} is neither in {self.files.path.name} nor a file of its own "
                f"({error.strerror}); give its path."
            ) from error

    def _labels_stamp(self) -> list[int] | None:
        """Size and time of a labels_file that is no member of an archive."""
        if self.labels_file is None:
            return None
        name, root = Path(self.labels_file).expanduser(), self.files.path
        found = [path.stat() for path in (root / self.prefix / name, root / name, name) if path.is_file()]
        return [found[0].st_size, found[0].st_mtime_ns] if found else None

    def tasks(self) -> Iterator[Callable[[], Part]]:
        places = {name: index for index, name in enumerate(self.names)}
        size, group, held = min(64, part_size(self.framing)), list[tuple[int, str, Reader]](), 0
        for name, reader, num_bytes in self.files.read(places.__contains__):
            group.append((places[name], name, reader))
            held += num_bytes
            if len(group) == size or held > PART_BYTES:
                yield partial(self._decode, group)
                group, held = [], 0
        if group:
            yield partial(self._decode, group)

    def _decode(self, group: list[tuple[int, str, Reader]]) -> Part:
        indices, pixels, faults = [], [], []
        for index, name, reader in group:
            try:
                pixels.append(self.framing.file(reader()))
            except MemoryError:
                raise
            except Exception as error:  # decoders raise anything for a damaged file, SyntaxError included
                faults.append(Fault(index, name, _reason(error)))
            else:
                indices.append(index)
        return part(indices, pixels, faults)


def _reason(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):  # its text names a buffer in memory
        return "no picture in a known format"
    return str(error) or type(error).__name__
