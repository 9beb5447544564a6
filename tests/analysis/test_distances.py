"""Distances from targets: pixels by hand at each size, features of a known extractor, and their gradients."""

from __future__ import annotations

from collections.abc import Callable
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ganzoo.analysis.distances import FeatureDistance, Pixels
from ganzoo.errors import UserError
from ganzoo.metrics import pixels
from ganzoo.metrics.extractors.base import Features
from ganzoo.metrics.extractors.domain import Domain
from tests.metrics.fakes import Corner
from tests.mutants import kills


def naive(a: Tensor, b: Tensor, scales: int) -> float:
    """Of one image each, (C, H, W): means over blocks of 2^k pixels a side, which are cut off at the edges."""
    found = []
    for k in range(scales):
        side, squares = 2**k, []
        for channel in a - b:
            rows, columns = channel.shape
            squares += [
                channel[y : y + side, x : x + side].mean().item() ** 2
                for y in range(0, rows, side)
                for x in range(0, columns, side)
            ]
        found.append(sum(squares) / len(squares))
        if min(a.shape[1:]) <= side:
            break
    return sum(found) / len(found)


def check_pixels(make: Callable[[int], Pixels]) -> None:
    """Blocks counted here; a shift of all pixels is seen at each size, a chessboard at the first alone."""
    images, targets = torch.randn(2, 3, 4, 8, 12)
    for scales in (1, 2, 3):
        found = make(scales)(targets)(images)
        expected = [naive(a, b, scales) for a, b in zip(images, targets, strict=True)]
        assert found.tolist() == pytest.approx(expected, rel=1e-4)
    zero = torch.zeros(1, 1, 6, 6)
    assert make(3)(zero)(zero + 0.5).item() == pytest.approx(0.25)
    chessboard = ((-1.0) ** (torch.arange(6)[:, None] + torch.arange(6)))[None, None]
    assert make(3)(zero)(chessboard).item() == pytest.approx(1 / 3)
    assert make(9)(torch.zeros(1, 1, 2, 5))(torch.ones(3, 1, 2, 5)).tolist() == [1.0] * 3  # one target for all


def test_pixels() -> None:
    check_pixels(Pixels)
    kills(check_pixels, lambda scales: Pixels(scales + 1))
    pool = F.avg_pool2d

    def summed(x, size, **options):
        return 2 * pool(x, size, **options)

    def changed(scales):
        def at(targets):
            def measure(images):
                with mock.patch.object(F, "avg_pool2d", summed):
                    return Pixels(scales)(targets)(images)

            return measure

        return at

    kills(check_pixels, changed)
    kills(check_pixels, lambda scales: lambda targets: lambda images: Pixels(scales)(targets)(images).mean().expand(3))


def test_no_sizes_are_refused() -> None:
    with pytest.raises(UserError, match="at 0 sizes"):
        Pixels(0)


def bytes_of(levels: list[list[float]]) -> Tensor:
    """Images of 1x1x3 pixels in [-1, 1] with these levels."""
    return torch.tensor(levels)[:, None, None] / 127.5 - 1


def check_features(make: Callable[[Corner], FeatureDistance]) -> None:
    """|f - g|^2 / |g|^2 of features that are the levels themselves, not rounded, with its gradient."""
    targets, images = bytes_of([[3.0, 4.0, 0.0], [10.0, 0.0, 0.0]]), bytes_of([[3.0, 0.0, 3.0], [10.0, 0.25, 0.0]])
    images.requires_grad_()
    found = make(Corner(3))(targets)(images)
    assert found.tolist() == pytest.approx([25 / 25, 0.0625 / 100], rel=1e-3)
    (gradient,) = torch.autograd.grad(found.sum(), images)
    expected = torch.tensor([[0.0, -4.0, 3.0], [0.0, 0.25, 0.0]]) / torch.tensor([[25.0], [100.0]])
    assert torch.allclose(gradient[:, 0, 0], 2 * 127.5 * expected, atol=1e-3)


class Rounded(FeatureDistance):
    def _features(self, images: Tensor) -> Tensor:
        return self.extractor.differentiable(((images + 1) * 127.5).round()).features


class Absolute(FeatureDistance):
    def __call__(self, targets: Tensor):
        aims = self._features(targets)
        return lambda images: (self._features(images) - aims).square().sum(dim=1)


def test_features() -> None:
    check_features(FeatureDistance)
    kills(check_features, Rounded)
    kills(check_features, Absolute)


def test_features_of_a_real_extractor_have_the_gradient_of_finite_differences() -> None:
    """Images of another size than the network's, in the direction of the gradient."""
    torch.manual_seed(0)
    targets, images = torch.rand(2, 2, 1, 24, 24) * 2 - 1
    measure = FeatureDistance(Domain())(targets)
    (gradient,) = torch.autograd.grad(measure(images.requires_grad_()).sum(), images)
    way, step = gradient / gradient.norm(), 3e-2
    with torch.no_grad():
        slope = (measure(images + step * way) - measure(images - step * way)).sum() / (2 * step)
    assert slope.item() == pytest.approx(gradient.norm().item(), rel=0.02)
    with torch.no_grad():
        assert measure(targets).max() < 1e-9


class Detached(Corner):
    def extract(self, images: Tensor) -> Features:
        return Features(super().extract(images).features.detach())


class OwnGradient(Corner):
    """Whose features have a gradient, but not one that reaches the image."""

    def extract(self, images: Tensor) -> Features:
        return Features(super().extract(images).features.detach() + torch.zeros(3, requires_grad=True))


@pytest.mark.parametrize("cls", [Detached, OwnGradient])
def test_an_extractor_without_gradient_is_refused(cls) -> None:
    with torch.no_grad(), pytest.raises(UserError, match=r"corner-3 have no gradient .* another extractor, or compare"):
        FeatureDistance(cls(3))(bytes_of([[1.0, 2.0, 3.0]]))


def test_transparency_is_refused() -> None:
    with pytest.raises(UserError, match="alpha channel"):
        FeatureDistance(Domain())(torch.zeros(1, 4, 8, 8))


@pytest.mark.parametrize("mode", ["clean", "pil-bilinear-float"])
def test_filters_of_pillow_have_a_gradient(mode) -> None:
    """The same filter in torch where one is asked for: within 4e-5 of Pillow's, and linear, so exactly its slope."""
    images = torch.rand(2, 3, 20, 17) * 100 + 77
    ours = pixels.resize(images.clone().requires_grad_(), 12, mode)
    assert ours.requires_grad
    assert torch.allclose(ours, pixels.resize(images, 12, mode), atol=2e-4)
    x = images.double().requires_grad_()
    (gradient,) = torch.autograd.grad(pixels.resize(x, 12, mode)[0, 1, 5, 7], x)
    assert gradient[0, 1].sum().item() == pytest.approx(1, abs=1e-5)
    assert gradient.sum().item() == pytest.approx(1, abs=1e-5)
