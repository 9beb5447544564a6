"""Parts that change layers, on StyleGAN's: attention behind features that a style made, norms instead of constants."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from ganzoo import streams
from ganzoo.errors import UserError
from ganzoo.layers import norm
from ganzoo.layers.attention import SelfAttentionLayer
from ganzoo.layers.equalized import EqualizedConv2d, EqualizedLinear, scaled
from ganzoo.models import StyleGAN
from ganzoo.penalties import R1, PathLength
from ganzoo.tricks import EqualizedLearningRate, Growing, SelfAttention, SpectralNorm
from tests.common import fit, flat, normal_batches
from tests.mutants import kills

CPU = torch.device("cpu")
ARCHITECTURES = ["skip", "residual", "plain"]
SMALL = {"channel_base": 128, "channel_max": 16, "latent_dim": 6, "style_dim": 8, "mapping_layers": 2, "group": 2}


def tiny(*parts, size: int = 16, **options) -> StyleGAN:
    torch.manual_seed(3)
    return StyleGAN(size, 1, parts=list(parts), penalties=[R1(1.0), PathLength(1.0, every=1)], **{**SMALL, **options})


def attention(network: nn.Module) -> SelfAttentionLayer:
    (layer,) = [m for m in network.modules() if isinstance(m, SelfAttentionLayer)]
    return layer


def shapes(network: nn.Module) -> list[tuple[int, ...]]:
    """What its attention gives from now on."""
    found: list[tuple[int, ...]] = []
    attention(network).register_forward_hook(lambda module, given, output: found.append(tuple(output.shape)))
    return found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_attention_sees_features_and_begins_as_the_identity(architecture: str) -> None:
    """16 channels at 8x8, not the gray image of that resolution; then both networks learn it, penalties included."""
    kinds = {"generator_architecture": architecture, "discriminator_architecture": architecture}
    gan, plain = tiny(SelfAttention(resolution=8), **kinds), tiny(**kinds)
    z = torch.randn(4, 6)
    images, outputs = [], []
    seen = shapes(gan.generator), shapes(gan.discriminator)
    for model in (gan, plain):
        with streams.stream(5, start=0, num=4, total=4, device=CPU):
            images.append(model.generator(z))
        outputs.append(model.discriminator(images[0]))
    assert torch.equal(*images) and torch.equal(*outputs)
    assert seen == ([(4, 16, 8, 8)], [(4, 16, 8, 8)])
    for network in (gan.generator, gan.discriminator):
        attention(network).gamma.data.fill_(1.0)
    before = [flat(attention(network)) for network in (gan.generator, gan.discriminator)]
    fit(gan, normal_batches(8, 1, 16, 16), max_steps=2)
    for network, then in zip((gan.generator, gan.discriminator), before, strict=True):
        assert flat(attention(network)).isfinite().all() and not torch.equal(flat(attention(network)), then)


def test_attention_rests_until_its_level_is_in_use() -> None:
    gan = tiny(SelfAttention(resolution=8), growth=Growing())
    images = torch.randn(4, 1, 16, 16)
    for level in (0, 1, 2):
        for network in (gan.generator, gan.discriminator):
            network.set_level(level, 0.5)
            seen = shapes(network)
            with streams.stream(5, start=0, num=4, total=4, device=CPU):
                network(images[..., : 4 << level, : 4 << level] if network is gan.discriminator else torch.randn(4, 6))
            # The discriminator has 8x8 features where images of 16x16 come in.
            awake = level >= (2 if network is gan.discriminator else 1)
            assert seen == [(4, 16, 8, 8)] * awake
            resting = {id(p) for p in network.dormant()}
            assert all((id(p) in resting) is not awake for p in attention(network).parameters())


def test_attention_at_other_resolutions_is_refused() -> None:
    with pytest.raises(UserError, match="StyleGANGenerator have resolution 4, 8, 16: choose one of these"):
        tiny(SelfAttention(resolution=32))
    with pytest.raises(UserError, match="StyleGANDiscriminator have resolution 4, 8: choose one of these"):
        tiny(SelfAttention("discriminator", resolution=16))


def effective(layer: EqualizedConv2d | EqualizedLinear) -> Tensor:
    """The matrix that a layer multiplies by, with the factor at run time."""
    factor, weight, _ = scaled(layer, torch.ones(1), layer.scales)
    return (factor * weight).flatten(1).detach()


def check_norms(normalize) -> None:
    """The largest singular value of what each layer of the discriminator does is 1, whatever its constant was."""
    with mock.patch("ganzoo.tricks.normalization.normalize_all", normalize):
        gan = tiny(SpectralNorm(), num_classes=3, label_layers=1, group=0)
    layers = [m for m in gan.discriminator.modules() if isinstance(m, EqualizedConv2d | EqualizedLinear)]
    assert len(layers) > 8
    for layer in layers:
        for _ in range(30):
            effective(layer)  # a step of the power iteration
        assert torch.linalg.matrix_norm(effective(layer), 2).item() == pytest.approx(1, abs=1e-2)


def test_a_spectral_norm_takes_the_place_of_the_constant() -> None:
    def beside_the_constant(network: nn.Module) -> None:
        kept = {m: m.scales for m in network.modules() if isinstance(m, EqualizedConv2d | EqualizedLinear)}
        norm.normalize_all(network)
        for layer, scales in kept.items():
            layer.scales = scales

    check_norms(norm.normalize_all)
    kills(check_norms, beside_the_constant)


def test_a_second_equalized_learning_rate_is_refused() -> None:
    with pytest.raises(UserError, match="StyleGANDiscriminator, whose layers have such constants of their own"):
        tiny(EqualizedLearningRate("discriminator"))
