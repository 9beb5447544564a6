"""Gradient penalties at known points: D(x) = <w, x> and D(x) = |x|^2 / 2, whose gradient is x."""

import pytest
import torch
from torch import nn

from ganzoo import streams
from ganzoo.errors import UserError
from ganzoo.gan import GAN
from ganzoo.models import DCGAN, MLPGAN
from ganzoo.parts import Turn
from ganzoo.penalties import R1, R2, WassersteinGradientPenalty
from tests.common import Critic, fit, normal_batches


class Half(nn.Module):
    """|x|^2 / 2."""

    def forward(self, x, labels=None):
        return x.flatten(1).square().sum(1) / 2


def turn_of(discriminator: nn.Module) -> Turn:
    gan = GAN(MLPGAN().generator, discriminator)
    g = torch.Generator().manual_seed(1)
    real, fake = torch.randn(6, 3, generator=g), torch.randn(6, 3, generator=g)
    return Turn(gan, "discriminator", 0, 0.0, real=real, fake=fake)


def test_linear_discriminator() -> None:
    turn = turn_of(Critic(3))
    w = turn.gan.discriminator.linear.weight
    assert R1(4.0)(turn).item() == pytest.approx(2.0 * w.square().sum().item(), rel=1e-5)
    assert R2(4.0)(turn).item() == pytest.approx(2.0 * w.square().sum().item(), rel=1e-5)
    assert WassersteinGradientPenalty(10.0)(turn).item() == pytest.approx(10 * (w.norm().item() - 1) ** 2, rel=1e-5)


def test_quadratic_discriminator_shows_where_the_penalty_is_taken() -> None:
    turn = turn_of(Half())
    assert R1(1.0)(turn).item() == pytest.approx(turn.real.square().sum(1).mean().item() / 2, rel=1e-5)
    assert R2(1.0)(turn).item() == pytest.approx(turn.fake.square().sum(1).mean().item() / 2, rel=1e-5)


def test_interpolation_has_one_share_and_one_norm_per_sample() -> None:
    turn = turn_of(Half())
    with streams.stream(5, start=0, num=6, total=6, device=torch.device("cpu")):
        value = WassersteinGradientPenalty(1.0)(turn).item()
    with streams.stream(5, start=0, num=6, total=6, device=torch.device("cpu")):
        share = streams.rand(6, 1, purpose="gp")
    points = share * turn.real + (1 - share) * turn.fake
    assert value == pytest.approx((points.norm(dim=1) - 1).square().mean().item(), rel=1e-5)
    assert value != pytest.approx((points.norm() - 1).square().item(), rel=1e-2)  # one norm over the batch


def test_gradient_of_the_penalty_against_a_formula_without_second_derivatives() -> None:
    """D(x) = v . tanh(Wx + b) has the gradient W^T (v (1 - tanh^2)), written out here and differentiated once."""
    torch.manual_seed(0)

    class Smooth(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(3, 5), nn.Linear(5, 1, bias=False)

        def forward(self, x, labels=None):
            return self.last(torch.tanh(self.first(x))).squeeze(1)

    turn = turn_of(Smooth())
    net = turn.gan.discriminator
    R1(2.0)(turn).backward()
    w, b, v = (p.detach().double().requires_grad_() for p in (net.first.weight, net.first.bias, net.last.weight))
    slope = v * (1 - torch.tanh(turn.real.double() @ w.T + b) ** 2)  # (N, 5)
    (slope @ w).square().sum(1).mean().backward()  # gamma/2 = 1
    for got, expected in zip((net.first.weight, net.first.bias, net.last.weight), (w, b, v), strict=True):
        assert torch.allclose(got.grad.double(), expected.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["convolutions", "perceptrons"])
def test_penalty_is_of_full_precision_under_autocast(kind) -> None:
    """The gradient of R1 in a bf16 run equals that of a 32-bit run at the same weights.

    Autocast would reach the matrix products of a backward pass even if the forward pass was in 32 bits.
    """
    grads = []
    for precision in ("32-true", "bf16-mixed"):
        torch.manual_seed(0)
        options = {"penalties": [R1(10.0)], "adversarial_weight": 0.0}
        gan = (
            DCGAN(8, 1, width=4, discriminator_norm="none", **options)
            if kind == "convolutions"
            else MLPGAN((1, 8, 8), hidden=16, num_layers=3, **options)
        )
        gan.step_seconds = 0.0
        gan.tricks.append(_Keep(grads))
        fit(gan, normal_batches(8, 1, 8, 8), max_steps=1, precision=precision)
    assert grads[0].abs().max() > 0
    assert torch.equal(grads[0], grads[1])


def test_passes_that_a_part_makes_at_any_hook_are_of_full_precision() -> None:
    seen = []

    class Look(R1):
        def before_turn(self, turn):
            data = torch.ones(2, 1, 8, 8)
            with torch.no_grad():
                seen.append((turn.discriminate(data), turn.generate(torch.ones(2, 2))))
                with torch.autocast("cpu", enabled=False):
                    seen.append((turn.gan.discriminator(data), turn.gan.generator(torch.ones(2, 2))))

        def forward(self, turn):
            return None

    torch.manual_seed(0)
    fit(MLPGAN((1, 8, 8), hidden=16, parts=[Look()]), normal_batches(8, 1, 8, 8), max_steps=1, precision="bf16-mixed")
    assert all(torch.equal(a, b) for a, b in zip(*seen[:2], strict=True))


class _Keep(R1):
    def __init__(self, kept: list) -> None:
        super().__init__()
        self.__dict__["kept"] = kept

    def forward(self, turn):
        return None

    def after_backward(self, turn):
        parameters = turn.gan.discriminator.parameters()
        self.__dict__["kept"].append(torch.cat([p.grad.flatten().clone() for p in parameters if p.grad is not None]))


@pytest.mark.parametrize("penalty", [R1, R2, WassersteinGradientPenalty])
def test_a_negative_weight_is_refused(penalty) -> None:
    with pytest.raises(UserError, match="was -1"):
        penalty(-1.0)


@pytest.mark.parametrize("penalty", [R1, R2, WassersteinGradientPenalty])
def test_batch_normalization_in_the_discriminator_is_refused_unless_allowed(penalty) -> None:
    with pytest.raises(UserError, match="discriminator_norm"):
        DCGAN(16, 1, width=4, penalties=[penalty()])
    DCGAN(16, 1, width=4, penalties=[penalty(allow_batch_norm=True)])
    for norm in ("none", "instance", "layer", "spectral"):
        DCGAN(16, 1, width=4, penalties=[penalty()], discriminator_norm=norm)
