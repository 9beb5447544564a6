"""Filters against direct sums over their taps, and their derivatives against finite differences and torch's own."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from ganzoo.layers import filtered
from ganzoo.layers.filtered import before_strided, blur, downsample, up_convolution, upsample
from tests.mutants import kills

TAPS = [1 / 8, 3 / 8, 3 / 8, 1 / 8]


def images(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def value(x, i, j):
    """x at a position, zero beyond the border."""
    return x[..., i, j] if 0 <= i < x.shape[-2] and 0 <= j < x.shape[-1] else torch.zeros_like(x[..., 0, 0])


def direct(x, size, top, left, step=1, gain=1.0):
    """y[i, j] = gain sum_ab k[a] k[b] x[step i + a - top, step j + b - left], term by term."""
    y = x.new_zeros(*x.shape[:2], *size)
    for i in range(size[0]):
        for j in range(size[1]):
            for a in range(4):
                for b in range(4):
                    y[..., i, j] += gain * TAPS[a] * TAPS[b] * value(x, step * i + a - top, step * j + b - left)
    return y


def spread(x):
    """Zeros between the values."""
    y = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    y[..., ::2, ::2] = x
    return y


def check_blur(function) -> None:
    x = images(2, 3, 6, 5)
    for padding in (1, 2):
        size = (6 + 2 * padding - 3, 5 + 2 * padding - 3)
        assert torch.allclose(function(x, padding, gain=2.0), direct(x, size, padding, padding, gain=2.0), atol=1e-12)


def check_downsample(function) -> None:
    x = images(2, 3, 6, 8)
    assert torch.allclose(function(x), direct(x, (3, 4), 1, 1, step=2), atol=1e-12)


def check_upsample(function) -> None:
    x = images(2, 3, 3, 4)
    assert torch.allclose(function(x), direct(spread(x), (6, 8), 2, 2, gain=4.0), atol=1e-12)


def check_up_convolution(function) -> None:
    """Zeros between, a full convolution by hand, then the filter."""
    x, weight = images(2, 3, 3, 4), images(5, 3, 3, 3)
    wide = x.new_zeros(2, 5, 7, 9)
    for p in range(3):
        for q in range(4):
            for a in range(3):
                for b in range(3):
                    wide[..., 2 * p + a, 2 * q + b] += x[..., p, q] @ weight[..., a, b].T
    assert torch.allclose(function(x, weight), direct(wide, (6, 8), 1, 1, gain=4.0), atol=1e-12)


def test_filters_equal_direct_sums() -> None:
    check_blur(blur)
    check_downsample(downsample)
    check_upsample(upsample)
    check_up_convolution(up_convolution)


def test_wrong_filters_do_not() -> None:
    kills(check_blur, lambda x, padding, gain: blur(x, padding, (1.0, 2.0, 2.0, 1.0), gain=gain))
    kills(check_blur, lambda x, padding, gain: blur(x, padding))
    kills(check_downsample, lambda x: F.avg_pool2d(x, 2))
    kills(check_downsample, lambda x: blur(x, 2)[..., 1:-1:2, 1:-1:2].roll(1, 2))
    kills(check_upsample, lambda x: F.interpolate(x, scale_factor=2, mode="nearest"))
    kills(check_upsample, lambda x: upsample(x) / 4)
    kills(check_up_convolution, lambda x, w: up_convolution(x, w.flip(2, 3)))
    kills(check_up_convolution, lambda x, w: up_convolution(x, w).roll(1, 3))


def test_a_change_of_resolution_moves_nothing() -> None:
    """The centre of mass of a spot stays where it is, in units of the image."""

    def centre(x):
        weights = x.sum(dim=(0, 1)) / x.sum()
        return [float((w * (torch.arange(len(w)) + 0.5)).sum() / len(w)) for w in (weights.sum(1), weights.sum(0))]

    x = torch.zeros(1, 1, 8, 12, dtype=torch.float64)
    x[0, 0, 3:5, 4:6] = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    for change in (upsample, downsample):
        y = change(x)
        assert centre(y) == pytest.approx(centre(x), abs=1e-12)
    assert upsample(x).sum() == pytest.approx(4 * x.sum().item())  # the mean is kept
    assert downsample(x).sum() == pytest.approx(x.sum().item() / 4)
    assert before_strided(x).shape == (1, 1, 9, 13)


@pytest.mark.parametrize("function", [lambda x: blur(x, 2), downsample, upsample, lambda x: blur(x, 0)])
def test_derivatives(function) -> None:
    """By finite differences of the function and of its derivative; a square between two filters makes both matter."""
    for shape in ((1, 2, 4, 6), (1, 1, 5, 4)):
        x = images(*shape).requires_grad_()
        assert torch.autograd.gradcheck(function, x)
        assert torch.autograd.gradgradcheck(lambda x: function(x).pow(3), x)


def test_the_second_derivative_is_torchs_own() -> None:
    """Through a filter and through torch's depthwise convolution, of a penalty on a gradient."""
    found = []
    weight = images(3, 3, 1, 1).requires_grad_()
    kernel = torch.outer(*[torch.tensor(TAPS, dtype=torch.float64)] * 2).expand(3, 1, 4, 4)
    for function in (lambda x: blur(x, 1), lambda x: F.conv2d(x, kernel, padding=1, groups=3)):
        x = images(2, 3, 6, 6).requires_grad_()
        y = function(torch.tanh(F.conv2d(x, weight))).square().sum()
        (gradient,) = torch.autograd.grad(y, x, create_graph=True)
        found.append(torch.autograd.grad(gradient.square().sum(), weight)[0])
    assert torch.allclose(*found, rtol=1e-10)


def test_the_result_has_the_type_of_its_input_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        for dtype in (torch.float32, torch.bfloat16):
            x = images(1, 2, 4, 4).to(dtype).requires_grad_()
            y = upsample(x)
            assert y.dtype == dtype
            y.sum().backward()
            assert x.grad.dtype == dtype


def test_a_filter_first_used_in_inference_can_be_trained_through() -> None:
    filtered.kernel.cache_clear()
    with torch.inference_mode():
        upsample(torch.randn(1, 1, 4, 4))
    x = torch.randn(1, 1, 4, 4, requires_grad=True)
    upsample(x).square().sum().backward()
    assert x.grad.abs().sum() > 0
