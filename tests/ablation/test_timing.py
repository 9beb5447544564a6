"""Costs of parts whose cost is known: they keep the processor busy for a given time."""

from __future__ import annotations

import json
import time
from dataclasses import asdict

import pytest
import torch

from ganzoo.ablation.timing import Cost, Subject, compare
from ganzoo.data import Ring
from ganzoo.models import MLPGAN
from ganzoo.parts import Part, Turn
from ganzoo.plan import Play


class Busy(Part):
    """Computes for ``ms`` of processor time in each ``every``-th discriminator turn."""

    players = ("discriminator",)

    def __init__(self, ms: float, *, every: int = 1) -> None:
        super().__init__()
        self.ms, self.every = ms, every

    def after_step(self, turn: Turn) -> None:
        until = time.thread_time() + self.ms / 1000
        while turn.number % self.every == 0 and time.thread_time() < until:
            pass


def subject(*parts: Part, **options: object) -> Subject:
    gan = MLPGAN(total_kimg=0.016, parts=list(parts), hidden=8, num_layers=1, **options)
    return Subject(gan, Ring(batch_size=8), {"accelerator": "cpu"})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("every", [1, 8])
def test_the_ratio_is_that_of_known_costs(every: int) -> None:
    """A term that costs 8 times as much in each eighth turn costs as much per cycle, in each burst."""
    cost = compare(subject(Busy(5.0)), subject(Busy(5.0), Busy(5.0 * every, every=every)), seconds=0.1, min_pairs=9)
    assert cost.num_cycles % every == 0
    added = cost.ms.cpu - cost.base_ms.cpu
    assert added == pytest.approx(5.0, rel=0.3)
    assert cost.ratio == cost.cpu == pytest.approx(cost.ms.cpu / cost.base_ms.cpu, rel=0.15)
    assert 1.5 < cost.ratio < 2.1
    assert cost.cpu_quartiles[0] <= cost.cpu <= cost.cpu_quartiles[1]
    assert cost.num_pairs >= 9


@pytest.mark.filterwarnings("ignore")
def test_images_per_cycle_and_the_way_through_json() -> None:
    before = torch.random.get_rng_state()
    one, other = subject(), subject(play=Play(d=3))
    cost = compare(one, other, seconds=0.1, min_pairs=2, max_pairs=2)
    assert (cost.base_images, cost.images, cost.num_pairs) == (8, 24, 2)
    assert one.gan.clock.cycles >= 2 * cost.num_cycles
    assert Cost.load(json.loads(json.dumps(asdict(cost)))) == cost
    torch.random.set_rng_state(before)
