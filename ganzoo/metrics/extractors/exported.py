"""Any network from a file: what ``torch.export.save`` or ``torch.jit.save`` wrote."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor
from torch.export.passes import move_to_device_pass

from ganzoo.errors import UserError
from ganzoo.metrics import pixels
from ganzoo.metrics.extractors import weights as files
from ganzoo.metrics.extractors.base import Extractor, Features


class Exported(Extractor):
    """Features of a network in a file, exported (``.pt2``) or scripted (TorchScript); named after the file.

    It maps float images (N, 3, size, size) to features (N, D), or to features and logits (N, K). The number of both is
    known when it is loaded. Both kinds of file are programs, and torch unpickles parts of the first kind, too, so
    neither is opened without ``trust``.
    """

    resize: pixels.Resize

    def __init__(
        self,
        file: str,
        *,
        size: int,
        mean: Sequence[float] = (0.5,),
        std: Sequence[float] = (0.5,),
        resize: pixels.Resize = "clean",
        weights_hash: str | None = None,
        trust: bool = False,
    ) -> None:
        """
        Args:
            file: The exported network; what is before its ending is in the names of scores.
            size: Side of the images that it takes, in pixels.
            mean: What it takes is (x - mean)/std for x in [0, 1]; one number, or one for each channel. With 0.5 for
                both that is the range [-1, 1], with 0 and 1 the range [0, 1].
            std: See mean.
            resize: How images get that size, as in ganzoo.metrics.pixels.
            weights_hash: SHA-256 of the file; another file is not opened. None: it is found, and put on record.
            trust: Whether the file's author may run code on this machine, as both kinds of file can.
        """
        if resize not in pixels.RESIZES:
            raise UserError(f"There is no way to resize called {resize!r}; choose one of {', '.join(pixels.RESIZES)}.")
        if {len(mean), len(std)} - {1, 3} or not all(s > 0 for s in std):
            raise UserError(
                f"The mean {list(mean)} and std {list(std)} were given; each needs one number or three, and std is > 0."
            )
        self.file = Path(file).expanduser()
        self.name = self.file.stem
        self.size, self.mean, self.std = size, mean, std
        self.resize = resize
        self.trust = trust
        self._expected = weights_hash
        self._network: Callable[[Tensor], Any] | None = None
        self._program: Any = None

    def load(self) -> None:
        """Check and open the file, and try it on one image, if that is not done yet."""
        if self._program is not None:
            return
        if not self.trust:
            raise UserError(
                f"{self.file} is a program that could do anything on this machine: set trust to true if you trust who "
                "made it."
            )
        self.weights_hash = self._expected or files.sha256(self.file)
        with files.checked(self.file, self.weights_hash) as file:
            self._program = _open(file, self.file)
        self._move()
        found = self.extract(torch.zeros(2, 3, self.size, self.size, dtype=torch.uint8, device=self.device))
        self.num_features = found.features.shape[1]
        self.num_logits = None if found.logits is None else found.logits.shape[1]

    def extract(self, images: Tensor) -> Features:
        """Features, and logits if it has them, of images (N, 3, H, W)."""
        assert self._network is not None
        x = pixels.normalize(pixels.resize(images, self.size, self.resize), self.mean, self.std)
        try:
            output = self._network(x)
        except (AssertionError, RuntimeError) as error:
            raise UserError(
                f"The network of {self.file} does not take {len(x)} images of 3x{self.size}x{self.size} pixels "
                f"({str(error).splitlines()[0]}): export it for batches of any number of images, and give its size."
            ) from error
        return as_features(output, len(images), self.name)

    def _move(self) -> None:
        if isinstance(self._program, torch.export.ExportedProgram):
            self._network = move_to_device_pass(self._program, self.device).module()
        elif self._program is not None:
            self._network = self._program.to(self.device)


def as_features(output: Any, num: int, name: str) -> Features:
    """What a network returned for ``num`` images: features, or features and logits, in float32.

    Raises:
        UserError: For anything else.
    """
    tensors = list(output) if isinstance(output, tuple | list) else [output]
    fits = all(isinstance(x, Tensor) and x.dim() >= 2 and len(x) == num for x in tensors)
    if not fits or len(tensors) not in (1, 2):
        given = [tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__ for x in tensors]
        raise UserError(
            f"The network {name} returned {given} for {num} images; it must return features ({num}, D), or features "
            f"and logits ({num}, K)."
        )
    features, *logits = (x.flatten(1).float() for x in tensors)
    return Features(features, logits[0] if logits else None)


def _open(file: BinaryIO, path: Path) -> Any:
    """An exported program, or a scripted module in evaluation mode."""
    try:
        if not zipfile.is_zipfile(file):
            raise ValueError("both kinds are archives")
        file.seek(0)
        if path.suffix == ".pt2":
            return torch.export.load(file)
        read: Callable[..., Any] = torch.jit.load
        with quiet():
            return read(file, map_location="cpu").eval()
    except (RuntimeError, ValueError, KeyError) as error:
        raise UserError(
            f"{path} holds no network that torch can read; write it by torch.export.save (.pt2) or torch.jit.save."
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """A block without warnings that a format is old: the files that are there are old, too."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
        yield
