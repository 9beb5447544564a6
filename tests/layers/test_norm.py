"""Pixel normalization and equalized learning rate."""

import math

import pytest
import torch
from torch import nn

from ganzoo.layers.equalized import Equalized, equalized
from ganzoo.layers.norm import PixelNormLayer
from ganzoo.layers.spectral import rules
from tests.mutants import kills


def check_pixel_norm(cls: type[nn.Module]) -> None:
    x = 3 + 5 * torch.randn(4, 6, 2, 3, generator=torch.Generator().manual_seed(0))
    out = cls()(x)
    assert torch.allclose(out.square().mean(1), torch.ones(4, 2, 3), atol=1e-5)
    for n, i, j in ((0, 0, 0), (3, 1, 2)):  # the direction stays
        length = sum(v.item() ** 2 for v in x[n, :, i, j]) / 6
        assert torch.allclose(out[n, :, i, j], x[n, :, i, j] / length**0.5, atol=1e-5)
    assert cls()(torch.zeros(2, 3)).abs().max() == 0


class OverPositions(PixelNormLayer):
    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(dim=tuple(range(1, x.dim())), keepdim=True) + self.eps)


class Sum(PixelNormLayer):
    def forward(self, x):
        return x / (x.norm(dim=1, keepdim=True) + self.eps)


class Standardized(PixelNormLayer):
    def forward(self, x):
        return (x - x.mean(1, keepdim=True)) * torch.rsqrt(x.var(1, unbiased=False, keepdim=True) + self.eps)


def test_pixel_norm() -> None:
    check_pixel_norm(PixelNormLayer)
    for mutant in (OverPositions, Sum, Standardized):
        kills(check_pixel_norm, mutant)


def test_pixel_norm_in_other_layouts_and_precisions() -> None:
    layer, x = PixelNormLayer(), torch.randn(2, 3, 4, 4)
    out = layer(x.contiguous(memory_format=torch.channels_last))
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(out, layer(x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = layer(1e30 * x.bfloat16().div(1e12))
    assert half.dtype == torch.bfloat16
    assert torch.allclose(half.float(), out, atol=0.02)
    double = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, double)
    assert torch.autograd.gradgradcheck(layer, double)


def check_output_variance(make) -> None:
    """2 for inputs of variance 1, where every output is a full sum (He 2015, section 2.2)."""
    cases = [
        (nn.Linear(64, 512), (256, 64)),
        (nn.Conv2d(16, 64, 3), (8, 16, 20, 20)),
        (nn.Conv2d(16, 64, 3, groups=4), (8, 16, 20, 20)),
        (nn.Conv1d(16, 64, 5, 2), (32, 16, 64)),
        (nn.ConvTranspose2d(16, 64, 4, 2, 1), (8, 16, 20, 20)),
        (nn.ConvTranspose2d(64, 16, 3), (8, 64, 20, 20)),
    ]
    torch.manual_seed(0)
    for layer, shape in cases:
        make(layer)
        out = layer(torch.randn(*shape))
        inside = out[..., 3:-3, 3:-3] if out.dim() == 4 else out
        assert inside.var().item() == pytest.approx(2.0, rel=0.06), layer


def test_equalized_layers_have_the_output_variance_of_he() -> None:
    check_output_variance(equalized)

    def of_rows(layer):  # torch's fan-in, which mistakes a transposed convolution's outputs for inputs
        equalized(layer)
        rules(layer)[0].scale = math.sqrt(2 / nn.init._calculate_fan_in_and_fan_out(layer.weight)[0])

    kills(check_output_variance, of_rows)
    kills(check_output_variance, lambda layer: equalized(layer, 1.0))


def test_equalized_weights_are_standard_normal_and_scaled_at_run_time() -> None:
    torch.manual_seed(0)
    layer = equalized(nn.Linear(50, 400))
    original = layer.parametrizations.weight.original
    assert original.mean().item() == pytest.approx(0.0, abs=0.03)
    assert original.std().item() == pytest.approx(1.0, rel=0.03)
    assert layer.bias.abs().max() == 0
    assert torch.allclose(layer.weight, original * math.sqrt(2 / 50))
    layer.weight.sum().backward()
    assert torch.allclose(original.grad, torch.tensor(math.sqrt(2 / 50)))
    assert isinstance(rules(layer)[0], Equalized)
