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
from ganzoo.metrics.path import PathLength, lengths, slerp, step, trimmed
from tests.mutants import kills

Measure = Callable[..., PathLength]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def path_length(
    generate: Callable[[Tensor], Tensor],
    start: Tensor,
    end: Tensor,
    *,
    position: Tensor | None = None,
    interpolation: Any = "slerp",
    epsilon: float = 1e-4,
    trim: float = 0.01,
) -> PathLength:
    """The parts as they are used, with pixels as features."""
    if position is None:
        position = torch.rand(len(start), generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    ends = step(start, end, position, interpolation=interpolation, epsilon=epsilon)
    return trimmed(lengths(*(generate(x).flatten(1) for x in ends), epsilon), trim)


def linear(measure: Measure) -> None:
    """g(z) = A z with squared distance, straight paths: |A (b - a)|^2 wherever on the path, whatever epsilon is."""
    start, end, a = draw(100, 8), draw(100, 8, seed=1), draw(3, 8, seed=2)
    expected = ((end - start) @ a.T).square().sum(1)
    for options in ({}, {"epsilon": 1e-3}, {"position": torch.zeros(100)}):
        found = measure(lambda z: (z @ a.T)[:, :, None, None], start, end, interpolation="lerp", trim=0, **options)
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
        found = measure(lambda z: z, start, end, trim=0, epsilon=epsilon)
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
    found = measure(torch.square, start, end, interpolation="lerp", position=t, trim=0, epsilon=1e-6)
    assert found.mean == pytest.approx(float(expected.mean()), rel=1e-4)


@pytest.mark.parametrize("check", [linear, arcs, curved])
def test_closed_forms(check: Callable[[Measure], None]) -> None:
    check(path_length)


def without_division(*given: Any, epsilon: float = 1e-4, **options: Any) -> PathLength:
    right = path_length(*given, epsilon=epsilon, **options)
    return right._replace(mean=right.mean * epsilon)


def test_wrong_lengths() -> None:
    kills(linear, without_division)
    kills(linear, lambda g, a, b, **options: path_length(g, a, b, **options | {"interpolation": "slerp"}))
    kills(linear, lambda g, a, b, **options: path_length(g, a, b, **options | {"trim": 0.1}))
    kills(arcs, lambda g, a, b, **options: path_length(g, a, b, **options, interpolation="lerp"))
    kills(arcs, lambda g, a, b, **options: path_length(lambda z: g(z) / 2, a, b, **options))
    kills(curved, lambda g, a, b, **options: path_length(g, b, a, **options))
    kills(curved, lambda g, a, b, **options: path_length(g, a, b, **options | {"position": None}))


def test_trimming() -> None:
    """The shortest and longest percent are left out: of 1 ... 1000 the quantiles' outer neighbours are kept."""
    start = torch.zeros(1000, 1, dtype=torch.float64)
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    end = torch.arange(1.0, 1001, dtype=torch.float64).sqrt()[order, None]
    found = path_length(lambda z: z, start, end, interpolation="lerp", epsilon=0.5)
    assert found.num == 982
    assert found.mean == pytest.approx(np.arange(10, 992).mean(), rel=1e-9)
    outlier = end.clone()
    outlier[0] = 1e6
    assert path_length(lambda z: z, start, outlier, interpolation="lerp").mean < 600


def test_steps_keep_the_shape_of_styles() -> None:
    """Straight ways also between styles of several layers; the step is epsilon of the way."""
    start, end = draw(5, 3, 4), draw(5, 3, 4, seed=1)
    first, second = step(start, end, torch.full((5,), 0.25), interpolation="lerp", epsilon=0.5)
    assert torch.allclose(first, 0.75 * start + 0.25 * end)
    assert torch.allclose(second, 0.25 * start + 0.75 * end)


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
        trimmed(torch.ones(3), 0.5)
    with pytest.raises(UserError, match="Of 0 paths"):
        trimmed(torch.ones(0))
