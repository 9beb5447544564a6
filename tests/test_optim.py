"""The optimizers that recipes name."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from ganzoo.optim import Adam
from tests.mutants import kills

FORMATS: dict[str, Callable[[Tensor], Tensor]] = {
    "usual": lambda x: x.contiguous().clone(),
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last).clone(),
    "turned": lambda x: x.transpose(0, 1).contiguous(memory_format=torch.channels_last).transpose(0, 1),
}


def by_hand(weight: Tensor, gradients: list[Tensor], lr: float, betas: tuple[float, float]) -> Iterator[Tensor]:
    """Algorithm 1 of Kingma and Ba 2015, arXiv 1412.6980."""
    first, second = torch.zeros_like(weight), torch.zeros_like(weight)
    for t, gradient in enumerate(gradients, 1):
        first = betas[0] * first + (1 - betas[0]) * gradient
        second = betas[1] * second + (1 - betas[1]) * gradient**2
        weight = weight - lr * (first / (1 - betas[0] ** t)) / ((second / (1 - betas[1] ** t)).sqrt() + 1e-8)
        yield weight


def check_formats(make: Callable[..., torch.optim.Optimizer], kernel: str, gradient: str, moments: str) -> None:
    """Formats of the kernel, of its gradients, and of the moments as a checkpoint may bring them."""
    torch.manual_seed(0)
    weight, *gradients = torch.randn(5, 6, 4, 3, 3, dtype=torch.float64).unbind()
    p, bias = nn.Parameter(FORMATS[kernel](weight)), nn.Parameter(torch.zeros(3, dtype=torch.float64))
    optimizer = make([p, bias], lr=0.1, betas=(0.8, 0.9))
    for found, expected in zip(gradients, by_hand(weight, gradients, 0.1, (0.8, 0.9)), strict=True):
        p.grad, bias.grad = FORMATS[gradient](found), torch.ones_like(bias)
        state = optimizer.state[p]
        state.update({name: FORMATS[moments](x) for name, x in state.items() if x.dim() == 4})
        optimizer.step()
        assert torch.allclose(p, expected, rtol=1e-12, atol=1e-12)
        assert p.stride() == FORMATS[kernel](weight).stride()


@pytest.mark.parametrize("kernel", FORMATS)
@pytest.mark.parametrize("gradient", FORMATS)
@pytest.mark.parametrize("moments", FORMATS)
def test_adam_knows_the_numbers_of_every_memory_format(kernel: str, gradient: str, moments: str) -> None:
    def own(parameters: list[nn.Parameter], **options: object) -> torch.optim.Optimizer:
        return Adam(**options)(parameters)

    check_formats(own, kernel, gradient, moments)


def test_the_check_of_formats_notices_torchs_own() -> None:
    """Its fused kernel on a CPU pairs numbers by their places in memory."""

    def torchs(parameters: list[nn.Parameter], **options: object) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, fused=True, **options)

    kills(lambda make: check_formats(make, "channels_last", "usual", "channels_last"), torchs)
    kills(lambda make: check_formats(make, "usual", "usual", "channels_last"), torchs)


def test_parameters_with_gaps_are_left_to_torchs_plain_step() -> None:
    """The line from their first number to their last one holds numbers of others."""
    torch.manual_seed(0)
    whole, gradient = torch.randn(2, 4, 5).unbind()
    p = nn.Parameter(whole[:, :3])
    optimizer = Adam(0.1, (0.8, 0.9))([p])
    (expected,) = by_hand(whole[:, :3].clone(), [gradient[:, :3]], 0.1, (0.8, 0.9))
    others = whole[:, 3:].clone()
    p.grad = gradient[:, :3]
    optimizer.step()
    assert torch.allclose(p, expected, atol=1e-6)
    assert torch.equal(whole[:, 3:], others)
