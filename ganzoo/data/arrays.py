"""Pictures that are arrays already: .npy and .npz files, and what the named sets are made of."""

from __future__ import annotations

import zipfile
import zlib
from abc import abstractmethod
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt

from ganzoo.data.framing import Framing, Pixels
from ganzoo.data.images import ImageData
from ganzoo.data.pictures import Labels, Part, Pictures, part, part_size
from ganzoo.errors import UserError

Layout = Literal["NHWC", "NCHW"]

_DAMAGE = (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error)


class Array(ImageData):
    """Your own images in one array: a .npy or .npz file."""

    def __init__(
        self,
        path: str,
        *,
        array: str | None = None,
        layout: Layout = "NHWC",
        value_range: tuple[float, float] | None = None,
        labels_from: str | None = None,
        image_size: int | tuple[int, int] | None = None,
        channels: int | None = None,
        **options: Any,
    ) -> None:
        """
        Args:
            path: The .npy or .npz file; images are (N, H, W) or as ``layout`` says.
            array: Name of the images in an .npz; may be left out if it holds only one array of images.
            layout: NHWC or NCHW, the order of the axes.
            value_range: Values of black and white, such as [0, 1]; needed for floating-point images.
            labels_from: The classes, whole numbers (N,): an array in the .npz, or a .npy file.
            image_size: Side of a square, or height and width; left out, that of the images.
            channels: 1 for gray, 3 for RGB, 4 to keep transparency; left out, that of the images.
            **options: Of the base.
        """
        self.file = _ArrayFile(Path(path).expanduser().resolve(), array, layout)
        _, height, width, own_channels = self.file.shape
        super().__init__(
            image_size=(height, width) if image_size is None else image_size,
            channels=own_channels if channels is None else channels,
            **options,
        )
        self.value_range, self.labels_from = value_range, labels_from
        if value_range is None and self.file.dtype not in (np.uint8, np.uint16):
            raise UserError(
                f"The images of {path} are {self.file.dtype}; only uint8 and uint16 have a known range, so give "
                "value_range, such as [0, 1]."
            )

    @cached_property
    def pictures(self) -> ArrayFilePictures:
        return ArrayFilePictures(self.file, self.framing, self.value_range, self.labels_from)


class ArrayPictures(Pictures):
    """Pictures that come as blocks of arrays (n, h, w, c) of uint8."""

    def __init__(self, title: str, framing: Framing) -> None:
        self.title, self.framing = title, framing

    @abstractmethod
    def blocks(self, step: int) -> Iterator[Callable[[], Pixels]]:
        """Readers of successive blocks (n, h, w, c) of ``step`` pictures; they run in threads."""

    def tasks(self) -> Iterator[Callable[[], Part]]:
        step = part_size(self.framing)
        for number, block in enumerate(self.blocks(step)):
            yield partial(self._decode, number * step, block)

    def _decode(self, start: int, block: Callable[[], Pixels]) -> Part:
        pixels = self.framing.arrays(block())
        return part(range(start, start + len(pixels)), pixels)


class ArrayFilePictures(ArrayPictures):
    """The images of one .npy or .npz file."""

    def __init__(
        self, file: _ArrayFile, framing: Framing, value_range: tuple[float, float] | None, labels_from: str | None
    ) -> None:
        super().__init__(file.path.name, framing)
        self.file, self.value_range, self.labels_from = file, value_range, labels_from

    def stamp(self) -> Any:
        beside = Path(self.labels_from).expanduser() if self.labels_from else None
        labels = _stat(beside) if beside is not None and beside.is_file() else None
        place = [self.file.array, self.file.layout, self.value_range and list(self.value_range)]
        return [_stat(self.file.path), place, [self.labels_from, labels]]

    @property
    def num(self) -> int:
        return self.file.shape[0]

    def blocks(self, step: int) -> Iterator[Callable[[], Pixels]]:
        for block in self.file.blocks(step):
            yield partial(self._levels, block)

    def _levels(self, block: npt.NDArray[Any]) -> Pixels:
        """Any numbers as levels: black to 0, white to 255, rounded; what lies outside is clipped."""
        if self.value_range is None:
            if block.dtype == np.uint8:
                return np.asarray(block, np.uint8)
            return np.asarray((block.astype(np.uint32) + 128) // 257, np.uint8)
        black, white = self.value_range
        levels = np.rint((block.astype(np.float32) - black) * (255 / (white - black)))
        return np.asarray(np.clip(levels, 0, 255), np.uint8)

    @cached_property
    def labels(self) -> Labels:
        if self.labels_from is None:
            return Labels(None, [])
        values = self.file.table(self.labels_from)
        if values.shape != (self.num,) or values.dtype.kind not in "iu" or (self.num and values.min() < 0):
            raise UserError(
                f"The labels {self.labels_from} are {values.dtype} of shape {values.shape}; give one whole number from "
                f"0 for each of the {self.num} images."
            )
        values = values.astype(np.int64)
        return Labels(values, [str(i) for i in range(int(values.max(initial=-1)) + 1)])


class _ArrayFile:
    """Images in a .npy file or a member of an .npz: shape without reading, and blocks without holding it all."""

    def __init__(self, path: Path, array: str | None, layout: Layout) -> None:
        self.path, self.layout = path, layout
        if not path.is_file():
            raise UserError(f"There is no file {path}; give a .npy or .npz file.")
        try:
            self.array = self._choose(array)
            stored, self.fortran, self.dtype = self._header(self.array)
            if self.array is None:
                np.load(path, mmap_mode="r")  # fails if the file is cut off
        except _DAMAGE as error:
            raise _damaged(path, error) from error
        if len(stored) not in (3, 4):
            raise UserError(f"The images of {path} have the shape {stored}; (N, H, W) and {layout} are allowed.")
        self.stored = stored
        n, *rest = stored if len(stored) == 4 else (*stored, 1) if layout == "NHWC" else (stored[0], 1, *stored[1:])
        h, w, c = rest if layout == "NHWC" else (*rest[1:], rest[0])
        self.shape = (n, h, w, c)
        if c not in (1, 3, 4):
            raise UserError(
                f"The images of {path} have {c} channels, read as {layout}; 1, 3 or 4 are allowed, or give the other "
                "layout."
            )

    def blocks(self, step: int) -> Iterator[npt.NDArray[Any]]:
        """Successive blocks (step, h, w, c); the last may be smaller."""
        try:
            for block in self._stored_blocks(step):
                if len(self.stored) == 3:
                    yield block[..., None]
                else:
                    yield block if self.layout == "NHWC" else block.transpose(0, 2, 3, 1)
        except _DAMAGE as error:
            raise _damaged(self.path, error) from error

    def table(self, name: str) -> npt.NDArray[Any]:
        """A small array: a member of the .npz, or a .npy file."""
        try:
            if self.array is not None:
                with np.load(self.path) as members:
                    if name in members:
                        return np.asarray(members[name])
            return np.asarray(np.load(Path(name).expanduser()))
        except (OSError, ValueError) as error:
            raise UserError(f"The labels {name} cannot be read ({error}); name an array or a .npy file.") from error

    def _stored_blocks(self, step: int) -> Iterator[npt.NDArray[Any]]:
        if self.array is None:
            mapped = np.load(self.path, mmap_mode="r")
            yield from (mapped[start : start + step] for start in range(0, len(mapped), step))
        elif self.fortran:  # its rows are spread over the whole member
            with np.load(self.path) as members:
                whole = members[self.array]
            yield from (whole[start : start + step] for start in range(0, len(whole), step))
        else:
            row = self.dtype.itemsize * int(np.prod(self.stored[1:]))
            with zipfile.ZipFile(self.path) as archive, archive.open(f"{self.array}.npy") as member:
                _read_header(member)
                for start in range(0, self.stored[0], step):
                    num = min(step, self.stored[0] - start)
                    yield np.frombuffer(member.read(num * row), self.dtype).reshape(num, *self.stored[1:])

    def _choose(self, array: str | None) -> str | None:
        """The name of the images in an .npz; None for a .npy file."""
        if not zipfile.is_zipfile(self.path):
            return None
        with zipfile.ZipFile(self.path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
        images = [name for name in names if len(self._header(name)[0]) in (3, 4)] if array is None else [array]
        if len(images) != 1 or images[0] not in names:
            raise UserError(
                f"{self.path} holds the arrays {', '.join(names)}; name the one with the images, (N, H, W) or "
                f"{self.layout}, by array."
            )
        return images[0]

    def _header(self, name: str | None) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
        """Shape, whether in Fortran order, and type."""
        if name is None:
            with open(self.path, "rb") as file:
                return _read_header(file)
        with zipfile.ZipFile(self.path) as archive, archive.open(f"{name}.npy") as member:
            return _read_header(member)


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version[0] not in read:
        raise ValueError(f"version {version[0]} of the format")
    shape, fortran, dtype = read[version[0]](file)
    if dtype.kind not in "uif":
        raise ValueError(f"{dtype} is no type of pixels")
    return shape, fortran, dtype


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path} is no whole .npy or .npz file ({error}); save it again.")


def _stat(path: Path) -> list[Any]:
    stat = path.stat()
    return [str(path), stat.st_size, stat.st_mtime_ns]
