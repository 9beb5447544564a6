"""FreezeD: which layers are the first ones, and that nothing moves them, while gradients pass through."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from ganzoo.errors import UserError
from ganzoo.gan import GAN, Generator
from ganzoo.layers.spectral import spectral_norm
from ganzoo.layers.surgery import weighted_layers
from ganzoo.models import DCGAN, StyleGAN
from ganzoo.optim import SGD, Adam
from ganzoo.penalties import R1
from ganzoo.tricks import FreezeD, Packing, SpectralNorm
from ganzoo.tricks.freeze import modules_that_see_the_data
from tests.common import max_difference, normal_batches, quiet_trainer
from tests.mutants import kills
from tests.tricks.fits import SHAPES, run, small, survives, watched


class Block(nn.Module):
    """A convolution beside a path with a gain: the shortcut is registered first and called last."""

    def __init__(self) -> None:
        super().__init__()
        self.shortcut = nn.Conv2d(2, 2, 1)
        self.conv = spectral_norm(nn.Conv2d(2, 2, 3, padding=1))
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.gain * self.conv(x), self.shortcut(x)  # two tensors: not what a plain trace would see


class Discriminator(nn.Module):
    """Layers registered in another order than they are called in; labels are embedded by a linear layer, at first."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2, 1)
        self.block = Block()
        self.norm = nn.BatchNorm2d(2)
        self.stem = nn.Conv2d(1, 2, 3, padding=1)
        self.of_label = nn.Linear(3, 2)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x, labels=None):
        label = self.of_label(nn.functional.one_hot(labels, 3).float())
        a, b = self.block(self.norm(self.stem(x)))
        h = (a + b).sum(dim=(2, 3))
        return self.scale * (self.head(h).squeeze(1) + (label * h).sum(dim=1))


class Images(Generator):
    latent_dim = 4

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 16)

    def forward(self, latents, labels=None):
        return self.layer(latents).view(-1, 1, 4, 4)


#: What rests with so many layers, by hand: the block's gain belongs to the whole of it, which ends with the shortcut.
STEM = {"stem.weight", "stem.bias", "norm.weight", "norm.bias"}
CONV = {"block.conv.bias", "block.conv.parametrizations.weight.original"}
BLOCK = {"block.shortcut.weight", "block.shortcut.bias", "block.gain"}
FROZEN = [set(), STEM, STEM | CONV, STEM | CONV | BLOCK]


def check_order(cls) -> None:
    for num, expected in enumerate(FROZEN):
        gan = GAN(Images(), Discriminator(), num_classes=3, parts=[cls(num)])
        found = {name for name, p in gan.discriminator.named_parameters() if not p.requires_grad}
        assert found == expected, num
        assert all(p.requires_grad for p in gan.generator.parameters())
        assert gan.discriminator.training and gan.discriminator.norm.num_batches_tracked == 0


def freeze(modules) -> None:
    for module in modules:
        module.requires_grad_(False)


class InOrderOfRegistration(FreezeD):
    def rebuild(self, gan):
        freeze(list(weighted_layers(gan.discriminator).values())[: self.num_layers])


class LayersAlone(FreezeD):
    """Without the scales between them."""

    def rebuild(self, gan):
        reached = [m for m in modules_that_see_the_data(gan) if isinstance(m, nn.Conv2d | nn.Linear)]
        freeze(reached[: self.num_layers])


class FromTheLogits(FreezeD):
    def rebuild(self, gan):
        reached = [m for m in modules_that_see_the_data(gan) if isinstance(m, nn.Conv2d | nn.Linear)]
        freeze(reached[len(reached) - self.num_layers :])


class OneMore(FreezeD):
    def __init__(self, num_layers: int = 1) -> None:
        super().__init__(num_layers + 1)


def test_the_first_layers_are_those_that_the_image_meets_first() -> None:
    check_order(FreezeD)
    for mutant in (InOrderOfRegistration, LayersAlone, FromTheLogits):
        kills(check_order, mutant)


def test_at_least_one_layer_is_left() -> None:
    sentence = (
        "FreezeD was to freeze 4 layers, but Discriminator has 4, of which one must be trained: set num_layers to 3 or "
        "less."
    )
    with pytest.raises(UserError) as refused:
        GAN(Images(), Discriminator(), num_classes=3, parts=[FreezeD(4)])
    assert str(refused.value) == sentence
    with pytest.raises(UserError, match=r"FreezeD was to freeze -1 layers; give 0 or more\."):
        FreezeD(-1)


# ---------------------------------------------------------------------- in training

DECAY = {"discriminator_optimizer": Adam(1e-2, weight_decay=0.1)}  # which would move a weight without a gradient


def first_weights(gan: GAN) -> list[torch.Tensor]:
    first = gan.discriminator.layers[0]
    return [first.weight.detach().clone(), first.bias.detach().clone()]


def check_rest(cls) -> None:
    """In turns of both players, with penalties and weight decay: the first layer stays, all else moves."""
    gan = small("larger", cls(1), penalties=[R1(1.0)], **DECAY)
    second = gan.discriminator.layers[2].weight
    before, later = first_weights(gan), second.detach().clone()
    flags: list[bool] = []
    watched(gan, after_step=lambda turn: flags.append(gan.discriminator.layers[0].weight.requires_grad))
    run(gan, "larger", 4)
    assert all(torch.equal(a, b) for a, b in zip(first_weights(gan), before, strict=True))
    assert not torch.equal(second, later)
    assert not any(flags)
    assert second.requires_grad


class Thawed(FreezeD):
    """Its flags do not last."""

    def setup(self, gan):
        gan.discriminator.requires_grad_(True)


class WithoutGradient(FreezeD):
    """Gradients are deleted, but the optimizer still has the parameters: zeros, which weight decay moves."""

    players = ("discriminator",)

    def rebuild(self, gan):
        pass

    def after_backward(self, turn):
        for p in turn.gan.discriminator.layers[0].parameters():
            p.grad.zero_()


def test_frozen_layers_rest_and_the_others_move() -> None:
    check_rest(FreezeD)
    for mutant in (Thawed, WithoutGradient, OneMore):
        kills(check_rest, mutant)


def test_gradients_pass_through_to_images_and_penalties() -> None:
    """The first turns are those of the model without it: the same penalty, gradients of fakes, and steps of the rest.

    With a plain gradient step of 0 nothing but the generator moves, so that the second turn can be compared, too.
    """
    seen: dict[bool, list[torch.Tensor]] = {}
    for frozen in (False, True):
        parts = [FreezeD(1)] if frozen else []
        gan = small("images", *parts, penalties=[R1(3.0)], discriminator_optimizer=SGD(0.0))
        found: list[torch.Tensor] = []

        def gradients(turn, gan=gan, found=found) -> None:
            if turn.player == "discriminator":
                found.append(gan.meter.state()["values"]["penalty/r1"][-1:])
                found.append(gan.discriminator.head.weight.grad.clone())
            else:
                found += [p.grad.clone() for p in gan.generator.parameters()]

        run(watched(gan, after_backward=gradients), "images", 2)
        seen[frozen] = found
    assert len(seen[True]) == len(seen[False]) > 4
    for a, b in zip(seen[True], seen[False], strict=True):
        assert torch.equal(torch.as_tensor(a), torch.as_tensor(b))
    assert torch.as_tensor(seen[True][0]).item() > 0


def test_running_means_of_frozen_normalizations_go_on() -> None:
    gan = run(small("larger", FreezeD(2), discriminator_norm="batch"), "larger")
    norm = gan.discriminator.layers[3]
    assert not norm.weight.requires_grad
    assert norm.running_mean.abs().sum() > 0


def test_a_normalization_named_later_keeps_the_flag() -> None:
    gan = run(small("images", FreezeD(1), SpectralNorm()), "images")
    original = gan.discriminator.layers[0].parametrizations.weight.original
    assert not original.requires_grad
    again = small("images", FreezeD(1), SpectralNorm())
    assert torch.equal(original, again.discriminator.layers[0].parametrizations.weight.original)


def test_packing_comes_later() -> None:
    gan = small("images", FreezeD(1), Packing(2))
    assert not gan.discriminator.layers[0].weight.requires_grad
    with pytest.raises(UserError, match="name FreezeD before the part that changes what the discriminator is shown"):
        small("images", Packing(2), FreezeD(1))


def test_the_average_is_not_concerned() -> None:
    gan, plain = small("images", FreezeD(1)), small("images")
    assert [p.requires_grad for p in gan.generator_ema.parameters()] == [False] * len(list(gan.generator.parameters()))
    assert max_difference(gan.generator_ema.state_dict(), plain.generator_ema.state_dict()) == 0.0


def test_a_resumed_run_is_frozen_like_one_that_never_stopped(tmp_path: Path) -> None:
    def train(steps: int, start: Path | None = None) -> GAN:
        gan = small("images", FreezeD(1), **DECAY)
        gan.step_seconds = 0.0
        trainer = quiet_trainer(max_steps=steps)
        loader = normal_batches(*SHAPES["images"])
        if start is not None:  # the batches that the first run has not seen
            make, loader.make = loader.make, lambda k: make(k + 3)
        trainer.fit(gan, loader, ckpt_path=start, weights_only=True)
        trainer.save_checkpoint(tmp_path / f"{steps}.ckpt")
        return gan

    torch.manual_seed(0)
    train(3)
    whole, resumed = train(6), train(6, tmp_path / "3.ckpt")
    assert max_difference(whole.state_dict(), resumed.state_dict()) == 0.0
    assert not resumed.discriminator.layers[0].weight.requires_grad
    begun = small("images").discriminator.layers[0].weight
    assert torch.equal(resumed.discriminator.layers[0].weight, begun)


@pytest.mark.parametrize("kind", ["points", "images"])
def test_it_survives(kind: str) -> None:
    survives(kind, lambda: FreezeD(1))


def test_on_the_meta_device_the_same_layers_are_found() -> None:
    with torch.device("meta"):
        gan = DCGAN(64, 3, parts=[FreezeD(3)])
    frozen = [name for name, p in gan.discriminator.named_parameters() if not p.requires_grad]
    layers = [f"layers.{i}.{name}" for i, name in ((2, "weight"), (5, "weight"))]
    norms = [f"layers.{i}.{name}" for i in (3, 6) for name in ("weight", "bias")]
    assert sorted(frozen) == sorted(["layers.0.weight", "layers.0.bias", *layers, *norms])


@pytest.mark.parametrize(("architecture", "third"), [("residual", "blocks.0.skip"), ("plain", "blocks.1.conv")])
def test_layers_of_a_style_based_discriminator(architecture: str, third: str) -> None:
    """From the image on: its own layer, two convolutions, then the shortcut or the next block; no mapping of labels."""
    with torch.device("meta"):
        gan = StyleGAN(32, num_classes=3, discriminator_architecture=architecture, parts=[FreezeD(4)])
    frozen = {name.rpartition(".")[0] for name, p in gan.discriminator.named_parameters() if not p.requires_grad}
    assert frozen == {"stem", "blocks.0.conv", "blocks.0.down", third}
    assert all(p.requires_grad for p in gan.discriminator.label.parameters())
