"""Each lever is switched as the benchmark says, leaves the model as it was, and changes no result."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib import import_module
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
from ganzoo.layers.modulated import ModulatedConv2d, StyledConv, Styling
from ganzoo.models import DCGAN, MLPGAN, R3GAN, SNGAN, StyleGAN
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


def stylegan(clamp: float | None = None) -> GAN:
    penalties = [R1(every=4), PathLength(every=4)]
    widths = {"channel_base": 64, "channel_max": 8, "latent_dim": 8, "style_dim": 8, "mapping_layers": 2}
    return StyleGAN(16, 3, **widths, group=2, clamp=clamp, penalties=penalties, **SMOOTH)


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
            *("iteration", "shared"),
        ],
    ),
    "stylegan": (stylegan, (4, 3, 16, 16), ["modulation", "fusion", "filter", "twice", "together", "channels_last"]),
    "r3gan": (r3gan, (4, 1, 8, 8), ["sweep", "twice"]),
    "dcgan": (lambda: DCGAN(16, 3, width=4, latent_dim=8, **SMOOTH), (4, 3, 16, 16), ["format"]),
    "stylegan, clamped": (lambda: stylegan(0.5), (4, 3, 16, 16), ["fusion"]),
}
#: What else each model has.
EVERYWHERE = {"memory", "adam", "average", "freezing", "logging", "shared"}
STYLED = {"modulation", "fusion", "filter", "twice", "together", "channels_last"}
ALSO = {"r3gan": {"format"}, "stylegan, clamped": STYLED}
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
        "shared": gan.plan.current(gan.clock).shared,
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


@pytest.mark.parametrize("model", MODELS)
def test_a_lever_applies_where_a_model_has_it(model: str) -> None:
    make, shape, names = MODELS[model]
    gan = make()
    fit(gan, normal_batches(*shape), max_steps=1)
    assert {name for name in LEVERS if LEVERS[name].applies(gan)} == EVERYWHERE | {*names} | ALSO.get(model, set())


@pytest.mark.parametrize("on_gpu", [False, True])
def test_plain_adam_is_in_the_form_that_torch_chooses(on_gpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """One tensor after the other on a CPU, lists of tensors on a GPU, here a CPU that is taken for one."""
    gan, taken, module = MLPGAN(num_layers=1, hidden=4), set(), import_module("torch.optim.adam")
    for form in ("_single_tensor_adam", "_multi_tensor_adam", "_fused_adam"):
        function = getattr(module, form)
        monkeypatch.setattr(
            module,
            form,
            lambda *args, form=form, function=function, **options: (taken.add(form), function(*args, **options)),
        )
    if on_gpu:
        kinds = "_get_foreach_kernels_supported_devices"
        monkeypatch.setattr(import_module("torch.optim.optimizer"), kinds, lambda: ["cpu"])
    fit(gan, normal_batches(4, 2), max_steps=2, callbacks=[Within(LEVERS["adam"].other)])
    assert taken == {"_multi_tensor_adam" if on_gpu else "_single_tensor_adam"}


@pytest.mark.parametrize(("model", "name"), PAIRS)
def test_a_cycle_that_fails_leaves_the_model_as_it_was(model: str, name: str) -> None:
    make, shape, _ = MODELS[model]
    gan = make()
    fit(gan, normal_batches(*shape), max_steps=1)
    LEVERS[name].applies(gan)
    before = state(gan)
    with pytest.raises(ZeroDivisionError), levers.without(gan, [name]):
        raise ZeroDivisionError
    assert state(gan) == before


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
        pytest.param(model, name, marks=[pytest.mark.slow] if model.startswith("stylegan") else [])
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


@contextmanager
def _modulated_once_too_little(gan: GAN):
    plain = forms._grouped

    def wrong(self: ModulatedConv2d, x: Tensor, style: Tensor, offset: Tensor | None = None) -> Tensor:
        return plain(self, x, 1.01 * style, offset)

    with mock.patch.object(ModulatedConv2d, "forward", wrong):
        yield


@contextmanager
def _unclamped(gan: GAN):
    def wrong(self: StyledConv, x: Tensor, *args: object) -> Tensor:
        clamp, self.clamp = self.clamp, None
        x = forms._unfused(self, x, *args)
        self.clamp = clamp
        return x

    with mock.patch.object(StyledConv, "forward", wrong):
        yield


@contextmanager
def _filtered_too_faintly(gan: GAN):
    with mock.patch.object(filtered, "_filter", lambda x, kernel, step: forms._zeros_between(x, 0.99 * kernel, step)):
        yield


@contextmanager
def _loss_without_its_own_sweep(gan: GAN):
    """The logits of the pass as the penalties see them, from which no gradient of the loss goes back."""
    judged = R1.judged

    def wrong(self: R1, turn: Turn, points: Tensor | None, logits: Tensor) -> Tensor:
        return judged(self, turn, points, logits).detach().requires_grad_()

    with mock.patch.object(R1, "judged", wrong):
        yield


@contextmanager
def _rectified_too_much(gan: GAN):
    with mock.patch.object(twice._Rectified, "apply", lambda x, slope: F.leaky_relu_(x, 0.9 * slope)):
        yield


WRONG = {
    "sngan": [_pooled_too_little, _average_turned_round, _without_optimizer_state],
    "stylegan": [_modulated_once_too_little, _filtered_too_faintly],
    "stylegan, clamped": [_unclamped],
    "r3gan": [_loss_without_its_own_sweep, _rectified_too_much],
}


@pytest.mark.parametrize(
    ("model", "mutant"),
    [
        pytest.param(model, mutant, marks=[pytest.mark.slow] if model.startswith("stylegan") else [])
        for model, mutants in WRONG.items()
        for mutant in mutants
    ],
)
def test_mutants(model: str, mutant: Callable[[GAN], AbstractContextManager[None]]) -> None:
    kills(lambda form: same(model, form), mutant)


def test_another_algorithm_is_seen() -> None:
    """Two levers change the result: the tolerance is not too wide for the others."""
    assert [name for name, lever in LEVERS.items() if not lever.exact] == ["iteration", "shared"]
    for names in (["together", "iteration"], ["shared"]):
        kills(lambda names: same("sngan", lambda gan: levers.without(gan, names)), names)


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


@pytest.mark.parametrize("clamp", [None, 0.5])
@pytest.mark.parametrize("mode", ["random", "fixed", "off"])
def test_a_plain_styled_layer_takes_the_noise_and_the_bound_that_it_is_given(mode: str, clamp: float | None) -> None:
    layer = StyledConv(3, 4, (8, 8), Styling(5, clamp=clamp))
    layer.bias.data.normal_()
    layer.strength.data.fill_(0.7)
    x, style = torch.randn(2, 3, 8, 8), torch.randn(2, 5)

    def output(function: Callable[..., Tensor]) -> Tensor:
        with streams.stream(5, start=0, num=2, total=2, device=torch.device("cpu")):
            return function(layer, x, style, mode)

    ours, plain = output(StyledConv.forward), output(forms._unfused)
    assert torch.allclose(ours, plain, atol=1e-5)
    assert clamp is None or plain.abs().max() == clamp


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


class Forms:
    """Levers whose other forms take so many milliseconds more, and a model whose cycles take 10, each 4th one 30."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **slower: float) -> None:
        self.clock, self.slower, self.extra = Ticks(), slower, []
        self.fails = ""  #: without which lever a cycle cannot be
        monkeypatch.setattr(cycles, "now", self.clock)
        monkeypatch.setattr(levers, "ceiling", lambda device, dtype: Clocks(1e12, 1e12))
        monkeypatch.setattr(levers.time, "monotonic", lambda: self.clock.ms / 1e3)
        self.subject = TINY["stylegan"].subject("cpu")
        self.subject.gan.tricks[:] = [R1(every=4), PathLength(every=2)]
        self.cycle = self.subject.gan.cycle
        monkeypatch.setattr(self.subject.gan, "cycle", self.ticking)
        self.monkeypatch = monkeypatch

    @contextmanager
    def form(self, gan: GAN, name: str):
        if name == self.fails:
            raise torch.OutOfMemoryError
        self.extra.append(self.slower[name])
        try:
            yield
        finally:
            self.extra.remove(self.slower[name])

    def have(self, **options: dict[str, object]) -> None:
        """Levers with these options."""
        found = {
            name: levers.Lever("", functools.partial(self.form, name=name), **options.get(name, {}))
            for name in self.slower
        }
        self.monkeypatch.setattr(levers, "LEVERS", found)

    def ticking(self, loader: object) -> None:
        number = self.subject.gan.clock.d_turns
        if not self.clock.ms:  # of the others no one counts the FLOPs
            self.cycle(loader)
        self.clock.ms += 10 + (20 if number % 4 == 0 else 0) + sum(self.extra)


def test_gains_are_ratios_of_mean_cycles(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mean cycle takes 15 ms; one lever is off, another changes the result, so that both are in no "all"."""
    made = Forms(monkeypatch, one=5.0, two=10.0, other=15.0, none=1.0)
    made.have(two={"shipped": False}, other={"exact": False}, none={"applies": lambda gan: False})
    row = levers.measure(made.subject, rounds=2)
    assert row["ms_per_cycle"] == 15
    medians = {name: gain["median"] for name, gain in row["gain"].items()}
    assert medians == {"one": 1.333, "two": 0.6, "other": 2, "all": 1.333}
    assert row["all"] == ["one"]
    assert row["index"] == pytest.approx(row["images_per_second"])  # on a machine of 1 TFLOP/s
    assert "no_gain" not in row


def test_the_time_is_kept_whatever_a_round_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three rounds of three pairs would take over a minute."""
    for seconds, num in ((0.0, 0), (8.0, 0), (13.0, 1), (31.0, 2), (40.0, 3)):
        made = Forms(monkeypatch, one=3000.0, two=3000.0)
        made.have()
        row = levers.measure(made.subject, seconds=1.0, end=seconds)
        assert made.clock.ms < 1e3 * seconds + 18_200  # of a pair of all
        assert list(row["gain"]) == ["all", "one", "two"][:num]
        assert row.get("no_gain", {}) == dict.fromkeys(["all", "one", "two"][num:], "no time")
        assert row["images_per_second"] > 0 < row["rounds"] <= 3


def test_a_lever_that_fails_costs_its_own_gain_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Forms(monkeypatch, one=5.0, two=10.0)
    made.have(two={"shipped": False})
    made.fails = "two"
    row = levers.measure(made.subject, rounds=2)
    assert list(row["gain"]) == ["all", "one"]
    assert row["no_gain"] == {"two": "no memory"}


def test_kinds_of_cycles() -> None:
    """R1 in turns 0, 16, ... of the discriminator, path length in every fourth of the generator; of all 16 cycles."""
    gan = StyleGAN(16, 3, channel_base=64, latent_dim=8, style_dim=8, group=2)
    assert cycles.lazy_period(gan) == 16
    assert cycles.kinds(gan) == [(0, 1 / 16), (1, 12 / 16), (4, 3 / 16)]
    gan.plan.plays[-1] = Play(2, 1)  # R1 in the first turn of each eighth cycle
    assert cycles.kinds(gan) == [(0, 2 / 16), (1, 12 / 16), (4, 2 / 16)]
