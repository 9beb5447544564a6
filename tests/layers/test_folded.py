"""Folded resampling convolutions equal the plain form: value, gradient, second derivative, under any normalization."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from ganzoo.layers import folded
from ganzoo.layers.folded import ConvPool2d, UpConv2d, fold, set_folded
from ganzoo.layers.spectral import spectral_norm
from tests.mutants import kills


def by_hand(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Pixels repeated or interpolated and convolved, or convolved and averaged: what the layer's name says."""
    if isinstance(layer, UpConv2d):
        if layer.upsampling == "bilinear":
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        else:
            x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        return F.conv2d(x, layer.weight, layer.bias, padding=layer.kernel_size[0] // 2)
    out = F.conv2d(x, layer.weight, layer.bias, padding=layer.kernel_size[0] // 2)
    return (out[:, :, ::2, ::2] + out[:, :, 1::2, ::2] + out[:, :, ::2, 1::2] + out[:, :, 1::2, 1::2]) / 4


LAYERS = {
    "up 3": lambda: UpConv2d(3, 5, 3),
    "up 1": lambda: UpConv2d(3, 5, 1),
    "up 3 without bias": lambda: UpConv2d(3, 5, 3, bias=False),
    "bilinear 3": lambda: UpConv2d(3, 5, 3, upsampling="bilinear"),
    "bilinear 1": lambda: UpConv2d(3, 5, 1, upsampling="bilinear"),
    "pool 3": lambda: ConvPool2d(3, 5, 3),
    "pool 1": lambda: ConvPool2d(3, 5, 1),
}


def check_equal(layer: nn.Module, reference=by_hand) -> None:
    torch.manual_seed(1)
    x = torch.randn(2, 3, 6, 8, dtype=torch.float64, requires_grad=True)
    parameters = list(layer.parameters())
    outputs = layer(x), reference(layer, x)
    assert outputs[0].shape == outputs[1].shape
    assert torch.allclose(*outputs, atol=1e-12)
    direction = torch.randn_like(outputs[0])
    found = []
    for output in outputs:  # R1-like: the squared norm of the gradient of a nonlinear function, differentiated again
        (slope,) = torch.autograd.grad((output.tanh() * direction).sum(), x, create_graph=True)
        found.append((slope, *torch.autograd.grad(slope.square().sum(), [x, *parameters])))
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, atol=1e-10)


@pytest.mark.parametrize("name", LAYERS)
def test_value_gradient_and_second_derivative(name: str) -> None:
    layer = LAYERS[name]().double()
    check_equal(layer)
    set_folded(nn.Sequential(layer), False)
    assert not layer.folded
    check_equal(layer)


@pytest.mark.parametrize("name", ["up 3", "pool 3", "up 1"])
def test_spectral_normalization_is_of_the_unfolded_weight(name: str) -> None:
    layer = spectral_norm(LAYERS[name]().double())
    original = layer.parametrizations.weight.original
    for _ in range(300):
        _ = layer.weight
    layer.eval()
    sigma = torch.linalg.svdvals(original.detach().flatten(1))[0]
    assert torch.allclose(layer.weight, original / sigma, atol=1e-8)
    check_equal(layer)


def test_the_short_way_is_taken_and_is_shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    """A 4x4 kernel of stride 2: 4 products for each output of a 3x3 convolution's 9, by torch's own count."""
    from torch.utils.flop_counter import FlopCounterMode

    def flops(layer: nn.Module, x: torch.Tensor) -> int:
        with FlopCounterMode(display=False) as counter:
            layer(x)
        return counter.get_total_flops()

    for name, ratio in (("up 3", 4 / 9), ("pool 3", 4 / 9), ("up 1", 1 / 4), ("pool 1", 1 / 4), ("bilinear 1", 1 / 4)):
        layer = LAYERS[name]()
        short = flops(layer, torch.randn(2, 3, 8, 8))
        set_folded(layer, False)
        assert short == pytest.approx(ratio * flops(layer, torch.randn(2, 3, 8, 8))), name


def test_gradcheck_of_the_fold() -> None:
    w = torch.randn(2, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(fold, w)
    assert torch.autograd.gradgradcheck(fold, w)
    places = torch.zeros(2, 3, 4, 4, dtype=torch.float64)
    for i in range(2):
        for j in range(2):
            places[:, :, i : i + 3, j : j + 3] += w.detach()
    assert torch.allclose(fold(w), places)


def test_channels_last_and_half_precision() -> None:
    for make in LAYERS.values():
        layer = make()
        twin = copy.deepcopy(layer).to(memory_format=torch.channels_last)
        x = torch.randn(2, 3, 8, 8)
        out = twin(x.contiguous(memory_format=torch.channels_last))
        assert out.is_contiguous(memory_format=torch.channels_last)
        assert torch.allclose(out, layer(x), atol=1e-5)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = layer(x)
        assert half.dtype == torch.bfloat16
        assert torch.allclose(half.float(), layer(x), atol=0.05)


def test_mutants(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(other_fold) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(folded, "fold", other_fold)
            check_equal(LAYERS["up 3"]().double())
            check_equal(LAYERS["pool 3"]().double())

    check(fold)
    kills(check, lambda w: fold(w.flip(2, 3)))  # turned
    kills(check, lambda w: fold(w) / 4)  # a mean in the place of the sum
    kills(check, lambda w: fold(w.detach()) + 0 * fold(w))  # no gradient for the weight
    kills(check, lambda w: F.pad(w, (0, 1, 0, 1)) * 4)  # every second output of the plain convolution


def test_a_layer_keeps_the_parameters_of_the_plain_one() -> None:
    plain = nn.Conv2d(3, 5, 3, padding=1)
    for layer in (UpConv2d(3, 5, 3), ConvPool2d(3, 5, 3)):
        assert layer.load_state_dict(plain.state_dict())
        assert not parametrize.is_parametrized(layer)
        assert isinstance(layer, nn.Conv2d)
