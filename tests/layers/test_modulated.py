"""Modulated convolution against weights that are made for each sample, one sample at a time."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ganzoo import streams
from ganzoo.layers.equalized import EqualizedConv2d, EqualizedLinear
from ganzoo.layers.filtered import blur
from ganzoo.layers.modulated import ModulatedConv2d, StyledConv, Styling
from tests.mutants import kills

KINDS = [
    {"kernel_size": kernel, "up": up, "demodulate": demodulate, "equalize": equalize}
    for kernel, up, demodulate, equalize in itertools.product((1, 3), (False, True), (False, True), (False, True))
    if not (up and kernel == 1)
]


def layer(cls=ModulatedConv2d, *, kernel_size=3, gain=1.5, **options) -> nn.Module:
    torch.manual_seed(1)
    return cls(4, 6, kernel_size, 5, gain=gain, **options).double()


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_sample(conv: ModulatedConv2d, x, style, offset):
    """Equations 1 and 3 as they stand, for one sample after the other."""
    found = []
    for image, w in zip(x, style, strict=True):
        scales = conv.affine(w)
        weight = conv.weight * conv.scale * scales[None, :, None, None]
        if conv.demodulate:
            weight = weight / (weight.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if conv.up:
            y = blur(F.conv_transpose2d(image[None], weight.transpose(0, 1), stride=2), 1, gain=4.0)
        else:
            y = F.conv2d(image[None], weight, padding=conv.kernel_size // 2)
        found.append(y[0] * conv.gain + offset[:, None, None])
    return torch.stack(found)


def check_by_sample(cls) -> None:
    """Values and all gradients."""
    for kind in KINDS:
        conv = layer(cls, **kind)
        inputs = [draw(3, 4, 5, 6), 2 * draw(3, 5, seed=1), draw(6, seed=2)]
        results = []
        for function in (conv, lambda *given, conv=conv: by_sample(conv, *given)):
            given = [x.clone().requires_grad_() for x in inputs]
            y = function(*given)
            wanted = [*given, *conv.parameters()]
            results.append([y, *torch.autograd.grad(torch.tanh(y).sum(), wanted)])
        for ours, reference in zip(*results, strict=True):
            assert torch.allclose(ours, reference, rtol=1e-9, atol=1e-11), kind


class NormOfPlainWeights(ModulatedConv2d):
    """Divides by the norm that weights had before the style."""

    def factors(self, style, *, half=False):
        scales, factors = super().factors(style)
        return scales, factors if factors is None else factors[:, :].mean(dim=0, keepdim=True).expand_as(factors)


class NormWithoutGradient(ModulatedConv2d):
    def factors(self, style, *, half=False):
        scales, factors = super().factors(style)
        return scales, None if factors is None else factors.detach()


class ScalesOfTheFirstSample(ModulatedConv2d):
    def factors(self, style, *, half=False):
        return super().factors(style[:1].expand_as(style))


class WithoutGain(ModulatedConv2d):
    def __init__(self, *arguments, gain, **options):
        super().__init__(*arguments, **options)


def test_it_equals_weights_for_each_sample() -> None:
    check_by_sample(ModulatedConv2d)
    for wrong in (NormOfPlainWeights, NormWithoutGradient, ScalesOfTheFirstSample):
        kills(check_by_sample, wrong)


def check_unit_norm(cls) -> None:
    """Of every sample and output map; and the output has variance gain^2 for white inputs of the same variance."""
    conv, style = layer(cls, gain=3.0), 2 * draw(7, 5)
    scales, factors = conv.factors(style)
    weights = scales[:, None, :, None, None] * conv.weight * factors[:, :, None, None, None]
    assert torch.allclose(weights.square().sum(dim=(2, 3, 4)), torch.full((7, 6), 9.0).double(), rtol=1e-6)
    y = conv(draw(7, 4, 100, 100, seed=4), style)[..., 1:-1, 1:-1]
    assert torch.allclose(y.var(dim=(2, 3)), torch.full((7, 6), 9.0).double(), rtol=0.1)


def test_demodulated_weights_have_unit_norm() -> None:
    check_unit_norm(ModulatedConv2d)
    for wrong in (NormOfPlainWeights, WithoutGain):
        kills(check_unit_norm, wrong)


@pytest.mark.parametrize("kind", [{"kernel_size": 1}, {}, {"up": True}, {"demodulate": False}], ids=str)
def test_second_derivatives(kind) -> None:
    torch.manual_seed(1)
    conv = ModulatedConv2d(2, 2, **{"kernel_size": 3, "style_dim": 2, **kind}).double()
    x, style = draw(2, 2, 2, 2).requires_grad_(), draw(2, 2, seed=1).requires_grad_()
    assert torch.autograd.gradgradcheck(conv, (x, style))


def test_the_style_of_a_new_layer_does_nothing_much() -> None:
    """An affine map of bias 1: a style of 0 leaves the input as it is."""
    conv = layer(demodulate=False)
    x = draw(2, 4, 5, 5)
    plain = F.conv2d(x, conv.weight * conv.scale, padding=1) * 1.5
    assert torch.allclose(conv(x, torch.zeros(2, 5).double()), plain)


def test_half_precision_does_not_overflow() -> None:
    """Sums of scaled values would be far above 65,504; demodulated they are of the order of 1."""
    torch.manual_seed(0)
    conv = ModulatedConv2d(64, 3, 3, 5)
    x, style = torch.randn(2, 64, 4, 4), 1e6 * torch.randn(2, 5)
    assert (x * conv.factors(style)[0][:, :, None, None]).abs().max() > 65504
    with torch.autocast("cpu", torch.float16):
        y = conv(x.half(), style)
    assert y.dtype == torch.float16
    assert torch.allclose(y.float(), conv(x, style), rtol=1e-2, atol=1e-2)


# ---------------------------------------------------------------------- with noise, bias and rectifier


def styled(cls=StyledConv, **options) -> StyledConv:
    torch.manual_seed(2)
    conv = cls(4, 6, (5, 6), Styling(5, **options)).double()
    conv.bias.data = draw(6)
    if conv.strength is not None:
        conv.strength.data.fill_(0.7)
    return conv


def check_styled(cls) -> None:
    """sqrt(2) times the rectifier of convolution + strength noise + bias, with one noise for all channels."""
    conv, x, style = styled(cls), draw(3, 4, 5, 6), draw(3, 5, seed=1)
    y = ModulatedConv2d.forward(conv.conv, x, style) / math.sqrt(2)
    for mode in ("fixed", "off", "random"):
        noise = {"fixed": conv.noise, "off": torch.zeros(1, 1, 5, 6).double()}.get(mode)
        with streams.stream(5, start=0, num=3, total=3, device=torch.device("cpu")):
            if noise is None:
                noise = streams.randn(3, 1, 5, 6, purpose="a layer").double()
        expected = F.leaky_relu(y + 0.7 * noise + conv.bias[:, None, None], 0.2) * math.sqrt(2)
        with streams.stream(5, start=0, num=3, total=3, device=torch.device("cpu")):
            assert torch.allclose(conv(x, style, mode, "a layer"), expected)


class NoiseBehindTheRectifier(StyledConv):
    def forward(self, x, style, noise="random", name="noise"):
        y = super().forward(x, style, "off")
        drawn = {"fixed": self.noise, "off": 0 * self.noise}.get(noise)
        if drawn is None:
            drawn = streams.randn(len(x), 1, *self.size, purpose=name).to(y.dtype)
        return y + self.strength * self.gain * drawn


class NoiseOfTheBatch(StyledConv):
    """All samples have the first one's."""

    def forward(self, x, style, noise="random", name="noise"):
        if noise != "random":
            return super().forward(x, style, noise, name)
        self.noise = streams.randn(len(x), 1, *self.size, purpose=name)[:1].to(x.dtype)
        return super().forward(x, style, "fixed")


def test_noise_bias_and_rectifier() -> None:
    check_styled(StyledConv)
    for wrong in (NoiseBehindTheRectifier, NoiseOfTheBatch):
        kills(check_styled, wrong)


def test_the_strength_of_noise_begins_at_zero_and_learns() -> None:
    conv = StyledConv(4, 6, (5, 6), Styling(5))
    x, style = torch.randn(3, 4, 5, 6), torch.randn(3, 5)
    assert torch.equal(conv(x, style, "random"), conv(x, style, "off"))
    conv(x, style, "random").square().sum().backward()
    assert conv.strength.grad.abs() > 0
    assert StyledConv(4, 6, (5, 6), Styling(5, noise=False)).strength is None


def test_features_are_clamped() -> None:
    y = styled(clamp=0.5)(10 * draw(3, 4, 5, 6), draw(3, 5))
    assert y.max() == 0.5 and y.min() == -0.5


def test_under_autocast_styles_are_in_full_precision() -> None:
    conv = StyledConv(4, 6, (5, 6), Styling(5))
    seen = []
    conv.conv.affine.register_forward_hook(lambda module, given, output: seen.append(output.dtype))
    x, style = torch.randn(3, 4, 5, 6), torch.randn(3, 5)
    with torch.autocast("cpu", torch.bfloat16):
        y = conv(x, style)
    assert y.dtype == torch.bfloat16 and seen == [torch.float32]
    assert torch.allclose(y.float(), conv(x, style), rtol=0.03, atol=0.03)


# ---------------------------------------------------------------------- equalized layers


@pytest.mark.parametrize("equalize", [True, False])
@pytest.mark.parametrize("lr_multiplier", [1.0, 0.01])
def test_equalized_linear(equalize: bool, lr_multiplier: float) -> None:
    """Outputs of deviation gain, the bias that was asked for, and the same whatever is scaled."""
    torch.manual_seed(0)
    layer = EqualizedLinear(200, 300, gain=1.5, lr_multiplier=lr_multiplier, equalize=equalize)
    assert layer(torch.randn(2000, 200)).std().item() == pytest.approx(1.5, rel=0.02)
    assert layer.weight.std().item() * layer.scales[0] == pytest.approx(1.5 / 200**0.5, rel=0.02)
    if equalize:
        assert layer.weight.std().item() == pytest.approx(1 / lr_multiplier, rel=0.02)
    few, many = torch.randn(3, 200), torch.randn(500, 200)
    assert few.numel() < layer.weight.numel() < many.numel()
    for x in (few, many):
        expected = x @ (layer.weight * layer.scales[0]).T
        assert torch.allclose(layer(x), expected, atol=1e-5)
    shifted = EqualizedLinear(2, 3, bias_init=1.0, lr_multiplier=lr_multiplier, equalize=equalize)
    assert torch.allclose(shifted(torch.zeros(1, 2)), torch.ones(1, 3))


def check_speed(make) -> None:
    """After one step of Adam each weight of the function has moved by lr times its constant and the multiplier."""
    layer = make(EqualizedLinear).double()
    x = torch.eye(50, dtype=torch.float64)
    before = layer(x).detach()
    (layer(x) * torch.rand(50, 20)).sum().backward()
    torch.optim.Adam([layer.weight], lr=0.1, eps=1e-20).step()
    assert torch.allclose(before - layer(x), torch.full((50, 20), 0.1 * 0.01 / 50**0.5).double(), rtol=1e-3)


def test_speed_of_learning() -> None:
    check_speed(lambda cls: cls(50, 20, lr_multiplier=0.01))
    kills(check_speed, lambda cls: cls(50, 20))
    kills(check_speed, lambda cls: cls(50, 20, lr_multiplier=0.01, equalize=False))


def test_equalized_convolution() -> None:
    torch.manual_seed(0)
    layer = EqualizedConv2d(50, 60, 3, gain=1.5)
    layer.bias.data.normal_()
    y = F.conv2d(x := torch.randn(8, 50, 20, 20), layer.weight * 1.5 / (50 * 9) ** 0.5, 1.5 * layer.bias, padding=1)
    assert torch.allclose(layer(x), y, atol=1e-5)
    assert torch.allclose(layer(x[:1, :, :4, :4])[..., 1:-1, 1:-1], y[:1, :, 1:3, 1:3], atol=1e-5)
    assert (y - 1.5 * layer.bias[:, None, None]).std().item() == pytest.approx(1.5, rel=0.05)
    assert EqualizedConv2d(5, 6, 3, stride=2, padding=0)(x[:, :5, :9, :9]).shape == (8, 6, 4, 4)
