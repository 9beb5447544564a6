"""Packing: disjoint packs, a first layer with the same law, and what a gradient penalty is of packs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ganzoo.errors import UserError
from ganzoo.gan import GAN
from ganzoo.losses import Relativistic
from ganzoo.models import DCGAN, MLPGAN, WGANGP
from ganzoo.parts import Part, Turn
from ganzoo.penalties import R1, WassersteinGradientPenalty
from ganzoo.tricks import Packing
from tests.common import Critic, fit, normal_batches
from tests.mutants import kills
from tests.tricks.fits import run, small, survives


def draws(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def check_packs(cls) -> None:
    """Pack i holds samples m i to m i + m - 1, one behind the other along the channels."""
    for shape in ((2,), (3, 4, 5)):
        data = draws(0, 6, *shape)
        packs, labels = cls(3).inputs(None, data, None)
        assert packs.shape == (2, 3 * shape[0], *shape[1:])
        assert labels is None
        for pack in range(2):
            for place in range(3):
                inside = packs[pack, place * shape[0] : (place + 1) * shape[0]]
                assert torch.equal(inside, data[3 * pack + place])


class Overlapping(Packing):
    def inputs(self, turn, data, labels):
        packs = torch.cat([data.roll(-place, 0) for place in range(self.degree)], dim=1)
        return packs[: len(data) // self.degree], labels


class Mixed(Packing):
    """Channels of the samples alternate."""

    def inputs(self, turn, data, labels):
        packs = data.view(-1, self.degree, *data.shape[1:]).transpose(1, 2)
        return packs.reshape(len(packs), -1, *data.shape[2:]), labels


def test_packs_are_disjoint() -> None:
    check_packs(Packing)
    kills(check_packs, Overlapping)
    kills(check_packs, Mixed)


def check_first_layer(cls) -> None:
    """For each block of inputs the weights are another draw from the same law; the output's variance is kept."""
    for kind in ("points", "images"):
        seen = []
        for parts in ([], [cls(4)]):
            torch.manual_seed(0)
            options = {"discriminator_norm": "none"} if kind == "images" else {}
            model = DCGAN(8, 3, width=64, parts=parts, **options) if options else MLPGAN(hidden=512, parts=parts)
            seen.append(model.discriminator.layers[0])
        old, new = seen
        assert new.weight.shape[1] == 4 * old.weight.shape[1]
        assert getattr(new, "in_channels", None) or new.in_features == new.weight.shape[1]
        blocks = new.weight.detach().chunk(4, dim=1)
        assert torch.allclose(blocks[0], old.weight / 2, atol=1e-7)
        assert all(not torch.equal(blocks[0], block) for block in blocks[1:])
        assert torch.equal(old.bias, new.bias)
        x = draws(1, 64, *old.weight.shape[1:]) if kind == "images" else draws(1, 512, 2)
        packed = draws(2, 64, *new.weight.shape[1:]) if kind == "images" else draws(2, 512, 8)
        ratio = (new(packed) - new.bias.view(1, -1, *[1] * (x.dim() - 2))).var() / (
            old(x) - old.bias.view(1, -1, *[1] * (x.dim() - 2))
        ).var()
        assert ratio.item() == pytest.approx(1.0, abs=0.15)


def _rescaled(factor: float):
    class Rescaled(Packing):
        def rebuild(self, gan):
            super().rebuild(gan)
            gan.discriminator.layers[0].weight.data *= factor

    return Rescaled


class Repeated(Packing):
    def rebuild(self, gan):
        super().rebuild(gan)
        weight = gan.discriminator.layers[0].weight
        weight.data = torch.cat([weight.data.chunk(self.degree, 1)[0]] * self.degree, 1)


def test_the_first_layer_is_widened_and_keeps_the_variance() -> None:
    check_first_layer(Packing)
    for mutant in (_rescaled(2.0), _rescaled(0.5), Repeated):
        kills(check_first_layer, mutant)


def test_a_spectrally_normalized_first_layer_is_normalized_again() -> None:
    gan = DCGAN(8, 1, width=4, discriminator_norm="spectral", parts=[Packing(4)])
    first = gan.discriminator.layers[0]
    assert first.weight.shape == (4, 4, 4, 4)
    for _ in range(50):
        gan.discriminator(draws(0, 2, 4, 8, 8))
    assert torch.linalg.svdvals(first.weight.flatten(1))[0].item() == pytest.approx(1.0, abs=1e-3)


class Unconditional(nn.Sequential):
    def forward(self, data, labels=None):
        return super().forward(data)


def turn_of(part: Part, discriminator: nn.Module) -> Turn:
    gan = GAN(MLPGAN().generator, discriminator, parts=[part])
    return Turn(gan, "discriminator", 0, 0.0, real=draws(3, 6, 2), fake=draws(4, 6, 2))


def check_r1(cls) -> None:
    """gamma/2 times the mean over packs of a pack's squared gradient: gamma/2 |w|^2 for a linear D, else by a loop."""
    turn = turn_of(cls(3), Critic(2))
    w = turn.gan.discriminator.linear.weight
    assert w.shape == (1, 6)
    assert R1(4.0)(turn).item() == pytest.approx(2.0 * w.square().sum().item(), rel=1e-5)
    torch.manual_seed(0)
    turn = turn_of(cls(2), Unconditional(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1), nn.Flatten(0)))
    first, last = turn.gan.discriminator[0], turn.gan.discriminator[2]
    total = 0.0
    for pack in turn.real.view(3, 4):
        slope = last.weight[0] * (1 - torch.tanh(first.weight @ pack + first.bias) ** 2)
        total += (slope @ first.weight).square().sum().item()
    assert R1(4.0)(turn).item() == pytest.approx(2.0 * total / 3, rel=1e-5)


def test_r1_of_packs_by_hand() -> None:
    check_r1(Packing)
    kills(check_r1, Overlapping)
    kills(check_r1, Mixed)


def test_wgan_gp_of_packs_asks_for_the_norm_one_of_a_pack() -> None:
    turn = turn_of(Packing(2), Critic(2))
    norm = turn.gan.discriminator.linear.weight.norm().item()
    value = WassersteinGradientPenalty(10.0)(turn).item()
    assert value == pytest.approx(10 * (norm - 1) ** 2, rel=1e-5)


@pytest.mark.parametrize("kind", ["points", "images"])
def test_it_trains_and_survives(kind) -> None:
    survives(kind, lambda: Packing(2), penalties=[R1(1.0, every=2)])


def test_the_discriminator_judges_packs_in_both_turns_and_losses_see_their_logits() -> None:
    shapes = []
    gan = small("images", Packing(4))
    gan.discriminator.register_forward_pre_hook(lambda module, args: shapes.append(tuple(args[0].shape)))
    run(gan, "images", 1)
    assert shapes == [(2, 4, 8, 8)] * 3
    run(small("points", Packing(2), loss=Relativistic()), "points", 1)


def test_a_batch_that_is_no_multiple_is_refused_with_the_numbers() -> None:
    gan = small("points", Packing(3))
    with pytest.raises(UserError, match="degree 3 was given a micro-batch of 8 samples per rank"):
        run(gan, "points", 1)
    gan = small("points", Packing(4), accumulate=2)  # what counts is the micro-batch
    with pytest.raises(UserError, match="micro-batch of 6"):
        fit(gan, normal_batches(6, 2), max_steps=1)


def test_wrong_combinations_are_refused() -> None:
    class Noise(Part):
        """Noise on single samples."""

        def inputs(self, turn, data, labels):
            return data + 0.1, labels

    with pytest.raises(UserError, match="1 or more"):
        Packing(0)
    with pytest.raises(UserError, match="conditional on 3"):
        small("points", Packing(2), num_classes=3)
    with pytest.raises(UserError, match="Noise changes single samples"):
        small("points", Packing(2), Noise())
    small("points", Noise(), Packing(2))
    grouped = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.Flatten(), nn.Linear(4, 1))
    with pytest.raises(UserError, match="Packing"):
        GAN(MLPGAN().generator, grouped, parts=[Packing(2)])


@pytest.mark.parametrize("norm", ["batch", "layer", "instance"])
def test_a_normalization_of_the_data_is_refused_when_the_model_is_built(norm) -> None:
    """The critic of residual blocks has one before its first 1x1 convolution, where there are norms at all."""
    small = {"generator_width": 8, "discriminator_width": 8, "penalties": []}
    with pytest.raises(UserError, match=r"Packing gives the discriminator 6 channels, but a layer of .* the data's 3"):
        WGANGP(discriminator_norm=norm, parts=[Packing(2)], **small)
    packed = WGANGP(discriminator_norm="none", parts=[Packing(2)], **small)
    assert packed.discriminator(torch.zeros(2, 6, 32, 32)).shape == (2,)
