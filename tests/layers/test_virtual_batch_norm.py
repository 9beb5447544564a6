"""Virtual batch normalization against the formula of its authors, sample by sample in double precision."""

import copy

import pytest
import torch
from torch import nn

from ganzoo.errors import UserError
from ganzoo.layers.virtual_batch_norm import ReferenceBatch, VirtualBatchNormLayer, virtual
from tests.mutants import kills


class Network(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return self.layers(x)


def network(cls: type[nn.Module] = VirtualBatchNormLayer, *, reference: bool = True) -> nn.Module:
    """Two normalized convolutions and a normalized linear layer."""
    torch.manual_seed(0)
    net = Network(
        nn.Conv2d(2, 4, 3), cls(4), nn.ReLU(), nn.Conv2d(4, 3, 3), cls(3), nn.Flatten(), nn.Linear(12, 5), cls(5)
    )
    for layer in net.layers:
        if isinstance(layer, cls):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias)
    holder = ReferenceBatch()
    if reference:
        holder.fill(torch.randn(6, 2, 6, 6, generator=torch.Generator().manual_seed(1)), None)
    holder.attach(net)
    return net


def naive(net: nn.Module, reference: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Mean and mean square of the reference, mixed with each sample's by 1/(n+1)."""
    layers = copy.deepcopy(net.layers).double()
    old, outputs = reference.double(), []
    moments = {}
    for place, layer in enumerate(layers):
        if isinstance(layer, VirtualBatchNormLayer):
            flat = old.transpose(0, 1).flatten(1)  # (C, n H W)
            moments[place] = flat.mean(1), (flat**2).mean(1)
            old = scaled(layer, old, *moments[place])
        else:
            old = layer(old)
    n = len(reference)
    for sample in x.double():
        new = sample[None]
        for place, layer in enumerate(layers):
            if isinstance(layer, VirtualBatchNormLayer):
                flat = new[0].flatten(1) if new.dim() > 2 else new[0][:, None]
                mean, square = moments[place]
                mean = n / (n + 1) * mean + 1 / (n + 1) * flat.mean(1)
                square = n / (n + 1) * square + 1 / (n + 1) * (flat**2).mean(1)
                new = scaled(layer, new, mean, square)
            else:
                new = layer(new)
        outputs.append(new)
    return torch.cat(outputs)


def scaled(layer, x, mean, square):
    shape = (1, -1, *[1] * (x.dim() - 2))
    deviation = (square - mean**2 + 1e-5).sqrt()
    return (x - mean.view(shape)) / deviation.view(shape) * layer.weight.view(shape) + layer.bias.view(shape)


def check_formula(cls: type[nn.Module]) -> None:
    net, x = network(cls), 2 + 3 * torch.randn(5, 2, 6, 6, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert torch.allclose(net(x).double(), naive(net, net.reference.data, x), atol=1e-4)


def check_independence(cls: type[nn.Module]) -> None:
    net, x = network(cls), torch.randn(5, 2, 6, 6, generator=torch.Generator().manual_seed(2))
    for _ in range(2):
        together = net(x)
        assert torch.allclose(together, torch.cat([net(sample[None]) for sample in x]), atol=1e-5)
        net.eval()


class OfCurrentBatch(VirtualBatchNormLayer):
    def forward(self, x):
        dims = [0, *range(2, x.dim())]
        mean, variance = x.mean(dims, keepdim=True), x.var(dims, unbiased=False, keepdim=True)
        shape = (1, -1, *[1] * (x.dim() - 2))
        return (x - mean) / (variance + self.eps).sqrt() * self.weight.view(shape) + self.bias.view(shape)


class WithoutTheSample(VirtualBatchNormLayer):
    @staticmethod
    def _mixed(mean, variance, old, old_variance, num):
        shape = (1, -1, *[1] * (mean.dim() - 2))
        return old.view(shape), old_variance.view(shape)


class VariancesOnly(VirtualBatchNormLayer):
    """Forgets that the means differ."""

    @staticmethod
    def _mixed(mean, variance, old, old_variance, num):
        share, shape = 1 / (num + 1), (1, -1, *[1] * (mean.dim() - 2))
        old, old_variance = old.view(shape), old_variance.view(shape)
        return (1 - share) * old + share * mean, (1 - share) * old_variance + share * variance


class WrongShare(VirtualBatchNormLayer):
    @staticmethod
    def _mixed(mean, variance, old, old_variance, num):
        return VirtualBatchNormLayer._mixed(mean, variance, old, old_variance, num - 1)


def test_formula() -> None:
    check_formula(VirtualBatchNormLayer)
    for mutant in (OfCurrentBatch, WithoutTheSample, VariancesOnly, WrongShare):
        kills(check_formula, mutant)


def test_a_sample_does_not_depend_on_its_mates() -> None:
    check_independence(VirtualBatchNormLayer)
    kills(check_independence, OfCurrentBatch)


def test_gradient_flows_through_the_reference_and_matches_the_formula() -> None:
    net, x = network(), torch.randn(3, 2, 6, 6)
    net(x).square().sum().backward()
    got = net.layers[0].weight.grad.double()
    twin = network()
    direction = torch.randn_like(twin.layers[0].weight)
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            other = copy.deepcopy(twin).double()
            other.layers[0].weight += sign * 1e-6 * direction
            values.append(naive(other, other.reference.data, x).square().sum())
    slope = (values[0] - values[1]) / 2e-6
    assert (got * direction).sum().item() == pytest.approx(slope.item(), rel=1e-4)


def test_derivatives() -> None:
    layer = VirtualBatchNormLayer(2).double()

    def run(reference, x):
        layer.collecting, layer.moments = True, []
        first = layer(reference)
        layer.collecting = False
        out = layer(x)
        layer.moments = None
        return first, out

    reference = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)
    x = torch.randn(2, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(run, (reference, x))
    assert torch.autograd.gradgradcheck(run, (reference, x))


def test_an_empty_reference_leaves_each_sample_alone() -> None:
    """The formula at n = 0: instance normalization of images."""
    net, x = network(reference=False), torch.randn(3, 2, 6, 6)
    layer = net.layers[1]
    expected = nn.functional.instance_norm(net.layers[0](x), weight=layer.weight, bias=layer.bias)
    seen = []
    layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    net(x)
    assert torch.allclose(seen[0], expected, atol=1e-5)


def test_copies_keep_their_own_reference() -> None:
    net, x = network(), torch.randn(3, 2, 6, 6)
    twin = copy.deepcopy(net)
    assert torch.equal(twin(x), net(x))
    before = net(x)
    twin.reference.fill(torch.randn(4, 2, 6, 6), None)
    assert not torch.allclose(twin(x), before)
    assert torch.equal(net(x), before)


def test_reference_survives_a_state_dictionary_bit_by_bit() -> None:
    net, x = network(), torch.randn(3, 2, 6, 6)
    again = network(reference=False)
    again.load_state_dict(net.state_dict())
    assert torch.equal(again.reference.data, net.reference.data)
    assert torch.equal(again(x), net(x))


def test_layers_by_themselves_are_refused_also_after_a_pass_that_failed() -> None:
    net = network()
    with pytest.raises(RuntimeError):
        net(torch.randn(3, 5, 6, 6))
    with pytest.raises(UserError, match="call its whole network"):
        net.layers[1](torch.randn(3, 4, 4, 4))


def test_scale_and_shift_of_what_it_replaces() -> None:
    norm = nn.BatchNorm2d(3, eps=0.01)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    layer = virtual(norm)
    assert torch.equal(layer.weight, norm.weight)
    assert torch.equal(layer.bias, norm.bias)
    assert layer.eps == 0.01
    assert torch.equal(virtual(nn.BatchNorm1d(2, affine=False)).weight, torch.ones(2))


def test_channels_last_and_autocast() -> None:
    net = network()
    layer = Network(*net.layers[:5])
    holder = ReferenceBatch()
    holder.fill(net.reference.data, None)
    holder.attach(layer)
    x = torch.randn(4, 2, 6, 6)
    out = layer(x.contiguous(memory_format=torch.channels_last))
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(out, layer(x), atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = layer(x)
    assert torch.allclose(half.float(), out, atol=0.1)


def test_statistics_are_of_full_precision() -> None:
    layer = VirtualBatchNormLayer(1)
    reference = 256 + 2.0 * torch.tensor([0, 0, 1, 1, 1.0]).view(-1, 1)
    layer.collecting, layer.moments = True, []
    out = layer(reference.bfloat16())
    expected = (reference - 257.2) / 0.96**0.5
    assert out.dtype == torch.bfloat16
    assert torch.allclose(out.float(), expected, rtol=0.01)
