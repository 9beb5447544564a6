"""Residual blocks against a naive form, channels against the papers' tables, weights against their stated law."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ganzoo.errors import UserError
from ganzoo.layers.conditional import batch_norm
from ganzoo.layers.norm import activation_norm
from ganzoo.layers.resnet import (
    DiscriminatorBlock,
    FirstDiscriminatorBlock,
    GeneratorBlock,
    base_size,
    discriminator_widths,
    generator_widths,
    initialize,
    num_halvings,
)
from ganzoo.layers.resnet_networks import ResNetDiscriminator, ResNetGenerator
from ganzoo.layers.spectral import is_spectral
from ganzoo.layers.surgery import weighted_layers
from tests.mutants import kills


def conv(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return F.conv2d(x, layer.weight, layer.bias, padding=layer.weight.shape[-1] // 2)


def up(x: torch.Tensor) -> torch.Tensor:
    return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def pool(x: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(x, 2)


def same(x: torch.Tensor) -> torch.Tensor:
    return x


def check_generator_block(kind) -> None:
    """Figure 7 of the paper, with its upsampling in front of the first convolution and of the shortcut's."""
    for inputs, outputs, upsample, labels in ((3, 5, True, None), (3, 5, False, None), (4, 4, False, [2, 0, 1])):
        torch.manual_seed(0)
        block = kind(inputs, outputs, norm=batch_norm(3 if labels else 0), upsample=upsample).double()
        for table in (p for name, p in block.named_parameters() if "norm" in name):
            nn.init.normal_(table)
        x, resize = torch.randn(3, inputs, 4, 4, dtype=torch.float64), up if upsample else same
        given = () if labels is None else (torch.tensor(labels),)
        h = conv(block.conv1, resize(block.norm1(x, *given).relu()))
        h = conv(block.conv2, block.norm2(h, *given).relu())
        shortcut = x if inputs == outputs and not upsample else conv(block.shortcut, resize(x))
        assert torch.allclose(block(x, *given), h + shortcut)


def check_discriminator_block(kind) -> None:
    for inputs, outputs, downsample, norm in ((3, 5, True, False), (3, 3, False, False), (3, 3, True, True)):
        torch.manual_seed(0)
        factory = (lambda width: activation_norm("layer", width)) if norm else None
        block = kind(inputs, outputs, downsample=downsample, norm=factory).double()
        x, resize = torch.randn(2, inputs, 4, 4, dtype=torch.float64), pool if downsample else same
        norms = (block.norm1, block.norm2, block.norm0) if norm else (same, same, same)
        h = conv(block.conv2, norms[1](conv(block.conv1, norms[0](x).relu())).relu())
        shortcut = x if inputs == outputs and not downsample else resize(conv(block.shortcut, norms[2](x)))
        assert torch.allclose(block(x), resize(h) + shortcut)


def check_first_block(kind) -> None:
    block = kind(3, 5).double()
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    h = pool(conv(block.conv2, conv(block.conv1, x).relu()))
    assert torch.allclose(block(x), h + conv(block.shortcut, pool(x)))


def test_blocks() -> None:
    check_generator_block(GeneratorBlock)
    check_discriminator_block(DiscriminatorBlock)
    check_first_block(FirstDiscriminatorBlock)


class InPlace(DiscriminatorBlock):
    """A rectifier that changes what the shortcut sees, as an in-place one in front of the residual does."""

    def forward(self, x):
        return super().forward(x.relu())


class WithoutShortcut(GeneratorBlock):
    def forward(self, x, condition=None):
        return self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))


class WithActivation(FirstDiscriminatorBlock):
    def forward(self, x):
        return super().forward(x.relu())


class Blind(GeneratorBlock):
    """The first sample's label for all."""

    def forward(self, x, condition=None):
        return super().forward(x, None if condition is None else condition[:1].expand_as(condition))


def test_mutants() -> None:
    kills(check_generator_block, WithoutShortcut)
    kills(check_generator_block, Blind)
    kills(check_discriminator_block, InPlace)
    kills(check_first_block, WithActivation)


def test_second_derivatives_of_a_discriminator_s_blocks() -> None:
    """The input's gradient penalized, which is what every gradient penalty needs; leaky, as ReLU has none at 0."""
    network = nn.Sequential(FirstDiscriminatorBlock(1, 2), DiscriminatorBlock(2, 2, downsample=True)).double()
    x = torch.randn(2, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: network(x).tanh(), x)


# ---------------------------------------------------------------------- the rule for channels


@pytest.mark.parametrize(
    ("size", "g", "d", "widths", "d_widths", "base"),
    [
        (32, (256, 256), (128, 128), [256] * 4, [128] * 4, 4),  # Miyato 2018, table 4
        (48, (64, 512), (64, 1024), [512, 256, 128, 64], [64, 128, 256, 512, 1024], 6),  # table 5
        (128, (64, 1024), (64, 1024), [1024, 1024, 512, 256, 128, 64], [64, 128, 256, 512, 1024, 1024], 4),  # table 6
        (64, (64, 1024), (64, 1024), [1024, 512, 256, 128, 64], [64, 128, 256, 512, 1024], 4),  # Mimicry, sngan_64.py
    ],
)
def test_the_rule_gives_the_papers_tables(size, g, d, widths, d_widths, base) -> None:
    assert generator_widths(size, *g) == widths
    assert discriminator_widths(size, *d) == d_widths
    assert base_size(size) == base


@pytest.mark.parametrize("size", [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 256, 512])
def test_any_resolution(size: int) -> None:
    widths = generator_widths(size, 2, 4), discriminator_widths(size, 2, 4)
    bottom = base_size(size)
    generator = ResNetGenerator(size, widths[0], channels=1, latent_dim=3)
    discriminator = ResNetDiscriminator(size, widths[1], channels=1, bottom=bottom)
    with torch.device("meta"):
        images = generator.to("meta")(torch.zeros(2, 3))
    assert images.shape == (2, 1, size, size)
    assert discriminator.to("meta")(images).shape == (2,)
    assert num_halvings(size, bottom, len(widths[1])) <= len(widths[1])


@pytest.mark.parametrize("size", [0, 4, 7, 30, 33, 36, 72, -32, (32, 32), 32.0])
def test_other_sizes_are_refused(size) -> None:
    with pytest.raises(UserError, match="4, 5, 6 or 7 times a power of two"):
        generator_widths(size, 4, 4)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UserError, match="16, 8, 4, 2"):
        num_halvings(32, 5, 4)
    with pytest.raises(UserError, match="16, 8, 4, 2"):
        num_halvings(32, 1, 4)
    with pytest.raises(UserError, match="widths 0 to 4"):
        generator_widths(32, 0, 4)
    with pytest.raises(UserError, match="widths 4 to 0"):
        discriminator_widths(32, 4, 0)


@pytest.mark.parametrize(("bottom", "size"), [(8, 8), (2, 2), (16, 16)])
def test_the_last_feature_map_has_the_size_that_was_asked_for(bottom: int, size: int) -> None:
    network = ResNetDiscriminator(32, [2, 2, 2, 2], bottom=bottom)
    seen: list[torch.Size] = []
    network.blocks[-1].register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    network(torch.zeros(1, 3, 32, 32))
    assert seen == [(1, 2, size, size)]


# ---------------------------------------------------------------------- initial weights


def deviation(weight: torch.Tensor, gain: float) -> float:
    """Of the uniform law of Glorot 2010, with its gain: gain sqrt(2 / (fan-in + fan-out))."""
    taps = weight[0, 0].numel() if weight.dim() == 4 else 1
    return gain * math.sqrt(2 / (taps * (weight.shape[0] + weight.shape[1])))


def check_xavier(draw) -> None:
    torch.manual_seed(0)
    networks = ResNetGenerator(32, [32] * 4, latent_dim=16), ResNetDiscriminator(32, [32] * 4, num_classes=30)
    for network in networks:
        plain = network if not is_spectral(next(iter(weighted_layers(network).values()))) else without_norm(network)
        draw(plain)
        for name, layer in {**weighted_layers(plain), "embed": getattr(plain, "embed", None)}.items():
            if layer is None:
                continue
            weight, gain = layer.weight.detach(), math.sqrt(2) if ".conv" in f".{name}" and "blocks" in name else 1.0
            expected = deviation(weight, gain)
            assert weight.std().item() == pytest.approx(expected, rel=6 / math.sqrt(weight.numel())), name
            assert weight.abs().max() <= math.sqrt(3) * expected * (1 + 1e-5), name  # uniform, so bounded
            assert getattr(layer, "bias", None) is None or not layer.bias.any(), name


def without_norm(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding) and is_spectral(module):
            nn.utils.parametrize.remove_parametrizations(module, "weight")
    return network


def test_xavier_has_the_gains_of_the_authors() -> None:
    check_xavier(lambda network: initialize(network, "xavier"))

    def one_gain(network: nn.Module) -> None:
        for layer in weighted_layers(network).values():
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    kills(check_xavier, one_gain)
    kills(check_xavier, lambda network: initialize(network, "orthogonal"))
    kills(check_xavier, lambda network: None)  # removing the norm leaves divided weights


def test_orthogonal_rows_or_columns() -> None:
    network = ResNetGenerator(32, [8] * 4, latent_dim=4, init="orthogonal")
    for layer in weighted_layers(network).values():
        matrix = layer.weight.detach().flatten(1)
        small = matrix @ matrix.T if len(matrix) <= matrix.shape[1] else matrix.T @ matrix
        assert torch.allclose(small, torch.eye(len(small)), atol=1e-5)


def test_initial_activations_keep_their_size() -> None:
    """What the gains are for: behind each block of a plain discriminator the signal neither dies nor explodes."""
    torch.manual_seed(0)
    network = ResNetDiscriminator(32, [64] * 4, spectral=False)
    x = torch.randn(8, 3, 32, 32)
    for block in network.blocks:
        x = block(x)
        assert 0.2 < x.std() < 5


# ---------------------------------------------------------------------- the networks


def test_layers_behind_a_resolution() -> None:
    """Where attention goes: behind the block that gives the resolution, the first one in the discriminator."""
    calls: list[tuple[str, torch.Size]] = []

    class Seen(nn.Module):
        def __init__(self, name: str, channels: int) -> None:
            super().__init__()
            self.name, self.channels = name, channels

        def forward(self, x):
            calls.append((self.name, x.shape))
            return x

    generator = ResNetGenerator(32, [6, 5, 4, 3], latent_dim=2, behind={16: lambda c: Seen("g", c)})
    discriminator = ResNetDiscriminator(32, [3, 4, 5, 6], behind={8: lambda c: Seen("d", c)})
    discriminator(generator(torch.randn(2, 2)))
    assert calls == [("g", (2, 4, 16, 16)), ("d", (2, 4, 8, 8))]
    assert [m.channels for n in (generator, discriminator) for m in n.modules() if isinstance(m, Seen)] == [4, 4]


def test_the_projection_is_a_product_with_the_label_s_embedding() -> None:
    """Miyato and Koyama 2018, equation 4, on features that are added up, and averaged."""
    for pooling, share in (("sum", 1.0), ("mean", 1 / 64)):
        torch.manual_seed(0)
        network = ResNetDiscriminator(32, [3] * 4, num_classes=5, pooling=pooling).eval()
        x, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 4, 2, 2])
        h = x
        for block in network.blocks:
            h = block(h)
        features = share * h.relu().sum(dim=(2, 3))
        logits = features @ network.head.weight[0] + network.head.bias
        projection = (features * network.embed.weight[labels]).sum(dim=1)
        assert torch.allclose(network.features(x), features, atol=1e-5)
        assert torch.allclose(network(x, labels), logits + projection, atol=1e-5)


def test_spectral_normalization_of_every_weight_or_of_none() -> None:
    network = ResNetDiscriminator(32, [3] * 4, num_classes=5)
    layers = [*weighted_layers(network).values(), network.embed]
    assert len(layers) == 3 + 3 + 2 + 2 + 1 + 1
    assert all(is_spectral(layer) for layer in layers)
    plain = ResNetDiscriminator(32, [3] * 4, spectral=False)
    assert not any(is_spectral(layer) for layer in weighted_layers(plain).values())
