"""Dropout with a keyed mask."""

import pytest
import torch

from ganzoo import streams
from ganzoo.errors import UserError
from ganzoo.layers.dropout import Dropout

CPU = torch.device("cpu")


def apply(x: torch.Tensor, start: int, total: int) -> torch.Tensor:
    with streams.stream(3, start=start, num=len(x), total=total, device=CPU):
        return Dropout(0.25)(x)


def test_share_and_scale() -> None:
    out = apply(torch.ones(100, 500), 0, 100)
    assert out.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert (out == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)


def test_two_halves_equal_the_whole() -> None:
    x = torch.randn(10, 7)
    assert torch.equal(torch.cat([apply(x[:5], 0, 10), apply(x[5:], 5, 10)]), apply(x, 0, 10))


def test_identity_in_evaluation() -> None:
    x = torch.randn(4, 4)
    assert Dropout(0.9).eval()(x) is x


def test_impossible_probability_is_refused() -> None:
    with pytest.raises(UserError, match=r"\[0, 1\)"):
        Dropout(1.0)
