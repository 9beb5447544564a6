"""Progressive GAN: the paper's table of layers, the two ends of a fade-in, and a reference written with plain loops."""

from __future__ import annotations

import copy
import math
from itertools import pairwise
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganzoo.errors import UserError
from ganzoo.layers.growth import real_at_level
from ganzoo.losses import Hinge, NonSaturating
from ganzoo.models import ProgressiveGAN, progressive
from ganzoo.models.progressive import ProgressiveDiscriminator, ProgressiveGenerator
from ganzoo.penalties import R1
from tests.common import fit, flat, normal_batches
from tests.mutants import kills

NO_DECAY = {"eps": 1e-8, "weight_decay": 0.0}
SMALL = {"latent_dim": 6, "channel_base": 64, "channel_max": 12}


def small(size: int = 16, channels: int = 2, **options) -> ProgressiveGAN:
    torch.manual_seed(3)
    return ProgressiveGAN(size, channels, **{"growth": None, "ema": None, **SMALL, **options})


# ---------------------------------------------------------------------- table 2


def conv(inputs: int, outputs: int, size: int) -> int:
    return inputs * outputs * size**2 + outputs


def test_the_layers_of_table_2_have_23_million_parameters() -> None:
    with torch.device("meta"):
        gan = ProgressiveGAN(1024, growth=None, ema=None)
    channels = [512, 512, 512, 512, 256, 128, 64, 32, 16]  # at 4x4, 8x8, ... 1024x1024
    assert [block[-3].out_channels for block in gan.generator.blocks] == channels
    pairs = list(pairwise(channels))
    generator = conv(512, 512, 4) + conv(512, 512, 3) + sum(conv(a, b, 3) + conv(b, b, 3) for a, b in pairs)
    generator += conv(16, 3, 1)
    discriminator = conv(3, 16, 1) + sum(conv(b, b, 3) + conv(b, a, 3) for a, b in pairs)
    discriminator += conv(513, 512, 3) + conv(512, 512, 4) + 512 + 1
    for network, table in ((gan.generator, generator), (gan.discriminator, discriminator)):
        assert round(table / 1e6, 1) == 23.1
        others = sum(p.numel() for port in network.ports[:-1] for p in port.parameters())  # which the table leaves out
        assert sum(p.numel() for p in network.parameters()) - others == table


def test_the_defaults_are_the_paper_s() -> None:
    gan = ProgressiveGAN(8, **SMALL)
    given = gan.config()["init_args"]
    for player in ("generator", "discriminator"):
        assert given[f"{player}_optimizer"]["init_args"] == {"lr": 1e-3, "betas": [0.0, 0.99], **NO_DECAY}
    assert gan.ema.decay(16, 10**6) == pytest.approx(0.999, abs=1e-5)
    assert gan.ema.decay(16, 16) == gan.ema.decay(16, 10**6)  # no ramp
    assert {type(part).__name__ for part in gan.tricks} == {"Growing", "WassersteinGradientPenalty", "Drift"}
    assert [part.weight for part in gan.tricks[1:]] == [10.0, 0.001]
    weights = torch.cat([p.flatten() for p in gan.parameters() if p.dim() > 1])
    assert weights.mean().abs() < 5 / len(weights) ** 0.5
    assert weights.std().item() == pytest.approx(1, abs=5 / len(weights) ** 0.5)
    assert all(p.abs().max() == 0 for p in gan.parameters() if p.dim() == 1)


@pytest.mark.parametrize("size", [4, 12, 33, (32, 64)])
def test_other_sizes_are_refused(size) -> None:
    with pytest.raises(UserError, match="8, 16, 32"):
        ProgressiveGAN(size, **SMALL)


@pytest.mark.parametrize("option", ["latent_dim", "channels", "channel_base", "channel_max"])
def test_numbers_below_one_are_refused(option) -> None:
    with pytest.raises(UserError, match=f"{option}.* 0"):
        ProgressiveGAN(**{"image_size": 16, **SMALL, option: 0})


# ---------------------------------------------------------------------- the two ends of a fade-in


def repeated(images: Tensor, factor: int = 2) -> Tensor:
    return images.repeat_interleave(factor, 2).repeat_interleave(factor, 3)


def means(images: Tensor, factor: int = 2) -> Tensor:
    n, c, h, w = images.shape
    return images.view(n, c, h // factor, factor, w // factor, factor).mean(dim=(3, 5))


def generator_of(cls: type) -> ProgressiveGenerator:
    torch.manual_seed(5)
    return cls([12, 8, 6, 4], 2, 6, 0)


def discriminator_of(cls: type) -> ProgressiveDiscriminator:
    torch.manual_seed(5)
    return cls([12, 8, 6, 4], 2, 0, None)


def check_generator_at_0(cls: type) -> None:
    """Exactly the smaller network's images with each pixel repeated."""
    generator, latents = generator_of(cls), torch.randn(3, 6)
    for level in (1, 2, 3):
        generator.set_level(level - 1)
        before = generator(latents)
        generator.set_level(level, 0.0)
        assert before.shape == (3, 2, 2 << level, 2 << level)
        assert torch.equal(generator(latents), repeated(before))


def check_generator_between(cls: type) -> None:
    """A straight line between the old and the new image."""
    generator, latents = generator_of(cls), torch.randn(3, 6)
    generator.set_level(1)
    old = repeated(generator(latents))
    generator.set_level(2)
    new = generator(latents)
    generator.set_level(2, 0.3)
    assert torch.allclose(generator(latents), 0.7 * old + 0.3 * new, atol=1e-6)


def check_old_path_is_gone_at_1(network: nn.Module, given: Tensor) -> None:
    """Its weights change nothing, and get no gradient."""
    network.set_level(2, 1.0)
    whole = network(given)
    whole.sum().backward()
    assert all(p.grad is None for p in network.ports[1].parameters())
    assert all(p.grad is not None for p in network.ports[2].parameters())
    with torch.no_grad():
        for p in network.ports[1].parameters():
            p.add_(1.0)
    assert torch.equal(network(given), whole)


def check_generator_at_1(cls: type) -> None:
    check_old_path_is_gone_at_1(generator_of(cls), torch.randn(3, 6))


def check_discriminator_at_0(cls: type) -> None:
    """Exactly the smaller network's logits of the averaged image."""
    discriminator = discriminator_of(cls)
    for level in (1, 2, 3):
        images = torch.randn(3, 2, 4 << level, 4 << level)
        discriminator.set_level(level - 1)
        before = discriminator(means(images))
        discriminator.set_level(level, 0.0)
        assert torch.allclose(discriminator(images), before, atol=1e-6)


def check_discriminator_between(cls: type) -> None:
    """Not of the logits, but of the features that enter the smaller network."""
    discriminator, images = discriminator_of(cls), torch.randn(3, 2, 16, 16)
    discriminator.set_level(2, 0.3)
    old, new = discriminator.ports[1](means(images)), discriminator.blocks[2](discriminator.ports[2](images))
    x = discriminator.blocks[0](discriminator.blocks[1](0.7 * old + 0.3 * new))
    assert torch.allclose(discriminator(images), discriminator.head(x).flatten(), atol=1e-6)


def check_discriminator_at_1(cls: type) -> None:
    check_old_path_is_gone_at_1(discriminator_of(cls), torch.randn(3, 2, 16, 16))


def mutant(base: type, **functions) -> type:
    """The network with other functions in the place of the module's."""

    class Mutant(base):
        def forward(self, *given):
            with mock.patch.multiple(progressive, **functions):
                return super().forward(*given)

    return Mutant


class Reversed(ProgressiveGenerator):
    def set_level(self, level: int, alpha: float = 1.0) -> None:
        super().set_level(level, 1 - alpha if alpha < 1 else 1.0)


class Lingering(ProgressiveGenerator):
    fading = property(lambda self: self.level > 0)


class LingeringCritic(ProgressiveDiscriminator):
    fading = property(lambda self: self.level > 0)


def bilinear(images: Tensor, factor: int = 2) -> Tensor:
    return F.interpolate(images, scale_factor=factor, mode="bilinear") if factor > 1 else images


def strided(images: Tensor, factor: int = 2) -> Tensor:
    return images[:, :, ::factor, ::factor]


def of_both(old: Tensor, new: Tensor, alpha: float) -> Tensor:
    """A mistake: the old path never leaves."""
    return old + alpha * new


def rooted(old: Tensor, new: Tensor, alpha: float) -> Tensor:
    """A mistake that both ends miss."""
    return old + math.sqrt(alpha) * (new - old)


@pytest.mark.parametrize("check", [check_generator_at_0, check_generator_between, check_generator_at_1])
def test_generator(check) -> None:
    check(ProgressiveGenerator)


@pytest.mark.parametrize("check", [check_discriminator_at_0, check_discriminator_between, check_discriminator_at_1])
def test_discriminator(check) -> None:
    check(ProgressiveDiscriminator)


def test_wrong_networks_are_found() -> None:
    kills(check_generator_at_0, mutant(ProgressiveGenerator, upsampled=bilinear))
    kills(check_generator_at_0, Reversed)
    kills(check_generator_between, mutant(ProgressiveGenerator, blended=of_both))
    kills(check_generator_between, mutant(ProgressiveGenerator, blended=rooted))
    kills(check_generator_at_1, Lingering)
    kills(check_discriminator_at_0, mutant(ProgressiveDiscriminator, pooled=strided))
    kills(check_discriminator_between, mutant(ProgressiveDiscriminator, blended=rooted))
    kills(check_discriminator_at_1, LingeringCritic)


# ---------------------------------------------------------------------- a reference with the paper's formulas


def weighted(x: Tensor, layer: nn.Module, gain: float = math.sqrt(2)) -> Tensor:
    """A layer whose weights from N(0, 1) are multiplied by gain / sqrt(fan-in) (section 4.1)."""
    weight, bias = layer.parametrizations.weight.original, layer.bias
    if isinstance(layer, nn.Linear):
        return x @ (weight.T * gain / weight.shape[1] ** 0.5) + bias
    if isinstance(layer, nn.ConvTranspose2d):  # of a single pixel: every output sees each input once
        outputs = torch.einsum("ni,iohw->nohw", x[:, :, 0, 0], weight)
        return outputs * gain / (weight.shape[0] * 16) ** 0.5 + bias.view(-1, 1, 1)
    scale = gain / (weight.shape[1] * weight.shape[2] * weight.shape[3]) ** 0.5
    padding = 1 if weight.shape[2] == 3 else 0
    return F.conv2d(x, weight * scale, bias, padding=padding)


def leaky(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.2 * x)


def unit(x: Tensor) -> Tensor:
    """Equation of section 4.2."""
    return x / ((x**2).mean(dim=1, keepdim=True) + 1e-8).sqrt()


def layers(module: nn.Module) -> list[nn.Module]:
    return [m for m in module.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)]


def reference_generator(gan: ProgressiveGAN, latents: Tensor, level: int, alpha: float) -> Tensor:
    generator = gan.generator
    x, images = unit(latents)[:, :, None, None], None
    for at in range(level + 1):
        for number, layer in enumerate(layers(generator.blocks[at])):
            x = unit(leaky(weighted(repeated(x) if at and number == 0 else x, layer)))
        old, images = images, weighted(x, generator.ports[at], 1.0)
    return images if alpha == 1 else (1 - alpha) * repeated(old) + alpha * images


def reference_discriminator(gan: ProgressiveGAN, images: Tensor, level: int, alpha: float) -> Tensor:
    discriminator = gan.discriminator
    x = leaky(weighted(images, layers(discriminator.ports[level])[0]))
    for at in range(level, 0, -1):
        for layer in layers(discriminator.blocks[at]):
            x = leaky(weighted(x, layer))
        x = means(x)
        if at == level and alpha < 1:
            old = leaky(weighted(means(images), layers(discriminator.ports[level - 1])[0]))
            x = (1 - alpha) * old + alpha * x
    deviation = (x.var(dim=0, unbiased=False) + 1e-8).sqrt().mean()
    x = torch.cat([x, deviation.expand(len(x), 1, 4, 4)], dim=1)
    for layer in layers(discriminator.blocks[0]):
        x = leaky(weighted(x, layer))
    return weighted(x.flatten(1), discriminator.head, 1.0).flatten()


@pytest.mark.parametrize(("level", "alpha"), [(0, 1.0), (1, 0.25), (1, 1.0), (2, 0.6), (2, 1.0)])
def test_both_networks_equal_the_reference(level: int, alpha: float) -> None:
    gan = small()
    with torch.no_grad():
        for p in gan.parameters():
            p.normal_()  # the biases, too
    latents = torch.randn(5, 6)
    for network in (gan.generator, gan.discriminator):
        network.set_level(level, alpha)
    images = gan.generator(latents)
    assert torch.allclose(images, reference_generator(gan, latents, level, alpha), atol=1e-5)
    logits = gan.discriminator(images)
    assert torch.allclose(logits, reference_discriminator(gan, images, level, alpha), atol=1e-5)


def test_latents_are_points_of_a_sphere() -> None:
    gan, latents = small(), torch.randn(4, 6)
    assert torch.allclose(gan.generator(latents), gan.generator(latents * 7), atol=1e-4)
    assert not torch.allclose(gan.generator(latents), gan.generator(-latents), atol=1e-2)


# ---------------------------------------------------------------------- real images, sizes, state


def check_real(show) -> None:
    discriminator = discriminator_of(ProgressiveDiscriminator)
    images = torch.randn(3, 2, 32, 32)
    for level, alpha in ((0, 1.0), (1, 1.0), (1, 0.0), (2, 0.25), (3, 1.0), (3, 0.5)):
        discriminator.set_level(level, alpha)
        now = means(images, 8 >> level)
        low = repeated(means(now)) if level else now
        assert torch.allclose(show(images, discriminator), (1 - alpha) * low + alpha * now, atol=1e-6)


def test_real_images_are_averaged_and_blended() -> None:
    check_real(real_at_level)
    kills(check_real, lambda images, network: means(images, 32 // network.resolution))  # never blended
    kills(check_real, lambda images, network: images[:, :, :: 32 // network.resolution, :: 32 // network.resolution])


@pytest.mark.parametrize("level", [0, 1, 2])
def test_in_evaluation_images_have_the_full_size(level: int) -> None:
    gan, latents = small(), torch.randn(3, 6)
    for network in (gan.generator, gan.discriminator):
        network.set_level(level, 0.5)
    images = gan.generator(latents)
    logits = gan.discriminator(images)
    assert images.shape == (3, 2, 4 << level, 4 << level)
    gan.eval()
    whole = gan.generator(latents)
    assert torch.equal(whole, repeated(images, 4 >> level))
    assert torch.allclose(gan.discriminator(whole), logits, atol=1e-5)
    assert gan.sample(2).shape == (2, 2, 16, 16)


def test_level_and_alpha_are_in_the_state() -> None:
    first, second, whole = small(), small(), small()
    for network in (first.generator, first.discriminator):
        network.set_level(1, 0.3)
    for network in (second.generator, second.discriminator):
        network.set_level(0)
    for gan in (second, whole):
        gan.load_state_dict(first.state_dict())
    assert (second.generator.level, second.generator.alpha) == (1, 0.3)  # exactly, though no float32 holds it
    assert second.discriminator.fading
    assert copy.deepcopy(second.generator).alpha == 0.3
    assert (whole.generator.level, whole.generator.alpha) == (2, 1.0)  # nobody would ever move it on


def test_classes() -> None:
    gan = small(num_classes=3, ema=None)
    latents, labels = torch.randn(1, 6).expand(3, 6), torch.arange(3)
    images = gan.generator(latents, labels)
    assert (images[0] - images[1]).abs().max() > 1e-3
    logits = gan.discriminator(images[:1].expand(3, 2, 16, 16).contiguous(), labels)
    assert logits.unique().numel() == 3
    before = flat(gan)
    batches = normal_batches(8, 2, 16, 16)
    make = batches.make
    batches.make = lambda k: (make(k), torch.arange(8) % 3)
    fit(gan, batches, max_steps=2)
    assert flat(gan).isfinite().all()
    assert not torch.equal(flat(gan), before)


@pytest.mark.parametrize(("loss", "penalties"), [(Hinge(), []), (NonSaturating(), [R1(1.0)])])
def test_other_losses(loss, penalties) -> None:
    gan = small(loss=loss, penalties=penalties)
    before = flat(gan.generator)
    fit(gan, normal_batches(8, 2, 16, 16), max_steps=3)
    assert flat(gan).isfinite().all()
    assert not torch.equal(flat(gan.generator), before)
