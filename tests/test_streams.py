"""Keyed random numbers: joint over ranks, independent of state, different for different purposes."""

import pytest
import torch

from ganzoo import streams
from ganzoo.errors import UserError

CPU = torch.device("cpu")


def draw(start: int, num: int, total: int = 12, *, key: tuple = (7, "d", 3), purpose: str = "latent") -> torch.Tensor:
    with streams.stream(*key, start=start, num=num, total=total, device=CPU):
        return streams.randn(num, 4, purpose=purpose)


def test_ranks_together_hold_the_rows_of_one_process() -> None:
    joint = draw(0, 12)
    parts = [draw(start, 4) for start in (0, 4, 8)]
    assert torch.equal(torch.cat(parts), joint)
    assert len({tuple(row.tolist()) for row in joint}) == 12


def test_several_rows_per_sample_are_joint_too_and_other_sizes_are_the_same_for_all() -> None:
    def both(start: int, num: int, total: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        with streams.stream(4, start=start, num=num, total=total, device=CPU):
            return (
                streams.randn(3 * num, 2, purpose="a"),
                streams.rand(1 if num > 1 else 7, purpose="shared"),
                streams.randn(num, purpose="a"),
            )

    whole, halves = both(0, 8, 8), [both(0, 4, 8), both(4, 4, 8)]
    assert torch.equal(torch.cat([half[0] for half in halves]), whole[0])
    assert torch.equal(torch.cat([half[2] for half in halves]), whole[2])
    assert torch.equal(halves[0][1], whole[1])
    assert torch.equal(halves[1][1], whole[1])


def test_a_draw_depends_on_every_part_of_its_key_and_on_its_purpose() -> None:
    base = draw(0, 12)
    others = [draw(0, 12, key=k) for k in [(8, "d", 3), (7, "g", 3), (7, "d", 4)]]
    assert all(not torch.equal(base, other) for other in [*others, draw(0, 12, purpose="noise")])
    assert torch.equal(base, draw(0, 12))


def test_second_draw_of_a_purpose_differs_and_other_purposes_do_not_disturb_it() -> None:
    with streams.stream(1, start=0, num=5, total=5, device=CPU):
        first, second = streams.rand(5, purpose="a"), streams.rand(5, purpose="a")
    with streams.stream(1, start=0, num=5, total=5, device=CPU):
        streams.randn(5, 3, purpose="b")
        again = streams.rand(5, purpose="a")
        streams.randint(9, 5, purpose="c")
        again_second = streams.rand(5, purpose="a")
    assert not torch.equal(first, second)
    assert torch.equal(first, again)
    assert torch.equal(second, again_second)


def test_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    draw(0, 12)
    assert torch.equal(before, torch.get_rng_state())


def test_seed_global_gives_what_manual_seed_gives() -> None:
    streams.seed_global(CPU, 5, "x")
    got = torch.randn(3)
    torch.manual_seed(streams.key(5, "x"))
    assert torch.equal(got, torch.randn(3))


def test_keys_are_the_same_in_every_process_and_well_spread() -> None:
    # splitmix64 of the parts, evaluated by hand for one key: any change of it would change every run
    mask = (1 << 64) - 1
    state = ((0x9E3779B97F4A7C15 ^ 42) + 0x9E3779B97F4A7C15) & mask
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & mask
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB & mask
    state ^= state >> 31
    assert streams.key(42) == state >> 1
    keys = {streams.key(a, b) for a in range(100) for b in range(100)}
    assert len(keys) == 10_000
    assert abs(sum(k >> 62 for k in keys) / 10_000 - 0.5) < 0.02


def test_kept_draws_are_drawn_once_and_can_be_changed() -> None:
    with streams.numbered([4, 9], 3, device=CPU):
        first, second = (streams.randn(2, 5, purpose="a") for _ in range(2))
    values: dict[str, torch.Tensor] = {}
    with streams.numbered([4, 9], 3, device=CPU):
        with streams.kept(values):
            drawn = [streams.randn(2, 5, purpose="a"), streams.randn(2, 5, purpose="a")]
            other = streams.rand(2, purpose="b")
        outside = streams.randn(2, 5, purpose="a")
    assert all(torch.equal(one, first) for one in drawn)
    assert torch.equal(outside, second)
    assert values.keys() == {"a", "b"}
    assert torch.equal(values["b"], other)
    values["a"] = torch.zeros(2, 5)
    with streams.numbered([0, 1], 8, device=CPU), streams.kept(values):
        assert torch.equal(streams.randn(2, 5, purpose="a"), torch.zeros(2, 5))
        with pytest.raises(UserError, match=r"\(2, 6\) were drawn for 'a', where \(2, 5\) were kept"):
            streams.randn(2, 6, purpose="a")
