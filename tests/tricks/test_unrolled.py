"""Unrolling: the steps are the optimizer's, the gradient goes through them, and the real discriminator stays."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn

from ganzoo.data.toy import Ring
from ganzoo.errors import UserError
from ganzoo.gan import GAN
from ganzoo.losses import D2GAN, NonSaturating, RelativisticAverage, Saturating, Wasserstein
from ganzoo.metrics.distribution import modes_captured
from ganzoo.models import DCGAN, MLPGAN
from ganzoo.optim import SGD, Adam, Optimizer, RMSprop
from ganzoo.parts import Penalty, Turn
from ganzoo.penalties import R1, WassersteinGradientPenalty
from ganzoo.plan import Play
from ganzoo.players import Clip
from ganzoo.schedules import Constant
from ganzoo.tricks import DualDiscriminator, Unrolled
from ganzoo.tricks import unrolled as module
from tests.common import Critic, fit, flat, normal_batches, quiet_trainer
from tests.mutants import kills
from tests.test_every_trick import check_sentence, trained
from tests.tricks.fits import Watch, keep_gradient_of_fakes, run, small, survives, watched

OPTIMIZERS = {
    "adam": Adam(0.01, (0.5, 0.9), weight_decay=0.1),
    "rmsprop": RMSprop(0.01, 0.9, momentum=0.5),
    "sgd": SGD(0.1, 0.5),
}


# ---------------------------------------------------------------------- one update


def check_update(optimizer: Optimizer, update) -> None:
    """Five steps, from an empty state and from a warm one, equal the real optimizer's to 1e-6."""
    generator = torch.Generator().manual_seed(0)
    real = nn.Parameter(torch.randn(7, generator=generator))
    solver = optimizer([real])
    group = solver.param_groups[0]
    for _ in range(2):
        mine, state = real.detach().clone(), dict(solver.state.get(real, {}))
        for _ in range(5):
            grad = torch.randn(7, generator=generator)
            mine, state = update(mine, grad, state, group)
            real.grad = grad
            solver.step()
            assert (mine - real).abs().max() < 1e-6


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_update_equals_the_optimizers_step(name) -> None:
    optimizer = OPTIMIZERS[name]
    update = module.update_of(optimizer([nn.Parameter(torch.zeros(1))]))
    check_update(optimizer, update)
    kills(lambda mutant: check_update(optimizer, mutant), lambda p, g, state, group: update(p, g, {}, group))
    kills(lambda mutant: check_update(optimizer, mutant), lambda p, g, state, group: (p - group["lr"] * g, state))
    kills(lambda mutant: check_update(optimizer, mutant), lambda p, g, s, group: update(p, g, s, {**group, "lr": 0.02}))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_gradient_of_an_update(name) -> None:
    """torch.autograd.gradcheck over two steps, for the parameter and both gradients."""
    solver = OPTIMIZERS[name]([nn.Parameter(torch.zeros(1))])
    update, group = module.update_of(solver), solver.param_groups[0]

    def twice(p, first, second):
        p, state = update(p, first, {}, group)
        return update(p, second, state, group)[0]

    inputs = [torch.randn(4, dtype=torch.float64, generator=torch.Generator().manual_seed(s)) for s in range(3)]
    assert torch.autograd.gradcheck(twice, [x.requires_grad_() for x in inputs])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_weight_that_never_had_a_gradient_sends_none_back(name) -> None:
    solver = OPTIMIZERS[name]([nn.Parameter(torch.zeros(1))])
    grad = torch.zeros(3, requires_grad=True)
    p, _ = module.update_of(solver)(torch.ones(3), grad, {}, solver.param_groups[0])
    p.sum().backward()
    assert grad.grad.isfinite().all()


# ---------------------------------------------------------------------- the steps


def check_steps(make, optimizer: Optimizer = OPTIMIZERS["adam"], kind: str = "points", **options) -> None:
    """What stands in is what a copy of the discriminator is after 3 steps of a copy of its optimizer."""
    looked = []

    def look(turn) -> None:
        gan = turn.gan
        solver = gan.player_optimizers["discriminator"].optimizer
        network, solver = copy.deepcopy((gan.discriminator, solver))
        network.requires_grad_()
        for _ in range(3):
            solver.zero_grad()
            real, fake = network(turn.real), network(turn.fake.detach())
            loss = nn.functional.softplus(-real).mean() + nn.functional.softplus(fake).mean()
            (options.get("adversarial_weight", 1.0) * loss).backward()
            if gan.players["discriminator"].clip is not None:
                nn.utils.clip_grad_norm_(network.parameters(), options["discriminator_clip"].norm)
            solver.step()
        for p, expected in zip(gan.discriminator.parameters(), network.parameters(), strict=True):
            assert (turn.stand_ins[p] - expected).abs().max() < 1e-6
            assert (p - expected).abs().max() > 1e-4
        looked.append(turn.number)

    gan = small(kind, make(3), discriminator_optimizer=optimizer, discriminator_lr=Constant(0.5), **options)
    gan.tricks.append(Watch("generated", lambda turn: look(turn) if turn.player == "generator" else None))
    run(gan, kind, 2)
    assert looked == [number for number in (0, 1) for _ in range(gan.accumulate)]


class OneMore(Unrolled):
    def __init__(self, steps=5, *, backprop=True):
        super().__init__(steps + 1, backprop=backprop)


class OfGradientDescent(Unrolled):
    """Plain steps down the gradient, whatever the optimizer is."""

    def generated(self, turn):
        rate = turn.gan.player_optimizers["discriminator"].optimizer.param_groups[0]["lr"]
        now = {p: p.detach().requires_grad_() for p in turn.gan.discriminator.parameters()}
        for _ in range(self.steps):
            loss = module.discriminator_loss(turn, turn.fake, now)
            grads = torch.autograd.grad(loss, list(now.values()), create_graph=True)
            now = {p: q - rate * grad for (p, q), grad in zip(now.items(), grads, strict=True)}
        turn.stand_ins = now


@pytest.mark.parametrize("backprop", [True, False])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_those_of_the_real_optimizer(name, backprop) -> None:
    check_steps(lambda steps: Unrolled(steps, backprop=backprop), OPTIMIZERS[name])


@pytest.mark.parametrize("backprop", [True, False])
def test_steps_with_clipping_accumulation_and_normalization(backprop) -> None:
    def make(steps):
        return Unrolled(steps, backprop=backprop)

    check_steps(make, discriminator_clip=Clip(0.05))
    check_steps(make, OPTIMIZERS["sgd"], discriminator_clip=Clip(1000.0))  # leaves a smaller gradient as it is
    check_steps(make, OPTIMIZERS["sgd"], adversarial_weight=3.0)
    check_steps(make, accumulate=2)
    for norm in ("batch", "spectral"):
        check_steps(make, kind="larger", discriminator_norm=norm)


def test_wrong_steps_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    kills(check_steps, OneMore)
    kills(check_steps, OfGradientDescent)
    with monkeypatch.context() as patch:
        patch.setattr(
            module,
            "clipped",
            lambda grads, clip: [g * 1000 / torch.cat([h.flatten() for h in grads]).norm() for g in grads],
        )
        kills(lambda cls: check_steps(cls, OPTIMIZERS["sgd"], discriminator_clip=Clip(1000.0)), Unrolled)
    with monkeypatch.context() as patch:
        patch.setattr(module, "value_at", lambda weight, kimg: 1.0)
        kills(lambda cls: check_steps(cls, OPTIMIZERS["sgd"], adversarial_weight=3.0), Unrolled)


def check_restored(cls, norm: str = "batch") -> None:
    """Bit by bit: weights, buffers and the optimizer's state, from the steps to the end of the turn."""
    kept, looked = {}, []

    def state(turn):
        solver = turn.gan.player_optimizers["discriminator"].optimizer
        return {
            **{name: tensor.clone() for name, tensor in turn.gan.discriminator.state_dict().items()},
            **{(i, k): v.clone() for i, p in enumerate(solver.state.values()) for k, v in p.items()},
            **{("group", k): torch.tensor(v) for k, v in solver.param_groups[0].items() if isinstance(v, float)},
        }

    def compare(turn) -> None:
        if turn.player == "generator":
            now = state(turn)
            assert now.keys() == kept.keys()
            assert all(torch.equal(now[k], kept[k]) for k in kept)
            assert all(p.grad is None or p.grad.abs().sum() == kept_grads[i] for i, p in enumerate(parameters))
            looked.append(turn.number)

    def keep(turn) -> None:
        kept.clear()
        kept.update(state(turn))
        parameters[:] = turn.gan.discriminator.parameters()
        kept_grads[:] = [p.grad.abs().sum() if p.grad is not None else None for p in parameters]

    parameters, kept_grads = [], []
    gan = small("larger", cls(2), discriminator_norm=norm)
    gan.tricks.insert(0, Watch("before_turn", keep))
    watched(gan, generated=compare, forward=compare, after_step=compare)
    run(gan, "larger", 2)
    assert looked == [0] * 3 + [1] * 3


class NotRestored(Unrolled):
    def generated(self, turn):
        super().generated(turn)
        for p, value in turn.stand_ins.items():
            p.data.copy_(value.detach())


class StateNotRestored(Unrolled):
    def generated(self, turn):
        super().generated(turn)
        solver = turn.gan.player_optimizers["discriminator"].optimizer
        if turn.player == "generator":
            next(iter(solver.state.values()))["exp_avg"].mul_(0.5)


class StatisticsMove(Unrolled):
    def generated(self, turn):
        for layer in turn.gan.discriminator.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.track_running_stats = True
        super().generated(turn)


@pytest.mark.parametrize("backprop", [True, False])
@pytest.mark.parametrize("norm", ["batch", "spectral"])
def test_the_real_discriminator_is_as_before(norm, backprop) -> None:
    check_restored(lambda steps: Unrolled(steps, backprop=backprop), norm)


def test_a_discriminator_that_is_not_restored_is_found() -> None:
    for mutant in (NotRestored, StateNotRestored, StatisticsMove):
        kills(check_restored, mutant)


def test_an_error_within_the_steps_leaves_the_discriminator_as_it_was() -> None:
    p = nn.Parameter(torch.ones(2))
    solver = Adam()([p])
    with pytest.raises(ZeroDivisionError), module.borrowed(solver) as parameters:
        parameters[0].grad = torch.ones(2)
        solver.step()
        raise ZeroDivisionError
    assert p.tolist() == [1, 1]
    assert p.grad is None
    assert not solver.state


# ---------------------------------------------------------------------- the generator's gradient


def after_two_steps(fake, real, state):
    """w and b after two steps of momentum 0.5 and rate 2, with the gradients of D(x) = w.x + b written out."""
    w, b, velocity_w, velocity_b = state
    for _ in range(2):
        on_real, on_fake = -torch.sigmoid(-(real @ w + b)), torch.sigmoid(fake @ w + b)
        velocity_w = 0.5 * velocity_w + (on_real[:, None] * real).mean(0) + (on_fake[:, None] * fake).mean(0)
        velocity_b = 0.5 * velocity_b + on_real.mean() + on_fake.mean()
        w, b = w - 2.0 * velocity_w, b - 2.0 * velocity_b
    return w, b


def check_gradient(cls, loss=NonSaturating, through: bool = True) -> None:
    """The gradient of the generator's loss with respect to its fakes, against finite differences of a hand-made one."""
    kept = {}

    def keep(turn) -> None:
        if turn.player == "generator":
            linear = turn.gan.discriminator.linear
            buffers = turn.gan.player_optimizers["discriminator"].optimizer.state
            velocity = [buffers[p]["momentum_buffer"] for p in (linear.weight, linear.bias)]
            state = (linear.weight[0], linear.bias, velocity[0][0], velocity[1])
            kept["state"] = [x.detach().double().clone() for x in state]

    torch.manual_seed(0)
    options = {"discriminator_optimizer": SGD(2.0, 0.5), "loss": loss(), "ema": None}
    gan = GAN(MLPGAN(hidden=8).generator, Critic(2), parts=[cls(2)], **options)
    gan.step_seconds = 0.0
    gan.tricks.insert(0, Watch("generated", keep))
    watched(gan, generated=keep_gradient_of_fakes, after_backward=lambda turn: kept.update(turn=turn))
    torch.manual_seed(7)
    fit(gan, normal_batches(8, 2), max_steps=2)
    turn, state = kept["turn"], kept["state"]
    fake, real = turn.fake.detach().double(), turn.real.double()

    def value(x):
        w, b = after_two_steps(x if through else fake, real, state)
        on_real, on_fake = torch.sigmoid(real @ w + b), torch.sigmoid(x @ w + b)
        minimax = on_real.log().mean() + (1 - on_fake).log().mean()
        return (minimax if loss.zero_sum else -on_fake.log().mean()).item()

    assert gan.meter.values()["loss/g"][-1] == pytest.approx(value(fake), rel=1e-4)
    for i in range(8):
        for j in range(2):
            step = torch.zeros_like(fake)
            step[i, j] = 1e-5
            slope = (value(fake + step) - value(fake - step)) / 2e-5
            assert turn.fake.grad[i, j].item() == pytest.approx(slope, rel=1e-3, abs=1e-5)


def first_order(steps: int) -> Unrolled:
    return Unrolled(steps, backprop=False)


class WithoutRealHalf(Unrolled):
    def before_turn(self, turn):
        pass


class Ignored(Unrolled):
    def generated(self, turn):
        turn.stand_ins = {}


class OfOneStep(Unrolled):
    """Only the last step is differentiated."""

    def generated(self, turn):
        whole, self.steps = self.steps, 1
        super().generated(turn)
        self.steps = whole


def test_the_generators_gradient_goes_through_the_steps() -> None:
    check_gradient(Unrolled)
    check_gradient(Unrolled, Saturating)
    for mutant in (first_order, Ignored, OfOneStep):
        kills(check_gradient, mutant)
    kills(lambda mutant: check_gradient(mutant, Saturating), WithoutRealHalf)


def test_without_backprop_the_steps_count_as_given() -> None:
    check_gradient(first_order, through=False)
    kills(lambda mutant: check_gradient(mutant, through=False), Unrolled)


def after_the_generators_turn(*parts, **options) -> tuple[torch.Tensor, torch.Tensor]:
    """Both networks behind the first turn, in which the generator plays against the discriminator as it was made."""
    gan = run(small("points", *parts, stages=[Play(0, 1, kimg=0.008)], **options), "points", 1)
    assert (gan.clock.d_turns, gan.clock.g_turns) == (0, 1)
    return flat(gan.generator), flat(gan.discriminator)


def check_no_penalty_within_the_steps(make, loss=NonSaturating, penalty=R1) -> None:
    """Given the same discriminator, the generator's step is bit by bit the same with a penalty of it and without."""
    found = [
        after_the_generators_turn(make(3), loss=loss(), penalties=penalties) for penalties in ([], [penalty(20.0)])
    ]
    (generator, discriminator), (penalized, same_discriminator) = found
    assert torch.equal(discriminator, same_discriminator)
    assert torch.equal(generator, penalized)
    assert not torch.equal(generator, after_the_generators_turn(make(1), loss=loss())[0])


class WithPenalties(Unrolled):
    """Looks ahead by all that the discriminator minimizes."""

    def generated(self, turn):
        adversarial = module.discriminator_loss

        def whole(turn, fake, stand_ins):
            own = Turn(turn.gan, "discriminator", 0, turn.kimg, stand_ins=stand_ins, real=turn.real, fake=fake)
            terms = [part.weight * part.value(own) for part in turn.gan.tricks if isinstance(part, Penalty)]
            return sum(terms, adversarial(turn, fake, stand_ins))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "discriminator_loss", whole)
            super().generated(turn)


@pytest.mark.filterwarnings("ignore:Unrolled looks ahead")
def test_the_steps_are_of_the_adversarial_loss_alone() -> None:
    check_no_penalty_within_the_steps(Unrolled)
    check_no_penalty_within_the_steps(first_order)
    check_no_penalty_within_the_steps(Unrolled, Wasserstein, WassersteinGradientPenalty)
    kills(check_no_penalty_within_the_steps, WithPenalties)
    kills(check_no_penalty_within_the_steps, lambda steps: WithPenalties(steps, backprop=False))
    kills(lambda make: check_no_penalty_within_the_steps(make, Wasserstein, WassersteinGradientPenalty), WithPenalties)


@pytest.mark.parametrize(
    ("options", "warns"),
    [
        ("--model.loss Wasserstein --model.penalties+=WassersteinGradientPenalty --model.parts+=Unrolled", True),
        ("--model.loss Wasserstein --model.parts+=WeightClipping --model.parts+=Unrolled", True),
        ("--model.loss Wasserstein --model.parts+=Unrolled --model.parts.backprop false", True),
        ("--model.loss Wasserstein --model.parts+=Unrolled --model.parts.steps 0", False),
        ("--model.loss Wasserstein --model.parts+=SpectralNorm --model.parts+=Unrolled", False),  # what it proposes
        ("--model.penalties+=WassersteinGradientPenalty --model.parts+=Unrolled", False),
    ],
)
def test_steps_of_a_critic_without_a_bound_are_warned_of(options: str, warns: bool) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", module="ganzoo")
        trained("points", options)
    told = [str(warning.message) for warning in caught if "ganzoo" in warning.filename]
    assert len(told) == warns
    for text in told:
        words = ("Unrolled", "the adversarial loss alone", "Wasserstein critic", "no bound", "set loss to", "leave")
        check_sentence(text, words)


# ---------------------------------------------------------------------- as a part


@pytest.mark.filterwarnings("ignore:Unrolled looks ahead")
@pytest.mark.parametrize("loss", [NonSaturating, Wasserstein])
def test_no_step_is_the_plain_turn_and_two_are_not(loss) -> None:
    plain, none, two = (
        flat(run(small("points", *parts, loss=loss()), "points")) for parts in ([], [Unrolled(0)], [Unrolled(2)])
    )
    assert torch.equal(plain, none)
    assert (plain - two).abs().max() > 1e-4


@pytest.mark.parametrize("backprop", [True, False])
@pytest.mark.parametrize("kind", ["points", "images"])
def test_it_trains_and_survives(kind, backprop) -> None:
    survives(kind, lambda: Unrolled(2, backprop=backprop))


@pytest.mark.parametrize("backprop", [True, False])
def test_it_looks_ahead_of_both_discriminators_and_of_losses_that_see_real_data(backprop) -> None:
    seen = []
    gan = small("points", DualDiscriminator(), Unrolled(2, backprop=backprop), loss=D2GAN())
    watched(gan, forward=lambda turn: seen.append(dict(turn.stand_ins)))
    run(gan, "points", 1)
    assert set(seen[1]) == {*gan.discriminator.parameters(), *gan.tricks[0].network.parameters()}
    assert seen[0] == {}
    plain, ahead = (
        run(small("points", *parts, loss=RelativisticAverage()), "points", 1)
        for parts in ([], [Unrolled(2, backprop=backprop)])
    )
    assert torch.equal(flat(plain.discriminator), flat(ahead.discriminator))
    assert not torch.equal(flat(plain.generator), flat(ahead.generator))


def test_a_stage_without_discriminator_turns_has_real_data_for_it() -> None:
    seen = []
    gan = small("points", Unrolled(1), stages=[Play(0, 1, kimg=0.008)])
    watched(gan, forward=lambda turn: seen.append((turn.player, len(turn.real))))
    run(gan, "points", 1)
    assert seen == [("generator", 8)]


def test_other_optimizers_and_settings_are_refused() -> None:
    class Averaged(Optimizer):
        def __call__(self, parameters):
            return torch.optim.Adam(parameters, amsgrad=True)

    class Other(Optimizer):
        def __call__(self, parameters):
            return torch.optim.Adagrad(parameters)

    for optimizer, name in ((Averaged(), "Adam"), (Other(), "Adagrad")):
        with pytest.raises(UserError, match=f"differentiate through {name} as it is set.*backprop: false"):
            small("points", Unrolled(1), discriminator_optimizer=optimizer)
        run(small("points", Unrolled(1, backprop=False), discriminator_optimizer=optimizer), "points", 1)
    with pytest.raises(UserError, match="-1 steps"):
        Unrolled(-1)
    assert DCGAN(8, 1, width=4, parts=[Unrolled(1)]).tricks[0].steps == 1


@pytest.mark.slow
def test_unrolling_captures_the_modes_that_the_plain_game_drops() -> None:
    """A generator that is five times as fast as its discriminator runs after one mode of a ring of 8 and the next."""
    modes = {steps: [modes_after_a_short_run(steps, seed) for seed in range(2)] for steps in (0, 5)}
    assert max(modes[0]) <= 4
    assert min(modes[5]) >= 7


def modes_after_a_short_run(steps: int, seed: int) -> int:
    ring = Ring(std=0.1, batch_size=128)
    torch.manual_seed(seed)
    rates = {"generator_optimizer": Adam(5e-3), "discriminator_optimizer": Adam(1e-3)}
    gan = MLPGAN(hidden=64, latent_dim=16, ema=None, parts=[Unrolled(steps)], **rates)
    quiet_trainer(max_steps=500).fit(gan, datamodule=ring)
    return modes_captured(gan.sample(2500, seed=seed), ring.distribution.means, 0.1)
