"""Which networks may see two batches as one: what is claimed is true, and what says nothing is not trusted."""

import pytest
import torch
from torch import nn

from ganzoo.layers.coupling import joined, parted, sample_group
from ganzoo.layers.dropout import Dropout
from ganzoo.layers.minibatch import MinibatchDiscriminationLayer, MinibatchStdDevLayer
from ganzoo.models import DCGAN, SNGAN, WGANGP, ProgressiveGAN, StyleGAN
from ganzoo.tricks import MinibatchStdDev, Packing, SpectralNorm, VirtualBatchNorm
from tests.mutants import kills

SMALL = {"generator_width": 4, "generator_max_width": 4, "discriminator_width": 4, "discriminator_max_width": 4}


def separable_by_experiment(network: nn.Module) -> bool:
    """Whether a sample's logit stays when its neighbours change."""
    torch.manual_seed(0)
    x = torch.randn(4, 3, 32, 32)
    y = torch.cat([x[:2], torch.randn(2, 3, 32, 32)])
    for module in network.modules():  # vectors that move are no coupling; a turn has them rest
        if type(module).__name__ == "SpectralNormalization":
            module.eval()
    return torch.allclose(network(x)[:2], network(y)[:2], atol=1e-6)


@pytest.mark.parametrize("norm", ["none", "spectral", "layer", "instance", "batch"])
def test_the_claim_of_residual_discriminators(norm: str) -> None:
    network = WGANGP(discriminator_norm=norm, penalties=[], **SMALL).discriminator
    assert (sample_group(network) == 1) == separable_by_experiment(network) == (norm != "batch")


@pytest.mark.parametrize(
    ("make", "norm", "group"),
    [(MinibatchStdDev, "none", 4), (lambda: VirtualBatchNorm("discriminator", size=2), "batch", 0)],
)
def test_what_parts_add(make, norm: str, group: int) -> None:
    gan = WGANGP(discriminator_norm=norm, penalties=[], parts=[make()], **SMALL)
    assert sample_group(gan.discriminator) == group


def check_that_groups_stay(way=(joined, parted)) -> None:
    """The outputs of both batches are those of a pass of its own, for whichever groups."""
    join, part = way
    torch.manual_seed(0)
    for group in (1, 2, 4):
        network = nn.Sequential(MinibatchStdDevLayer(group), nn.Flatten(), nn.Linear(4 * 9, 1)).double()
        first, second = torch.randn(2, 8, 3, 3, 3, dtype=torch.float64)
        for found, alone in zip(part(network(join(first, second, group)), group), (first, second), strict=True):
            assert torch.allclose(found, network(alone), atol=1e-14)


def test_groups_of_two_batches_in_one() -> None:
    check_that_groups_stay()
    kills(check_that_groups_stay, (lambda a, b, group: torch.cat([a, b]), parted))
    kills(check_that_groups_stay, (lambda a, b, group: joined(a, b, 1), lambda x, group: parted(x, 1)))
    kills(check_that_groups_stay, (joined, lambda x, group: parted(x, group)[::-1]))


def style_based(**options) -> nn.Module:
    return StyleGAN(16, 3, latent_dim=8, style_dim=8, channel_base=64, channel_max=16, **options).discriminator


@pytest.mark.parametrize("options", [{}, {"num_classes": 3}, {"discriminator_architecture": "skip"}, {"group": 2}])
def test_style_based_discriminators(options) -> None:
    """Real and fake as one batch: the logits and the gradients of two passes."""
    torch.manual_seed(0)
    network, group = style_based(**options).double(), options.get("group", 4)
    assert sample_group(network) == group and sample_group(style_based(group=0)) == 1
    first, second = torch.randn(2, 8, 3, 16, 16, dtype=torch.float64)
    labels = [torch.randint(3, (8,)) if "num_classes" in options else None for _ in range(2)]
    both = None if labels[0] is None else joined(*labels, group)
    one = parted(network(joined(first, second, group), both), group)
    two = network(first, labels[0]), network(second, labels[1])
    for found, alone in zip(one, two, strict=True):
        assert torch.allclose(found, alone, atol=1e-13)
    slopes = [torch.autograd.grad((x**2).sum() - y.sum(), list(network.parameters())) for x, y in (one, two)]
    for found, alone in zip(*slopes, strict=True):
        assert torch.allclose(found, alone, atol=1e-11)


def test_groups_of_two_sizes_or_of_the_whole_batch_are_none() -> None:
    assert sample_group(nn.Sequential(MinibatchStdDevLayer(4), MinibatchStdDevLayer(4))) == 4
    assert sample_group(nn.Sequential(MinibatchStdDevLayer(4), MinibatchStdDevLayer(2))) == 0
    assert sample_group(nn.Sequential(MinibatchStdDevLayer(None))) == 0
    assert sample_group(ProgressiveGAN(8, 1, channel_base=32, channel_max=8).discriminator) == 0


def test_parts_that_couple_nothing() -> None:
    assert sample_group(WGANGP(parts=[SpectralNorm()], **SMALL).discriminator) == 1
    packed = SNGAN(parts=[Packing(2)], **SMALL).discriminator
    assert sample_group(packed) == 1  # packs come as single inputs
    assert packed(torch.randn(3, 6, 32, 32)).shape == (3,)


class Silent(nn.Module):
    """A layer that says nothing."""

    def forward(self, x):
        return x


class Speaking(Silent):
    couples_samples = False

    def forward(self, x):
        return 2 * x


class Heir(Speaking):
    """Another forward, so that the base's word does not count."""

    def forward(self, x):
        return x - x.mean(0)


class Renamed(Speaking):
    """The same forward, so that it does."""


def test_what_says_nothing_is_not_trusted() -> None:
    assert (
        sample_group(nn.Sequential(nn.Conv2d(3, 3, 1), nn.GroupNorm(1, 3), nn.LeakyReLU(), Speaking(), Renamed())) == 1
    )
    for layer in (Silent(), Heir(), nn.BatchNorm2d(3), nn.Dropout(), nn.RReLU(), nn.LSTM(2, 2), Dropout()):
        assert not sample_group(nn.Sequential(nn.Conv2d(3, 3, 1), layer)), layer
    assert not sample_group(MinibatchDiscriminationLayer(3))
    assert not sample_group(DCGAN(8, 1, width=4, discriminator_norm="none").discriminator)
    for add in (nn.Module.register_forward_hook, nn.Module.register_forward_pre_hook):
        layer = nn.Linear(2, 2)
        add(layer, lambda *_: None)
        assert not sample_group(layer)
