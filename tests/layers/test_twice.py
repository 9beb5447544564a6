"""Convolutions and rectifiers with derivatives of their own, and losses from a gradient, against torch's own ways."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from ganzoo.layers import pieces, twice
from ganzoo.layers.twice import conv2d, leaky_relu_
from ganzoo.models import R3GAN
from ganzoo.penalties import R1, R2
from tests.common import fit, normal_batches
from tests.mutants import kills

SHAPES = [(1, 0, 1), (1, 0, 2), (3, 1, 2)]


@pytest.mark.parametrize(("size", "padding", "groups"), SHAPES)
def test_derivatives_of_a_convolution(size: int, padding: int, groups: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 4, 3, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 4 // groups, size, size, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(2, dtype=torch.float64, requires_grad=True)

    def convolved(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return conv2d(x, weight, bias, padding=padding, groups=groups)

    plain = F.conv2d(x, weight, bias, padding=padding, groups=groups)
    assert torch.allclose(convolved(x, weight, bias), plain)
    assert gradcheck(convolved, (x, weight, bias), fast_mode=True)
    assert gradgradcheck(convolved, (x, weight, bias), fast_mode=True)


def test_a_gradient_of_the_input_does_not_compute_that_of_the_weight() -> None:
    x = torch.randn(2, 4, 3, 3, requires_grad=True)
    y = conv2d(x * 1, torch.randn(4, 4, 3, 3, requires_grad=True), padding=1)
    with mock.patch.object(twice, "_of_weight", side_effect=AssertionError):
        torch.autograd.grad(y.sum(), x, create_graph=True)


def test_derivatives_of_a_rectifier() -> None:
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: leaky_relu_(x**3, 0.2), (x,))
    assert gradgradcheck(lambda x: leaky_relu_(x**3, 0.2), (x,))
    assert torch.equal(leaky_relu_(x.detach().clone(), 0.2), F.leaky_relu(x.detach(), 0.2))


def trained() -> Tensor:
    """All parameters after some turns with R1 and R2, from biases and branches that are not 0."""
    torch.manual_seed(0)
    gan = R3GAN(8, 1, width=16, max_width=32, group_size=8, latent_dim=8, penalties=[R1(2.0, every=2), R2(2.0)])
    for name, parameter in gan.named_parameters():
        if "bias" in name or "reduce" in name:
            parameter.data.normal_(std=0.1)
    gan.step_seconds = 0.0
    fit(gan, normal_batches(4, 1, 8, 8), max_steps=4)
    return torch.cat([p.detach().flatten() for p in gan.parameters()])


def test_a_loss_from_the_gradient_is_the_same() -> None:
    with mock.patch.object(pieces, "unit_for", return_value=None):
        plain = trained()

    def check(unit_for) -> None:
        with mock.patch.object(pieces, "unit_for", unit_for):
            assert torch.allclose(trained(), plain, atol=5e-5)

    check(pieces.unit_for)
    ours = pieces.unit_for

    def other_unit(*arguments):
        unit = ours(*arguments)
        return unit if unit is None else (2 * unit).detach().requires_grad_()

    kills(check, other_unit)


def test_where_there_is_a_unit() -> None:
    gan = R3GAN(8, 1, width=16, max_width=16, group_size=8, latent_dim=8)
    images = torch.randn(2, 1, 8, 8)
    assert pieces.origin(gan.discriminator(images)) is None
    images.requires_grad_()
    logits = gan.discriminator(images)
    found = pieces.origin(logits)
    assert found is not None and found.inputs is images and found.unit.shape == (2, 1, 1, 1)
    by_input, by_unit = torch.autograd.grad(logits.sum(), found)
    assert torch.allclose((by_input * images).flatten(1).sum(1) + by_unit.flatten(), logits, atol=1e-5)
    gan.discriminator.stages[0][0].reduce = torch.nn.Sequential(gan.discriminator.stages[0][0].reduce, torch.nn.Tanh())
    assert pieces.origin(gan.discriminator(images)) is None  # no longer linear in pieces
