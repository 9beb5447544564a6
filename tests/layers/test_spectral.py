"""Spectral normalization: the largest singular value is 1 for every kind of layer, one iteration per pass."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _SpectralNorm

from ganzoo.errors import UserError
from ganzoo.layers.norm import normalize_all
from ganzoo.layers.spectral import SpectralNormalization, is_spectral, rules, spectral_norm
from tests.mutants import kills

LAYERS = {
    "linear": lambda: nn.Linear(7, 5),
    "embedding": lambda: nn.Embedding(6, 4),
    "conv1d": lambda: nn.Conv1d(3, 5, 3),
    "conv2d": lambda: nn.Conv2d(3, 5, 4, 2, 1),
    "grouped": lambda: nn.Conv2d(4, 6, 3, groups=2),
    "conv3d": lambda: nn.Conv3d(3, 4, 3),
    "transposed1d": lambda: nn.ConvTranspose1d(3, 5, 4),
    "transposed2d": lambda: nn.ConvTranspose2d(3, 5, 4, 2, 1),
    "transposed3d": lambda: nn.ConvTranspose3d(3, 4, 3),
}


def matrix(layer: nn.Module, weight: torch.Tensor) -> torch.Tensor:
    """One row per output channel, as in section 2.1 of the paper."""
    name = type(layer).__name__
    return (weight.transpose(0, 1) if "Transpose" in name else weight).flatten(1)


def check_largest_singular_value(normalize, names=tuple(LAYERS)) -> None:
    for name in names:
        torch.manual_seed(0)
        layer = LAYERS[name]()
        plain = layer.weight.detach().clone()
        normalize(layer)
        for _ in range(200):
            weight = layer.weight
        values = torch.linalg.svdvals(matrix(layer, weight.detach()))
        assert values[0].item() == pytest.approx(1.0, abs=1e-3), name
        sigma = torch.linalg.svdvals(matrix(layer, plain))[0]
        assert torch.allclose(weight, plain / sigma, rtol=1e-3), name


def test_largest_singular_value_is_one() -> None:
    check_largest_singular_value(spectral_norm)


class WithoutReshape(nn.Module):
    """The norm of each kernel's own matrix, not of the reshaped weight."""

    def forward(self, weight):
        return weight / torch.linalg.matrix_norm(weight, 2).max()


def test_mutants() -> None:
    def other_side(layer):
        parametrize.register_parametrization(layer, "weight", SpectralNormalization(layer.weight, dim=0))

    def without_reshape(layer):
        parametrize.register_parametrization(layer, "weight", WithoutReshape())

    def frobenius(layer):
        parametrize.register_parametrization(layer, "weight", Frobenius())

    class Frobenius(nn.Module):
        def forward(self, weight):
            return weight / weight.norm()

    kills(check_largest_singular_value, other_side)
    kills(check_largest_singular_value, without_reshape)
    kills(check_largest_singular_value, frobenius)


def test_one_iteration_per_pass_in_training_and_none_in_evaluation() -> None:
    layer = spectral_norm(nn.Conv2d(3, 5, 3))
    (rule,) = rules(layer)
    w = layer.parametrizations.weight.original.detach().flatten(1)
    torch.manual_seed(1)
    rule._u.normal_(), rule._v.normal_()  # far from the solution
    u = w @ rule._v
    v = w.T @ (u / u.norm())
    layer(torch.randn(2, 3, 8, 8))
    assert torch.allclose(rule._u, u / u.norm(), atol=1e-6)
    assert torch.allclose(rule._v, v / v.norm(), atol=1e-6)
    kept = rule._u.clone()
    layer.eval()(torch.randn(2, 3, 8, 8))
    assert torch.equal(rule._u, kept)


def test_gradient_is_that_of_the_exact_norm() -> None:
    """With the singular vectors converged, against autograd through torch.linalg (equation 12)."""
    torch.manual_seed(0)
    layer = spectral_norm(nn.Conv2d(3, 5, 3).double())
    for _ in range(500):
        _ = layer.weight
    direction = torch.randn(5, 3, 3, 3, dtype=torch.float64)
    original = layer.parametrizations.weight.original
    (got,) = torch.autograd.grad((layer.eval().weight * direction).sum(), original)
    w = original.detach().clone().requires_grad_()
    sigma = torch.linalg.svdvals(w.flatten(1))[0]
    (expected,) = torch.autograd.grad((w / sigma * direction).sum(), w)
    assert torch.allclose(got, expected, atol=1e-6)


def test_derivatives() -> None:
    (rule,) = rules(spectral_norm(nn.Linear(4, 3).double()).eval())
    w = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(rule, w)
    assert torch.autograd.gradgradcheck(rule, w)


def test_no_product_of_the_iteration_is_of_half_precision(monkeypatch) -> None:
    """On a GPU autocast would reach them; torch's own normalization lets it."""
    product = torch.mv
    seen: list[bool] = []

    def noting(*args, **kwargs):
        seen.append(torch.is_autocast_enabled("cpu"))
        return product(*args, **kwargs)

    monkeypatch.setattr(torch, "mv", noting)

    def check(kind) -> None:
        seen.clear()
        layer = nn.Linear(6, 5)
        parametrize.register_parametrization(layer, "weight", kind(layer.weight))
        seen.clear()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert layer(torch.randn(2, 6)).dtype == torch.bfloat16
        assert seen == [False] * 3  # W v, W^T u, and sigma

    check(SpectralNormalization)
    kills(check, _SpectralNorm)


def test_a_weight_of_zeros_is_refused() -> None:
    layer = nn.Linear(3, 2)
    nn.init.zeros_(layer.weight)
    with pytest.raises(UserError, match="starts at zero"):
        spectral_norm(layer)


def test_all_layers_of_a_network_once() -> None:
    network = nn.Sequential(*(make() for make in LAYERS.values()), nn.BatchNorm2d(3), nn.LayerNorm(4))
    for _ in range(2):
        normalize_all(network)
        assert [len(rules(layer)) for layer in network] == [1] * len(LAYERS) + [0, 0]
    assert is_spectral(network[0])
    assert not is_spectral(network[-1])


def check_is_spectral(is_spectral) -> None:
    """By this package's function or either of torch's, and by nothing else that changes a weight or runs before."""
    for name, make in LAYERS.items():
        for normalize in (spectral_norm, nn.utils.parametrizations.spectral_norm, nn.utils.spectral_norm):
            assert is_spectral(normalize(make())), name
        assert not is_spectral(make())
    linear = nn.Linear(3, 2)
    linear.register_forward_pre_hook(lambda module, given: None)
    for other in (
        linear,
        nn.utils.weight_norm(nn.Linear(3, 2)),
        nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)),
    ):
        assert not is_spectral(other)


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
def test_every_spectral_normalization_is_seen() -> None:
    check_is_spectral(is_spectral)
    kills(check_is_spectral, lambda layer: any(isinstance(rule, _SpectralNorm) for rule in rules(layer)))
    kills(check_is_spectral, lambda layer: bool(rules(layer) or layer._forward_pre_hooks))


def test_a_layer_that_torchs_hook_normalizes_is_left_to_it() -> None:
    layer = nn.utils.spectral_norm(nn.Linear(3, 2))
    normalize_all(nn.Sequential(layer, nn.Linear(2, 1)))
    assert not rules(layer) and len(layer._forward_pre_hooks) == 1


def test_copy_and_channels_last() -> None:
    torch.manual_seed(0)
    layer = spectral_norm(nn.Conv2d(3, 5, 3)).eval()
    twin = copy.deepcopy(layer).to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 8, 8)
    out = twin(x.contiguous(memory_format=torch.channels_last))
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(out, layer(x), atol=1e-6)
    rules(twin)[0]._u.zero_()
    assert rules(layer)[0]._u.abs().sum() > 0
