"""Data sets with a name: Digits (no download), MNIST, Fashion-MNIST and CIFAR-10."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ganzoo.data.arrays import ArrayPictures
from ganzoo.data.framing import Framing, Pixels, Resample
from ganzoo.data.images import ImageData
from ganzoo.data.pictures import Labels, Pictures
from ganzoo.errors import UserError
from ganzoo.files import cache_root

Split = Literal["train", "test"]


class Digits(ImageData):
    """1,797 handwritten digits of 8x8 pixels, resized; part of scikit-learn, so nothing is downloaded."""

    def __init__(
        self,
        *,
        image_size: int | tuple[int, int] = 32,
        channels: int = 1,
        resample: Resample = "bilinear",
        **options: Any,
    ) -> None:
        """
        Args:
            image_size: Side of a square, or height and width.
            channels: 1 for gray, 3 for RGB, 4 to keep transparency.
            resample: Filter for resizing.
            **options: Of the base.
        """
        super().__init__(image_size=image_size, channels=channels, resample=resample, **options)

    @cached_property
    def pictures(self) -> Pictures:
        return _Digits("Digits", self.framing)


class TorchvisionData(ImageData):
    """Base of the sets that torchvision knows how to download."""

    folder: str  #: where torchvision keeps the files, below the root
    names: tuple[str, ...] = tuple("0123456789")  #: of the classes

    def __init__(
        self,
        *,
        root: str | None = None,
        split: Split = "train",
        image_size: int | tuple[int, int] = 32,
        channels: int = 3,
        **options: Any,
    ) -> None:
        """
        Args:
            root: The folder where torchvision keeps, or shall put, its files; left out, one in ganzoo's cache.
            split: train or test.
            image_size: Side of a square, or height and width.
            channels: 1 for gray, 3 for RGB, 4 to keep transparency.
            **options: Of the base.
        """
        super().__init__(image_size=image_size, channels=channels, **options)
        self.root = Path(root).expanduser().resolve() if root else cache_root() / "downloads"
        self.split = split

    @property
    def class_names(self) -> list[str]:  # known by the set's name: nothing is downloaded for a fact
        return list(self.names)

    @abstractmethod
    def load(self, download: bool) -> Any:
        """torchvision's data set: pictures in ``data``, classes in ``targets``, their names in ``classes``."""

    @cached_property
    def source(self) -> Any:
        """The loaded set, downloaded if need be.

        Raises:
            UserError: It is neither there nor can be downloaded.
        """
        try:
            return self.load(download=False)
        except RuntimeError:  # torchvision's word for files that are missing or damaged
            pass
        try:
            return self.load(download=True)
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:160]
            raise UserError(
                f"{type(self).__name__} is not in {self.root} and cannot be downloaded ({reason}); put torchvision's "
                "files there, or name the folder that has them by root."
            ) from error

    @cached_property
    def pictures(self) -> Pictures:
        return _Torchvision(f"{type(self).__name__} {self.split}", self.framing, self)


class MNIST(TorchvisionData):
    """60,000 handwritten digits of 28x28 pixels (10,000 for testing), resized to 32x32; downloaded."""

    folder = "MNIST/raw"

    def __init__(self, *, channels: int = 1, **options: Any) -> None:
        """
        Args:
            channels: 1 for gray, 3 for RGB, 4 to keep transparency.
            **options: Of the base.
        """
        super().__init__(channels=channels, **options)

    def load(self, download: bool) -> Any:
        from torchvision.datasets import MNIST as Source

        return Source(str(self.root), train=self.split == "train", download=download)


class FashionMNIST(TorchvisionData):
    """60,000 gray pictures of clothes of 28x28 pixels (10,000 for testing), resized to 32x32; downloaded."""

    folder = "FashionMNIST/raw"
    names = (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    )

    def __init__(self, *, channels: int = 1, **options: Any) -> None:
        """
        Args:
            channels: 1 for gray, 3 for RGB, 4 to keep transparency.
            **options: Of the base.
        """
        super().__init__(channels=channels, **options)

    def load(self, download: bool) -> Any:
        from torchvision.datasets import FashionMNIST as Source

        return Source(str(self.root), train=self.split == "train", download=download)


class CIFAR10(TorchvisionData):
    """50,000 colour pictures of 32x32 pixels in ten classes (10,000 for testing); downloaded."""

    folder = "cifar-10-batches-py"
    names = (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    )

    def load(self, download: bool) -> Any:
        from torchvision.datasets import CIFAR10 as Source

        return Source(str(self.root), train=self.split == "train", download=download)


class _Digits(ArrayPictures):
    num = 1797

    def stamp(self) -> Any:
        return "scikit-learn digits"

    def blocks(self, step: int) -> Iterator[Callable[[], Pixels]]:
        levels = np.rint(_load_digits().images * (255 / 16)).astype(np.uint8)[..., None]  # stored as 0 to 16
        yield from (partial(np.asarray, levels[start : start + step]) for start in range(0, len(levels), step))

    @cached_property
    def labels(self) -> Labels:
        return Labels(_load_digits().target.astype(np.int64), [str(i) for i in range(10)])


class _Torchvision(ArrayPictures):
    """The pictures of one split, loaded only when the cache is not there."""

    def __init__(self, title: str, framing: Framing, owner: TorchvisionData) -> None:
        super().__init__(title, framing)
        self.owner = owner

    def stamp(self) -> Any:
        folder = self.owner.root / self.owner.folder
        if not folder.is_dir():
            _ = self.owner.source
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        found = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]
        return [type(self.owner).__name__, self.owner.split, str(folder), found]

    @property
    def num(self) -> int:
        return len(self.owner.source.data)

    def blocks(self, step: int) -> Iterator[Callable[[], Pixels]]:
        images = np.asarray(self.owner.source.data)
        images = images[..., None] if images.ndim == 3 else images
        yield from (partial(np.asarray, images[start : start + step]) for start in range(0, len(images), step))

    @cached_property
    def labels(self) -> Labels:
        return Labels(np.asarray(self.owner.source.targets, np.int64), self.owner.class_names)


def _load_digits() -> Any:
    from sklearn.datasets import load_digits

    return load_digits()
