"""P8: values of schedules at given kimg."""

import math

import pytest

from ganzoo.errors import UserError
from ganzoo.schedules import Constant, Cosine, Exponential, Linear, Piecewise, value_at


@pytest.mark.parametrize(
    ("schedule", "kimg", "value"),
    [
        (Constant(3.0), 1e9, 3.0),
        (Linear(1.0, 0.0, to_kimg=10), 0, 1.0),
        (Linear(1.0, 0.0, to_kimg=10), 2.5, 0.75),
        (Linear(1.0, 0.0, to_kimg=10), 11, 0.0),
        (Linear(4.0, 8.0, from_kimg=2, to_kimg=4), 1, 4.0),
        (Linear(4.0, 8.0, from_kimg=2, to_kimg=4), 3, 6.0),
        (Cosine(1.0, 0.2, to_kimg=8), 0, 1.0),
        (Cosine(1.0, 0.2, to_kimg=8), 4, 0.6),
        (Cosine(1.0, 0.2, to_kimg=8), 2, 0.2 + 0.8 * (1 + math.sqrt(0.5)) / 2),
        (Cosine(1.0, 0.2, to_kimg=8), 9, 0.2),
        (Exponential(8.0, half_life_kimg=5), 10, 2.0),
        (Piecewise([(0, 1.0), (10, 3.0), (20, 0.0)]), 5, 2.0),
        (Piecewise([(0, 1.0), (10, 3.0), (20, 0.0)]), 15, 1.5),
        (Piecewise([(1, 7.0), (2, 9.0)]), 0.5, 7.0),
        (Piecewise([(1, 7.0), (2, 9.0)], steps=True), 1.9, 7.0),
        (Piecewise([(1, 7.0), (2, 9.0)], steps=True), 2.0, 9.0),
    ],
)
def test_value(schedule, kimg, value) -> None:
    assert schedule(kimg) == pytest.approx(value, abs=1e-12)
    assert value_at(schedule, kimg) == schedule(kimg)


def test_a_number_is_a_constant() -> None:
    assert value_at(0.25, 17.0) == 0.25


@pytest.mark.parametrize(
    "make",
    [
        lambda: Linear(to_kimg=0),
        lambda: Cosine(from_kimg=5, to_kimg=5),
        lambda: Piecewise([(2, 1.0), (1, 1.0)]),
        lambda: Piecewise([]),
        lambda: Exponential(half_life_kimg=0),
    ],
)
def test_impossible_schedules_are_refused(make) -> None:
    with pytest.raises(UserError):
        make()
