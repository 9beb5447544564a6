"""Minibatch standard deviation and discrimination against loops over samples."""

import pytest
import torch
from torch import nn

from ganzoo.errors import UserError
from ganzoo.layers.minibatch import MinibatchDiscriminationLayer, MinibatchStdDevLayer
from tests.mutants import kills


def naive_deviations(x: torch.Tensor, group: int, num_channels: int) -> torch.Tensor:
    """(N, num_channels), in double, sample by sample."""
    x = x.double().flatten(2) if x.dim() > 2 else x.double()[:, :, None]
    num, share = len(x), x.shape[1] // num_channels
    out = torch.zeros(num, num_channels, dtype=torch.float64)
    for i in range(num):
        mates = [x[j] for j in range(num) if j % (num // group) == i % (num // group)]
        assert len(mates) == group
        mean = sum(mates) / group
        deviation = (sum((m - mean) ** 2 for m in mates) / group + 1e-8) ** 0.5
        for k in range(num_channels):
            out[i, k] = deviation[k * share : (k + 1) * share].mean()
    return out


def check_deviations(cls: type[nn.Module]) -> None:
    g = torch.Generator().manual_seed(0)
    for shape in ((8, 6, 3, 2), (12, 4), (4, 6, 2, 2)):
        x = torch.randn(*shape, generator=g) * torch.arange(1, shape[0] + 1).view(-1, *[1] * (len(shape) - 1))
        for group, num_channels in ((4, 1), (2, 2), (4, 2)):
            out = cls(group, num_channels=num_channels)(x)
            assert out.shape == (shape[0], shape[1] + num_channels, *shape[2:])
            assert torch.equal(out[:, : shape[1]], x)
            expected = naive_deviations(x, group, num_channels)
            expected = expected.view(*expected.shape, *[1] * (len(shape) - 2)).expand(-1, -1, *shape[2:])
            assert torch.allclose(out[:, shape[1] :].double(), expected, rtol=1e-5)


def check_identical_images(cls: type[nn.Module]) -> None:
    x = torch.randn(1, 3, 4, 4).repeat(8, 1, 1, 1).requires_grad_()
    out = cls(4)(x)
    assert torch.allclose(out[:, 3], torch.tensor(1e-4), rtol=1e-4)
    out[:, 3].sum().backward()
    assert x.grad.isfinite().all()


def test_deviations() -> None:
    check_deviations(MinibatchStdDevLayer)
    check_identical_images(MinibatchStdDevLayer)


class Mutant(MinibatchStdDevLayer):
    """Written anew, with a place for each fault."""

    unbiased = contiguous = outside = whole = False

    def forward(self, x):
        num = len(x)
        group = num if self.whole else self.group
        count = num // group
        flat = x.reshape(num, self.num_channels, -1)
        y = flat.view(count, group, *flat.shape[1:]).transpose(0, 1) if self.contiguous else None
        y = flat.view(group, count, *flat.shape[1:]) if y is None else y
        variance = y.var(dim=0, unbiased=self.unbiased)
        s = variance.sqrt() + self.eps if self.outside else (variance + self.eps).sqrt()
        s = s.mean(dim=2)  # (count, num_channels)
        s = s.repeat_interleave(group, 0) if self.contiguous else s.repeat(group, 1)
        s = s.view(*s.shape, *[1] * (x.dim() - 2)).expand(-1, -1, *x.shape[2:])
        return torch.cat([x, s], dim=1)


def test_mutants() -> None:
    check_deviations(Mutant)
    check_identical_images(Mutant)
    for fault in ("unbiased", "contiguous", "whole"):
        kills(check_deviations, type("Faulty", (Mutant,), {fault: True}))
    kills(check_identical_images, type("Faulty", (Mutant,), {"outside": True}))


def test_no_group_is_the_whole_batch() -> None:
    x = torch.randn(6, 4)
    assert torch.allclose(MinibatchStdDevLayer(None)(x)[:, 4:].double(), naive_deviations(x, 6, 1), rtol=1e-5)


@pytest.mark.parametrize("num", [2, 6, 1])
def test_a_batch_that_does_not_fit_is_refused_with_the_numbers(num) -> None:
    with pytest.raises(UserError, match=f"groups of 4, but was given a batch of {num}"):
        MinibatchStdDevLayer(4)(torch.randn(num, 3))


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(UserError, match="7 channels among 2"):
        MinibatchStdDevLayer(2, num_channels=2)(torch.randn(4, 7))
    with pytest.raises(UserError, match="group 0"):
        MinibatchStdDevLayer(0)
    with pytest.raises(UserError, match="num_kernels 0"):
        MinibatchDiscriminationLayer(3, num_kernels=0)


def check_discrimination(cls: type[nn.Module], **options: bool) -> None:
    """The paper's sum over all samples, the sample itself included, by loops; with ``average`` their mean."""
    torch.manual_seed(0)
    layer = cls(12, num_kernels=5, kernel_dim=3, **options)
    share = 4 if options.get("average") else 1
    x = torch.randn(4, 3, 2, 2)
    out = layer(x)
    assert torch.equal(out[:, :3], x)
    features, t = x.flatten(1), layer.weight
    for i in range(4):
        for b in range(5):
            closeness = 0.0
            for j in range(4):
                distance = sum(
                    abs(sum(features[i, a] * t[a, b, c] - features[j, a] * t[a, b, c] for a in range(12)))
                    for c in range(3)
                )
                closeness += torch.exp(-distance).item()
            assert torch.allclose(out[i, 3 + b], torch.tensor(closeness / share), rtol=1e-4)


class Euclidean(MinibatchDiscriminationLayer):
    def forward(self, x):
        m = torch.einsum("na,abc->nbc", x.flatten(1), self.weight)
        closeness = torch.exp(-(m[:, None] - m[None]).norm(dim=3))
        o = closeness.mean(1) if self.average else closeness.sum(1)
        return torch.cat([x, o[:, :, None, None].expand(-1, -1, *x.shape[2:])], 1)


class WithoutItself(MinibatchDiscriminationLayer):
    def forward(self, x):
        out = super().forward(x)
        return torch.cat([out[:, :3], out[:, 3:] - (1 / len(x) if self.average else 1)], dim=1)


class Sum(MinibatchDiscriminationLayer):
    """Whatever was asked for."""

    def forward(self, x):
        out = super().forward(x)
        return torch.cat([out[:, :3], out[:, 3:] * (len(x) if self.average else 1)], dim=1)


class Mean(MinibatchDiscriminationLayer):
    """Whatever was asked for."""

    def forward(self, x):
        out = super().forward(x)
        return torch.cat([out[:, :3], out[:, 3:] / (1 if self.average else len(x))], dim=1)


def test_discrimination() -> None:
    check_discrimination(MinibatchDiscriminationLayer)
    check_discrimination(Sum)
    for wrong in (Mean, Euclidean, WithoutItself):
        kills(check_discrimination, wrong)


def test_the_average_of_discrimination() -> None:
    def check(cls: type[nn.Module]) -> None:
        check_discrimination(cls, average=True)

    check(MinibatchDiscriminationLayer)
    check(Mean)
    for wrong in (Sum, Euclidean, WithoutItself):
        kills(check, wrong)


@pytest.mark.parametrize("average", [False, True])
def test_discrimination_of_identical_samples(average: bool) -> None:
    """Each is as close as can be to all: their number, or 1; twice the batch doubles the sum and leaves the mean."""
    layer = MinibatchDiscriminationLayer(6, num_kernels=4, average=average)
    x = torch.randn(1, 6)
    for num in (5, 10):
        assert torch.allclose(layer(x.repeat(num, 1))[:, 6:], torch.tensor(1.0 if average else float(num)))
    pair = torch.randn(2, 6)
    once, twice = (layer(pair.repeat(times, 1))[:2, 6:] for times in (1, 2))
    assert torch.allclose(twice, once if average else 2 * once)


def test_the_average_changes_no_state() -> None:
    states = [MinibatchDiscriminationLayer(6, num_kernels=4, average=average).state_dict() for average in (False, True)]
    assert [{name: value.shape for name, value in state.items()} for state in states] == [{"weight": (6, 4, 5)}] * 2


def test_components_have_the_variance_of_the_features() -> None:
    torch.manual_seed(0)
    layer = MinibatchDiscriminationLayer(400, num_kernels=50)
    m = torch.tensordot(torch.randn(200, 400), layer.weight, dims=1)
    assert m.var().item() == pytest.approx(1.0, rel=0.05)


LAYERS = [MinibatchStdDevLayer(2, num_channels=3), MinibatchDiscriminationLayer(12, num_kernels=2, kernel_dim=2)]


@pytest.mark.parametrize(
    "layer",
    [MinibatchStdDevLayer(2, num_channels=2), MinibatchDiscriminationLayer(4, num_kernels=2, kernel_dim=2)],
    ids=lambda layer: type(layer).__name__,
)
def test_derivatives(layer) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 2, 1, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer.double(), x)
    assert torch.autograd.gradgradcheck(layer, x)


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_channels_last(layer) -> None:
    x = torch.randn(4, 3, 2, 2)
    out = layer(x.contiguous(memory_format=torch.channels_last))
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert not out.is_contiguous()
    assert torch.allclose(out, layer(x), rtol=1e-5)
    assert layer(x).is_contiguous()


def check_full_precision(cls: type[nn.Module]) -> None:
    """Deviations of numbers whose means no bfloat16 can hold."""
    x = 256 + 2.0 * torch.randint(2, (8, 6, 2, 2), generator=torch.Generator().manual_seed(0))
    expected = naive_deviations(x, 4, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = cls(4)(x.bfloat16())
    assert out.dtype == torch.bfloat16
    assert torch.allclose(out[:, 6, 0, 0].double(), expected[:, 0], rtol=0.005)


class InHalfPrecision(MinibatchStdDevLayer):
    def forward(self, x):
        y = x.view(self.group, len(x) // self.group, -1)
        s = ((y - y.mean(0)).square().mean(0) + self.eps).sqrt().mean(1).repeat(self.group)
        return torch.cat([x, s[:, None, None, None].expand(-1, 1, *x.shape[2:])], dim=1)


def test_statistics_are_of_full_precision() -> None:
    check_full_precision(MinibatchStdDevLayer)
    kills(check_full_precision, InHalfPrecision)


def test_discrimination_is_of_full_precision() -> None:
    torch.manual_seed(0)
    layer, x = MinibatchDiscriminationLayer(64, num_kernels=4), torch.randn(6, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = layer(x)
    assert torch.equal(inside, layer(x))
