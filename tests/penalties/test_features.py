"""Feature matching against means that are written out, and where its gradient goes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ganzoo.errors import UserError
from ganzoo.gan import GAN
from ganzoo.models import MLPGAN
from ganzoo.parts import Turn
from ganzoo.penalties import FeatureMatching, features
from ganzoo.penalties.features import features_of
from ganzoo.plan import Play
from ganzoo.schedules import Linear
from tests.common import fit, flat
from tests.mutants import kills
from tests.penalties.fits import RANDOM, Noisy, Watch, gradient, labelled, leaves_no_trace, run, small, survives


class TwoLayers(nn.Module):
    """Features tanh(W x + b) of points in space, judged by a linear head; labels are ignored."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(3, 5), nn.Linear(5, 1)

    def forward(self, x, labels=None):
        return self.head(torch.tanh(self.body(x))).squeeze(1)


class Images(nn.Module):
    """A convolution, an activation that works in place, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.head = nn.Conv2d(1, 3, 3), nn.LeakyReLU(0.2, inplace=True), nn.Linear(12, 1)

    def forward(self, x, labels=None):
        return self.head(self.relu(self.conv(x)).flatten(1)).squeeze(1)


def turn_of(discriminator: nn.Module, *shape: int, **options) -> Turn:
    g = torch.Generator().manual_seed(1)
    real, fake = torch.randn(6, *shape, generator=g), torch.randn(6, *shape, generator=g)
    gan = GAN(MLPGAN(hidden=4).generator, discriminator, **options)
    return Turn(gan, "generator", 0, 0.0, real=real, fake=fake.requires_grad_())


def is_squared_distance_of_means(cls: type[FeatureMatching]) -> None:
    torch.manual_seed(0)
    turn = turn_of(TwoLayers(), 3)
    w, b = (p.detach().double() for p in turn.gan.discriminator.body.parameters())
    total = 0.0
    for row, shift in zip(w, b, strict=True):  # one feature at a time
        means = [
            sum(float(torch.tanh(row @ x + shift)) for x in data.detach().double()) / 6
            for data in (turn.real, turn.fake)
        ]
        total += (means[0] - means[1]) ** 2
    assert cls(2.0)(turn).item() == pytest.approx(2.0 * total, rel=1e-4)


def is_zero_for_the_same_samples_in_another_order(cls: type[FeatureMatching]) -> None:
    turn = turn_of(TwoLayers(), 3)
    turn.fake = turn.real.flip(0)
    assert cls()(turn).item() == pytest.approx(0.0, abs=1e-12)


def pulls_fakes_along_the_difference_of_means(cls: type[FeatureMatching]) -> None:
    """Features F = W x are linear where the head follows one layer: d/dx_i = -2/N W^T W (E real - E fake)."""
    torch.manual_seed(0)
    turn = turn_of(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1)), 3)
    turn.gan.discriminator.forward = lambda x, labels=None: nn.Sequential.forward(turn.gan.discriminator, x)
    w = turn.gan.discriminator[0].weight.detach()
    cls()(turn).backward()
    expected = -2 / 6 * (w.T @ w @ (turn.real.mean(0) - turn.fake.detach().mean(0)))
    assert turn.fake.grad is not None
    assert torch.allclose(turn.fake.grad, expected.expand(6, 3), rtol=1e-4, atol=1e-6)


class PerSample(FeatureMatching):
    """E|f(x) - f(G(z))|^2, the mean outside."""

    def value(self, turn):
        with features_of(turn.gan.discriminator, None) as passes:
            turn.discriminate(turn.real)
            turn.discriminate(turn.fake)
        return (passes[0][0] - passes[1][0]).square().sum(1).mean()


class OfLogits(FeatureMatching):
    def value(self, turn):
        return (turn.discriminate(turn.real).mean() - turn.discriminate(turn.fake).mean()).square()


class OverFeatures(FeatureMatching):
    """The mean over features in place of their sum."""

    def value(self, turn):
        return super().value(turn) / 5


class Detached(FeatureMatching):
    def value(self, turn):
        return super().value(turn).detach() + 0 * turn.fake.sum()


CHECKS = [
    is_squared_distance_of_means,
    is_zero_for_the_same_samples_in_another_order,
    pulls_fakes_along_the_difference_of_means,
]


@pytest.mark.parametrize("check", CHECKS)
def test_known_answers(check) -> None:
    check(FeatureMatching)


def test_mutants() -> None:
    kills(is_squared_distance_of_means, PerSample)
    kills(is_squared_distance_of_means, OfLogits)
    kills(is_squared_distance_of_means, OverFeatures)
    kills(is_zero_for_the_same_samples_in_another_order, PerSample)
    kills(pulls_fakes_along_the_difference_of_means, Detached)


def test_features_of_a_named_layer_are_its_output_before_an_activation_in_place() -> None:
    turn = turn_of(Images(), 1, 4, 4)
    conv = turn.gan.discriminator.conv
    expected = (conv(turn.real).mean(0) - conv(turn.fake).mean(0)).square().sum()
    assert FeatureMatching(layer="conv")(turn).item() == pytest.approx(expected.item(), rel=1e-5)
    behind = [nn.functional.leaky_relu(conv(data), 0.2).mean(0) for data in (turn.real, turn.fake)]
    expected = (behind[0] - behind[1]).square().sum()
    assert FeatureMatching(layer="relu")(turn).item() == pytest.approx(expected.item(), rel=1e-5)
    assert FeatureMatching()(turn).item() == pytest.approx(expected.item(), rel=1e-5)


def test_an_unknown_layer_is_refused_with_the_nearest_names() -> None:
    with pytest.raises(UserError, match=r"no layer layers\.11,.* it has layers\.1, "):
        small("images", penalties=[FeatureMatching(layer="layers.11")])


def test_a_layer_that_takes_no_part_is_refused() -> None:
    class Idle(TwoLayers):
        def __init__(self) -> None:
            super().__init__()
            self.idle = nn.Linear(2, 2)

    with pytest.raises(UserError, match="takes no part"):
        FeatureMatching(layer="idle")(turn_of(Idle(), 3))


def gradients(penalty: FeatureMatching, kind: str = "images", **options) -> tuple[torch.Tensor, list[int]]:
    """The generator's gradient in its first turn, and how many passes its discriminator made in each of the turns."""
    gan = small(kind, penalties=[penalty], **options)
    kept, passes = [], [0]
    gan.discriminator.register_forward_hook(lambda *_: passes.append(passes.pop() + 1))

    def look(turn) -> None:
        if turn.player == "generator":
            kept.append(gradient(turn.gan.generator))
        passes.append(0)

    gan.tricks.append(Watch(look))
    run(gan, kind, 2)
    assert not gan.discriminator.head._forward_pre_hooks  # all of the penalty's hooks are gone
    assert len(gan.discriminator._forward_hooks) == 1
    return kept[0], passes[:-1]


class OwnPasses(FeatureMatching):
    """Re-uses nothing."""

    def before_turn(self, turn):
        pass


def test_the_turns_own_pass_is_used_again_and_gives_the_same_gradient() -> None:
    used, passes = gradients(FeatureMatching(5.0))
    own, own_passes = gradients(OwnPasses(5.0))
    assert passes == [2, 2] * 2  # real and fake, then fake and the penalty's real
    assert own_passes == [2, 3] * 2
    assert used.abs().max() > 0
    assert torch.allclose(used, own, rtol=1e-4, atol=1e-7)


def test_a_pass_made_again_has_the_same_noise(monkeypatch) -> None:
    """Where the turn's own pass cannot be used: here, as if the discriminator was compiled."""
    used, _ = gradients(FeatureMatching(5.0), parts=[Noisy()])
    fresh, _ = gradients(OwnPasses(5.0), parts=[Noisy()])
    monkeypatch.setattr(features, "is_compiled", lambda network: True)
    again, passes = gradients(FeatureMatching(5.0), parts=[Noisy()])
    assert passes == [2, 3] * 2
    assert torch.allclose(used, again, rtol=1e-4, atol=1e-7)
    assert not torch.allclose(used, fresh, rtol=1e-2, atol=1e-5)


def test_only_due_turns_have_the_pass() -> None:
    _, passes = gradients(FeatureMatching(5.0, every=2))
    assert passes == [2, 2, 2, 1]


def test_alone_it_is_the_generators_only_loss_and_the_discriminator_learns_on() -> None:
    gan = small("images", penalties=[FeatureMatching(5.0, alone=True)])
    before = flat(gan.discriminator)
    differences = []

    def look(turn) -> None:
        if turn.player == "generator":
            discriminator, generator = turn.gan.discriminator, turn.gan.generator
            means = [discriminator.layers(data).mean(0) for data in (turn.real, generator(turn.latents))]
            slopes = torch.autograd.grad(5 * (means[0] - means[1]).square().sum(), list(generator.parameters()))
            expected = torch.cat([slope.flatten() for slope in slopes])
            differences.append((gradient(generator) - expected).abs().max() / expected.abs().max())

    gan.tricks.append(Watch(look))
    run(gan, "images", 2)
    assert len(differences) == 2
    assert max(differences) < 1e-4
    assert not torch.equal(flat(gan.discriminator), before)


def test_no_other_loss_on_turns_without_it_is_refused() -> None:
    with pytest.raises(UserError, match="only loss"):
        FeatureMatching(alone=True, every=2)


def test_the_discriminator_gets_no_gradient_and_its_statistics_rest() -> None:
    class AtEnd(Watch):
        def after_step(self, turn) -> None:
            discriminator = turn.gan.discriminator
            state = {name: value.clone() for name, value in discriminator.state_dict().items()}
            seen.append((turn.player, state, gradient(discriminator)))

    gan = small("images", penalties=[FeatureMatching(5.0)], discriminator_norm="batch")
    seen: list = []
    gan.tricks.append(AtEnd(lambda turn: None))
    run(gan, "images", 2)
    for (_, before, slope), (player, after, slope_after) in zip(seen[::2], seen[1::2], strict=True):
        assert player == "generator"
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert slope.abs().max() > 0
        assert torch.equal(slope, slope_after)


def test_lazy_and_scheduled_weight() -> None:
    turn = turn_of(TwoLayers(), 3)
    value = FeatureMatching()(turn).item()
    lazy = FeatureMatching(Linear(4.0, 0.0, to_kimg=2.0), every=3)
    turn.kimg = 1.0
    assert lazy(turn).item() == pytest.approx(2.0 * 3 * value)
    turn.number = 1
    assert lazy(turn) is None


def test_in_bf16_the_penalty_is_of_full_precision() -> None:
    gan = small("images", penalties=[FeatureMatching()])
    pairs = []

    class Compare(Watch):
        players = ("generator",)

        def forward(self, turn):
            with torch.no_grad(), torch.autocast("cpu", enabled=False):
                means = [turn.gan.discriminator.layers(data).mean(0) for data in (turn.real, turn.fake)]
                pairs.append(((means[0] - means[1]).square().sum().item(), FeatureMatching()(turn).item()))

    gan.tricks.append(Compare(lambda turn: None))
    run(gan, "images", 2, precision="bf16-mixed")
    assert [a for a, _ in pairs] == pytest.approx([b for _, b in pairs], rel=1e-5)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_both_sides_have_their_labels(precision: str) -> None:
    """The discriminator of points sees labels as columns, so its features depend on them."""
    pairs = []

    class Keep(FeatureMatching):
        def value(self, turn):
            value = super().value(turn)
            hot = [nn.functional.one_hot(labels, 3).float() for labels in (turn.real_labels, turn.fake_labels)]
            body = turn.gan.discriminator.layers[:-1]
            means = [body(torch.cat([x, y], 1)).mean(0) for x, y in zip((turn.real, turn.fake), hot, strict=True)]
            pairs.append((value.item(), (means[0] - means[1]).square().sum().item()))
            return value

    gan = small("points", num_classes=3, penalties=[Keep()])
    fit(gan, labelled("points"), max_steps=2, precision=precision)
    assert len(pairs) == 2
    assert [a for a, _ in pairs] == pytest.approx([b for _, b in pairs], rel=1e-5)


@pytest.mark.parametrize("kind", ["points", "images"])
@pytest.mark.parametrize("options", [{}, {"alone": True}], ids=["beside", "alone"])
def test_it_trains(kind: str, options: dict) -> None:
    survives(kind, lambda: FeatureMatching(0.5, **options))


def test_without_discriminator_turns_the_generator_still_sees_real_data() -> None:
    gan = small("points", penalties=[FeatureMatching(alone=True)], play=Play(0, 1))
    before = flat(gan.generator)
    run(gan, "points", 2)
    assert not torch.equal(flat(gan.generator), before)


@pytest.mark.parametrize(("kind", "options"), RANDOM)
@pytest.mark.parametrize("make", [lambda: FeatureMatching(0.0)])
def test_with_a_weight_of_zero_nothing_changes(kind: str, options: dict, make) -> None:
    leaves_no_trace(kind, make, **options)
