"""Each lever is switched as the benchmark says, leaves the model as it was, and changes no result."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import SimpleNamespace
from unittest import mock

import lightning.pytorch as L
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.speed import cycles, forms, levers
from benchmarks.speed.cases import TINY
from benchmarks.speed.clocks import Clocks
from benchmarks.speed.levers import LEVERS
from ganzoo import ema, memory, streams
from ganzoo.gan import GAN
from ganzoo.layers import filtered, pieces, twice
from ganzoo.layers.folded import ConvPool2d, UpConv2d
from ganzoo.layers.modulated import ModulatedConv2d, StyledConv
from ganzoo.models import DCGAN, R3GAN, SNGAN, StyleGAN
from ganzoo.optim import Adam
from ganzoo.parts import Turn
from ganzoo.penalties import R1, R2, PathLength
from ganzoo.plan import Play
from ganzoo.players import Player
from tests.common import fit, flat, normal_batches
from tests.mutants import kills

SMOOTH = {f"{player}_optimizer": Adam(1e-3, (0.5, 0.9), eps=1e-3) for player in ("generator", "discriminator")}


def sngan() -> GAN:
    width = {f"{name}_{bound}": 4 for name in ("generator", "discriminator") for bound in ("width", "max_width")}
    return SNGAN(**width, latent_dim=8, play=Play(1), **SMOOTH)


def stylegan() -> GAN:
    penalties = [R1(every=4), PathLength(every=4)]
    widths = {"channel_base": 64, "channel_max": 8, "latent_dim": 8, "style_dim": 8, "mapping_layers": 2}
    return StyleGAN(16, 3, **widths, group=2, penalties=penalties, **SMOOTH)


def r3gan() -> GAN:
    widths = {"width": 16, "max_width": 16, "group_size": 8, "latent_dim": 8}
    return R3GAN(8, 1, **widths, penalties=[R1(2.0), R2(2.0, every=2)], **SMOOTH)


#: On which model each lever is tried; together they have all of them.
MODELS: dict[str, tuple[Callable[[], GAN], tuple[int, ...], list[str]]] = {
    "sngan": (
        sngan,
        (4, 3, 32, 32),
        [
            *("folds", "shortcuts", "together", "channels_last", "memory", "adam", "average", "freezing", "logging"),
            "iteration",
        ],
    ),
    "stylegan": (stylegan, (4, 3, 16, 16), ["modulation", "fusion", "filter", "twice", "together", "channels_last"]),
    "r3gan": (r3gan, (4, 1, 8, 8), ["sweep", "twice"]),
    "dcgan": (lambda: DCGAN(16, 3, width=4, latent_dim=8, **SMOOTH), (4, 3, 16, 16), ["format"]),
}
PAIRS = [(model, lever) for model, (*_, names) in MODELS.items() for lever in names]


# ---------------------------------------------------------------------- what is switched


def state(gan: GAN) -> dict[str, object]:
    """Whether each lever is on."""
    layers = [m for m in gan.modules() if isinstance(m, UpConv2d | ConvPool2d)]
    optimizers = [one.optimizer for one in gan.player_optimizers.values()]
    return {
        "folds": {m.folded for m in layers if m.kernel_size == (3, 3)},
        "shortcuts": {m.folded for m in layers if m.kernel_size == (1, 1)},
        "together": gan.judges_in_groups,
        "modulation": ModulatedConv2d.forward,
        "fusion": StyledConv.forward,
        "filter": filtered._filter,
        "sweep": pieces.unit_for,
        "twice": (twice._convolved, twice._Rectified.apply),
        "iteration": Player.moving,
        "freezing": Player.frozen,
        "average": ema.update_average,
        "logging": "add" in vars(gan.meter),
        "memory": memory.kept,
        "adam": [group["fused"] for optimizer in optimizers for group in optimizer.param_groups],
        "format": [
            forms._is_last(x)
            for p in gan.parameters()
            for x in [p, *(v for o in optimizers for v in o.state.get(p, {}).values())]
        ],
        "channels_last": Tensor.contiguous,
    }


@pytest.mark.parametrize(("model", "name"), PAIRS)
def test_a_lever_is_what_it_says_and_leaves_the_model_as_it_was(model: str, name: str) -> None:
    make, shape, _ = MODELS[model]
    gan = make()
    fit(gan, normal_batches(*shape), max_steps=1)
    assert LEVERS[name].applies(gan)
    before = state(gan)
    with levers.without(gan, [name]):
        inside = state(gan)
        changed = {key for key in before if before[key] != inside[key]}
        assert changed - {"format"} == {name} - {"format"}
        assert ("format" in changed) == (
            name == "format" or (name == "channels_last" and model in ("sngan", "stylegan"))
        )
    assert state(gan) == before


def test_every_lever_is_tried() -> None:
    assert {lever for _, lever in PAIRS} == set(LEVERS)
    for make, shape, names in MODELS.values():
        gan = make()
        fit(gan, normal_batches(*shape), max_steps=1)
        assert all(LEVERS[name].applies(gan) for name in names)
        others = set(LEVERS) - {name for model in MODELS.values() for name in model[2]}
        assert not any(LEVERS[name].applies(gan) for name in others)


# ---------------------------------------------------------------------- what it changes: nothing

NUM_CYCLES = 20

#: Levers without which every bit is the same. The others sum in another order: a sum of n numbers is off by about
#: sqrt(n) 6e-8 of its size, here under 1e-5 with n < 10,000, and 20 steps feed that back. For it to stay rounding, Adam
#: has eps 1e-3, or gradients that are but rounding would become whole steps, and rectifiers are smooth, or a value that
#: rounding moves past 0 would change a gradient at once (which is what happens with plain ones: 3e-4 in one turn).
BITWISE = {"freezing", "logging", "memory"}
TOLERANCE = 5e-4


class Within(L.Callback):
    """A context for the whole training, entered when everything is ready."""

    def __init__(self, form: Callable[[GAN], AbstractContextManager[None]]) -> None:
        self.form, self.stack = form, ExitStack()

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        if not trainer.global_step:
            self.stack.enter_context(self.form(pl_module))

    def on_train_end(self, *_: object) -> None:
        self.stack.close()


@functools.cache
def run(model: str, form: Callable[[GAN], AbstractContextManager[None]]) -> SimpleNamespace:
    """Losses of each turn, and parameters before and after 20 cycles."""
    make, shape, _ = MODELS[model]
    torch.manual_seed(1)
    gan = make()
    gan.step_seconds = 0.0
    before = {name: flat(getattr(gan, name)) for name in ("generator", "discriminator")}
    with mock.patch.object(F, "relu", lambda x, inplace=False: F.softplus(x)):
        fit(gan, normal_batches(*shape), max_steps=NUM_CYCLES, callbacks=[Within(form)])
    after = {name: flat(getattr(gan, name)) for name in ("generator", "discriminator", "generator_ema")}
    losses = torch.tensor([gan.meter.values()[name] for name in ("loss/d", "loss/g")])
    assert losses.shape == (2, NUM_CYCLES)
    return SimpleNamespace(losses=losses, before=before | {"generator_ema": before["generator"]}, after=after)


@contextmanager
def _nothing(gan: GAN):
    yield


def same(model: str, form: Callable[[GAN], AbstractContextManager[None]], *, bitwise: bool = False) -> None:
    """Losses and parameters after 20 cycles, against those of the way that was gone."""
    ours, other = run(model, _nothing), run(model, form)
    for name, end in ours.after.items():
        moved = (end - ours.before[name]).norm()
        assert moved > 0.1
        apart = (other.after[name] - end).norm() / moved
        assert apart == 0 if bitwise else apart < TOLERANCE, f"{name} is off by {apart} of its way"
    largest = (ours.losses - other.losses).abs().max() / ours.losses.abs().max()
    assert largest == 0 if bitwise else largest < TOLERANCE


@pytest.mark.parametrize(
    ("model", "name"),
    [
        pytest.param(model, name, marks=[pytest.mark.slow] if model == "stylegan" else [])
        for model, name in PAIRS
        if LEVERS[name].exact
    ],
)
def test_twenty_cycles_are_the_same_without_a_lever(model: str, name: str) -> None:
    same(model, LEVERS[name].other, bitwise=name in BITWISE)


@contextmanager
def _pooled_too_little(gan: GAN):
    with mock.patch.object(ConvPool2d, "forward", lambda self, x: 1.1 * torch.max_pool2d(self.plain(x), 2)):
        yield


@contextmanager
def _average_turned_round(gan: GAN):
    with mock.patch.object(ema, "update_average", lambda old, now, decay: forms._one_by_one(old, now, 1 - decay)):
        yield


@contextmanager
def _without_optimizer_state(gan: GAN):
    for optimizer in gan.player_optimizers.values():
        optimizer.optimizer.param_groups[0]["betas"] = (0.0, 0.0)
    yield


@pytest.mark.parametrize("mutant", [_pooled_too_little, _average_turned_round, _without_optimizer_state])
def test_mutants(mutant: Callable[[GAN], AbstractContextManager[None]]) -> None:
    kills(lambda form: same("sngan", form), mutant)


def test_another_algorithm_is_seen() -> None:
    """One lever changes the result, where a turn has several passes: the tolerance is not too wide for the others."""
    assert [name for name, lever in LEVERS.items() if not lever.exact] == ["iteration"]
    kills(lambda names: same("sngan", lambda gan: levers.without(gan, names)), ["together", "iteration"])


# ---------------------------------------------------------------------- the plain forms of styled layers


def outputs(name: str | None) -> list[Tensor]:
    """Images, path lengths, logits, and the gradient of all of them by the parameters."""
    torch.manual_seed(0)
    gan = StyleGAN(16, 3, channel_base=64, latent_dim=8, style_dim=8, group=2)
    for parameter_name, parameter in gan.named_parameters():
        if parameter_name.endswith(("strength", "bias")):
            parameter.data.normal_()
    z = torch.randn(4, 8)
    turn = Turn(gan, "generator", 0, 0.0, latents=z)
    form = LEVERS[name].other if name else _nothing
    with form(gan), streams.stream(5, start=0, num=4, total=4, device=torch.device("cpu")):
        images = gan.generator(z)
        found = [images, gan.discriminator(images), PathLength(fraction=1.0).lengths(turn)]
    gradients = torch.autograd.grad(
        sum(x.square().mean() for x in found), [p for p in gan.parameters() if p.requires_grad], allow_unused=True
    )
    return [*found, *[g for g in gradients if g is not None]]


@pytest.mark.parametrize("name", ["modulation", "fusion", "filter"])
def test_a_plain_form_is_the_same_function_of_any_parameters(name: str) -> None:
    for ours, plain in zip(outputs(None), outputs(name), strict=True):
        assert torch.allclose(ours, plain, rtol=1e-3, atol=1e-4 * max(1.0, ours.abs().max().item()))


# ---------------------------------------------------------------------- the numbers


class Ticks:
    """A clock that a form moves."""

    def __init__(self) -> None:
        self.ms = 0.0

    def __call__(self) -> Clocks:
        return Clocks(self.ms / 1e3, self.ms / 1e3)


def test_gains_are_ratios_of_mean_cycles(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cycle takes 10 ms, each 4th one 30, so 15; without one lever 5 more, with another, which is off, 10 more."""
    clock = Ticks()
    monkeypatch.setattr(cycles, "now", clock)
    monkeypatch.setattr(levers, "ceiling", lambda device, dtype: Clocks(1e12, 1e12))
    slower = {"one": 5.0, "two": 10.0}
    extra: list[float] = []

    @contextmanager
    def form(gan: GAN, name: str):
        extra.append(slower[name])
        yield
        extra.remove(slower[name])

    monkeypatch.setattr(
        levers,
        "LEVERS",
        {
            "one": levers.Lever("", lambda gan: form(gan, "one")),
            "two": levers.Lever("", lambda gan: form(gan, "two"), shipped=False),
            "none": levers.Lever("", lambda gan: form(gan, "none"), lambda gan: False),
        },
    )
    subject = TINY["stylegan"].subject("cpu")
    subject.gan.tricks[:] = [R1(every=4), PathLength(every=2)]
    cycle = subject.gan.cycle

    def ticking(loader) -> None:
        number = subject.gan.clock.d_turns
        if not clock.ms:  # of the others no one counts the FLOPs
            cycle(loader)
        clock.ms += 10 + (20 if number % 4 == 0 else 0) + sum(extra)

    monkeypatch.setattr(subject.gan, "cycle", ticking)
    row = levers.measure(subject, rounds=2)
    assert row["ms_per_cycle"] == 15
    assert {name: gain["median"] for name, gain in row["gain"].items()} == {"one": 1.333, "two": 0.6, "all": 1.333}
    assert row["index"] == pytest.approx(row["images_per_second"])  # on a machine of 1 TFLOP/s


def test_kinds_of_cycles() -> None:
    """R1 in turns 0, 16, ... of the discriminator, path length in every fourth of the generator; of all 16 cycles."""
    gan = StyleGAN(16, 3, channel_base=64, latent_dim=8, style_dim=8, group=2)
    assert cycles.lazy_period(gan) == 16
    assert cycles.kinds(gan) == [(0, 1 / 16), (1, 12 / 16), (4, 3 / 16)]
    gan.plan.plays[-1] = Play(2, 1)  # R1 in the first turn of each eighth cycle
    assert cycles.kinds(gan) == [(0, 2 / 16), (1, 12 / 16), (4, 2 / 16)]
