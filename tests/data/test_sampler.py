"""The order of pictures: a permutation per epoch, the same for any number of processes, and resumable anywhere."""

from __future__ import annotations

import math
import pickle
from collections import Counter
from itertools import chain, islice

import numpy as np
import pytest
from torch.utils.data import DistributedSampler

from ganzoo.data.sampler import EndlessSampler, permute
from ganzoo.errors import UserError


def stream(num_micro: int, start: int = 0, **options: int) -> list[list[int]]:
    sampler = EndlessSampler(**options)
    sampler.start = start
    return [batch.tolist() for batch in islice(sampler, num_micro)]


@pytest.mark.parametrize("num", [1, 2, 3, 7, 64, 100, 1797, 65537])
def test_a_permutation_holds_each_number_once(num: int) -> None:
    assert sorted(permute(np.arange(num), num, 5, "order", 2).tolist()) == list(range(num))


def test_an_entry_does_not_depend_on_what_else_is_asked() -> None:
    whole = permute(np.arange(1000), 1000, "key")
    for i in (0, 17, 999):
        assert permute(np.array([i]), 1000, "key").tolist() == [whole[i]]


def test_all_permutations_are_equally_likely() -> None:
    num_keys, num_orders = 2400, math.factorial(4)
    seen = Counter(tuple(permute(np.arange(4), 4, key).tolist()) for key in range(num_keys))
    expected = num_keys / num_orders
    chi_square = sum((count - expected) ** 2 / expected for count in seen.values())
    assert len(seen) == num_orders
    assert chi_square < 23 + 5 * math.sqrt(2 * 23)  # 23 degrees of freedom, five standard deviations


def test_neighbours_in_the_order_are_unrelated() -> None:
    order = permute(np.arange(50_000), 50_000, 1)
    for a, b in ((order[:-1], order[1:]), (np.arange(50_000), order)):
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / math.sqrt(50_000)


def test_every_picture_once_per_epoch_and_epochs_differ() -> None:
    flat = list(chain(*stream(15, num=10, batch_size=4)))
    epochs = [flat[i : i + 10] for i in range(0, 60, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6


@pytest.mark.parametrize(("world", "accumulate"), [(2, 1), (1, 3), (2, 3), (6, 2)])
def test_processes_and_micro_batches_share_one_stream(world: int, accumulate: int) -> None:
    whole = stream(10, num=17, batch_size=12, seed=3)
    ranks = [
        stream(10 * accumulate, num=17, batch_size=12, seed=3, world=world, rank=rank, accumulate=accumulate)
        for rank in range(world)
    ]
    for k in range(10):
        blocks = [ranks[r][k * accumulate + m] for m in range(accumulate) for r in range(world)]
        assert list(chain(*blocks)) == whole[k]


def test_the_seed_changes_the_order() -> None:
    assert stream(2, num=100, batch_size=10, seed=0) != stream(2, num=100, batch_size=10, seed=1)


@pytest.mark.parametrize("done", [1, 2, 7, 1500])
def test_a_stream_that_is_taken_up_again_goes_on(done: int) -> None:
    options = {"num": 9, "batch_size": 6, "accumulate": 2}
    assert stream(8, start=6 * done, **options) == stream(2 * done + 8, **options)[2 * done :]


def test_a_source_without_end_gets_places() -> None:
    assert stream(2, start=8, num=None, batch_size=4) == [[8, 9, 10, 11], [12, 13, 14, 15]]  # type: ignore[arg-type]


def test_an_indivisible_batch_is_refused_with_the_numbers() -> None:
    with pytest.raises(UserError, match=r"batch_size of 64 .* 3 processes with 2 micro-batches.*multiple of 6"):
        EndlessSampler(100, batch_size=64, world=3, accumulate=2)


def test_lightning_leaves_it_alone_and_sees_no_end() -> None:
    sampler = EndlessSampler(10, batch_size=2)
    assert isinstance(sampler, DistributedSampler)
    sampler.set_epoch(5)  # Lightning does, and it must not matter
    assert next(iter(sampler)).tolist() == stream(1, num=10, batch_size=2)[0]
    with pytest.raises(TypeError):
        len(sampler)
    assert next(iter(pickle.loads(pickle.dumps(sampler)))).tolist() == stream(1, num=10, batch_size=2)[0]
