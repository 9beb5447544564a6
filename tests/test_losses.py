"""P4 and the losses by closed forms, by optima of small tables, and against references written out here."""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from ganzoo import joint
from ganzoo.config import build
from ganzoo.errors import UserError
from ganzoo.losses import (
    D2GAN,
    Hinge,
    LeastSquares,
    NonSaturating,
    Relativistic,
    RelativisticAverage,
    Saturating,
    Wasserstein,
    cross_entropy,
    log_softplus,
)
from tests.mutants import kills

ZERO = torch.zeros(5)
LOG2 = math.log(2)
#: A discrete distribution of four places: how often each occurs in ten samples.
P_DATA, P_G = torch.tensor([1, 2, 3, 4]), torch.tensor([4, 4, 1, 1])


def draws(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def best_logits(loss, columns: int = 0) -> torch.Tensor:
    """The table of logits, one row per place, that minimizes the discriminator's loss on the discrete distribution."""
    table = torch.zeros(4, *([columns] if columns else []), requires_grad=True)
    real, fake = torch.arange(4).repeat_interleave(P_DATA), torch.arange(4).repeat_interleave(P_G)
    for _ in range(400):
        (gradient,) = torch.autograd.grad(loss.discriminator(table[real], table[fake]), table)
        table.data -= 2.0 * gradient
    return table.detach()


# ---------------------------------------------------------------------- cross-entropy


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


def check_smoothing(cls) -> None:
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    a, b = draws(0, 50), draws(1, 50)
    for real, fake in ((1.0, 0.0), (0.9, 0.0), (0.9, 0.1)):
        loss = cls(real, fake)
        expected = bce(a, torch.full_like(a, real)) + bce(b, torch.full_like(b, fake))
        assert loss.discriminator(a, b).item() == pytest.approx(expected.item(), rel=1e-6)
        assert loss.generator(b).item() == pytest.approx(bce(b, torch.ones_like(b)).item(), rel=1e-6)


def check_smoothing_leaves_the_generator(cls) -> None:
    """The minimax generator's loss is that of the targets 1 and 0, with or without logits of real data."""
    bce, real, fake = torch.nn.functional.binary_cross_entropy_with_logits, draws(0, 50), draws(1, 50)
    on_fakes, on_real = bce(fake, torch.zeros(50)).item(), bce(real, torch.ones(50)).item()
    for loss in (cls(), cls(0.9), cls(0.9, 0.1)):
        assert loss.generator(fake).item() == pytest.approx(-on_fakes, rel=1e-6)
        assert loss.generator(fake, real).item() == pytest.approx(-on_fakes - on_real, rel=1e-6)


class SmoothedFakes(Saturating):
    def generator(self, fake_logits, real_logits=None):
        loss = -cross_entropy(fake_logits, self.fake_target)
        return loss if real_logits is None else loss - cross_entropy(real_logits, 1.0)


class SmoothedReal(Saturating):
    def generator(self, fake_logits, real_logits=None):
        loss = -cross_entropy(fake_logits, 0.0)
        return loss if real_logits is None else loss - cross_entropy(real_logits, self.real_target)


def test_smoothing_is_the_discriminators_alone() -> None:
    check_smoothing_leaves_the_generator(Saturating)
    kills(check_smoothing_leaves_the_generator, SmoothedFakes)
    kills(check_smoothing_leaves_the_generator, SmoothedReal)


def check_optimum_of_smoothing(cls) -> None:
    """D* of Salimans 2016, sec. 3.4: two-sided has p_g in the numerator, one-sided has not."""
    p, q = P_DATA / 10, P_G / 10
    assert torch.allclose(best_logits(cls()).sigmoid(), p / (p + q), atol=1e-3)
    assert torch.allclose(best_logits(cls(0.9)).sigmoid(), 0.9 * p / (p + q), atol=1e-3)
    assert torch.allclose(best_logits(cls(0.9, 0.1)).sigmoid(), (0.9 * p + 0.1 * q) / (p + q), atol=1e-3)


class WrongSide(NonSaturating):
    def discriminator(self, real_logits, fake_logits):
        return super().discriminator(-fake_logits, -real_logits)


class SmoothedGenerator(NonSaturating):
    def generator(self, fake_logits, real_logits=None):
        return self.real_target * torch.nn.functional.softplus(-fake_logits).mean()


def test_smoothed_targets_equal_bce_against_the_soft_target() -> None:
    check_smoothing(NonSaturating)
    kills(check_smoothing, WrongSide)
    kills(check_smoothing, SmoothedGenerator)


def test_optimal_discriminator_of_smoothed_targets() -> None:
    check_optimum_of_smoothing(NonSaturating)
    kills(check_optimum_of_smoothing, WrongSide)


@pytest.mark.parametrize(("real", "fake"), [(0.5, 0.5), (1.1, 0.0), (0.9, -0.1)])
def test_impossible_targets_are_refused(real, fake) -> None:
    with pytest.raises(UserError, match="0 <= fake < real <= 1"):
        NonSaturating(real, fake)


@pytest.mark.parametrize("cls", [Hinge, Wasserstein, Relativistic, D2GAN])
def test_losses_without_targets_have_no_label_smoothing(cls) -> None:
    with pytest.raises(TypeError, match="real_target"):
        cls(real_target=0.9)


# ---------------------------------------------------------------------- hinge, Wasserstein, least squares


def test_hinge_and_wasserstein_by_hand() -> None:
    real, fake = torch.tensor([2.0, 0.0]), torch.tensor([-3.0, 0.5])
    assert Hinge().discriminator(real, fake).item() == pytest.approx((0 + 1) / 2 + (0 + 1.5) / 2)
    assert Hinge(2.0).discriminator(real, fake).item() == pytest.approx((0 + 2) / 2 + (0 + 2.5) / 2)
    assert Hinge().generator(fake).item() == pytest.approx(1.25)
    assert Wasserstein().discriminator(real, fake).item() == pytest.approx(-1.25 - 1.0)
    assert Wasserstein().generator(fake).item() == pytest.approx(1.25)


def check_least_squares(cls) -> None:
    real, fake = torch.tensor([2.0, 0.0]), torch.tensor([-3.0, 0.5])
    assert cls().discriminator(real, fake).item() == pytest.approx(((1 + 1) / 2 + (9 + 0.25) / 2) / 2)
    assert cls().generator(fake).item() == pytest.approx((16 + 0.25) / 4)
    pearson = cls(1.0, -1.0, generator_target=0.0)
    assert pearson.discriminator(real, fake).item() == pytest.approx(((1 + 1) / 2 + (4 + 2.25) / 2) / 2)
    assert pearson.generator(fake).item() == pytest.approx((9 + 0.25) / 4)
    assert cls(0.9).generator(fake).item() == pytest.approx((3.9**2 + 0.4**2) / 4)
    p, q = P_DATA / 10, P_G / 10
    assert torch.allclose(best_logits(cls(2.0, -1.0)), (2 * p - q) / (p + q), atol=1e-3)  # Mao 2017, eq. 5


def test_least_squares_with_targets() -> None:
    class WithoutHalf(LeastSquares):
        def discriminator(self, real_logits, fake_logits):
            return 2 * super().discriminator(real_logits, fake_logits)

    check_least_squares(LeastSquares)
    kills(check_least_squares, WithoutHalf)
    with pytest.raises(UserError, match="real must be above fake"):
        LeastSquares(0.0, 1.0)


# ---------------------------------------------------------------------- relativistic


def check_relativistic(cls) -> None:
    a, b = draws(2, 7), draws(3, 7)
    loss = cls()
    assert loss.discriminator(ZERO + 3, ZERO + 3).item() == pytest.approx(LOG2)
    assert loss.generator(ZERO - 2, ZERO - 2).item() == pytest.approx(LOG2)
    assert loss.discriminator(a + 5, b + 5).item() == pytest.approx(loss.discriminator(a, b).item(), rel=1e-5)
    assert loss.generator(b + 5, a + 5).item() == pytest.approx(loss.generator(b, a).item(), rel=1e-5)
    pairs = list(zip(a.tolist(), b.tolist(), strict=True))
    by_hand = sum(-math.log(1 / (1 + math.exp(-(r - f)))) for r, f in pairs) / 7
    assert loss.discriminator(a, b).item() == pytest.approx(by_hand, rel=1e-5)
    by_hand = sum(-math.log(1 / (1 + math.exp(-(f - r)))) for r, f in pairs) / 7
    assert loss.generator(b, a).item() == pytest.approx(by_hand, rel=1e-5)
    a, b = a.requires_grad_(), b.requires_grad_()
    loss.discriminator(a, b).backward()
    assert torch.allclose(a.grad, -torch.sigmoid(b - a) / 7, atol=1e-6)
    assert torch.allclose(b.grad, torch.sigmoid(b - a) / 7, atol=1e-6)


def test_the_paired_relativistic_loss() -> None:
    class OfMeans(Relativistic):
        def discriminator(self, real_logits, fake_logits):
            return torch.nn.functional.softplus(fake_logits.mean() - real_logits.mean())

    class Exchanged(Relativistic):
        def generator(self, fake_logits, real_logits=None):
            return super().generator(real_logits, fake_logits)

    check_relativistic(Relativistic)
    kills(check_relativistic, OfMeans)
    kills(check_relativistic, Exchanged)
    with pytest.raises(UserError, match=r"\(3,\) and \(7,\)"):
        Relativistic().discriminator(draws(0, 7), draws(0, 3))


def check_relativistic_average(cls) -> None:
    a, b = draws(4, 7), draws(5, 7) - 1
    loss = cls()
    assert loss.discriminator(ZERO + 3, ZERO + 3).item() == pytest.approx(2 * LOG2)
    assert loss.generator(ZERO - 2, ZERO - 2).item() == pytest.approx(2 * LOG2)
    for side, args in ((loss.discriminator, (a, b)), (loss.generator, (b, a))):
        high, low = (x.double().requires_grad_() for x in args)
        sigma_high = 1 / (1 + torch.exp(-(high - low.sum() / 7)))
        sigma_low = 1 / (1 + torch.exp(-(low - high.sum() / 7)))
        expected = -sigma_high.log().sum() / 7 - (1 - sigma_low).log().sum() / 7
        expected.backward()
        mine = [x.clone().requires_grad_() for x in args]
        value = side(*mine)
        value.backward()
        assert value.item() == pytest.approx(expected.item(), rel=1e-5)
        assert side(*(x + 5 for x in args)).item() == pytest.approx(expected.item(), rel=1e-5)
        for x, reference in zip(mine, (high, low), strict=True):
            assert torch.allclose(x.grad.double(), reference.grad, atol=1e-6)


class OwnMean(RelativisticAverage):
    def _compare(self, loss, high, low):
        return loss.discriminator(high - high.mean(0), low - low.mean(0))


class DetachedMean(RelativisticAverage):
    def _compare(self, loss, high, low):
        return loss.discriminator(high - low.mean(0).detach(), low - high.mean(0).detach())


class FakeHalf(RelativisticAverage):
    def generator(self, fake_logits, real_logits=None):
        return torch.nn.functional.softplus(-(fake_logits - real_logits.mean(0))).mean()


def test_the_average_relativistic_loss() -> None:
    check_relativistic_average(RelativisticAverage)
    for mutant in (OwnMean, DetachedMean, FakeHalf):
        kills(check_relativistic_average, mutant)


def check_smoothing_of_relativistic_logits(cls) -> None:
    """The discriminator's targets are the soft ones; the generator's loss is that without smoothing."""
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    real, fake = draws(16, 9), draws(17, 9) - 1
    over_fakes, over_real = real - fake.mean(), fake - real.mean()
    hard = bce(over_real, torch.ones(9)) + bce(over_fakes, torch.zeros(9))
    for target, other in ((0.9, 0.0), (0.9, 0.1)):
        loss = cls(NonSaturating(target, other))
        soft = bce(over_fakes, torch.full((9,), target)) + bce(over_real, torch.full((9,), other))
        assert loss.discriminator(real, fake).item() == pytest.approx(soft.item(), rel=1e-6)
        assert loss.generator(fake, real).item() == pytest.approx(hard.item(), rel=1e-6)


class SmoothedBoth(RelativisticAverage):
    def generator(self, fake_logits, real_logits=None):
        return self._compare(self.loss, fake_logits, real_logits)


class SmoothedNobody(RelativisticAverage):
    def discriminator(self, real_logits, fake_logits):
        return self._compare(NonSaturating(), real_logits, fake_logits)


def test_smoothing_of_relativistic_logits_is_the_discriminators_alone() -> None:
    check_smoothing_of_relativistic_logits(RelativisticAverage)
    for mutant in (SmoothedBoth, SmoothedNobody, OwnMean):
        kills(check_smoothing_of_relativistic_logits, mutant)


def test_other_losses_of_relativistic_logits() -> None:
    """RaHingeGAN and RaLSGAN by their formulas; two outputs are two games."""
    a, b = draws(6, 9), draws(7, 9)
    relu = torch.nn.functional.relu
    hinge = relu(1 - (a - b.mean())).mean() + relu(1 + (b - a.mean())).mean()
    assert RelativisticAverage(Hinge()).discriminator(a, b).item() == pytest.approx(hinge.item(), rel=1e-6)
    least_squares = RelativisticAverage(LeastSquares(1.0, -1.0))
    squares = ((a - b.mean() + 1) ** 2).mean() / 2 + ((b - a.mean() - 1) ** 2).mean() / 2
    assert least_squares.generator(b, a).item() == pytest.approx(squares.item(), rel=1e-6)
    two = RelativisticAverage().discriminator(torch.stack([a, a + 3], 1), torch.stack([b, b - 1], 1)).item()
    one = (RelativisticAverage().discriminator(a, b) + RelativisticAverage().discriminator(a + 3, b - 1)) / 2
    assert two == pytest.approx(one.item(), rel=1e-6)
    with pytest.raises(UserError, match="Wasserstein"):
        RelativisticAverage(Wasserstein())


class TwoProcesses:
    """What ``joint`` uses of torch.distributed, for two threads: a sum waits for the other one's tensor."""

    def __init__(self) -> None:
        self.barrier, self.given = threading.Barrier(2, timeout=20), [None, None]
        self.rank = threading.local()

    def is_available(self) -> bool:
        return True

    is_initialized = is_available

    def get_world_size(self) -> int:
        return 2

    def all_reduce(self, tensor: torch.Tensor) -> None:
        self.given[self.rank.number] = tensor.clone()
        self.barrier.wait()
        tensor.copy_(self.given[0] + self.given[1])
        self.barrier.wait()

    def run(self, function) -> list:
        def on(rank: int):
            self.rank.number = rank
            return function(rank)

        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(on, (0, 1)))


@pytest.mark.parametrize("side", ["discriminator", "generator"])
def test_two_processes_equal_one(side, monkeypatch) -> None:
    """The value is the mean over processes, and so is the gradient: each logit has twice its share before that mean."""
    world = TwoProcesses()
    x = [draws(8, 8).requires_grad_(), draws(9, 8).requires_grad_()]
    value = getattr(RelativisticAverage(), side)(*x)
    value.backward()

    def on_one(rank: int):
        own = [p.detach()[4 * rank : 4 * rank + 4].requires_grad_() for p in x]
        part = getattr(RelativisticAverage(), side)(*own)
        part.backward()
        return part.item(), *(p.grad for p in own)

    monkeypatch.setattr(joint, "dist", world)
    results = world.run(on_one)
    assert sum(r[0] for r in results) / 2 == pytest.approx(value.item(), rel=1e-6)
    for place, p in enumerate(x, 1):
        assert torch.allclose(torch.cat([r[place] for r in results]) / 2, p.grad, atol=1e-7)


def test_the_joint_mean_may_be_differentiated_twice(monkeypatch) -> None:
    """mean(m)^3 by hand, as an update that is looked through or a gradient penalty needs it."""
    world = TwoProcesses()

    def on_one(rank: int):
        m = torch.tensor(2.0 + rank, requires_grad=True)
        (once,) = torch.autograd.grad(joint.mean(m) ** 3, m, create_graph=True)
        (twice,) = torch.autograd.grad(once, m)
        return once.item(), twice.item()

    monkeypatch.setattr(joint, "dist", world)
    assert world.run(on_one) == [pytest.approx((3 * 2.5**2, 6 * 2.5))] * 2


# ---------------------------------------------------------------------- two discriminators


def check_d2gan(cls) -> None:
    """The paper's J at outputs set by hand, the generator's part of it, and the optimum for a fixed generator."""
    outputs_real, outputs_fake = torch.tensor([[0.5, 2.0], [1.5, 0.25]]), torch.tensor([[3.0, 0.1], [0.2, 4.0]])
    inverse = lambda y: torch.log(torch.expm1(y))  # noqa: E731  of softplus
    alpha, beta = 0.3, 0.7
    loss = cls(alpha, beta)
    j = (
        alpha * (math.log(0.5) + math.log(1.5)) / 2
        - (3.0 + 0.2) / 2
        - (2.0 + 0.25) / 2
        + beta * (math.log(0.1) + math.log(4.0)) / 2
    )
    real, fake = inverse(outputs_real), inverse(outputs_fake)
    assert loss.discriminator(real, fake).item() == pytest.approx(-j, rel=1e-5)
    of_fakes = -(3.0 + 0.2) / 2 + beta * (math.log(0.1) + math.log(4.0)) / 2
    assert loss.generator(fake).item() == pytest.approx(of_fakes, rel=1e-5)
    assert loss.generator(fake, real).item() == pytest.approx(j, rel=1e-5)
    best = torch.nn.functional.softplus(best_logits(loss, columns=2))
    assert torch.allclose(best[:, 0], alpha * P_DATA / P_G, rtol=5e-3)
    assert torch.allclose(best[:, 1], beta * P_G / P_DATA, rtol=5e-3)


class Exchanged(D2GAN):
    def discriminator(self, real_logits, fake_logits):
        return super().discriminator(real_logits.flip(-1), fake_logits.flip(-1))


class Exponential(D2GAN):
    """Outputs exp(logit): positive as well, but not the paper's softplus."""

    def discriminator(self, real_logits, fake_logits):
        def softplus_inverse(logits):
            return torch.log(torch.expm1(logits.exp()))

        return super().discriminator(softplus_inverse(real_logits), softplus_inverse(fake_logits))


class OneWeight(D2GAN):
    def __init__(self, alpha=1.0, beta=1.0):
        super().__init__(alpha, alpha)


def test_d2gan() -> None:
    check_d2gan(D2GAN)
    for mutant in (Exchanged, Exponential, OneWeight):
        kills(check_d2gan, mutant)
    with pytest.raises(UserError, match=r"\(5,\).*DualDiscriminator"):
        D2GAN().generator(ZERO)
    with pytest.raises(UserError, match="above 0"):
        D2GAN(0.0)


def test_the_logarithm_of_softplus_is_exact_where_softplus_underflows() -> None:
    x = torch.tensor([-300.0, -90.0, -20.0, -15.0, -14.0, -1.0, 0.0, 3.0, 50.0], requires_grad=True)
    value = log_softplus(x)
    value.sum().backward()
    wide = x.detach().double()
    reference = torch.where(wide < -40, wide, torch.log1p(wide.exp()).log())
    slope = torch.where(wide < -40, 1.0, torch.sigmoid(wide) / torch.log1p(wide.exp()))
    assert torch.allclose(value.double(), reference, rtol=1e-6)
    assert torch.allclose(x.grad.double(), slope, rtol=1e-5)


# ---------------------------------------------------------------------- all of them

ALL = [NonSaturating, Saturating, Hinge, Wasserstein, LeastSquares, Relativistic, RelativisticAverage, D2GAN]


@pytest.mark.parametrize("cls", ALL)
def test_half_precision_logits_are_raised_first(cls) -> None:
    shape = (64, 2) if cls.num_discriminators == 2 else (64,)
    real, fake = draws(10, *shape).bfloat16(), draws(11, *shape).bfloat16()
    loss = cls()
    for half, full in (
        (loss.discriminator(real, fake), loss.discriminator(real.float(), fake.float())),
        (loss.generator(fake, real), loss.generator(fake.float(), real.float())),
    ):
        assert half.dtype == torch.float32
        assert half.item() == full.item()


@pytest.mark.parametrize("cls", [c for c in ALL if c.zero_sum])
def test_the_generator_of_a_zero_sum_game_minimizes_what_the_discriminator_maximizes(cls) -> None:
    shape = (6, 2) if cls.num_discriminators == 2 else (6,)
    real, fake = draws(12, *shape), draws(13, *shape).requires_grad_()
    loss = cls()
    assert loss.generator(fake, real).item() == pytest.approx(-loss.discriminator(real, fake).item(), rel=1e-6)
    (whole,) = torch.autograd.grad(loss.generator(fake, real), fake)
    (part,) = torch.autograd.grad(loss.generator(fake), fake)
    assert torch.equal(whole, part)


@pytest.mark.parametrize("loss", [LeastSquares(0.8, -0.5), RelativisticAverage(Hinge(2.0)), D2GAN(0.1, 0.2)])
def test_a_loss_survives_its_plain_form(loss) -> None:
    shape = (6, 2) if loss.num_discriminators == 2 else (6,)
    real, fake = draws(14, *shape), draws(15, *shape)
    again = build(loss.config())
    assert again.config() == loss.config()
    assert again.discriminator(real, fake).item() == loss.discriminator(real, fake).item()
    assert again.generator(fake, real).item() == loss.generator(fake, real).item()


@pytest.mark.parametrize("kind", ["points", "images"])
@pytest.mark.parametrize("loss", [LeastSquares(0.9), Relativistic(), RelativisticAverage(Hinge())])
def test_it_trains_and_survives(loss, kind) -> None:
    from tests.tricks.fits import survives

    survives(kind, loss=loss)


@pytest.mark.parametrize("last", [nn.Sigmoid(), nn.Softmax(1), nn.LogSigmoid()])
@pytest.mark.parametrize("cls", [NonSaturating, Hinge, Wasserstein])
def test_a_squashed_output_is_refused(last, cls) -> None:
    from ganzoo.gan import GAN
    from ganzoo.models import MLPGAN

    discriminator = nn.Sequential(nn.Linear(2, 4), nn.Sigmoid(), nn.Linear(4, 1))
    GAN(MLPGAN().generator, discriminator, loss=cls())
    with pytest.raises(UserError, match=f"ends in {type(last).__name__}, but {cls.__name__} takes logits"):
        GAN(MLPGAN().generator, nn.Sequential(*discriminator, last), loss=cls())


class Hidden(nn.Module):
    """Squashes its logits where no list of modules shows it; has a gate inside, registered last, if it does not."""

    def __init__(self, end) -> None:
        super().__init__()
        self.head, self.hidden, self.end, self.gate = nn.Linear(4, 1), nn.Linear(2, 4), end, nn.Sigmoid()

    def forward(self, x, labels=None):
        x = self.hidden(x)
        return self.end(self.head(x * self.gate(x)))


ENDS = {
    "Sigmoid": lambda x: torch.sigmoid(x),
    "LogSigmoid": lambda x: nn.functional.logsigmoid(x).flatten(),
    "Softmax": lambda x: x.unsqueeze(2).softmax(1)[:, 0, 0],
    "LogSoftmax": lambda x: torch.cat([x.log_softmax(1), x.log_softmax(1)]).split(len(x))[0].squeeze(1),
}


@pytest.mark.parametrize("name", ENDS)
def test_logits_squashed_anywhere_are_refused_before_they_teach(name) -> None:
    from ganzoo.gan import GAN
    from ganzoo.models import MLPGAN
    from tests.common import fit, normal_batches

    gan = GAN(MLPGAN().generator, Hidden(ENDS[name]), loss=Hinge())
    before = [p.detach().clone() for p in gan.parameters()]
    with pytest.raises(UserError, match=f"ends in {name}, but Hinge takes logits"):
        fit(gan, normal_batches(16, 2), max_steps=2)
    assert all(torch.equal(a, b) for a, b in zip(before, gan.parameters(), strict=True))


@pytest.mark.parametrize("end", [nn.Flatten(0), lambda x: 3 * x.squeeze(1), lambda x: 2 * x.sigmoid().squeeze(1) - 1])
def test_a_gate_inside_is_none_of_its_output(end) -> None:
    """Nor is what is scaled again: probabilities alone are what a loss of logits cannot take."""
    from ganzoo.gan import GAN
    from ganzoo.models import MLPGAN
    from tests.common import fit, normal_batches

    gan = GAN(MLPGAN().generator, Hidden(end), loss=Hinge())
    before = gan.discriminator.head.weight.detach().clone()
    fit(gan, normal_batches(16, 2), max_steps=2)
    assert not torch.equal(before, gan.discriminator.head.weight)


def test_layers_that_change_no_value_do_not_hide_the_last_one() -> None:
    from ganzoo.gan import GAN
    from ganzoo.models import MLPGAN

    layers = nn.Sequential(nn.Linear(2, 1), nn.Sequential(nn.Sigmoid(), nn.Identity()), nn.Flatten(0))
    with pytest.raises(UserError, match="ends in Sigmoid, but Wasserstein takes logits"):
        GAN(MLPGAN().generator, layers, loss=Wasserstein())
