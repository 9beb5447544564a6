"""Top-k: who gets a gradient, how much of it, and how the share falls."""

from __future__ import annotations

import pytest
import torch

from ganzoo.errors import UserError
from ganzoo.losses import D2GAN, Hinge, Relativistic
from ganzoo.parts import Turn
from ganzoo.tricks import DualDiscriminator, TopK
from tests.common import flat
from tests.mutants import kills
from tests.tricks.fits import keep_gradient_of_fakes, run, small, survives, watched


def check_selection(cls) -> None:
    """In a real turn the best half has the gradient of a batch of that half; the others have none."""
    seen = []
    gan = small("points", cls(0.5, factor=1e-9), loss=Hinge())
    gan.clock.images = 1000  # the share has fallen to its minimum
    watched(gan, generated=keep_gradient_of_fakes, after_backward=lambda turn: seen.append(turn))
    run(gan, "points", 1)
    turn = seen[1]
    assert (turn.player, len(turn.fake)) == ("generator", 8)
    best = sorted(range(8), key=lambda i: -turn.fake_logits[i].item())[:4]
    assert {i for i in range(8) if turn.fake.grad[i].abs().sum() > 0} == set(best)
    assert turn.logs == {}
    assert gan.meter.values()["loss/g"][0] == pytest.approx(-turn.fake_logits[best].mean().item(), rel=1e-6)
    assert len(seen[0].fake_logits) == 8  # the discriminator's turn sees all


class Worst(TopK):
    def logits(self, turn, real, fake):
        real, fake = super().logits(turn, real, -fake)
        return real, -fake


class First(TopK):
    def logits(self, turn, real, fake):
        return real, fake[: len(fake) // 2]


class Masked(TopK):
    """Zeroes instead of fewer fakes: the mean is over all."""

    def logits(self, turn, real, fake):
        return real, torch.where(fake >= fake.median(), fake, 0.0)


def test_only_the_best_fakes_teach_the_generator() -> None:
    check_selection(TopK)
    for mutant in (Worst, First, Masked):
        kills(check_selection, mutant)


def check_share(cls) -> None:
    part, fake = cls(0.25, factor=0.5), torch.randn(16, generator=torch.Generator().manual_seed(0))
    for kimg, k in (
        (0.0, 16),
        (0.3, 13),
        (0.5, 11),
        (1.0, 8),
        (2.0, 4),
        (3.0, 4),
        (1000.0, 4),
    ):  # 16 * 2^-kimg, at least 4
        assert len(part.logits(Turn(None, "generator", 0, kimg), None, fake)[1]) == k
    slow = cls()
    assert 0.9**0.5 < slow.share(50) / 0.99 < 1.001  # the paper's 0.99 per epoch of 50 kimg
    assert slow.share(1e6) == 0.5


def test_the_share_falls_to_its_minimum() -> None:
    class Straight(TopK):
        def share(self, kimg):
            return max(self.minimum, 1 - self.factor * kimg)

    class Bottomless(TopK):
        def share(self, kimg):
            return self.factor**kimg

    check_share(TopK)
    kills(check_share, Straight)
    kills(check_share, Bottomless)


def test_patches_count_by_the_mean_of_their_sample() -> None:
    patches = torch.tensor([[[9.0, -9.0]], [[1.0, 2.0]], [[0.5, 0.0]], [[3.0, 3.0]]])
    turn = Turn(None, "generator", 0, 1e9)
    assert torch.equal(TopK(0.5).logits(turn, None, patches)[1], patches[[3, 1]])


def test_the_whole_batch_is_the_plain_run() -> None:
    assert torch.equal(flat(run(small("points"), "points")), flat(run(small("points", TopK(1.0)), "points")))


@pytest.mark.parametrize("kind", ["points", "images"])
def test_it_trains_and_survives(kind) -> None:
    survives(kind, lambda: TopK(0.5, factor=1e-30))


def test_wrong_settings_and_losses_are_refused() -> None:
    for wrong in ({"minimum": 0.0}, {"minimum": 1.5}, {"factor": 0.0}, {"factor": 1.1}):
        with pytest.raises(UserError, match=r"in \(0, 1\]|above 0 and at most 1"):
            TopK(**wrong)
    with pytest.raises(UserError, match="Relativistic compares"):
        small("points", TopK(), loss=Relativistic())
    with pytest.raises(UserError, match="D2GAN compares"):
        small("points", TopK(), DualDiscriminator(), loss=D2GAN())
