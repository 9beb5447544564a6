"""Losses by formulas written out here, values and the gradient of each logit, and wrong ones that must not pass."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ganzoo.losses import (
    AdversarialLoss,
    Hinge,
    LeastSquares,
    NonSaturating,
    RelativisticAverage,
    Saturating,
    Wasserstein,
)
from tests.mutants import kills
from tests.test_losses import DetachedMean, OwnMean

Formula = Callable[[Tensor, Tensor], Tensor]
#: Logits on both sides of every kink and target.
REAL = [2.5, 0.3, -0.4, -1.7, 1.2]
FAKE = [-2.2, -0.6, 0.1, 1.9, 3.0]


def equal(value: Formula, formula: Formula, *, of_fakes: bool = False) -> None:
    """A loss of real and fake logits and its gradient equal those of a formula in float64."""
    mine = [torch.tensor(logits, requires_grad=True) for logits in (REAL, FAKE)]
    exact = [torch.tensor(logits, dtype=torch.float64, requires_grad=True) for logits in (REAL, FAKE)]
    found, expected = value(*mine), formula(*exact)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    found.backward()
    expected.backward()
    for a, b in list(zip(mine, exact, strict=True))[of_fakes:]:
        assert a.grad is not None and b.grad is not None and torch.allclose(a.grad.double(), b.grad, atol=1e-6)


def mean(values: Tensor) -> Tensor:
    return values.sum() / len(values)


def check_hinge(loss: AdversarialLoss, margin: float = 1.0) -> None:
    """max(0, m - real) + max(0, m + fake) for the discriminator; -fake, without a hinge, for the generator."""
    zero = torch.zeros((), dtype=torch.float64)
    equal(
        loss.discriminator,
        lambda real, fake: mean(torch.maximum(zero, margin - real)) + mean(torch.maximum(zero, margin + fake)),
    )
    equal(lambda real, fake: loss.generator(fake), lambda real, fake: -mean(fake), of_fakes=True)


class HingeOfGenerator(Hinge):
    def generator(self, fake_logits, real_logits=None):
        return torch.relu(self.margin - fake_logits).mean()


class ExchangedHinge(Hinge):
    def discriminator(self, real_logits, fake_logits):
        return super().discriminator(fake_logits, real_logits)


class HingeOfTheDifference(Hinge):
    def discriminator(self, real_logits, fake_logits):
        return torch.relu(self.margin - real_logits + fake_logits).mean()


class HalvedHinge(Hinge):
    def discriminator(self, real_logits, fake_logits):
        return super().discriminator(real_logits, fake_logits) / 2


class OneMargin(Hinge):
    def __init__(self, margin: float = 1.0) -> None:
        super().__init__(1.0)


def test_hinge() -> None:
    check_hinge(Hinge())
    for mutant in (HingeOfGenerator, ExchangedHinge, HingeOfTheDifference, HalvedHinge):
        kills(check_hinge, mutant())
    check_hinge(Hinge(0.25), 0.25)
    kills(lambda loss: check_hinge(loss, 0.25), OneMargin(0.25))


def check_wasserstein(loss: AdversarialLoss) -> None:
    """E fake - E real for the critic, and the same with the other sign for the generator."""
    equal(loss.discriminator, lambda real, fake: mean(fake) - mean(real))
    equal(lambda real, fake: loss.generator(fake), lambda real, fake: -mean(fake), of_fakes=True)
    equal(lambda real, fake: loss.generator(fake, real), lambda real, fake: mean(real) - mean(fake))


class WrongSign(Wasserstein):
    def discriminator(self, real_logits, fake_logits):
        return super().discriminator(fake_logits, real_logits)


class GeneratorOfTheCritic(Wasserstein):
    def generator(self, fake_logits, real_logits=None):
        return -super().generator(fake_logits, real_logits)


class Squashed(Wasserstein):
    """Probabilities in place of the critic's values."""

    def discriminator(self, real_logits, fake_logits):
        return super().discriminator(real_logits.sigmoid(), fake_logits.sigmoid())


class Summed(Wasserstein):
    def discriminator(self, real_logits, fake_logits):
        return fake_logits.sum() - real_logits.sum()


def test_wasserstein() -> None:
    check_wasserstein(Wasserstein())
    for mutant in (WrongSign, GeneratorOfTheCritic, Squashed, Summed):
        kills(check_wasserstein, mutant())


def check_discriminator_of_cross_entropy(loss: AdversarialLoss) -> None:
    equal(
        loss.discriminator,
        lambda real, fake: -mean(torch.log(1 / (1 + torch.exp(-real)))) - mean(torch.log(1 / (1 + torch.exp(fake)))),
    )


def check_saturating(loss: AdversarialLoss) -> None:
    """The generator minimizes E log(1 - D): -sigma(l) per logit, which vanishes where D rejects a fake."""
    check_discriminator_of_cross_entropy(loss)
    equal(
        lambda real, fake: loss.generator(fake),
        lambda real, fake: mean(torch.log(1 - 1 / (1 + torch.exp(-fake)))),
        of_fakes=True,
    )
    rejected = torch.tensor([-12.0], requires_grad=True)
    loss.generator(rejected).backward()
    assert rejected.grad is not None and rejected.grad.abs().item() < 1e-5


def check_non_saturating(loss: AdversarialLoss) -> None:
    """The generator minimizes -E log D: -sigma(-l) per logit, which is 1 where D rejects a fake."""
    check_discriminator_of_cross_entropy(loss)
    equal(
        lambda real, fake: loss.generator(fake),
        lambda real, fake: -mean(torch.log(1 / (1 + torch.exp(-fake)))),
        of_fakes=True,
    )
    rejected = torch.tensor([-12.0], requires_grad=True)
    loss.generator(rejected).backward()
    assert rejected.grad is not None and rejected.grad.item() == pytest.approx(-1.0, abs=1e-5)


class ExchangedLabels(NonSaturating):
    def discriminator(self, real_logits, fake_logits):
        return super().discriminator(fake_logits, real_logits)


class OtherSign(Saturating):
    def generator(self, fake_logits, real_logits=None):
        return -super().generator(fake_logits)


def test_saturating_and_non_saturating_are_not_exchanged() -> None:
    check_saturating(Saturating())
    check_non_saturating(NonSaturating())
    kills(check_saturating, NonSaturating())
    kills(check_non_saturating, Saturating())
    kills(check_saturating, OtherSign())
    kills(check_non_saturating, ExchangedLabels())


def check_average_hinge(loss: AdversarialLoss) -> None:
    """RaHingeGAN (Jolicoeur-Martineau 2018): of logits minus the mean of the other side, for both players."""
    zero = torch.zeros((), dtype=torch.float64)

    def formula(high: Tensor, low: Tensor) -> Tensor:
        return mean(torch.maximum(zero, 1 - (high - mean(low)))) + mean(torch.maximum(zero, 1 + (low - mean(high))))

    equal(loss.discriminator, formula)
    equal(lambda real, fake: loss.generator(fake, real), lambda real, fake: formula(fake, real))


def check_average_squares(loss: AdversarialLoss, high_target: float, low_target: float) -> None:
    """RaLSGAN, which is of targets 1 and -1, with this loss's factor 1/2, for both players."""

    def formula(high: Tensor, low: Tensor) -> Tensor:
        squares = mean((high - mean(low) - high_target) ** 2) + mean((low - mean(high) - low_target) ** 2)
        return squares / 2

    equal(loss.discriminator, formula)
    equal(lambda real, fake: loss.generator(fake, real), lambda real, fake: formula(fake, real))


class Paired(RelativisticAverage):
    def _compare(self, loss, high, low):
        return loss.discriminator(high - low, low - high)


class SidesOfTheDiscriminator(RelativisticAverage):
    def generator(self, fake_logits, real_logits=None):
        return self._compare(self.loss, real_logits, fake_logits)


class GeneratorOfFakes(RelativisticAverage):
    def generator(self, fake_logits, real_logits=None):
        return self.loss.generator(fake_logits - real_logits.mean(0))


class OneSide(RelativisticAverage):
    def _compare(self, loss, high, low):
        return loss.discriminator(high - low.mean(0), low)


MUTANTS = [OwnMean, DetachedMean, Paired, SidesOfTheDiscriminator, GeneratorOfFakes, OneSide]


def test_the_average_relativistic_hinge_loss() -> None:
    check_average_hinge(RelativisticAverage(Hinge()))
    for mutant in MUTANTS:
        kills(check_average_hinge, mutant(Hinge()))
    kills(check_average_hinge, RelativisticAverage(Hinge(2.0)))


@pytest.mark.parametrize("targets", [(1.0, -1.0), (1.0, 0.0)])
def test_the_average_relativistic_least_squares(targets: tuple[float, float]) -> None:
    def check(loss: AdversarialLoss) -> None:
        check_average_squares(loss, *targets)

    check(RelativisticAverage(LeastSquares(*targets)))
    for mutant in MUTANTS:
        kills(check, mutant(LeastSquares(*targets)))
    kills(check, RelativisticAverage(LeastSquares(targets[0] + 1, targets[1])))
