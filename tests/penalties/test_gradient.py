"""Gradient penalties at known points: D(x) = <w, x> and D(x) = |x|^2 / 2, whose gradient is x."""

from __future__ import annotations

import contextlib
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ganzoo import streams
from ganzoo.config import build
from ganzoo.errors import UserError
from ganzoo.gan import GAN
from ganzoo.models import DCGAN, MLPGAN
from ganzoo.optim import SGD
from ganzoo.parts import Turn
from ganzoo.penalties import DRAGAN, R1, R2, WassersteinGradientPenalty, ZeroCenteredGradientPenalty
from ganzoo.penalties import gradient as module
from ganzoo.replay import Snapshot
from ganzoo.schedules import Linear
from tests.common import Critic, fit, normal_batches
from tests.mutants import kills

ALL = [R1, R2, ZeroCenteredGradientPenalty, WassersteinGradientPenalty, DRAGAN]
SHAPE = (6, 2, 3, 2)


@pytest.fixture
def float64(monkeypatch):
    """All of a run in float64."""
    monkeypatch.setattr(Tensor, "float", lambda self: self)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Half(nn.Module):
    """|x|^2 / 2; keeps what it was given."""

    def forward(self, x, labels=None):
        self.__dict__["seen"] = x.detach()
        return x.flatten(1).square().sum(1) / 2


def turn_of(discriminator: nn.Module, shape=SHAPE, **fields) -> Turn:
    gan = GAN(MLPGAN().generator, discriminator)
    g = torch.Generator().manual_seed(1)
    real, fake = torch.randn(shape, generator=g), 1 + 2 * torch.randn(shape, generator=g)
    return Turn(gan, "discriminator", 0, 0.0, **{"real": real, "fake": fake, **fields})


def judged(turn: Turn) -> Turn:
    """The turn with what the loop adds for penalties that use its own passes."""
    turn.real, turn.fake = turn.real.detach().requires_grad_(), turn.fake.detach().requires_grad_()
    turn.real_logits = turn.gan.discriminator(turn.real, turn.real_labels)
    turn.fake_logits = turn.gan.discriminator(turn.fake, turn.fake_labels)
    return turn


def norms(x: Tensor) -> Tensor:
    return torch.tensor([math.sqrt(sum(v * v for v in row.flatten().tolist())) for row in x])


def same(value: Tensor, expected: float, rel: float = 1e-5) -> None:
    assert value.item() == pytest.approx(expected, rel=rel)


# ---------------------------------------------------------------------- values, and where they are taken


@pytest.mark.parametrize("penalty", [R1, R2, ZeroCenteredGradientPenalty])
def test_linear_discriminator(penalty) -> None:
    turn = turn_of(Critic(12))
    square = sum(v * v for v in turn.gan.discriminator.linear.weight.flatten().tolist())
    same(penalty(4.0)(turn), 4.0 / 2 * square)
    same(penalty(4.0)(judged(turn)), 4.0 / 2 * square)


@pytest.mark.parametrize("penalty", [WassersteinGradientPenalty, DRAGAN])
def test_linear_discriminator_with_a_norm_that_is_drawn_to_a_target(penalty) -> None:
    turn = turn_of(Critic(12))
    for scale in (0.5, 3.0):  # below and above the target
        weight = turn.gan.discriminator.linear.weight
        weight.data *= scale / weight.norm()
        same(penalty(10.0)(turn), 10 * (scale - 1) ** 2)
        same(penalty(10.0, target=0.2)(turn), 10 * (scale - 0.2) ** 2)
    one_sided = WassersteinGradientPenalty(10.0, one_sided=True)
    same(one_sided(turn), 40.0)
    weight.data *= 0.5 / 3
    assert one_sided(turn).item() == 0


def check_real(penalty) -> None:
    for ready in (lambda turn: turn, judged):
        turn = ready(turn_of(Half()))
        same(penalty(3.0)(turn), 1.5 * norms(turn.real).square().mean().item())


def check_fake(penalty) -> None:
    for ready in (lambda turn: turn, judged):
        turn = ready(turn_of(Half()))
        same(penalty(3.0)(turn), 1.5 * norms(turn.fake).square().mean().item())


def shares(turn: Turn) -> Tensor:
    """Where the points that D was given are on the lines from fake (0) to real (1)."""
    points, real, fake = (x.flatten(1).double() for x in (turn.gan.discriminator.seen, turn.real, turn.fake))
    way = real - fake
    e = ((points - fake) * way).sum(1) / way.square().sum(1)
    assert torch.allclose(points, fake + e[:, None] * way, atol=1e-5), "not on the lines between real and fake"
    return e


def check_line(penalty) -> None:
    """One uniform share per sample, one norm per sample."""
    turn = turn_of(Half(), (2000, 2, 3, 2))
    value = penalty(2.0)(turn)
    e = shares(turn)
    assert e.min() >= 0 and e.max() <= 1
    assert abs(e.mean() - 1 / 2) < 0.03 and abs(e.var() - 1 / 12) < 0.01  # of a uniform number
    lengths = norms(turn.gan.discriminator.seen)
    if issubclass(penalty, WassersteinGradientPenalty):
        same(value, 2 * (lengths - 1).square().mean().item(), 1e-4)
    else:
        same(value, 2 / 2 * lengths.square().mean().item(), 1e-4)


def check_around(penalty) -> None:
    """DRAGAN as its authors wrote it: x + share * std/2 * uniform, one share per sample, and one norm per sample."""
    turn = turn_of(Half(), (2000, 2, 10, 10))
    turn.real = 5 + 3 * turn.real  # whose standard deviation is neither its variance nor its root mean square
    value = penalty(2.0)(turn)
    points = turn.gan.discriminator.seen
    same(value, 2 * (norms(points) - 1).square().mean().item(), 1e-4)
    shift = (points - turn.real) / (0.5 * turn.real.std(correction=0))
    assert shift.min() > -1e-5 and shift.max() < 1
    share = 2 * shift.flatten(1).mean(1)  # the mean of 200 uniform numbers is 1/2
    assert abs(share.mean() - 1 / 2) < 0.03 and abs(share.var() - 1 / 12) < 0.01
    within = shift / share.view(-1, 1, 1, 1)  # uniform in [0, 1) for each value
    assert abs(within[share > 0.1].var() - 1 / 12) < 0.01


def test_r1_is_taken_at_real_data() -> None:
    check_real(R1)


def test_r2_is_taken_at_fakes() -> None:
    check_fake(R2)


@pytest.mark.parametrize("penalty", [WassersteinGradientPenalty, ZeroCenteredGradientPenalty])
def test_penalties_between_real_and_fake(penalty) -> None:
    check_line(penalty)


def test_dragan_is_taken_around_real_data() -> None:
    check_around(DRAGAN)


class Saddle(nn.Module):
    """sum of x_i sin(x_{i+1}), whose gradient is neither linear nor that of its points alone; keeps these."""

    def forward(self, x, labels=None):
        x = x.flatten(1)
        self.__dict__["seen"] = x.detach()
        return (x * x.roll(-1, 1).sin()).sum(1)


def check_noise_of_the_paper(penalty) -> None:
    """weight E(|grad D(x + delta)| - k)^2 at delta ~ N(0, c I), the derivative of the saddle written out in numpy."""
    turn = turn_of(Saddle(), (2000, 2, 10, 10))
    turn.real = 5 + 3 * turn.real  # whose own deviation and mean are no part of the noise
    value = penalty(2.0, deviation=0.7, target=1.5)(turn)
    points = turn.gan.discriminator.seen.double().numpy()
    shift = (points - turn.real.flatten(1).double().numpy()) / 0.7
    assert abs(shift.mean()) < 0.01 and abs(shift.var() - 1) < 0.01
    assert abs((shift**4).mean() - 3) < 0.05  # of a normal number
    assert abs((shift**2).mean(1).var() - 2 / 200) < 0.002  # one for each value, of the same deviation for every sample
    gradient = np.sin(np.roll(points, -1, 1)) + np.roll(points, 1, 1) * np.cos(points)
    same(value, 2 * ((np.sqrt((gradient**2).sum(1)) - 1.5) ** 2).mean(), 1e-4)


def test_dragan_with_the_noise_of_the_paper() -> None:
    check_noise_of_the_paper(DRAGAN)
    for wrong in (
        {"gradient": _gradient_at_real_data_seen_elsewhere},
        {"perturbed": lambda self, turn: DRAGAN(2.0).perturbed(turn)},  # as the authors' code does
        {"perturbed": lambda self, turn: turn.real + self.deviation**0.5 * torch.randn_like(turn.real)},
        {"perturbed": lambda self, turn: turn.real + self.deviation * torch.randn(2000, 1, 1, 1)},
        {"perturbed": lambda self, turn: turn.real + self.deviation * turn.real.std() * torch.randn_like(turn.real)},
        {"perturbed": lambda self, turn: turn.real + 12**0.5 * self.deviation * (torch.rand_like(turn.real) - 0.5)},
        {"perturbed": lambda self, turn: turn.fake + self.deviation * torch.randn_like(turn.real)},
        {"square_excess": _batch_wide_norm},
        {"square_excess": lambda self, gradient: (gradient.norm(dim=1) - 1).square().mean()},  # another k
        {"square_excess": lambda self, gradient: gradient.norm(dim=1).square().mean()},
        {"square_excess": lambda self, gradient: (gradient.norm(dim=1).mean() - self.target).square()},
        {"square_excess": lambda self, gradient: (gradient.norm(dim=1) - self.target).square().mean() / 2},
    ):
        kills(check_noise_of_the_paper, mutant(DRAGAN, **wrong))


def _gradient_at_real_data_seen_elsewhere(self, turn, points, labels):
    """The right points are judged, but it is the real data's gradient that counts."""
    at_real = module._InputGradient.gradient(self, turn, turn.real, labels)
    turn.gan.discriminator(points)
    return at_real


def _no_half(self, gradient):
    return gradient.square().sum(1).mean()


def _batch_wide_norm(self, gradient):
    return (gradient.norm() - 1).square()


def _root_of_mean_square(self, gradient):
    return (gradient.square().sum(1).mean().sqrt() - 1).square()


def _over_channels(self, logits, points):
    (gradient,) = torch.autograd.grad(logits.sum(), points, create_graph=True)
    return gradient.movedim(1, -1).flatten(0, -2)


def _not_differentiable(self, logits, points):
    (gradient,) = torch.autograd.grad(logits.sum(), points)
    return gradient.flatten(1)


def mutant(base: type, **methods) -> type:
    return type(f"Wrong{base.__name__}", (base,), methods)


@pytest.mark.parametrize("base", [R1, R2])
def test_mutants_of_r1_and_r2(base) -> None:
    check = check_real if base is R1 else check_fake
    other = R2 if base is R1 else R1
    check(mutant(base))
    kills(check, other)  # the penalty at the other end
    kills(check, mutant(base, value=lambda self, turn: (R1.value(self, turn) + R2.value(self, turn)) / 2))  # both ends
    kills(check, mutant(base, half_square=_no_half))
    kills(check, mutant(base, half_square=lambda self, gradient: gradient.square().sum() / 2))  # a sum over the batch
    kills(check, mutant(base, half_square=lambda self, gradient: gradient.square().mean() / 2))  # a mean over values
    kills(check, mutant(base, half_square=lambda self, gradient: gradient.norm(dim=1).mean() / 2))  # no square
    kills(check, mutant(base, differentiate=_over_channels))


def test_mutants_between_real_and_fake(monkeypatch) -> None:
    base, zero = WassersteinGradientPenalty, ZeroCenteredGradientPenalty
    kills(check_line, mutant(base, square_excess=_batch_wide_norm))
    kills(check_line, mutant(base, square_excess=_root_of_mean_square))
    kills(check_line, mutant(base, differentiate=_over_channels))
    kills(check_line, mutant(zero, half_square=_no_half))
    for cls in (base, zero):
        for end in ("real", "fake"):
            with monkeypatch.context() as patch:
                patch.setattr(module, "between", lambda turn, end=end: getattr(turn, end))
                kills(check_line, cls)
    for cls in (base, zero):
        with monkeypatch.context() as patch:
            patch.setattr(module, "_shares", lambda turn, data, purpose: torch.rand(1, 1, 1, 1))  # one for the batch
            kills(check_line, cls)
        with monkeypatch.context() as patch:
            patch.setattr(module, "_shares", lambda turn, data, purpose: torch.rand_like(data))  # one for each value
            kills(check_line, cls)


def test_mutants_of_dragan() -> None:
    def around_fakes(self, turn):
        return DRAGAN.perturbed(self, Turn(turn.gan, "discriminator", 0, 0.0, real=turn.fake))

    def without_shares(self, turn):
        return turn.real + 0.5 * turn.real.std(correction=0) * torch.rand_like(turn.real)

    def one_for_all_values(self, turn):
        return turn.real + 0.5 * turn.real.std(correction=0) * torch.rand(len(turn.real), 1, 1, 1)

    def deviation_of_each_sample(self, turn):
        spread = turn.real.flatten(1).std(1, correction=0).view(-1, 1, 1, 1) * torch.linspace(0.5, 1.5, 2000).view(
            -1, 1, 1, 1
        )
        return turn.real + torch.rand(2000, 1, 1, 1) * spread * torch.rand_like(turn.real)

    def variance(self, turn):
        return turn.real + 0.5 * torch.rand(2000, 1, 1, 1) * turn.real.var(correction=0) * torch.rand_like(turn.real)

    def root_of_mean_square(self, turn):
        size = turn.real.square().mean().sqrt()
        return turn.real + 0.5 * torch.rand(2000, 1, 1, 1) * size * torch.rand_like(turn.real)

    for wrong in (
        *(around_fakes, without_shares, one_for_all_values, deviation_of_each_sample),
        *(variance, root_of_mean_square),
    ):
        kills(check_around, mutant(DRAGAN, perturbed=wrong))
    kills(check_around, mutant(DRAGAN, square_excess=_batch_wide_norm))
    kills(check_around, mutant(DRAGAN, perturbed=lambda self, turn: turn.real))


# ---------------------------------------------------------------------- derivatives of the penalties


class Given(nn.Module):
    """v . tanh(Wx + b) with tensors that are given to it, not its own parameters."""

    def forward(self, x, labels=None):
        w, b, v = self.__dict__["weights"]
        return torch.tanh(x.flatten(1) @ w.T + b) @ v


@pytest.mark.parametrize("penalty", ALL)
@pytest.mark.parametrize("own", [True, False], ids=["own pass", "shared pass"])
def test_first_and_second_derivatives_by_finite_differences(penalty, own, float64) -> None:
    turn = turn_of(Given(), (3, 2))
    g = torch.Generator().manual_seed(0)
    weights = [torch.randn(*s, generator=g, requires_grad=True) for s in ((4, 2), (4,), (4,))]
    part = penalty(2.0)

    def value(*weights: Tensor) -> Tensor:
        turn.gan.discriminator.__dict__["weights"] = weights
        with streams.stream(5, start=0, num=3, total=3, device=torch.device("cpu")):
            return part(turn if own else judged(turn))

    assert torch.autograd.gradcheck(value, weights)
    assert torch.autograd.gradgradcheck(value, weights)


class Smooth(nn.Module):
    """v . tanh(Wx + b) with parameters."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(3, 5), nn.Linear(5, 1, bias=False)

    def forward(self, x, labels=None):
        return self.last(torch.tanh(self.first(x))).squeeze(1)


def check_gradient(penalty) -> None:
    """D's gradient is W^T (v (1 - tanh^2)), written out here and differentiated once."""
    for ready in (lambda turn: turn, judged):
        turn = ready(turn_of(Smooth(), (6, 3)))
        net = turn.gan.discriminator
        value = penalty(2.0)(turn)
        assert value.requires_grad
        value.backward()
        w, b, v = (p.detach().double().requires_grad_() for p in (net.first.weight, net.first.bias, net.last.weight))
        slope = v * (1 - torch.tanh(turn.real.detach().double() @ w.T + b) ** 2)  # (N, 5)
        (slope @ w).square().sum(1).mean().backward()  # gamma/2 = 1
        for got, expected in zip((net.first.weight, net.first.bias, net.last.weight), (w, b, v), strict=True):
            assert torch.allclose(got.grad.double(), expected.grad, rtol=1e-4, atol=1e-6)


def test_gradient_of_the_penalty_against_a_formula_without_second_derivatives() -> None:
    check_gradient(R1)
    kills(check_gradient, mutant(R1, differentiate=_not_differentiable))
    kills(check_gradient, R2)


@pytest.mark.parametrize("penalty", [WassersteinGradientPenalty, DRAGAN])
def test_a_gradient_of_norm_zero_gives_finite_derivatives(penalty) -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 1)
            nn.init.zeros_(self.last.weight)

        def forward(self, x, labels=None):
            return self.last(torch.tanh(self.first(x)))

    turn = turn_of(Flat(), (6, 3))
    value = penalty(1.0)(turn)
    assert value.item() == 1.0
    value.backward()
    grads = [p.grad for p in turn.gan.discriminator.parameters() if p.grad is not None]
    assert grads and all(torch.isfinite(g).all() for g in grads)


# ---------------------------------------------------------------------- inputs: labels, patches, packs


def test_labels_go_with_their_samples() -> None:
    """D(x, y) = a_y |x|^2 / 2 has the gradient a_y x."""

    class Conditional(nn.Module):
        def forward(self, x, labels):
            self.__dict__["seen"] = x.detach()
            return torch.tensor([1.0, 2.0, 5.0])[labels] * x.flatten(1).square().sum(1) / 2

    real_labels, fake_labels = torch.tensor([0, 1, 2, 2, 1, 0]), torch.tensor([2, 2, 0, 1, 1, 1])
    a = torch.tensor([1.0, 2.0, 5.0])
    zero = ZeroCenteredGradientPenalty(2.0)
    turn = turn_of(Conditional(), real_labels=real_labels, fake_labels=fake_labels)
    for ready in (lambda turn: turn, judged):
        turn = ready(turn)
        same(R1(2.0)(turn), (a[real_labels] * norms(turn.real)).square().mean().item())
        same(R2(2.0)(turn), (a[fake_labels] * norms(turn.fake)).square().mean().item())
        for penalty, target in ((WassersteinGradientPenalty(1.0), 1), (DRAGAN(1.0), 1), (zero, 0)):
            value = penalty(turn)
            expected = (a[real_labels] * norms(turn.gan.discriminator.seen) - target).square().mean().item()
            same(value, expected)


def test_a_pass_that_is_made_again_has_the_labels_of_the_first_one() -> None:
    """As under autocast, where the turn's own pass cannot be used."""
    a = torch.tensor([1.0, 2.0, 5.0])

    class Conditional(nn.Module):
        def forward(self, x, labels):
            return a[labels] * x.flatten(1).square().sum(1) / 2

    labels = torch.tensor([0, 1, 2, 2, 1, 0])
    turn = turn_of(Conditional(), real_labels=labels, fake_labels=labels.flip(0), full_precision=False)
    first, second = R1(2.0), R2(2.0)
    for part in (first, second):
        part.before_turn(turn)
    assert turn.record and not (turn.track_real or turn.track_fake)
    turn.before_real = turn.before_fake = Snapshot(turn.gan.discriminator)
    same(first(turn), (a[labels] * norms(turn.real)).square().mean().item())
    same(second(turn), (a[labels.flip(0)] * norms(turn.fake)).square().mean().item())


@pytest.mark.parametrize("penalty", [R1, R2, ZeroCenteredGradientPenalty])
def test_a_negative_gamma_is_refused_by_its_name(penalty) -> None:
    with pytest.raises(UserError, match=f"The gamma of {penalty.__name__} was -3, but"):
        penalty(-3)


@pytest.mark.parametrize("penalty", [R1, R2])
def test_only_turns_in_which_it_is_due_are_tracked(penalty) -> None:
    """A lazy penalty costs nothing in between."""
    tracked = []
    for number in range(6):
        turn = turn_of(Half())
        turn.number = number
        penalty(every=3).before_turn(turn)
        tracked.append((turn.track_real, turn.track_fake, turn.record))
    due, idle = (penalty is R1, penalty is R2, False), (False, False, False)
    assert tracked == [due, idle, idle, due, idle, idle]


def test_logits_of_patches_are_added_up() -> None:
    class Patches(nn.Module):
        def forward(self, x, labels=None):
            return (x.square() / 2).sum(1, keepdim=True)  # (N, 1, 3, 2)

    turn = turn_of(Patches())
    for ready in (lambda turn: turn, judged):
        same(R1(2.0)(ready(turn)), norms(turn.real).square().mean().item())


def test_a_pack_is_one_input() -> None:
    """Three samples per logit: |pack|^2 / 2 has the pack as its gradient, and lines are those between packs."""

    class Packs(Half):
        def forward(self, x, labels=None):
            self.__dict__["seen"] = x.detach()
            return x.reshape(2, -1).square().sum(1) / 2

    turn = turn_of(Packs())
    for ready in (lambda turn: turn, judged):
        same(R1(2.0)(ready(turn)), norms(turn.real.reshape(2, -1)).square().mean().item())
    value = WassersteinGradientPenalty(1.0)(judged(turn))
    same(value, (norms(turn.gan.discriminator.seen.reshape(2, -1)) - 1).square().mean().item())
    e = shares(turn)
    assert torch.allclose(e, e[[0, 0, 0, 3, 3, 3]]) and abs(e[0] - e[3]) > 1e-3


# ---------------------------------------------------------------------- the turn's own pass, or one more


class Foreign(nn.Module):
    """A discriminator that draws from keyed and from global numbers, and whose spectral vectors move in each pass."""

    def __init__(self) -> None:
        from ganzoo.layers.dropout import Dropout

        super().__init__()
        sn = nn.utils.parametrizations.spectral_norm
        self.layers = nn.Sequential(
            sn(nn.Linear(2, 16)), nn.Tanh(), Dropout(0.2), sn(nn.Linear(16, 16)), nn.Tanh(), nn.Dropout(0.2)
        )
        self.head = nn.Linear(16, 1)

    def forward(self, x, labels=None):
        return self.head(self.layers(x)).squeeze(1)


class Noise(R1):
    """Noise on all that the discriminator sees."""

    def before_turn(self, turn):
        pass

    def inputs(self, turn, data, labels):
        return data * 1.5 + 0.3 * streams.randn(*data.shape, purpose="noise"), labels

    def forward(self, turn):
        return None


class Keep(R1):
    """Keeps the discriminator's gradients of each turn; can forbid penalties to use the turn's own passes."""

    def __init__(self, kept: list, *, share: bool = True) -> None:
        super().__init__()
        self.__dict__.update(kept=kept, share=share)

    def before_turn(self, turn):
        if not self.share:
            turn.full_precision = False

    def forward(self, turn):
        return None

    def after_backward(self, turn):
        parameters = turn.gan.discriminator.parameters()
        self.kept.append(torch.cat([p.grad.flatten().clone() for p in parameters if p.grad is not None]))


def gradients(penalties, *, share: bool, accumulate: int = 1, norm: bool = False):
    """D's gradient in each of 6 turns, its forward passes, and its buffers in the end."""
    torch.manual_seed(0)
    kept: list[Tensor] = []
    calls: list[int] = []
    discriminator = Foreign()
    if norm:
        discriminator.layers.insert(1, nn.BatchNorm1d(16))
    # No Adam: it would make a step of a gradient that is zero but for rounding.
    options = {"accumulate": accumulate, "discriminator_optimizer": SGD(0.01)}
    gan = GAN(MLPGAN(hidden=16).generator, discriminator, penalties=penalties, **options)
    gan.tricks[:0] = [Noise(), Keep(kept, share=share)]
    gan.seed = 3
    discriminator.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    fit(gan, normal_batches(12 // accumulate, 2), max_steps=6)
    return kept, len(calls), {name: b.clone() for name, b in discriminator.named_buffers()}


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("norm", [False, True], ids=["plain", "batch norm"])
def test_the_turns_own_pass_gives_the_same_gradient_and_is_cheaper(accumulate, norm, float64) -> None:
    """With noise, dropout of both kinds, spectral vectors that have not converged, lazy intervals, accumulation.

    In float64, since batch normalization of four samples blows rounding errors up, in both kinds of passes.
    """

    def penalties():
        return [R1(2.0, every=2, allow_batch_norm=norm), R2(3.0, every=3, allow_batch_norm=norm)]

    shared, shared_calls, shared_buffers = gradients(penalties(), share=True, accumulate=accumulate, norm=norm)
    own, own_calls, own_buffers = gradients(penalties(), share=False, accumulate=accumulate, norm=norm)
    assert len(shared) == len(own) == 6
    for a, b in zip(shared, own, strict=True):
        assert a.abs().max() > 1e-3
        assert (a - b).abs().max() < 1e-9
    for name in shared_buffers:
        assert torch.allclose(shared_buffers[name], own_buffers[name], atol=1e-9), name
    # Per cycle: real and fake in D's turn, fakes in G's. R1 applies in turns 0, 2 and 4, R2 in turns 0 and 3.
    assert shared_calls == accumulate * 6 * 3
    assert own_calls == accumulate * (6 * 3 + 3 + 2)


def test_the_comparison_sees_a_pass_that_is_not_made_again_as_it_was() -> None:
    def check(penalty) -> None:
        shared, own = (gradients([penalty(2.0)], share=share)[0] for share in (True, False))
        assert all((a - b).abs().max() < 1e-6 for a, b in zip(shared, own, strict=True))

    def at(self, turn, points, labels, logits, moment):
        return R1.at(self, turn, points, labels, logits, None)

    check(R1)
    kills(check, mutant(R1, at=at))


@pytest.mark.parametrize("penalty", ALL)
def test_a_pass_for_a_penalty_alone_moves_no_statistic(penalty) -> None:
    """Running statistics, their counts and spectral vectors are those of a run without the penalty."""

    def check(cls) -> None:
        _, _, with_it = gradients([cls(0.0, allow_batch_norm=True)], share=False, norm=True)
        assert with_it.keys() == without.keys() and len(with_it) > 5
        for name in with_it:
            assert torch.equal(with_it[name], without[name]), name

    _, _, without = gradients([], share=True, norm=True)
    check(penalty)
    context = contextlib.nullcontext

    def careless(self, turn, points, labels, moment=None):
        points = points.detach().requires_grad_()
        with context():
            return self.differentiate(turn.discriminate(points, labels), points)

    kills(check, mutant(penalty, gradient=careless))


@pytest.mark.slow
def test_a_compiled_discriminator_is_penalized_by_an_eager_pass() -> None:
    values = []
    for backend in (None, "aot_eager"):
        torch.manual_seed(0)
        kept: list[Tensor] = []
        gan = MLPGAN(hidden=16, penalties=[R1(2.0), WassersteinGradientPenalty(1.0)], parts=[])
        gan.tricks.insert(0, Keep(kept))
        if backend:
            gan.discriminator.compile(backend=backend)
        fit(gan, normal_batches(8, 2), max_steps=2)
        values.append(kept)
    for a, b in zip(*values, strict=True):
        assert (a - b).abs().max() < 1e-6


@pytest.mark.parametrize("kind", ["convolutions", "perceptrons"])
def test_penalty_is_of_full_precision_under_autocast(kind) -> None:
    """The gradient of R1 in a bf16 run equals that of a 32-bit run at the same weights.

    Autocast would reach the matrix products of a backward pass even if the forward pass was in 32 bits.
    """
    grads: list[Tensor] = []
    for precision in ("32-true", "bf16-mixed"):
        torch.manual_seed(0)
        options = {"penalties": [R1(10.0)], "adversarial_weight": 0.0}
        gan = (
            DCGAN(8, 1, width=4, discriminator_norm="none", **options)
            if kind == "convolutions"
            else MLPGAN((1, 8, 8), hidden=16, num_layers=3, **options)
        )
        gan.step_seconds = 0.0
        gan.tricks.insert(0, Noise())
        gan.tricks.append(Keep(grads))
        gan.seed = 3
        fit(gan, normal_batches(8, 1, 8, 8), max_steps=1, precision=precision)
    assert grads[0].abs().max() > 0
    assert torch.allclose(grads[0], grads[1], rtol=1e-6, atol=1e-7)


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


# ---------------------------------------------------------------------- what all penalties have


def test_lazy_application_keeps_the_mean_gradient() -> None:
    """Over each 4 turns at constant parameters, the mean gradient is that of the penalty on every turn."""

    def check(penalty) -> None:
        turn = turn_of(Smooth(), (6, 3))
        parameters = list(turn.gan.discriminator.parameters())
        means = []
        for every in (1, 4):
            total = [torch.zeros_like(p) for p in parameters]
            for turn.number in range(8):
                term = penalty(2.0, every=every)(turn)
                if term is not None:
                    for mean, g in zip(total, torch.autograd.grad(term, parameters, allow_unused=True), strict=True):
                        mean += 0 if g is None else g / 8
            means.append(total)
        assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-8) for a, b in zip(*means, strict=True))
        assert means[0][0].abs().max() > 1e-3

    check(R1)
    check(R2)
    kills(check, mutant(R1, forward=lambda self, turn: self.value(turn) if self.due(turn) else None))


def test_a_weight_may_be_a_schedule_of_kimg() -> None:
    turn = turn_of(Half())
    penalty = R1(Linear(4.0, 0.0, to_kimg=10.0))
    for turn.kimg, gamma in ((0.0, 4.0), (5.0, 2.0), (10.0, 0.0)):
        assert penalty(turn).item() == pytest.approx(gamma / 2 * norms(turn.real).square().mean().item(), rel=1e-5)


@pytest.mark.parametrize("penalty", ALL)
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("images", [False, True], ids=["points", "images"])
def test_the_logged_value_of_a_run_is_the_penalty_at_its_weights(penalty, precision, images) -> None:
    """Built from its configuration and trained; the value of the second turn equals one computed by hand then."""
    by_hand: list[Tensor] = []
    name = {ZeroCenteredGradientPenalty: "zero_centered", WassersteinGradientPenalty: "wgan_gp"}.get(
        penalty, penalty.__name__.lower()
    )

    class Look(Keep):
        def forward(self, turn):
            network = turn.gan.discriminator
            points = {R1: turn.real, R2: turn.fake}.get(penalty, turn.real)
            x = points.detach().double().requires_grad_()
            (g,) = torch.autograd.grad(network.double()(x).sum(), x)
            network.float()
            by_hand.append((g.flatten(1).norm(dim=1).square()).mean() / 2)

    torch.manual_seed(0)
    shape = (1, 8, 8) if images else (2,)
    options = {"penalties": [build(penalty(0.5, every=1).config())]}
    gan = (
        DCGAN(8, 1, width=4, discriminator_norm="none", **options)
        if images
        else MLPGAN(shape, hidden=8, num_layers=2, **options)
    )
    gan.tricks.append(Look([]))
    fit(gan, normal_batches(6, *shape), max_steps=2, precision=precision)
    values = gan.meter.values()[f"penalty/{name}"]
    assert len(values) == 2 and all(v > 0 and math.isfinite(v) for v in values)
    if penalty in (R1, R2):
        assert values == pytest.approx([v.item() for v in by_hand], rel=1e-4)
    again = build(gan.config())
    assert type(again.tricks[0]) is penalty and again.tricks[0].config() == gan.tricks[0].config()


@pytest.mark.parametrize("penalty", ALL)
def test_a_negative_weight_is_refused(penalty) -> None:
    with pytest.raises(UserError, match="was -1"):
        penalty(-1.0)


def test_negative_settings_are_refused() -> None:
    for wrong in (lambda: DRAGAN(scale=-1.0), lambda: DRAGAN(deviation=-1.0), lambda: DRAGAN(target=-1.0)):
        with pytest.raises(UserError, match="was -1"):
            wrong()


@pytest.mark.parametrize("penalty", ALL)
def test_batch_normalization_in_the_discriminator_is_refused_unless_allowed(penalty) -> None:
    with pytest.raises(UserError, match="discriminator_norm"):
        DCGAN(16, 1, width=4, penalties=[penalty()])
    allowed = DCGAN(16, 1, width=4, penalties=[penalty(allow_batch_norm=True)])
    assert allowed.config()["init_args"]["penalties"][0]["init_args"]["allow_batch_norm"] is True
    for norm in ("none", "instance", "layer", "spectral"):
        DCGAN(16, 1, width=4, penalties=[penalty()], discriminator_norm=norm)
