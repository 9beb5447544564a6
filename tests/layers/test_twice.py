"""Convolutions and rectifiers with derivatives of their own, and losses from a gradient, against torch's own ways."""

from __future__ import annotations

import functools
from collections.abc import Callable
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from ganzoo.layers import operations, pieces, twice
from ganzoo.layers.twice import conv2d, leaky_relu_
from ganzoo.models import R3GAN
from ganzoo.parts import Part, Turn
from ganzoo.penalties import R1, R2, gradient
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
    with mock.patch.object(twice, "of_weight", side_effect=AssertionError):
        torch.autograd.grad(y.sum(), x, create_graph=True)


#: Stride, padding, size of the kernel, height and width, batch, channels in and out. On a CPU they reach each of the
#: ways: torch's own, products for few positions, for wide layers with strides, and spreads of maps of up to 4x4.
STRIDED = [
    (2, 0, 3, (4, 4), 8, 5, 7),
    (2, 0, 3, (9, 9), 9, 5, 7),
    (2, 0, 3, (8, 10), 8, 5, 7),
    (2, 0, 3, (17, 17), 3, 256, 256),
    (2, 0, 3, (8, 8), 3, 256, 256),
    (2, 1, 3, (8, 8), 2, 6, 4),
    (1, 1, 3, (4, 3), 3, 6, 4),
    (1, 1, 3, (12, 12), 3, 6, 4),
    (3, 0, 2, (7, 4), 2, 4, 4),
    (1, 0, 1, (5, 5), 2, 4, 4),
    (2, 0, 3, (9, 9), 0, 5, 7),
    (1, 1, 3, (4, 4), 0, 5, 7),
]


def derivatives(function: Callable[[Tensor, Tensor, Tensor], Tensor], *given: Tensor) -> list[Tensor]:
    """The result, its gradients without and with a graph, and those of their squares."""
    leaves = [x.detach().requires_grad_() for x in given]
    y = function(*leaves)
    first = torch.autograd.grad(y.square().sum(), leaves, retain_graph=True)
    graph = torch.autograd.grad(y.square().sum(), leaves, create_graph=True)
    second = torch.autograd.grad(sum(x.square().sum() for x in graph), leaves)
    return [x.detach() for x in (y, *first, *graph, *second)]


@pytest.mark.parametrize("case", STRIDED, ids=str)
@pytest.mark.parametrize("transposed", [False, True])
def test_strided_and_transposed_convolutions(case: tuple, transposed: bool) -> None:
    """Equal to torch's, as are their derivatives of first and second order."""
    stride, padding, size, sides, num, inputs, outputs = case
    if transposed and padding:
        pytest.skip("transposed convolutions have no padding here")
    torch.manual_seed(0)
    x = torch.randn(num, inputs, *sides, dtype=torch.float64)
    weight = torch.randn(*((inputs, outputs) if transposed else (outputs, inputs)), size, size, dtype=torch.float64)
    bias = torch.randn(outputs, dtype=torch.float64)

    def own(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        if transposed:
            return twice.conv_transpose2d(x, weight, stride=stride) + bias[:, None, None]
        return conv2d(x, weight, bias, stride=stride, padding=padding)

    def plain(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        if transposed:
            return F.conv_transpose2d(x, weight, bias, stride)
        return F.conv2d(x, weight, bias, stride, padding)

    for found, expected in zip(derivatives(own, x, weight, bias), derivatives(plain, x, weight, bias), strict=True):
        assert found.shape == expected.shape
        largest = float(expected.abs().max()) if expected.numel() else 0.0
        assert torch.allclose(found, expected, rtol=1e-9, atol=1e-9 * largest)


def test_a_result_may_be_changed_in_its_memory() -> None:
    for sides in ((4, 4), (9, 9)):
        x, weight = torch.randn(2, 3, *sides, requires_grad=True), torch.randn(3, 4, 3, 3, requires_grad=True)
        plain = F.leaky_relu(F.conv_transpose2d(x, weight, stride=2), 0.2)
        assert torch.allclose(leaky_relu_(twice.conv_transpose2d(x, weight, stride=2), 0.2), plain, atol=1e-5)


def test_each_way_of_a_convolution_is_taken() -> None:
    """Else the test above would show less than it says."""
    taken = set()
    for name in ("_spread", "_product", "_backward", "_rows"):
        with mock.patch.object(operations, name, side_effect=getattr(operations, name)) as way:
            for case in STRIDED:
                stride, padding, size, sides, num, inputs, outputs = case
                x = torch.randn(num, inputs, *sides, requires_grad=True)
                weight = torch.randn(outputs, inputs, size, size, requires_grad=True)
                conv2d(x, weight, stride=stride, padding=padding).sum().backward()
        taken |= {name} if way.called else set()
    assert taken == {"_spread", "_product", "_backward", "_rows"}


def test_gradients_of_kernels_have_the_memory_format_of_kernels() -> None:
    """Where they have not, each step of the optimizer copies them."""
    for sides in ((4, 4), (12, 12)):
        x = torch.randn(12, 6, *sides)
        for strided, weight in (
            (conv2d, torch.randn(4, 6, 3, 3).to(memory_format=torch.channels_last)),
            (twice.conv_transpose2d, torch.randn(6, 4, 3, 3).to(memory_format=torch.channels_last)),
        ):
            (gradient,) = torch.autograd.grad(strided(x, weight.requires_grad_(), stride=2).sum(), weight)
            assert gradient.stride() == weight.stride()


def test_derivatives_of_a_rectifier() -> None:
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: leaky_relu_(x**3, 0.2), (x,))
    assert gradgradcheck(lambda x: leaky_relu_(x**3, 0.2), (x,))
    assert torch.equal(leaky_relu_(x.detach().clone(), 0.2), F.leaky_relu(x.detach(), 0.2))


def trained(*tricks: Part) -> Tensor:
    """All parameters after some turns with R1 and R2, from biases and branches that are not 0."""
    torch.manual_seed(0)
    penalties = [*tricks, R1(2.0, every=2), R2(2.0)]
    gan = R3GAN(8, 1, width=16, max_width=32, group_size=8, latent_dim=8, penalties=penalties)
    for name, parameter in gan.named_parameters():
        if "bias" in name or "reduce" in name:
            parameter.data.normal_(std=0.1)
    gan.step_seconds = 0.0
    fit(gan, normal_batches(4, 1, 8, 8), max_steps=4)
    return torch.cat([p.detach().flatten() for p in gan.parameters()])


@functools.cache
def without_units(*kinds: type[Part]) -> Tensor:
    with mock.patch.object(pieces, "unit_for", return_value=None):
        return trained(*(kind() for kind in kinds))


def check_units(unit_for, *kinds: type[Part]) -> None:
    """Training is the same with these units and without."""
    with mock.patch.object(pieces, "unit_for", unit_for):
        assert torch.allclose(trained(*(kind() for kind in kinds)), without_units(*kinds), atol=5e-5)


ours = pieces.unit_for


def test_a_loss_from_the_gradient_is_the_same() -> None:
    def other_unit(*arguments):
        unit = ours(*arguments)
        return unit if unit is None else (2 * unit).detach().requires_grad_()

    check_units(ours)
    kills(check_units, other_unit)


class Hooked(Part):
    """Bends the features of the discriminator."""

    def rebuild(self, gan) -> None:
        gan.discriminator.stages[0][0].register_forward_hook(lambda module, given, output: output.tanh())


class HookedBefore(Part):
    def rebuild(self, gan) -> None:
        gan.discriminator.changes[0].register_forward_pre_hook(lambda module, given: (given[0].tanh(),))


class Bent(Part):
    """The same by a layer."""

    def rebuild(self, gan) -> None:
        block = gan.discriminator.stages[0][0]
        block.reduce = torch.nn.Sequential(block.reduce, torch.nn.Tanh())


@pytest.mark.parametrize("kind", [Hooked, HookedBefore])
def test_hooks_are_noticed(kind: type[Part]) -> None:
    def blind(*arguments):
        with mock.patch.object(pieces, "has_hooks", return_value=False):
            return ours(*arguments)

    check_units(ours, kind)
    kills(lambda unit_for: check_units(unit_for, kind), blind)


def test_other_layers_are_noticed() -> None:
    def blind(network, inputs, kinds):
        return ours(network, inputs, tuple({type(m) for m in network.modules()}))

    check_units(ours, Bent)
    kills(lambda unit_for: check_units(unit_for, Bent), blind)


class Moved(Part):
    """Changes the logits themselves, and not copies of them."""

    def logits(self, turn: Turn, real: Tensor | None, fake: Tensor) -> tuple[Tensor | None, Tensor]:
        return real if real is None else real.add_(1.0), fake


def test_logits_that_were_changed_are_noticed() -> None:
    def check(origin) -> None:
        with mock.patch.object(gradient, "origin", origin):
            check_units(ours, Moved)

    def blind(outputs):
        found = pieces._ORIGINS.get(outputs)
        return found if found is None else found.origin

    check(pieces.origin)
    kills(check, blind)


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


@pytest.mark.parametrize("hook", ["forward_hook", "forward_pre_hook", "full_backward_hook", "full_backward_pre_hook"])
def test_no_unit_with_hooks(hook: str) -> None:
    discriminator = R3GAN(8, 1, width=16, max_width=16, group_size=8, latent_dim=8).discriminator
    images = torch.randn(2, 1, 8, 8, requires_grad=True)
    handle = getattr(discriminator.stages[1][0].reduce, f"register_{hook}")(lambda *_: None)
    assert pieces.origin(discriminator(images)) is None
    handle.remove()
    assert pieces.origin(discriminator(images)) is not None
