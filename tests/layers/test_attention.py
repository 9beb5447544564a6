"""Self-attention against a loop over positions (SAGAN, equations 1 to 3)."""

import copy
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ganzoo.errors import UserError
from ganzoo.layers import attention
from ganzoo.layers.attention import SelfAttentionLayer
from tests.mutants import kills


def make(*, pool: bool = False) -> SelfAttentionLayer:
    torch.manual_seed(0)
    layer = SelfAttentionLayer(16, pool=pool)
    nn.init.constant_(layer.gamma, 0.7)
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


def check_loop(weights=attention.weights) -> None:
    """The layer, whose softmax is ``weights``, against the loop: at once, in blocks, and by torch's kernel."""
    x = torch.randn(2, 16, 4, 6, generator=torch.Generator().manual_seed(1))
    for pool, (whole, kernel) in itertools.product((False, True), WAYS.values()):
        layer = make(pool=pool)
        with torch.no_grad(), way(whole, kernel), mock.patch.object(attention, "weights", weights):
            assert torch.allclose(layer(x), naive(layer, x, pool), atol=1e-5)


#: How the weights are made: the most elements at once, and whether torch's kernel is taken.
WAYS = {"at once": (2**24, False), "blocks": (2 * 24 * 5, False), "rows": (1, False), "kernel": (2**24, True)}


@contextmanager
def way(whole: int, kernel: bool) -> Iterator[None]:
    with (
        mock.patch.object(attention, "WHOLE", whole),
        mock.patch.object(attention, "_has_kernel", return_value=kernel),
    ):
        yield


def check_rows(weights) -> None:
    with mock.patch.object(attention, "weights", weights):
        found = make(pool=True).attention(torch.randn(2, 16, 4, 6))
    assert found.shape == (2, 24, 6)
    assert torch.allclose(found.sum(2), torch.ones(2, 24))


def check_start(cls: type[nn.Module]) -> None:
    x = torch.randn(2, 16, 4, 4)
    assert torch.equal(cls(16)(x), x)


def wrong_axis(queries, keys):
    return torch.softmax(queries @ keys.transpose(1, 2), dim=1)


def scaled(queries, keys):
    """The attention of transformers: not the paper's."""
    return torch.softmax(queries @ keys.transpose(1, 2) / queries.shape[2] ** 0.5, dim=2)


class OneAtStart(SelfAttentionLayer):
    def __init__(self, channels, *, pool=False):
        super().__init__(channels, pool=pool)
        nn.init.ones_(self.gamma)


def test_equals_a_loop() -> None:
    check_loop()
    kills(check_loop, wrong_axis)
    kills(check_loop, scaled)


def test_rows_sum_to_one() -> None:
    check_rows(attention.weights)
    kills(check_rows, wrong_axis)


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


def leaves(num: int = 2, length: int = 12, others: int = 6, width: int = 5) -> list[torch.Tensor]:
    """Queries, keys and values in float64."""
    g = torch.Generator().manual_seed(3)
    shapes = (num, length, 2), (num, others, 2), (num, others, width)
    return [torch.randn(*shape, generator=g, dtype=torch.float64, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("pool", [False, True])
def test_derivatives(pool, name) -> None:
    torch.manual_seed(0)
    layer = SelfAttentionLayer(8, pool=pool).double()
    nn.init.constant_(layer.gamma, 0.7)
    x = torch.randn(1, 8, 2, 2, dtype=torch.float64, requires_grad=True)
    with way(*((12, False) if name == "blocks" else WAYS[name])):
        assert torch.autograd.gradcheck(layer, x)
        assert torch.autograd.gradgradcheck(layer, x)


def check_second(derivatives) -> None:
    """First and second derivatives with respect to each argument equal those of the plain formula."""
    found = []
    for whole in (2**24, 60):
        inputs = leaves()
        with way(whole, False), mock.patch.object(attention, "_derivatives", derivatives):
            first = torch.autograd.grad(attention.attend(*inputs).square().sum(), inputs, create_graph=True)
            second = torch.autograd.grad(sum(g.sin().sum() for g in first), inputs)
        found.append([*first, *second])
    for plain, blocked in zip(*found, strict=True):
        assert torch.allclose(plain, blocked, rtol=1e-10, atol=1e-12)


def test_blocks_have_the_derivatives_of_the_plain_formula() -> None:
    right = attention._derivatives

    def without_the_mean(queries, keys, values, gradient):
        scores = attention.weights(queries, keys) * (gradient @ values.transpose(1, 2))
        return scores @ keys, scores.transpose(1, 2) @ queries, right(queries, keys, values, gradient)[2]

    def cut_off(*arguments):
        return tuple(x.detach() for x in right(*arguments))

    check_second(right)
    kills(check_second, without_the_mean)
    with pytest.raises((AssertionError, RuntimeError)):  # there is no second derivative at all
        check_second(cut_off)


def test_a_recorded_backward_pass_does_not_take_the_kernel() -> None:
    """It has no second derivative; the layer notices by itself."""
    inputs = leaves(width=2)  # as wide as the keys, or there is no kernel on the CPU
    out = torch.nn.functional.scaled_dot_product_attention(*(x.unsqueeze(1) for x in inputs), scale=1.0)
    with pytest.raises(RuntimeError, match=r"derivative for .*attention.* is not implemented"):
        (first,) = torch.autograd.grad(out.square().sum(), inputs[0], create_graph=True)
        first.square().sum().backward()
    calls = []

    def counted(*arguments):
        calls.append(arguments)
        return derivatives(*arguments)

    derivatives = attention._derivatives
    with way(2**24, True), mock.patch.object(attention, "_derivatives", counted):
        out = attention.attend(*inputs)
        torch.autograd.grad(out.sum(), inputs, retain_graph=True)
        assert not calls
        torch.autograd.grad(out.sum(), inputs, create_graph=True)
        assert len(calls) == 1


class Memory(TorchDispatchMode):
    """Sizes of the tensors that come out of torch's operations: the largest, and the most bytes alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = self.peak = 0
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, torch.Tensor):
                storage = x.untyped_storage()
                self.largest = max(self.largest, storage.nbytes())
                self.alive[storage.data_ptr()] = StorageWeakRef(storage), storage.nbytes()
        self.alive = {key: (ref, size) for key, (ref, size) in self.alive.items() if not ref.expired()}
        self.peak = max(self.peak, sum(size for _, size in self.alive.values()))
        return out


def memory_of(length: int, whole: int, order: int) -> Memory:
    inputs = leaves(1, length, length)
    with way(whole, False), Memory() as memory:
        out = attention.attend(*inputs)
        first = torch.autograd.grad(out.square().sum(), inputs, create_graph=order > 1)
        if order > 1:
            torch.autograd.grad(sum(g.square().sum() for g in first), inputs)
    return memory


@pytest.mark.parametrize("order", [1, 2])
def test_memory_grows_with_the_positions_and_not_with_their_square(order) -> None:
    whole = 2**15
    small, large = (memory_of(length, whole, order) for length in (256, 1024))
    assert small.largest <= whole * 8 and large.largest <= whole * 8  # never the 256 x 256 or 1024 x 1024 weights
    assert large.peak < 4.5 * small.peak
    plain = [memory_of(length, 2**24, order) for length in (256, 1024)]  # the measure sees a square where there is one
    assert plain[1].largest == 1024 * 1024 * 8
    assert plain[1].peak > 14 * plain[0].peak


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


def test_blocks_in_half_precision_are_as_exact_as_the_whole() -> None:
    """Sums over many blocks are kept in single precision."""
    exact = leaves(1, 2048, 4)
    wanted = torch.autograd.grad(attention.attend(*exact).sum(), exact)
    errors = []
    for whole in (2**24, 4):
        inputs = [x.detach().bfloat16().requires_grad_() for x in exact]
        with way(whole, False):
            out = attention.attend(*inputs)
            assert out.dtype == torch.bfloat16
            found = torch.autograd.grad(out.sum(), inputs)
        assert all(x.dtype == torch.bfloat16 for x in found)
        errors.append([(a.double() - b).norm() / b.norm() for a, b in zip(found, wanted, strict=True)])
    assert all(blocked < 1.2 * plain + 0.01 for plain, blocked in zip(*errors, strict=True))


def test_copy() -> None:
    layer, x = make(), torch.randn(2, 16, 4, 4)
    twin = copy.deepcopy(layer)
    assert torch.equal(twin(x), layer(x))
    nn.init.zeros_(twin.gamma)
    assert not torch.equal(twin(x), layer(x))
