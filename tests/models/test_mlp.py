"""The original GAN of perceptrons."""

import pytest
import torch

from ganzoo.errors import UserError
from ganzoo.models import MLPGAN
from ganzoo.models.mlp import Maxout


@pytest.mark.parametrize("shape", [(2,), (5,), (1, 8, 8), (3, 4, 6)])
def test_shapes(shape) -> None:
    gan = MLPGAN(shape, hidden=8, pieces=3, dropout=0.5)
    data = gan.generator(torch.randn(4, 2))
    assert data.shape == (4, *shape)
    assert gan.discriminator(data).shape == (4,)
    if len(shape) > 1:
        assert data.abs().max() <= 1


def test_maxout_is_the_largest_of_its_linear_maps() -> None:
    layer = Maxout(3, 4, 5)
    x = torch.randn(7, 3)
    w, b = layer.linear.weight.view(4, 5, 3), layer.linear.bias.view(4, 5)
    for unit in range(4):
        pieces = torch.stack([x @ w[unit, k] + b[unit, k] for k in range(5)])
        assert torch.allclose(layer(x)[:, unit], pieces.max(dim=0).values, atol=1e-6)


def test_number_of_parameters() -> None:
    gan = MLPGAN((2,), latent_dim=3, hidden=10, num_layers=2, pieces=5)
    assert sum(p.numel() for p in gan.generator.parameters()) == 3 * 10 + 10 + 10 * 10 + 10 + 10 * 2 + 2
    assert sum(p.numel() for p in gan.discriminator.parameters()) == 5 * (2 * 10 + 10 + 10 * 10 + 10) + 10 + 1


def test_networks_of_different_sizes() -> None:
    """Those of PacGAN's grid (Lin 2018): 4 x 400 with batch normalization, 3 x 200 maxout units of 5 pieces."""
    sizes = {"hidden": 400, "num_layers": 4, "discriminator_hidden": 200, "discriminator_layers": 3, "pieces": 5}
    gan = MLPGAN((2,), latent_dim=2, generator_norm="batch", **sizes)
    g, d = (sum(p.numel() for p in network.parameters()) for network in (gan.generator, gan.discriminator))
    assert g == (2 * 400 + 400) + 3 * (400 * 400 + 400) + 4 * 2 * 400 + 400 * 2 + 2
    assert d == 5 * ((2 * 200 + 200) + 2 * (200 * 200 + 200)) + 200 + 1
    hidden = []
    for layer in gan.generator.layers:
        if isinstance(layer, torch.nn.BatchNorm1d):
            layer.register_forward_hook(lambda layer, inputs, output: hidden.append(output))
    gan.generator(torch.randn(64, 2))
    assert len(hidden) == 4
    assert all(x.mean(0).abs().max() < 1e-5 for x in hidden)


def test_labels_select_columns_of_the_first_layer() -> None:
    gan = MLPGAN((2,), hidden=6, num_layers=1, num_classes=4)
    data = torch.randn(3, 2)
    first = gan.discriminator.layers[0]
    labels = torch.tensor([0, 3, 1])
    shifted = data @ first.weight[:, :2].T + first.weight[:, 2:].T[labels] + first.bias
    by_hand = gan.discriminator.layers[2](torch.nn.functional.leaky_relu(shifted, 0.2)).squeeze(1)
    assert torch.allclose(gan.discriminator(data, labels), by_hand, atol=1e-6)


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(UserError, match="each is 1 or more"):
        MLPGAN(num_layers=0)
