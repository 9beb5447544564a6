"""What a pass through an extractor leaves behind: streamed moments, and a bank of rows that no order can bias.

Neither depends on how the samples were cut into batches or dealt to processes, up to rounding for the moments.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ganzoo.errors import UserError
from ganzoo.streams import key

_ROWS = 4096  #: as many are in float64 at a time


class Moments:
    """Running mean and covariance in float64; the memory is that of two matrices, whatever the number of samples.

    Each block of rows is centred on its own mean before its products are added (Chan, Golub and LeVeque 1979), so that
    features whose mean is large beside their spread lose no digits.
    """

    def __init__(self, dim: int, *, device: torch.device | str = "cpu") -> None:
        """
        Args:
            dim: Of the features.
            device: Where the sums are kept; one that has float64.
        """
        self.num = 0
        self.mean = torch.zeros(dim, dtype=torch.float64, device=device)
        self._scatter = torch.zeros(dim, dim, dtype=torch.float64, device=device)

    @property
    def dim(self) -> int:
        return len(self.mean)

    def update(self, features: Tensor) -> None:
        """Add samples (N, dim) of any floating type, on any device.

        Raises:
            UserError: When a feature is not finite.
        """
        if features.dim() != 2 or features.shape[1] != self.dim:
            raise ValueError(f"features of shape {tuple(features.shape)} where (N, {self.dim}) was expected")
        for block in torch.split(features, _ROWS):
            rows = block.to(self.mean)
            if not len(rows):
                continue
            mean = rows.mean(0)
            if not mean.isfinite().all():
                raise UserError(
                    "Some features are not finite, so they have no mean: look at the images for NaN or inf."
                )
            rows = rows - mean
            self._scatter.addmm_(rows.T, rows)
            self._shift(len(rows), mean)

    def merge(self, other: Moments) -> Self:
        """Add the samples that another object has seen."""
        if other.dim != self.dim:
            raise ValueError(f"moments of {other.dim} features cannot be added to those of {self.dim}")
        self._scatter += other._scatter.to(self._scatter.device)
        self._shift(other.num, other.mean.to(self.mean.device))
        return self

    def covariance(self, unbiased: bool = True) -> Tensor:
        """The covariance (dim, dim), float64.

        Args:
            unbiased: Divide by N - 1, as almost everybody does; otherwise by N, as NVIDIA's metrics do.
        """
        if self.num < 2:
            raise UserError(f"A covariance needs at least 2 samples, and there are {self.num}.")
        return self._scatter / (self.num - unbiased)

    def state(self) -> dict[str, Tensor]:
        """Everything, as tensors: ``num`` (int64), ``mean`` (dim,) and ``scatter`` (dim, dim), which is not divided."""
        return {"num": torch.tensor(self.num), "mean": self.mean.clone(), "scatter": self._scatter.clone()}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], *, device: torch.device | str = "cpu") -> Self:
        """The object whose :meth:`state` this is."""
        self = cls(len(state["mean"]), device=device)
        self.num = int(state["num"])
        self.mean.copy_(state["mean"])
        self._scatter.copy_(state["scatter"])
        return self

    def _shift(self, num: int, mean: Tensor) -> None:
        """The mean and the scatter between the means, when ``num`` samples with this mean were added."""
        total = self.num + num
        if not total:
            return
        delta = mean - self.mean
        self._scatter.addr_(delta, delta, alpha=self.num * num / total)
        self.mean.add_(delta, alpha=num / total)
        self.num = total


class Bank:
    """Up to ``limit`` rows of what was seen, for scores that need the samples themselves.

    Which rows they are depends on the seed and on their indices alone: those whose keyed number is smallest, hence a
    uniform draw without replacement, also from data that are sorted by class.
    """

    def __init__(self, limit: int, *, seed: int = 0) -> None:
        """
        Args:
            limit: Rows that are kept; memory for them is taken as they come.
            seed: Of the draw.
        """
        if limit < 1:
            raise ValueError(f"a bank of {limit} rows")
        self.limit, self.seed = limit, seed
        self.num_seen = 0
        self._rows = torch.empty(0, 0)
        self._indices = np.empty(0, np.int64)

    def update(self, rows: Tensor, indices: Tensor | None = None) -> None:
        """Offer rows (N, D), which are kept as float32 on the CPU.

        Args:
            rows: Features or logits.
            indices: Of the samples, (N,), each once over all calls; none: they are counted.
        """
        if indices is None:
            offered = np.arange(self.num_seen, self.num_seen + len(rows))
        else:
            offered = indices.cpu().numpy().astype(np.int64)
        self.num_seen += len(rows)
        if not len(rows):
            return
        if not len(self._indices):
            self._rows = torch.empty(self.limit, rows.shape[1])  # the system gives pages when they are written
        free = min(self.limit - len(self._indices), len(rows))
        self._rows[len(self._indices) : len(self._indices) + free] = rows[:free]
        self._indices = np.concatenate([self._indices, offered[:free]])
        self._replace(rows[free:], offered[free:])

    def merge(self, other: Bank) -> Self:
        """Take in what another bank of the same limit and seed has kept, of samples with other indices."""
        if (other.limit, other.seed) != (self.limit, self.seed):
            raise ValueError("banks of different limits or seeds keep different rows")
        seen = self.num_seen + other.num_seen
        if len(other._indices):
            self.update(other._rows[: len(other._indices)], torch.from_numpy(other._indices))
        self.num_seen = seen
        return self

    @property
    def indices(self) -> Tensor:
        """Of the samples that are kept, ascending, int64."""
        return torch.from_numpy(np.sort(self._indices))

    @property
    def rows(self) -> Tensor:
        """What is kept, (n, D) float32, in the order of the indices. Not a copy: leave it as it is."""
        order = np.argsort(self._indices)
        if (order != np.arange(len(order))).any():
            _permute(self._rows, order)
            self._indices = self._indices[order]
        return self._rows[: len(order)]

    def _replace(self, rows: Tensor, indices: npt.NDArray[np.int64]) -> None:
        """Exchange kept rows for offered ones with smaller numbers; all places are taken."""
        if not len(rows):
            return
        numbers = keyed(self.seed, np.concatenate([self._indices, indices]))
        kept = np.argpartition(numbers, self.limit - 1)[: self.limit]
        incoming = kept[kept >= self.limit] - self.limit
        outgoing = np.setdiff1d(np.arange(self.limit), kept)
        self._rows[torch.from_numpy(outgoing)] = rows[torch.from_numpy(incoming).to(rows.device)].to(self._rows)
        self._indices[outgoing] = indices[incoming]


def keyed(seed: int, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """A random 64-bit number for each number, the same wherever it is asked for (splitmix64 as a counter)."""
    state = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key(seed))
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def _permute(rows: Tensor, order: npt.NDArray[np.int64]) -> None:
    """Row i becomes what row ``order[i]`` was, in place: a copy would double the largest thing that is held."""
    order = order.copy()
    for start in range(len(order)):
        if order[start] == start:
            continue
        held, place = rows[start].clone(), start
        while (source := int(order[place])) != start:
            rows[place] = rows[source]
            order[place], place = place, source
        rows[place] = held
        order[place] = place
