"""Streamed moments against numpy on all samples at once; which rows a bank keeps."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from ganzoo.errors import UserError
from ganzoo.metrics import statistics
from ganzoo.metrics.statistics import Bank, Moments, keyed
from tests.mutants import kills


def samples(num: int = 500, dim: int = 5, *, offset: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(num + dim)
    return (
        torch.randn(num, dim, generator=generator).double() @ torch.rand(dim, dim, generator=generator).double()
        + offset
    )


def filled(cls: type[Moments], x: Tensor, sizes: list[int]) -> Moments:
    moments = cls(x.shape[1])
    for part in torch.split(x, sizes):
        moments.update(part)
    return moments


# Moments


def equal_numpy(cls: type[Moments]) -> None:
    """Batches of any size, empty ones too; a mean that is a million deviations away leaves the covariance alone."""
    for offset, sizes in ((0.0, [500]), (3.0, [1, 0, 199, 300]), (1e6, [7] * 71 + [3]), (0.0, [1] * 500)):
        x = samples(offset=offset)
        moments = filled(cls, x, sizes)
        assert moments.num == 500
        assert np.allclose(moments.mean, x.numpy().mean(0), rtol=1e-13, atol=1e-13)
        for unbiased in (True, False):
            expected = np.cov(x.numpy(), rowvar=False, ddof=int(unbiased))
            assert np.abs(moments.covariance(unbiased).numpy() / expected - 1).max() < 1e-9


def test_moments() -> None:
    equal_numpy(Moments)


class SumOfSquares(Moments):
    """E[x x^T] - m m^T: exact on paper, without a digit when the mean is large."""

    def __init__(self, dim: int, *, device: torch.device | str = "cpu") -> None:
        super().__init__(dim, device=device)
        self.total, self.squares = self.mean.clone(), self._scatter.clone()

    def update(self, features: Tensor) -> None:
        x = features.double()
        self.num += len(x)
        self.total += x.sum(0)
        self.squares += x.T @ x
        self.mean = self.total / self.num
        self._scatter = self.squares - torch.outer(self.total, self.total) / self.num


class WithoutBetween(Moments):
    """Adds the batches' covariances, and forgets that their means differ."""

    def _shift(self, num: int, mean: Tensor) -> None:
        self.num, self.mean = self.num + num, (self.mean * self.num + mean * num) / max(self.num + num, 1)


class InSinglePrecision(Moments):
    def update(self, features: Tensor) -> None:
        super().update(features.float())


class MeanOfMeans(Moments):
    def _shift(self, num: int, mean: Tensor) -> None:
        before = self.mean.clone()
        super()._shift(num, mean)
        if num < self.num:
            self.mean = (before + mean) / 2


@pytest.mark.parametrize("mutant", [SumOfSquares, WithoutBetween, InSinglePrecision, MeanOfMeans])
def test_wrong_moments(mutant: type[Moments]) -> None:
    kills(equal_numpy, mutant)


def test_blocks_within_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that is larger than what is in float64 at a time."""
    monkeypatch.setattr(statistics, "_ROWS", 64)
    equal_numpy(Moments)


def test_ranks() -> None:
    """Merged shares equal one pass, whatever the shares are, an empty one included; so does a stored state."""
    x = samples()
    whole = filled(Moments, x, [500])
    for cut in (0, 1, 123, 499, 500):
        parts = [filled(Moments, part, [len(part)]) for part in (x[:cut], x[cut:])]
        merged = Moments.from_state(parts[0].state()).merge(parts[1])
        assert merged.num == 500
        assert torch.allclose(merged.mean, whole.mean, rtol=1e-13)
        assert torch.allclose(merged.covariance(), whole.covariance(), rtol=1e-12)
    assert all(isinstance(value, Tensor) for value in whole.state().values())
    state = whole.state()
    whole.update(x)
    assert torch.equal(Moments.from_state(state).mean, filled(Moments, x, [500]).mean)  # a copy, not the object's own


def test_memory_is_of_two_matrices() -> None:
    """However many samples there are, the state holds a mean and one matrix."""
    sizes = [sum(value.numel() for value in filled(Moments, samples(num), [num]).state().values()) for num in (10, 500)]
    assert sizes == [1 + 5 + 25] * 2


def test_refusals() -> None:
    with pytest.raises(UserError, match="not finite"):
        Moments(2).update(torch.tensor([[0.0, 1.0], [float("nan"), 0.0]]))
    with pytest.raises(UserError, match="at least 2 samples, and there are 1"):
        filled(Moments, torch.zeros(1, 3), [1]).covariance()
    with pytest.raises(ValueError, match=r"\(N, 2\) was expected"):
        Moments(2).update(torch.zeros(3, 4))


# Bank


def rows_of(cls: type[Bank], limit: int, sizes: list[int], *, seed: int = 0) -> Bank:
    """A bank that was shown as many rows as sizes sum to; each row is its index twice."""
    bank, total = cls(limit, seed=seed), sum(sizes)
    for part in torch.split(torch.arange(total), sizes):
        bank.update(torch.stack([part, part], 1).float())
    return bank


def keeps_a_uniform_draw(cls: type[Bank]) -> None:
    """The same rows for any batches, in the order of indices; over seeds, every index is as likely as any other."""
    bank = rows_of(cls, 10, [100])
    for sizes in ([1] * 100, [30, 0, 50, 20], [5, 95]):
        assert torch.equal(rows_of(cls, 10, sizes).rows, bank.rows)
    assert torch.equal(bank.rows[:, 0].long(), bank.indices)
    assert torch.equal(bank.indices, bank.indices.sort().values)
    counts = torch.zeros(100)
    for seed in range(1000):
        counts[rows_of(cls, 10, [100], seed=seed).indices] += 1
    assert counts.sum() == 10_000
    # Drawn without replacement, the counts' sum of squares is smaller than chi-square's, by 1 - 10/100.
    statistic = float(((counts - 100) ** 2 / 100).sum()) / 0.9
    assert 1e-6 < scipy.stats.chi2(99).cdf(statistic) < 1 - 1e-6


def test_bank() -> None:
    keeps_a_uniform_draw(Bank)


class First(Bank):
    """Keeps what comes first: of data sorted by class, one class."""

    def _replace(self, rows: Tensor, indices: np.ndarray) -> None:
        pass


class ByCall(Bank):
    """Draws anew in each call, so that batches matter."""

    def _replace(self, rows: Tensor, indices: np.ndarray) -> None:
        self.seed += 1
        super()._replace(rows, indices)


@pytest.mark.parametrize("mutant", [First, ByCall])
def test_wrong_banks(mutant: type[Bank]) -> None:
    kills(keeps_a_uniform_draw, mutant)


def test_a_bank_of_everything() -> None:
    """Below its limit it keeps each row, as float32, in the order of indices, whatever the order of arrival."""
    x = samples(40)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    bank = Bank(50)
    for part in order.split(7):
        bank.update(x[part], part)
    assert bank.num_seen == 40
    assert torch.equal(bank.rows, x.float())
    bank.update(x[:1], torch.tensor([40]))
    assert torch.equal(bank.rows, torch.cat([x, x[:1]]).float())


def test_banks_of_ranks() -> None:
    """Two processes, each with every other sample, keep together what one would have kept."""
    x = samples(300)
    one, ranks = Bank(64), [Bank(64), Bank(64)]
    one.update(x)
    for rank, bank in enumerate(ranks):
        own = torch.arange(rank, 300, 2)
        bank.update(x[own], own)
    merged = ranks[0].merge(ranks[1])
    assert merged.num_seen == 300
    assert torch.equal(merged.indices, one.indices)
    assert torch.equal(merged.rows, one.rows)


def test_keyed_numbers() -> None:
    """They depend on seed and number alone, differ, and each of their bits is set in half of them."""
    numbers = keyed(3, np.arange(4000))
    assert np.array_equal(numbers[10:20], keyed(3, np.arange(10, 20)))
    assert len(set(numbers.tolist()) | set(keyed(4, np.arange(4000)).tolist())) == 8000
    bits = (numbers[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    assert np.abs(bits.mean(0) - 0.5).max() < 5 * 0.5 / np.sqrt(4000)
