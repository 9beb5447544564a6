"""The second discriminator: what it judges, who trains it, and what does not go with it."""

from __future__ import annotations

import copy

import pytest
import torch

from ganzoo.errors import UserError
from ganzoo.losses import D2GAN, NonSaturating
from ganzoo.optim import SGD
from ganzoo.parts import Part
from ganzoo.penalties import R1
from ganzoo.tricks import DualDiscriminator, Packing
from tests.common import flat
from tests.mutants import kills
from tests.tricks.fits import keep_gradient_of_fakes, run, small, survives, watched

PLAIN = {"discriminator_optimizer": SGD(0.1), "generator_optimizer": SGD(0.1)}


def check_a_cycle(cls) -> None:
    """One turn each equals the paper's J written out with the two networks, differentiated by itself."""
    seen = []
    gan = small("points", cls(), loss=D2GAN(0.3, 0.7), **PLAIN)
    watched(gan, generated=keep_gradient_of_fakes, after_backward=lambda turn: seen.append((turn, copied())))

    def copied():
        return copy.deepcopy(gan.discriminator), copy.deepcopy(gan.tricks[0].network)

    before = copied()
    assert not torch.equal(flat(before[0]), flat(before[1]))
    run(gan, "points", 1)
    (d_turn, _), (g_turn, after) = seen
    positive = torch.nn.functional.softplus

    def j(turn, first, second, fake):
        real_terms = 0.3 * positive(first(turn.real)).log().mean() - positive(second(turn.real)).mean()
        return real_terms - positive(first(fake)).mean() + 0.7 * positive(second(fake)).log().mean()

    value = j(d_turn, *before, d_turn.fake)
    assert gan.meter.values()["loss/d"][0] == pytest.approx(-value.item(), rel=1e-5)
    for p in (*before[0].parameters(), *before[1].parameters()):
        p.grad = None
    value.backward()
    for network, now in zip(before, after, strict=True):
        for p, moved in zip(network.parameters(), now.parameters(), strict=True):
            assert torch.allclose(p.detach() + 0.1 * p.grad, moved, atol=1e-6)  # both maximize J
    fake = g_turn.fake.detach().requires_grad_()
    j(d_turn, *after, fake).backward()
    assert torch.allclose(g_turn.fake.grad, fake.grad, atol=1e-7)  # the generator minimizes it
    for network, now in zip(after, copied(), strict=True):  # and the discriminators rest meanwhile
        assert torch.equal(flat(network), flat(now))


class SameNetwork(DualDiscriminator):
    def rebuild(self, gan):
        self.network = copy.deepcopy(gan.discriminator)


class OfTheGenerator(DualDiscriminator):
    owner = "generator"


class Exchanged(DualDiscriminator):
    def logits(self, turn, real, fake):
        real, fake = super().logits(turn, real, fake)
        return None if real is None else real.flip(-1), fake.flip(-1)


class WithoutRealData(DualDiscriminator):
    def logits(self, turn, real, fake):
        first = real
        real, fake = super().logits(turn, real, fake)
        return None if real is None else torch.stack([first, first], -1), fake


def test_a_cycle_is_the_papers_game() -> None:
    check_a_cycle(DualDiscriminator)
    for mutant in (SameNetwork, OfTheGenerator, Exchanged, WithoutRealData):
        kills(check_a_cycle, mutant)


def check_precision(cls) -> None:
    """Under autocast both networks compute in half precision, and without it in float32."""
    for precision, dtype in (("bf16-mixed", torch.bfloat16), ("32-true", torch.float32)):
        seen: dict[str, set] = {"first": set(), "second": set()}
        gan = small("images", cls(), loss=D2GAN())
        for name, network in (("first", gan.discriminator), ("second", gan.tricks[0].network)):
            network.register_forward_hook(lambda module, given, out, types=seen[name]: types.add(out.dtype))
        run(gan, "images", 1, precision=precision)
        assert seen == {"first": {dtype}, "second": {dtype}}


class FullPrecision(DualDiscriminator):
    def _beside(self, turn, logits, data, labels):
        return torch.stack([logits, turn.discriminate(data, labels, self.network)], dim=-1)


def test_both_passes_have_the_same_precision() -> None:
    check_precision(DualDiscriminator)
    kills(check_precision, FullPrecision)


@pytest.mark.parametrize("kind", ["points", "images"])
def test_it_trains_and_survives(kind) -> None:
    survives(kind, DualDiscriminator, loss=D2GAN(0.5, 0.5))


def test_the_second_network_sees_what_the_first_one_sees() -> None:
    shapes = []
    gan = small("points", Packing(2), DualDiscriminator(), loss=D2GAN())
    for network in (gan.discriminator, gan.tricks[1].network):
        network.register_forward_pre_hook(lambda module, given: shapes.append(tuple(given[0].shape)))
    run(gan, "points", 1)
    assert shapes == [(4, 4)] * 6


def test_the_loss_and_the_part_need_each_other() -> None:
    with pytest.raises(UserError, match="2 discriminators, but the model has 1: add the part DualDiscriminator"):
        small("points", loss=D2GAN())
    with pytest.raises(UserError, match="2 discriminators, but the loss NonSaturating takes the logits of 1"):
        small("points", DualDiscriminator(), loss=NonSaturating())
    with pytest.raises(UserError, match="has 3 discriminators"):
        small("points", DualDiscriminator(), DualDiscriminator(), loss=D2GAN())


def test_what_would_change_one_of_the_two_alone_is_refused() -> None:
    with pytest.raises(UserError, match="R1 would see the first"):
        small("points", DualDiscriminator(), loss=D2GAN(), penalties=[R1()])
    with pytest.raises(UserError, match="name DualDiscriminator after"):
        small("points", DualDiscriminator(), Packing(2), loss=D2GAN())


def test_a_part_of_the_generators_turns_may_go_with_it() -> None:
    class Pull(Part):
        players = ("generator",)

        def forward(self, turn):
            return turn.fake.square().mean()

    assert "total/g" in run(small("points", DualDiscriminator(), Pull(), loss=D2GAN()), "points", 1).meter.means()
