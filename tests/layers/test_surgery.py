"""Changing networks that exist: widening keeps what was there, looking changes nothing."""

import pytest
import torch
from torch import nn

from ganzoo.errors import UserError
from ganzoo.layers import surgery
from ganzoo.layers.equalized import equalized
from ganzoo.layers.spectral import is_spectral, spectral_norm
from ganzoo.layers.trace import Call, trace

LAYERS = {
    "linear": (lambda: nn.Linear(40, 30), (5, 40)),
    "conv2d": (lambda: nn.Conv2d(12, 20, 3), (5, 12, 6, 6)),
    "transposed": (lambda: nn.ConvTranspose2d(12, 20, 3), (5, 12, 6, 6)),
}


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("spectral", [False, True])
def test_widening_keeps_the_weights_and_draws_from_their_law(kind, spectral) -> None:
    torch.manual_seed(0)
    make, shape = LAYERS[kind]
    layer = make()
    original = layer.weight.detach().clone()
    if spectral:
        spectral_norm(layer)
    wide = surgery.widened(layer, 9, "The test")
    assert is_spectral(wide) == spectral
    stored = (wide.parametrizations.weight.original if spectral else wide.weight).detach()
    inputs = 0 if kind == "transposed" else 1
    old, new = stored.split([shape[1], 9], dim=inputs)
    assert torch.equal(old, original)
    assert set(new.flatten().tolist()) <= set(original.flatten().tolist())
    assert new.std().item() == pytest.approx(original.std().item(), rel=0.1)
    if not spectral:  # further channels of zeros change nothing
        x = torch.randn(*shape)
        assert torch.allclose(wide(torch.cat([x, torch.zeros(5, 9, *shape[2:])], 1)), layer(x), atol=1e-5)
    assert torch.equal(layer.parametrizations.weight.original if spectral else layer.weight, original)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("spectral", [False, True])
def test_widening_by_zeros(kind, spectral) -> None:
    """What is put into further channels changes nothing, at first."""
    torch.manual_seed(0)
    make, shape = LAYERS[kind]
    layer = make()
    original = layer.weight.detach().clone()
    wide = surgery.widened(spectral_norm(layer) if spectral else layer, 9, "The test", zero=True).eval()
    weight = wide.weight.detach()
    old, new = weight.split([shape[1], 9], dim=0 if kind == "transposed" else 1)
    assert not new.any() and wide.weight.requires_grad
    assert torch.allclose(old, original / (original / old).flatten()[0], atol=1e-6)  # but for the norm
    x, further = torch.randn(*shape), torch.randn(5, 9, *shape[2:])
    assert torch.allclose(wide(torch.cat([x, further], 1)), wide(torch.cat([x, 0 * further], 1)), atol=1e-6)


def test_what_cannot_be_widened_is_refused() -> None:
    with pytest.raises(UserError, match="4 groups"):
        surgery.widened(nn.Conv2d(8, 8, 3, groups=4), 1, "The test")
    with pytest.raises(UserError, match="name it before"):
        surgery.widened(equalized(nn.Linear(3, 3)), 1, "The test")
    with pytest.raises(UserError, match="name it before"):
        surgery.widened(spectral_norm(equalized(nn.Linear(3, 3))), 1, "The test")


def test_a_head_of_several_layers() -> None:
    network = nn.Module()
    network.stem = nn.Sequential(nn.ReLU(), nn.Linear(2, 3), nn.Linear(3, 3))
    network.head = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 1))
    network.other = nn.Linear(7, 7)
    assert surgery.first_layer(network) == "stem.1"
    assert surgery.last_layer(network) == "head.2"
    network.head, network.stem = nn.Linear(3, 1), None
    assert surgery.last_layer(network) == "head"
    assert surgery.first_layer(network) == "head"


def test_looking_at_a_network_changes_nothing() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(), nn.Flatten(), nn.Linear(8, 1))
    network[1].eval()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    calls, output = trace(network, torch.ones(2, 1, 4, 4))
    assert torch.equal(torch.rand(2), expected)
    assert [module.training for module in network] == [True, False, True, True, True]
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in state.items())
    assert calls[0] == Call("0", (2, 1, 4, 4), (2, 2, 2, 2))
    assert calls[-1] == Call("4", (2, 8), (2, 1))
    assert output.shape == (2, 1)
    assert not network[0]._forward_hooks
    assert not network._forward_pre_hooks
