"""Scalars that are read later: means, the first bad one, and a state that loses nothing."""

import math

import pytest
import torch

from ganzoo.meter import Meter
from ganzoo.plan import Clock


def filled(values: list[float], *, limit: int = 4096) -> Meter:
    meter = Meter()
    meter.limit = limit
    for turn, value in enumerate(values):
        meter.add("a", torch.tensor(value), turn)
        meter.add("b", torch.tensor(2 * value), turn)
    return meter


@pytest.mark.parametrize("limit", [1, 2, 3, 4096])
def test_means_whether_values_are_kept_or_summed(limit) -> None:
    values = [1.0, 4.0, -2.5, 8.25, 0.125, 3.0, 7.5]
    means = filled(values, limit=limit).means()
    assert means == {"a": pytest.approx(sum(values) / 7, rel=1e-12), "b": pytest.approx(2 * sum(values) / 7, rel=1e-12)}


@pytest.mark.parametrize("limit", [1, 3, 4096])
def test_earliest_bad_value_is_found_whether_kept_or_summed(limit) -> None:
    meter = filled([1.0, 2.0, math.inf, math.nan, 5.0, 6.0, 7.0], limit=limit)
    assert meter.first_bad() == ("a", 2)
    meter.clear()
    assert meter.first_bad() is None
    meter.add("b", torch.tensor(math.nan), 9)
    assert meter.first_bad() == ("b", 9)


def test_no_more_than_the_limit_is_kept() -> None:
    meter = filled([float(i) for i in range(100)], limit=8)
    assert all(len(values) <= 8 for values in meter.values().values())
    assert meter.means()["a"] == pytest.approx(49.5)


@pytest.mark.parametrize("cut", [0, 1, 5, 9])
def test_a_meter_that_is_saved_and_loaded_goes_on_as_if_nothing_had_been(cut) -> None:
    values = [0.1, -3.0, 2.7, 1e-8, 5e8, 0.3, 7.0, -1.0, 0.7, 0.9]
    whole = filled(values, limit=4)
    first, second = filled(values[:cut], limit=4), Meter()
    second.limit = 4
    second.load(first.state())
    for turn, value in enumerate(values[cut:], cut):
        second.add("a", torch.tensor(value), turn)
        second.add("b", torch.tensor(2 * value), turn)
    assert second.means() == whole.means()
    assert second.state() == whole.state()


def test_of_scores_between_two_readings_the_last_one_counts() -> None:
    meter, clock = Meter(), Clock(images=100, g_turns=3)
    meter.score("eval/x", 5.0, clock)
    meter.means()  # read before
    clock.images, clock.g_turns = 200, 4
    meter.score("eval/x", 1 / 3, clock)
    meter.score("eval/y", 2.0, clock, passing=True)
    assert meter.means() == {"eval/x": 1 / 3}
    assert meter.scores == {"eval/x": (200, 1 / 3)}
    assert meter.take_passing() == {"eval/y": 2.0} and meter.take_passing() == {}
    again = Meter()
    again.load(meter.state())
    assert again.means() == {"eval/x": 1 / 3}
