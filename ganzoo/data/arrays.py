"""Pictures that are arrays already: .npy and .npz files, and the sets of torchvision and scikit-learn."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt

from ganzoo.data.framing import Framing
from ganzoo.data.pictures import Part, Pictures, part, part_size


class ArrayPictures(Pictures):
    """Pictures in one array (N, h, w, c) of uint8."""

    def __init__(self, title: str, framing: Framing) -> None:
        self.title, self.framing = title, framing

    @property
    @abstractmethod
    def images(self) -> npt.NDArray[np.uint8]:
        """All pictures (N, h, w, c); may be a memory map."""

    @property
    def num(self) -> int:
        return len(self.images)

    def tasks(self) -> Iterator[Callable[[], Part]]:
        step = part_size(self.framing)
        for start in range(0, self.num, step):
            yield partial(self._decode, start, self.images[start : start + step])

    def _decode(self, start: int, block: npt.NDArray[np.uint8]) -> Part:
        pixels = self.framing.arrays(block)
        return part(range(start, start + len(pixels)), pixels)
