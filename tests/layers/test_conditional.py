"""Conditional batch normalization against its formula; labels matter, and nothing else of other samples' labels."""

import pytest
import torch
from torch import nn

from ganzoo.layers.conditional import (
    ClassBatchNorm2d,
    ConditionalBatchNorm2d,
    VectorBatchNorm2d,
    batch_norm,
    normalized,
)
from ganzoo.layers.norm import normalize_all
from ganzoo.layers.spectral import is_spectral
from tests.mutants import kills


def formula(x: torch.Tensor, gain: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """gain (x - mean) / sqrt(variance + eps) + bias with one gain and bias per sample and channel, sample by sample."""
    mean, variance = x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3), unbiased=False)
    out = torch.empty_like(x)
    for n in range(len(x)):
        for c in range(x.shape[1]):
            out[n, c] = gain[n, c] * (x[n, c] - mean[c]) / (variance[c] + 1e-5).sqrt() + bias[n, c]
    return out


def check_classes(kind) -> None:
    torch.manual_seed(0)
    layer = kind(3, 4).double()
    with torch.no_grad():
        layer.gain.normal_(), layer.bias.normal_()
    x, labels = torch.randn(5, 3, 4, 4, dtype=torch.float64) * 2 + 1, torch.tensor([3, 0, 0, 1, 3])
    assert torch.allclose(layer(x, labels), formula(x, layer.gain[labels], layer.bias[labels]))


def check_vectors(kind) -> None:
    torch.manual_seed(0)
    layer = kind(3, 6).double()
    x, vectors = torch.randn(5, 3, 4, 4, dtype=torch.float64), torch.randn(5, 6, dtype=torch.float64)
    gain, bias = 1 + vectors @ layer.gain.weight.T, vectors @ layer.bias.weight.T
    assert torch.allclose(layer(x, vectors), formula(x, gain, bias))


def test_the_formula() -> None:
    check_classes(ClassBatchNorm2d)
    check_vectors(VectorBatchNorm2d)


def test_mutants() -> None:
    class FirstLabel(ClassBatchNorm2d):
        def affine(self, condition):
            return super().affine(condition[:1].expand_as(condition))

    class Swapped(ClassBatchNorm2d):
        def affine(self, condition):
            return super().affine(condition)[::-1]

    class WithoutOne(VectorBatchNorm2d):
        def affine(self, condition):
            gain, bias = super().affine(condition)
            return gain - 1, bias

    kills(check_classes, FirstLabel)
    kills(check_classes, Swapped)
    kills(check_vectors, WithoutOne)


def test_at_first_it_is_the_plain_normalization() -> None:
    layer, plain = ClassBatchNorm2d(3, 4), nn.BatchNorm2d(3)
    x = torch.randn(8, 3, 4, 4)
    assert torch.allclose(layer(x, torch.arange(8) % 4), plain(x), atol=1e-6)
    assert torch.allclose(layer.norm.running_mean, plain.running_mean)
    assert torch.allclose(layer.norm.running_var, plain.running_var)
    layer.eval(), plain.eval()
    assert torch.allclose(layer(x, torch.arange(8) % 4), plain(x), atol=1e-6)


def test_derivatives() -> None:
    layer = VectorBatchNorm2d(2, 3).double()
    x = torch.randn(3, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    vectors = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x, vectors))


def test_a_gradient_reaches_the_classes_of_the_batch_and_no_other() -> None:
    layer = ClassBatchNorm2d(3, 4)
    (layer(torch.randn(6, 3, 4, 4), torch.tensor([0, 2, 2, 0, 0, 2])) * torch.randn(6, 3, 4, 4)).sum().backward()
    for table in (layer.gain, layer.bias):
        assert table.grad[[0, 2]].abs().min() > 0
        assert table.grad[[1, 3]].abs().max() == 0


def test_who_looks_for_batch_normalization_finds_it() -> None:
    for layer in (ClassBatchNorm2d(3, 4), VectorBatchNorm2d(3, 4)):
        (inner,) = [module for module in layer.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        assert not inner.affine


def test_spectral_normalization_is_of_maps_and_leaves_the_classes_gains() -> None:
    network = nn.ModuleList([ClassBatchNorm2d(3, 4), VectorBatchNorm2d(3, 4)])
    normalize_all(network)
    assert torch.equal(network[0].gain, torch.ones(4, 3))
    assert is_spectral(network[1].gain)
    assert is_spectral(network[1].bias)


def test_factory_and_call() -> None:
    assert isinstance(batch_norm()(5), nn.BatchNorm2d)
    conditional = batch_norm(7)(5)
    assert isinstance(conditional, ConditionalBatchNorm2d)
    assert conditional.gain.shape == (7, 5)
    x, labels = torch.randn(4, 5, 2, 2), torch.tensor([0, 6, 1, 1])
    assert torch.equal(normalized(conditional.eval(), x, labels), conditional(x, labels))
    assert torch.equal(normalized(nn.Identity(), x, labels), x)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_memory_format_and_half_precision(memory: torch.memory_format) -> None:
    layer, x, labels = ClassBatchNorm2d(3, 4).eval(), torch.randn(4, 3, 6, 6), torch.arange(4)
    out = layer(x.contiguous(memory_format=memory), labels)
    assert out.is_contiguous(memory_format=memory)
    half = layer(x.bfloat16(), labels)
    assert half.dtype == torch.bfloat16
    assert torch.allclose(half.float(), out, atol=0.05)
