"""Path length: linear generators and arcs, whose length is known; trimming; interpolation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ganzoo.errors import UserError
from ganzoo.metrics.path import PathLength, path_length, slerp
from tests.mutants import kills

Measure = Callable[..., PathLength]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def squared(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().flatten(1).sum(1)


def linear(measure: Measure) -> None:
    """g(z) = A z with squared distance, straight paths: |A (b - a)|^2 wherever on the path, whatever epsilon is."""
    start, end, a = draw(100, 8), draw(100, 8, seed=1), draw(3, 8, seed=2)
    expected = ((end - start) @ a.T).square().sum(1)
    for options in ({}, {"epsilon": 1e-3}, {"position": torch.zeros(100)}, {"batch_size": 7}, {"seed": 5}):
        found = measure(
            lambda z: (z @ a.T)[:, :, None, None], squared, start, end, interpolation="lerp", trim=0, **options
        )
        assert found.mean == pytest.approx(float(expected.mean()), rel=1e-6)
        assert found.std == pytest.approx(float(expected.std(correction=0)), rel=1e-6)
        assert found.num == 100


def arcs(measure: Measure) -> None:
    """The identity, on great circles: the chord of the angle epsilon w, for directions at angle w and any length."""
    start, end = (draw(50, 8, seed=i) for i in (0, 1))
    start, end = (3 * x / x.norm(dim=1, keepdim=True) for x in (start, end))
    angle = ((start * end).sum(1) / 9).acos()
    for epsilon in (1e-4, 0.1):
        expected = (2 * 3 * (epsilon * angle / 2).sin() / epsilon).square()
        found = measure(lambda z: z, squared, start, end, trim=0, epsilon=epsilon)
        assert found.mean == pytest.approx(float(expected.mean()), rel=1e-6)


def curved(measure: Measure) -> None:
    """g(z) = z^2 on the line: the slope at t is 2 z (b - a), so where the step is taken matters."""
    start, end, t = (
        draw(40, 1),
        draw(40, 1, seed=1),
        torch.rand(40, generator=torch.Generator().manual_seed(3)).double(),
    )
    z = start[:, 0] + t * (end - start)[:, 0]
    expected = (2 * z * (end - start)[:, 0]).square()
    found = measure(torch.square, squared, start, end, interpolation="lerp", position=t, trim=0, epsilon=1e-6)
    assert found.mean == pytest.approx(float(expected.mean()), rel=1e-4)


@pytest.mark.parametrize("check", [linear, arcs, curved])
def test_closed_forms(check: Callable[[Measure], None]) -> None:
    check(path_length)


def without_division(*given: Any, epsilon: float = 1e-4, **options: Any) -> PathLength:
    right = path_length(*given, epsilon=epsilon, **options)
    return right._replace(mean=right.mean * epsilon)


def test_wrong_lengths() -> None:
    kills(linear, without_division)
    kills(linear, lambda g, d, a, b, **options: path_length(g, d, a, b, **options | {"interpolation": "slerp"}))
    kills(linear, lambda g, d, a, b, **options: path_length(g, d, a, b, **options | {"trim": 0.1}))
    kills(arcs, lambda g, d, a, b, **options: path_length(g, d, a, b, **options, interpolation="lerp"))
    kills(arcs, lambda g, d, a, b, **options: path_length(g, lambda x, y: d(x, y).sqrt(), a, b, **options))
    kills(curved, lambda g, d, a, b, **options: path_length(g, d, b, a, **options))
    kills(curved, lambda g, d, a, b, **options: path_length(g, d, a, b, **options | {"position": None}))


def test_trimming() -> None:
    """The shortest and longest percent are left out: of 1 ... 1000 the quantiles' outer neighbours are kept."""
    start = torch.zeros(1000, 1, dtype=torch.float64)
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    end = torch.arange(1.0, 1001, dtype=torch.float64).sqrt()[order, None]
    found = path_length(lambda z: z, squared, start, end, interpolation="lerp", epsilon=0.5)
    assert found.num == 982
    assert found.mean == pytest.approx(np.arange(10, 992).mean(), rel=1e-9)
    outlier = end.clone()
    outlier[0] = 1e6
    assert path_length(lambda z: z, squared, start, outlier, interpolation="lerp").mean < 600


def test_places() -> None:
    """t is uniform: the mean of (2 t)^2 of g(z) = z^2 from 0 to 1 is 4/3. The seed decides it; batches don't."""
    start, end = torch.zeros(20_000, 1).double(), torch.ones(20_000, 1).double()

    def measure(**options: int) -> float:
        return path_length(torch.square, squared, start, end, interpolation="lerp", trim=0, **options).mean

    assert abs(measure() - 4 / 3) < 4 * math.sqrt(16 / 5 - 16 / 9) / math.sqrt(20_000) + 1e-3
    assert measure(batch_size=999) == pytest.approx(measure(), rel=1e-12)
    assert measure(seed=1) != measure()


def test_both_ends_in_one_batch() -> None:
    """A generator whose layers draw noise can give both ends the same: they are the halves of its batch."""
    seen = list[Tensor]()
    start, end = draw(5, 4), draw(5, 4, seed=1)
    path_length(lambda z: seen.append(z) or z, squared, start, end, position=torch.zeros(5), trim=0)
    assert torch.allclose(seen[0][:5], start, rtol=1e-12)
    assert torch.allclose(seen[0][5:], start, atol=1e-2)
    assert not torch.equal(seen[0][5:], start)


def test_slerp() -> None:
    """Ends are kept; halves of right angles are at 45 degrees; lengths in between are means; equal latents stay."""
    a, b = draw(6, 5), draw(6, 5, seed=1)
    for t, end in ((0.0, a), (1.0, b)):
        assert torch.allclose(slerp(a, b, torch.full((6, 1), t).double()), end, rtol=1e-12)
    x, y, half = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 4.0]]), torch.tensor([[0.5]])
    assert torch.allclose(slerp(x, y, half), torch.tensor([[3.0, 3.0]]) / math.sqrt(2))
    assert torch.allclose(slerp(a, a, torch.full((6, 1), 0.3).double()), a, rtol=1e-12)


def test_refusals() -> None:
    with pytest.raises(UserError, match=r"share of 0\.5"):
        path_length(lambda z: z, squared, draw(3, 2), draw(3, 2), trim=0.5)
    with pytest.raises(UserError, match="Of 0 paths"):
        path_length(lambda z: z, squared, draw(0, 2), draw(0, 2))
