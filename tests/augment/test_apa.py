"""APA: with probability p a real sample is the fake of its place, in the discriminator's turn only."""

from __future__ import annotations

import pytest
import torch

from ganzoo.augment import APA
from ganzoo.models import MLPGAN
from ganzoo.parts import Part, Turn
from ganzoo.penalties import R1
from tests.augment.common import stream
from tests.common import fit, normal_batches
from tests.mutants import kills


def turn_of(num: int, player: str = "discriminator") -> Turn:
    g = torch.Generator().manual_seed(0)
    turn = Turn(MLPGAN(hidden=4), player, 0, 0.0)
    turn.real, turn.fake = torch.randn(num, 2, generator=g), torch.randn(num, 2, generator=g)
    return turn


def check_replacement(cls) -> None:
    num, p = 4000, 0.3
    turn = turn_of(num)
    real, fake = turn.real, turn.fake
    with stream(num):
        cls(p=p, target=None).generated(turn)
    replaced = (turn.real != real).any(1)
    assert torch.equal(turn.real[~replaced], real[~replaced])
    assert torch.equal(turn.real[replaced], fake[replaced])  # of the same place, hence of the same label
    assert abs(replaced.float().mean().item() - p) < 5 * (p * (1 - p) / num) ** 0.5
    neighbours = (replaced[1:] & replaced[:-1]).float().mean().item()
    assert abs(neighbours - p * p) < 0.05  # samples are drawn one by one
    assert turn.fake is fake


class WholeBatch(APA):
    def generated(self, turn):
        if torch.rand(1).item() < 2:
            turn.real = turn.fake


class OtherPlace(APA):
    def generated(self, turn):
        fake, turn.fake = turn.fake, turn.fake.roll(1, 0)
        super().generated(turn)
        turn.fake = fake


class OneMinusP(APA):
    def generated(self, turn):
        self.p.copy_(1 - self.p)
        super().generated(turn)


def test_replacement() -> None:
    check_replacement(APA)
    for mutant in (WholeBatch, OtherPlace, OneMinusP):
        kills(check_replacement, mutant)


def test_nothing_is_replaced_at_zero_and_everything_at_one() -> None:
    turn = turn_of(8)
    real = turn.real
    APA().generated(turn)
    assert turn.real is real
    APA(1.0, target=None).generated(turn)
    assert torch.equal(turn.real, turn.fake)


def test_what_the_discriminator_is_shown_as_real_and_as_fake() -> None:
    """In a run: a mixture in the discriminator's turn, which R1 sees too; the data itself in the generator's."""
    seen = []

    class Look(Part):
        def inputs(self, turn: Turn, data, labels):
            seen.append((turn.player, data.detach().clone(), turn.fake.detach().clone()))
            return data, labels

        def forward(self, turn: Turn):
            seen.append((turn.player, turn.real.detach().clone(), turn.real.requires_grad))

    torch.manual_seed(0)
    batches = normal_batches(64, 2)
    gan = MLPGAN(hidden=8, parts=[Look(), APA(0.5, target=None)], penalties=[R1()])
    fit(gan, batches, max_steps=1)
    (_, shown, fake), (_, shown_as_fake, _), (_, real, tracked) = seen[:3]
    given = batches.given[0]
    replaced = (shown == fake).all(1)
    assert 0 < replaced.sum() < 64
    assert torch.equal(shown[~replaced], given[~replaced])
    assert torch.equal(shown_as_fake, fake)
    assert torch.equal(real, shown)  # where R1 is taken
    assert tracked
    assert seen[-1][0] == "generator"
    assert torch.equal(seen[-1][1], given)


def test_two_halves_of_the_joint_batch_equal_the_whole() -> None:
    whole, halves = turn_of(8), []
    real, fake = whole.real, whole.fake
    with stream(8):
        APA(0.5, target=None).generated(whole)
    for start in (0, 4):
        half = turn_of(4)
        half.real, half.fake = real[start : start + 4], fake[start : start + 4]
        with stream(4, start=start, total=8):
            APA(0.5, target=None).generated(half)
        halves.append(half.real)
    assert torch.equal(whole.real, torch.cat(halves))


@pytest.mark.parametrize("tracked", [True, False])
def test_a_tracked_batch_stays_tracked(tracked) -> None:
    turn = turn_of(8)
    turn.track_real = tracked
    turn.real.requires_grad_(tracked)
    APA(0.5, target=None).generated(turn)
    assert turn.real.requires_grad is tracked
    assert turn.real.is_leaf
