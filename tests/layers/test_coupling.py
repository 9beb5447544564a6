"""Which networks may see two batches as one: what is claimed is true, and what says nothing is not trusted."""

import pytest
import torch
from torch import nn

from ganzoo.layers.coupling import is_separable
from ganzoo.layers.dropout import Dropout
from ganzoo.layers.minibatch import MinibatchDiscriminationLayer, MinibatchStdDevLayer
from ganzoo.models import DCGAN, SNGAN, WGANGP
from ganzoo.tricks import MinibatchStdDev, Packing, SpectralNorm, VirtualBatchNorm

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
    assert is_separable(network) == separable_by_experiment(network) == (norm != "batch")


@pytest.mark.parametrize("make", [MinibatchStdDev, lambda: VirtualBatchNorm("discriminator", size=2)])
def test_what_parts_add(make) -> None:
    norm = "batch" if "lambda" in make.__name__ else "none"
    gan = WGANGP(discriminator_norm=norm, penalties=[], parts=[make()], **SMALL)
    assert not is_separable(gan.discriminator)


def test_parts_that_couple_nothing() -> None:
    assert is_separable(WGANGP(parts=[SpectralNorm()], **SMALL).discriminator)
    packed = SNGAN(parts=[Packing(2)], **SMALL).discriminator
    assert is_separable(packed)  # packs come as single inputs
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
    assert is_separable(nn.Sequential(nn.Conv2d(3, 3, 1), nn.GroupNorm(1, 3), nn.LeakyReLU(), Speaking(), Renamed()))
    for layer in (Silent(), Heir(), nn.BatchNorm2d(3), nn.Dropout(), nn.RReLU(), nn.LSTM(2, 2), Dropout()):
        assert not is_separable(nn.Sequential(nn.Conv2d(3, 3, 1), layer)), layer
    for layer in (MinibatchStdDevLayer(), MinibatchDiscriminationLayer(3)):
        assert not is_separable(layer)
    assert not is_separable(DCGAN(8, 1, width=4, discriminator_norm="none").discriminator)
    for add in (nn.Module.register_forward_hook, nn.Module.register_forward_pre_hook):
        layer = nn.Linear(2, 2)
        add(layer, lambda *_: None)
        assert not is_separable(layer)
