"""The mapping network: normalized inputs, mixed styles, and labels."""

from __future__ import annotations

import math
from collections import Counter

import torch
from torch import nn
from torch.nn import functional as F

from ganzoo import streams
from ganzoo.layers.mapping import LabelEmbedding, MappingNetwork, label_mapping
from tests.mutants import kills

CPU = torch.device("cpu")


def network(cls=MappingNetwork, **options) -> MappingNetwork:
    torch.manual_seed(1)
    return cls(4, 6, **{"num_layers": 3, "num_styles": 5, **options})


def test_the_perceptron_by_hand() -> None:
    """Section 3 and appendix C of Karras 2019: a normalized latent, then layers of a leaky rectifier with gain."""
    mapping = network(lr_multiplier=0.01)
    z = 3 * torch.randn(7, 4)
    x = z / z.square().mean(dim=1, keepdim=True).sqrt()
    for layer in (m for m in mapping.layers if isinstance(m, nn.Linear)):
        layer.bias.data.normal_()
        weight = layer.weight * 0.01 / math.sqrt(layer.in_features)
        x = F.leaky_relu(x @ weight.T + 0.01 * layer.bias, 0.2) * math.sqrt(2)
    assert torch.allclose(mapping.style(z), x, atol=1e-5)
    assert torch.allclose(mapping.style(10 * z), x, atol=1e-5)
    assert torch.equal(mapping(z), mapping.style(z)[:, None].expand(-1, 5, -1))


def check_mixing(cls) -> None:
    """Each sample has its own style up to a layer of its own, and another latent's from there; some are not mixed."""
    mapping, num = network(cls, mixing=0.6), 6000
    z = torch.randn(num, 4)
    with streams.stream(5, start=0, num=num, total=num, device=CPU):
        styles = mapping(z)
        own = mapping.style(z)
    with streams.stream(5, start=0, num=num, total=num, device=CPU):
        other = mapping.style(streams.randn(num, 4, purpose="mixing latent"))
    is_own = (styles == own[:, None]).all(dim=2)
    assert torch.equal(is_own, torch.where(is_own[:, :, None], own[:, None], other[:, None]).eq(own[:, None]).all(2))
    assert torch.equal(torch.where(is_own[:, :, None], own[:, None], other[:, None]), styles)
    first = is_own.sum(dim=1)
    assert torch.equal(is_own, torch.arange(5) < first[:, None])  # no style of its own behind another's
    share = Counter(first.tolist())
    assert set(share) == {1, 2, 3, 4, 5}
    assert abs(share[5] / num - 0.4) < 0.03
    assert all(abs(share[k] / num - 0.15) < 0.02 for k in (1, 2, 3, 4))


class MixedTheOtherWay(MappingNetwork):
    def forward(self, latents, labels=None):
        return super().forward(latents, labels).flip(1)


class OneLayerForAll(MappingNetwork):
    def forward(self, latents, labels=None):
        styles = super().forward(latents, labels)
        return torch.cat([styles[:, :1].expand(-1, 3, -1), styles[:, 3:]], dim=1)


class AlwaysMixed(MappingNetwork):
    def forward(self, latents, labels=None):
        self.mixing = 1.0
        return super().forward(latents, labels)


def test_style_mixing() -> None:
    check_mixing(MappingNetwork)
    for wrong in (MixedTheOtherWay, OneLayerForAll, AlwaysMixed):
        kills(check_mixing, wrong)


def test_styles_are_mixed_in_training_alone_and_ranks_have_their_rows() -> None:
    mapping, z = network(mixing=1.0), torch.randn(8, 4)
    assert torch.equal(mapping.eval()(z), mapping.style(z)[:, None].expand(-1, 5, -1))
    mapping.train()
    with streams.stream(5, start=0, num=8, total=8, device=CPU):
        whole = mapping(z)
    for start in (0, 4):
        with streams.stream(5, start=start, num=4, total=8, device=CPU):
            assert torch.allclose(mapping(z[start : start + 4]), whole[start : start + 4])
    assert not torch.equal(whole, mapping.style(z)[:, None].expand(-1, 5, -1))


def test_the_mean_is_that_of_the_samples_own_styles() -> None:
    mapping, z = network(mixing=1.0), torch.randn(8, 4)
    mapping(z)
    assert torch.allclose(mapping.batch_mean, mapping.style(z).mean(dim=0), atol=1e-6)
    assert not mapping.batch_mean.requires_grad


def test_labels() -> None:
    """Normalized, beside the latent; in the discriminator alone."""
    embedding = LabelEmbedding(3, 8, True)
    labels = torch.tensor([0, 2, 1, 2])
    vectors = embedding(labels)
    assert torch.allclose(vectors.square().mean(dim=1), torch.ones(4), atol=1e-5)
    rows = embedding.linear.weight.T / math.sqrt(3) + embedding.linear.bias
    rows = rows / rows.square().mean(dim=1, keepdim=True).sqrt()
    assert torch.allclose(vectors, rows[labels], atol=1e-5)
    mapping = network(num_classes=3)
    z = torch.randn(1, 4).expand(4, -1)
    styles = mapping(z, labels)
    assert torch.equal(styles[1], styles[3])
    assert not torch.allclose(styles[0], styles[1])
    assert label_mapping(3, 8, 2)(labels).shape == (4, 8)
