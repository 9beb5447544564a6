"""P4 and the losses by closed forms."""

import math

import pytest
import torch

from ganzoo.errors import UserError
from ganzoo.losses import Hinge, LeastSquares, NonSaturating, Saturating, Wasserstein

ZERO = torch.zeros(5)
LOG2 = math.log(2)


def test_values_at_zero_logits() -> None:
    assert NonSaturating().discriminator(ZERO, ZERO).item() == pytest.approx(2 * LOG2)
    assert Saturating().discriminator(ZERO, ZERO).item() == pytest.approx(2 * LOG2)
    assert NonSaturating().generator(ZERO).item() == pytest.approx(LOG2)
    assert Saturating().generator(ZERO).item() == pytest.approx(-LOG2)


def test_generator_gradients_per_logit() -> None:
    logits = torch.tensor([-3.0, -1.0, 0.0, 0.5, 4.0], dtype=torch.float64)
    grads = {}
    for loss in (NonSaturating(), Saturating()):
        x = logits.clone().requires_grad_()
        loss.generator(x).backward()
        grads[type(loss)] = x.grad * len(x)  # the loss is a mean
    assert torch.allclose(grads[NonSaturating], -torch.sigmoid(-logits), atol=1e-6)
    assert torch.allclose(grads[Saturating], -torch.sigmoid(logits), atol=1e-6)
    assert torch.allclose(grads[Saturating] / grads[NonSaturating], logits.exp(), rtol=1e-5)


@pytest.mark.parametrize(("real", "fake"), [(1.0, 0.0), (0.9, 0.0), (0.9, 0.1)])
def test_smoothed_targets_equal_bce_against_the_soft_target(real, fake) -> None:
    a, b = torch.randn(50), torch.randn(50)
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    expected = bce(a, torch.full_like(a, real)) + bce(b, torch.full_like(b, fake))
    loss = NonSaturating(real, fake)
    assert loss.discriminator(a, b).item() == pytest.approx(expected.item(), rel=1e-6)
    assert loss.generator(b).item() == pytest.approx(bce(b, torch.ones_like(b)).item(), rel=1e-6)


def test_optimal_discriminator_of_smoothed_targets() -> None:
    """The minimum over a logit of p_data BCE(l, 0.9) + p_g BCE(l, 0.1) is the D* of Salimans 2016, sec. 3.4."""
    p_data, p_g = 0.3, 0.7
    grid = torch.linspace(-6, 6, 24001, dtype=torch.float64)
    loss = NonSaturating(0.9, 0.1)
    values = [
        p_data * (-(0.9 * math.log(s) + 0.1 * math.log(1 - s))) + p_g * (-(0.1 * math.log(s) + 0.9 * math.log(1 - s)))
        for s in torch.sigmoid(grid).tolist()
    ]
    best = torch.sigmoid(grid[values.index(min(values))]).item()
    assert best == pytest.approx((0.9 * p_data + 0.1 * p_g) / (p_data + p_g), abs=1e-3)
    # the loss itself has a zero gradient at that logit
    logit = torch.tensor([math.log(best / (1 - best))], requires_grad=True)
    zero = torch.zeros(1)
    real_part, fake_part = loss.discriminator(logit, zero), loss.discriminator(zero, logit)
    (p_data * real_part + p_g * fake_part).backward()
    assert abs(logit.grad.item()) < 1e-3


def test_hinge_wasserstein_and_least_squares_by_hand() -> None:
    real, fake = torch.tensor([2.0, 0.0]), torch.tensor([-3.0, 0.5])
    assert Hinge().discriminator(real, fake).item() == pytest.approx((0 + 1) / 2 + (0 + 1.5) / 2)
    assert Hinge(2.0).discriminator(real, fake).item() == pytest.approx((0 + 2) / 2 + (0 + 2.5) / 2)
    assert Hinge().generator(fake).item() == pytest.approx(1.25)
    assert Wasserstein().discriminator(real, fake).item() == pytest.approx(-1.25 - 1.0)
    assert Wasserstein().generator(fake).item() == pytest.approx(1.25)
    assert LeastSquares().discriminator(real, fake).item() == pytest.approx(((1 + 1) / 2 + (9 + 0.25) / 2) / 2)
    assert LeastSquares().generator(fake).item() == pytest.approx((16 + 0.25) / 4)


def test_half_precision_logits_are_raised_first() -> None:
    logits = torch.full((64,), 9.0, dtype=torch.bfloat16)  # softplus(-9) is lost in bfloat16 sums
    loss = NonSaturating().generator(logits)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log1p(math.exp(-9.0)), rel=1e-5)


@pytest.mark.parametrize(("real", "fake"), [(0.5, 0.5), (1.1, 0.0), (0.9, -0.1)])
def test_impossible_targets_are_refused(real, fake) -> None:
    with pytest.raises(UserError, match="0 <= fake < real <= 1"):
        NonSaturating(real, fake)
