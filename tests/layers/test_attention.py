"""Self-attention against a loop over positions (SAGAN, equations 1 to 3)."""

import copy

import pytest
import torch
from torch import nn

from ganzoo.errors import UserError
from ganzoo.layers.attention import SelfAttentionLayer
from tests.mutants import kills


def make(cls: type[nn.Module] = SelfAttentionLayer, *, pool: bool = False, gamma: float = 0.7) -> nn.Module:
    torch.manual_seed(0)
    layer = cls(16, pool=pool)
    nn.init.constant_(layer.gamma, gamma)
    return layer


def naive(layer: nn.Module, x: torch.Tensor, pool: bool) -> torch.Tensor:
    f, g, h, v = (c.weight[:, :, 0, 0] for c in (layer.key, layer.query, layer.value, layer.out))
    out = torch.empty_like(x)
    num, channels, height, width = x.shape
    for n in range(num):
        if pool:
            keys, values = (
                [
                    torch.stack([w @ x[n, :, i + a, j + b] for a in (0, 1) for b in (0, 1)]).amax(0)
                    for i in range(0, height, 2)
                    for j in range(0, width, 2)
                ]
                for w in (f, h)
            )
        else:
            places = [x[n, :, i, j] for i in range(height) for j in range(width)]
            keys, values = [f @ p for p in places], [h @ p for p in places]
        for a in range(height):
            for b in range(width):
                query = g @ x[n, :, a, b]
                scores = [torch.exp(torch.dot(key, query)) for key in keys]
                o = v @ sum(s / sum(scores) * value for s, value in zip(scores, values, strict=True))
                out[n, :, a, b] = layer.gamma * o + x[n, :, a, b]
    assert channels == 16
    return out


def check_loop(cls: type[nn.Module]) -> None:
    x = torch.randn(2, 16, 4, 6, generator=torch.Generator().manual_seed(1))
    for pool in (False, True):
        layer = make(cls, pool=pool)
        with torch.no_grad():
            assert torch.allclose(layer(x), naive(layer, x, pool), atol=1e-5)


def check_rows(cls: type[nn.Module]) -> None:
    weights = make(cls, pool=True).attention(torch.randn(2, 16, 4, 6))
    assert weights.shape == (2, 24, 6)
    assert torch.allclose(weights.sum(2), torch.ones(2, 24))


def check_start(cls: type[nn.Module]) -> None:
    x = torch.randn(2, 16, 4, 4)
    assert torch.equal(cls(16)(x), x)


class WrongAxis(SelfAttentionLayer):
    def attention(self, x):
        queries, keys = self.query(x).flatten(2), self._pooled(self.key(x)).flatten(2)
        return torch.softmax(queries.transpose(1, 2) @ keys, dim=1)


class Scaled(SelfAttentionLayer):
    """The attention of transformers: not the paper's."""

    def attention(self, x):
        queries, keys = self.query(x).flatten(2), self._pooled(self.key(x)).flatten(2)
        return torch.softmax(queries.transpose(1, 2) @ keys / queries.shape[1] ** 0.5, dim=2)


class OneAtStart(SelfAttentionLayer):
    def __init__(self, channels, *, pool=False):
        super().__init__(channels, pool=pool)
        nn.init.ones_(self.gamma)


def test_equals_a_loop() -> None:
    check_loop(SelfAttentionLayer)
    kills(check_loop, WrongAxis)
    kills(check_loop, Scaled)


def test_rows_sum_to_one() -> None:
    check_rows(SelfAttentionLayer)
    kills(check_rows, WrongAxis)


def test_identity_at_the_start_and_a_gradient_that_leaves_it() -> None:
    check_start(SelfAttentionLayer)
    kills(check_start, OneAtStart)
    layer = SelfAttentionLayer(16)
    layer(torch.randn(2, 16, 4, 4)).square().sum().backward()
    assert layer.gamma.grad.abs() > 0


def test_permuted_positions_permute_the_output() -> None:
    layer, x = make(), torch.randn(2, 16, 4, 4)
    order = torch.randperm(16)
    shuffled = x.flatten(2)[:, :, order].view_as(x)
    assert torch.allclose(layer(shuffled), layer(x).flatten(2)[:, :, order].view_as(x), atol=1e-5)


@pytest.mark.parametrize("pool", [False, True])
def test_derivatives(pool) -> None:
    torch.manual_seed(0)
    layer = SelfAttentionLayer(8, pool=pool).double()
    nn.init.constant_(layer.gamma, 0.7)
    x = torch.randn(1, 8, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, x)
    assert torch.autograd.gradgradcheck(layer, x)


def test_channels_last_and_few_channels() -> None:
    layer, x = make(), torch.randn(2, 16, 4, 4)
    out = layer(x.contiguous(memory_format=torch.channels_last))
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(out, layer(x), atol=1e-5)
    assert SelfAttentionLayer(3)(torch.randn(1, 3, 2, 2)).shape == (1, 3, 2, 2)
    with pytest.raises(UserError, match="0 channels"):
        SelfAttentionLayer(0)


def test_autocast() -> None:
    layer = make()
    x = torch.randn(2, 16, 4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        weights, out = layer.attention(x), layer(x.bfloat16())
    assert weights.dtype == torch.float32
    assert torch.allclose(weights.sum(2), torch.ones(2, 16))
    assert out.dtype == torch.bfloat16
    assert torch.allclose(out.float(), layer(x), atol=0.05)


def test_copy() -> None:
    layer, x = make(), torch.randn(2, 16, 4, 4)
    twin = copy.deepcopy(layer)
    assert torch.equal(twin(x), layer(x))
    nn.init.zeros_(twin.gamma)
    assert not torch.equal(twin(x), layer(x))
