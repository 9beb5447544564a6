"""A fit whose turns are replayed from graphs is the fit without them: bit by bit, with a recorder for the CPU.

The recorder (``tests/recorder.py``) replays operations and no Python, and recording computes nothing, as on a GPU.
"""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as L
import pytest
import torch
from torch import Tensor, nn

from ganzoo import graphs, penalties, streams, tricks
from ganzoo.augment import DiffAugment, InstanceNoise
from ganzoo.callbacks import CaptureGraphs
from ganzoo.gan import GAN
from ganzoo.graphs import Graphs
from ganzoo.health.signals import Signals
from ganzoo.latents import Uniform
from ganzoo.losses import D2GAN, Wasserstein
from ganzoo.models import DCGAN, MLPGAN, R3GAN, SAGAN, SNGAN, StyleGAN, stylegan
from ganzoo.optim import RMSprop
from ganzoo.parts import Part, Turn
from ganzoo.penalties import R1, R2, LeCam, PathLength
from ganzoo.plan import Play
from ganzoo.players import Clip
from ganzoo.schedules import Cosine, Linear
from tests.common import Endless, flat, normal_batches, quiet_trainer
from tests.mutants import kills
from tests.recorder import Recorder

RESNET = {f"{name}_{bound}": 4 for name in ("generator", "discriminator") for bound in ("width", "max_width")}


def styles(**options: Any) -> GAN:
    penalties = [R1(every=2), PathLength(every=3)]
    small = {"channel_max": 8, "channel_base": 64, "latent_dim": 8, "style_dim": 8, "mapping_layers": 2, "group": 2}
    return StyleGAN(16, 3, **{**small, "penalties": penalties, **options})


def mlp(**options: Any) -> GAN:
    return MLPGAN(num_layers=1, hidden=8, **options)


def scheduled() -> GAN:
    """What follows the time: both learning rates, the weights of two penalties, and that of the loss."""
    gamma = Cosine(0.5, 0.05, to_kimg=0.04)
    return R3GAN(
        16,
        3,
        width=8,
        max_width=8,
        num_blocks=1,
        group_size=4,
        latent_dim=8,
        penalties=[R1(gamma), R2(gamma)],
        generator_lr=Linear(1.0, 0.2, to_kimg=0.04),
        discriminator_lr=Linear(1.0, 0.5, to_kimg=0.04),
        adversarial_weight=Linear(1.0, 2.0, to_kimg=0.04),
    )


def labelled(*shape: int, classes: int = 3) -> Endless:
    def make(k: int) -> tuple[Tensor, Tensor]:
        source = torch.Generator().manual_seed(k)
        return torch.randn(*shape, generator=source), torch.randint(classes, shape[:1], generator=source)

    return Endless(make)


@dataclasses.dataclass(frozen=True)
class Case:
    make: Callable[[], GAN]
    batches: Callable[[], Endless]
    graphs: int  #: kinds of turns that come more than three times
    steps: int = 7
    precision: str = "32-true"


CASES = {
    "mlp": Case(mlp, lambda: normal_batches(8, 2), 2),
    "schedules": Case(
        lambda: mlp(
            penalties=[R1(Cosine(0.5, 0.1, to_kimg=0.1))],
            generator_lr=Linear(1.0, 0.2, to_kimg=0.1),
            discriminator_lr=Linear(1.0, 0.2, to_kimg=0.1),
        ),
        lambda: normal_batches(8, 2),
        2,
    ),
    "dcgan": Case(lambda: DCGAN(8, 1, width=4), lambda: normal_batches(4, 1, 8, 8), 2),
    "sngan": Case(
        lambda: SNGAN(latent_dim=8, play=Play(2), **RESNET), lambda: normal_batches(2, 3, 32, 32), 2, steps=5
    ),
    "sagan": Case(
        lambda: SAGAN(num_classes=3, latent_dim=8, play=Play(1), **RESNET), lambda: labelled(2, 3, 32, 32), 2, steps=5
    ),
    "stylegan": Case(styles, lambda: normal_batches(4, 3, 16, 16), 4, steps=14),
    "stylegan, bf16": Case(styles, lambda: normal_batches(4, 3, 16, 16), 4, steps=14, precision="bf16-mixed"),
    "r3gan": Case(scheduled, lambda: normal_batches(4, 3, 16, 16), 2),
    "many": Case(
        lambda: DCGAN(
            8,
            1,
            width=4,
            discriminator_norm="none",
            accumulate=2,
            penalties=[LeCam(), R1(every=2)],
            parts=[DiffAugment(), Signals(every=3)],
            generator_clip=Clip(0.1),
            discriminator_clip=Clip(0.2, value=0.05),
        ),
        lambda: normal_batches(4, 1, 8, 8),
        5,
        steps=20,
    ),
}


@pytest.fixture(autouse=True)
def recorder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(graphs.RECORDERS, "cpu", Recorder)
    monkeypatch.setattr(Recorder, "recorded", 0)
    monkeypatch.setattr(Recorder, "replayed", 0)


def train(
    case: Case, *callbacks: L.Callback, steps: int | None = None, seed: int = 1, path: Any = None, **options: Any
) -> GAN:
    """A fit of the case, with the same weights and data each time."""
    torch.manual_seed(0)
    gan, batches = case.make(), case.batches()
    gan.step_seconds = 0.0
    trainer = quiet_trainer(max_steps=steps or case.steps, precision=case.precision, callbacks=[*callbacks], **options)
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Turns run as usual")
        trainer.fit(gan, _Further(batches, path), ckpt_path=path)
    return gan


class _Further:
    """Batches from where a checkpoint was written."""

    def __init__(self, batches: Endless, path: Any) -> None:
        self.batches = batches
        self.skip = torch.load(path)["test_cycles"] if path else 0

    def __iter__(self) -> Iterator[Any]:
        return (batch for k, batch in enumerate(self.batches) if k >= self.skip)


def tensors(tree: Any) -> list[Any]:
    return torch.utils._pytree.tree_leaves(tree)


def check_equal(one: GAN, other: GAN) -> None:
    """Weights, average, buffers, both optimizers, scalars, the clock, and torch's own generator."""
    for a, b in ((one.state_dict(), other.state_dict()), (states(one), states(other))):
        assert all(map(same, tensors(a), tensors(b)))
        assert len(tensors(a)) == len(tensors(b))
    assert one.meter.state() == other.meter.state()
    assert one.clock == other.clock and one.trainer.global_step == other.trainer.global_step
    assert one.random_state.equal(other.random_state)


def states(gan: GAN) -> list[Any]:
    return [optimizer.state_dict() for optimizer in gan.trainer.optimizers]


def same(a: Any, b: Any) -> bool:
    return torch.equal(a, b) if isinstance(a, Tensor) else a == b


class AtEnd(L.Callback):
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        pl_module.random_state = torch.get_rng_state()
        pl_module.counts = pl_module.graphs and (pl_module.graphs.num_graphs, pl_module.graphs.num_replayed)


_plain: dict[str, GAN] = {}


def plain(name: str) -> GAN:
    if name not in _plain:
        _plain[name] = train(CASES[name], AtEnd())
    return _plain[name]


def check_graphs(name: str, kind: type[Graphs]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ganzoo.loop.Graphs", kind)
        gan = train(CASES[name], CaptureGraphs(), AtEnd())
    num_graphs, num_replayed = gan.counts
    turns = gan.clock.d_turns + gan.clock.g_turns
    assert num_graphs == Recorder.recorded == CASES[name].graphs
    assert num_replayed == Recorder.replayed >= turns - graphs.WARM_UP * num_graphs - graphs.WARM_UP > 0
    check_equal(gan, plain(name))


@pytest.mark.parametrize("name", CASES)
def test_a_fit_is_the_same(name: str) -> None:
    check_graphs(name, Graphs)


def small(**options: Any) -> GAN:
    return DCGAN(8, 1, width=4, discriminator_norm="none", **options)


#: Every part and penalty that says it can be replayed, but those of the cases above.
DECLARED: dict[type[Part], Callable[[], GAN]] = {
    **{
        kind: lambda kind=kind: small(penalties=[kind()])
        for kind in (
            *(penalties.R1, penalties.R2, penalties.ZeroCenteredGradientPenalty, penalties.DRAGAN, penalties.LeCam),
            *(penalties.WassersteinGradientPenalty, penalties.Drift, penalties.LatentConsistency),
            *(penalties.OrthogonalRegularization, penalties.HistoricalAveraging, penalties.FeatureMatching),
        )
    },
    **{
        kind: lambda kind=kind: small(penalties=[kind(shift=2, noise=0.1)])
        for kind in (penalties.Consistency, penalties.BalancedConsistency)
    },
    **{kind: lambda kind=kind: small(parts=[kind()]) for kind in (DiffAugment, InstanceNoise, Signals, tricks.Packing)},
    penalties.WeightClipping: lambda: small(loss=Wasserstein(), parts=[penalties.WeightClipping()]),
    tricks.DualDiscriminator: lambda: small(loss=D2GAN(), parts=[tricks.DualDiscriminator()]),
    tricks.LatentOptimization: lambda: small(
        parts=[tricks.LatentOptimization(Linear(0.1, 0.0, to_kimg=0.05))], latents=Uniform()
    ),
    tricks.AuxiliaryClassifier: lambda: small(num_classes=3, parts=[tricks.AuxiliaryClassifier()]),
}
IN_CASES = (PathLength, stylegan._MeanStyle)


def test_all_that_say_so_are_tried() -> None:
    found, ahead = set(), [Part]
    while ahead:
        kind = ahead.pop()
        ahead += kind.__subclasses__()
        found |= {kind} if vars(kind).get("capturable") and kind.__module__.startswith("ganzoo.") else set()
    assert found == {*DECLARED, *IN_CASES}


@pytest.mark.parametrize("precision", ["32-true", pytest.param("bf16-mixed", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", DECLARED, ids=lambda kind: kind.__name__)
def test_a_part_that_says_so_can_be_replayed(kind: type[Part], precision: str) -> None:
    def batches() -> Endless:
        return labelled(4, 1, 8, 8) if kind is tricks.AuxiliaryClassifier else normal_batches(4, 1, 8, 8)

    case = Case(DECLARED[kind], batches, 2, steps=6, precision=precision)
    check_equal(train(case, CaptureGraphs(), AtEnd()), train(case, AtEnd()))
    assert Recorder.recorded == 2 and Recorder.replayed >= 4


class StaleBatch(Graphs):
    def _replay(self, graph, turn, batch):
        super()._replay(graph, turn, graph.batch)


class StaleNoise(Graphs):
    def _replay(self, graph, turn, batch):
        tape = SimpleNamespace(fill=lambda *parts, kimg: None)
        super()._replay(dataclasses.replace(graph, tape=tape), turn, batch)


class StaleSchedules(Graphs):
    def _replay(self, graph, turn, batch):
        graph.first = getattr(graph, "first", turn.kimg)
        super()._replay(graph, dataclasses.replace(turn, kimg=graph.first), batch)


class FrozenRate(Graphs):
    def _replay(self, graph, turn, batch):
        groups = self.gan.player_optimizers[turn.player].optimizer.param_groups
        rates = [group["lr"] for group in groups]
        graph.first = getattr(graph, "first", rates)
        for group, first in zip(groups, graph.first, strict=True):
            group["lr"] = first
        super()._replay(graph, turn, batch)
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate


class SameScalars(Graphs):
    """The log is given tensors that the next replay writes to."""

    def _replay(self, graph, turn, batch):
        super()._replay(dataclasses.replace(graph, scalars=SimpleNamespace(clone=lambda: graph.scalars)), turn, batch)


class FirstNumber(Graphs):
    """Scalars belong to the recorded turn."""

    def _replay(self, graph, turn, batch):
        add = self.gan.meter.add
        self.gan.meter.add = lambda name, value, number: add(name, value, 0)
        super()._replay(graph, turn, batch)
        del self.gan.meter.add


class CountedTwice(Graphs):
    """Lightning is told of the recording's step, and of the replay's."""

    def _replay(self, graph, turn, batch):
        self.gan.player_optimizers[turn.player]._on_after_step()
        super()._replay(graph, turn, batch)


class OnceMore(Graphs):
    """The turn that is recorded is done twice."""

    def _record(self, kind, turn, batch, size):
        found = super()._record(kind, turn, batch, size)
        self._replay(self._graphs[kind], turn, batch)
        return found


@pytest.mark.parametrize(
    ("name", "mutant"),
    [
        ("mlp", StaleBatch),
        ("mlp", StaleNoise),
        ("schedules", StaleSchedules),
        ("schedules", FrozenRate),
        ("mlp", SameScalars),
        ("mlp", FirstNumber),
        ("mlp", CountedTwice),
        ("mlp", OnceMore),
    ],
)
def test_a_wrong_replay_is_seen(name: str, mutant: type[Graphs]) -> None:
    kills(lambda kind: check_graphs(name, kind), mutant)


def test_a_lazy_turn_is_another_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the parts' keys are not looked at, it is replayed as a plain one, or the other way round."""
    case = Case(lambda: mlp(penalties=[R1(every=2)]), CASES["mlp"].batches, 3, steps=12)
    usual = train(case, AtEnd())
    check_equal(train(case, CaptureGraphs(), AtEnd()), usual)
    assert Recorder.recorded == case.graphs
    kind = graphs._kind
    monkeypatch.setattr(graphs, "_kind", lambda gan, turn, *more: kind(gan, _without_parts(turn), *more))
    kills(lambda one: check_equal(train(case, CaptureGraphs(), AtEnd()), one), usual)
    assert Recorder.recorded == case.graphs + 2


def _without_parts(turn: Turn) -> Turn:
    return dataclasses.replace(turn, number=0)


# ---------------------------------------------------------------------- checkpoints and changes on the way


class Save(L.Callback):
    def __init__(self, path: Path, step: int) -> None:
        self.path, self.step = path, step

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["test_cycles"] = pl_module.clock.cycles


@pytest.mark.parametrize(("before", "after"), [(True, True), (True, False), (False, True)])
def test_resumed_across(before: bool, after: bool, tmp_path: Path) -> None:
    """A checkpoint is the same with graphs and without, and so is what follows."""
    case, path = dataclasses.replace(CASES["schedules"], steps=12), tmp_path / "a.ckpt"
    whole = train(case, Save(tmp_path / "plain.ckpt", 6), AtEnd())
    train(case, *([CaptureGraphs()] if before else []), Save(path, 6), steps=6)
    assert Recorder.replayed == (6 if before else 0)
    ours, theirs = torch.load(path), torch.load(tmp_path / "plain.ckpt")
    for key in ("state_dict", "optimizer_states", "ganzoo"):
        assert all(map(same, tensors(ours[key]), tensors(theirs[key]))), key
    gan = train(case, *([CaptureGraphs()] if after else []), AtEnd(), path=path)
    assert Recorder.replayed == 6 * (before + after)
    check_equal(gan, whole)


class Once(L.Callback):
    """Does something to the model before a training step."""

    def __init__(self, do: Callable[[GAN], None], step: int = 6) -> None:
        self.do, self.step = do, step

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if trainer.global_step == self.step:
            self.do(pl_module)


def replace_state(gan: GAN) -> None:
    for optimizer in gan.trainer.optimizers:
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))


def load_weights(gan: GAN) -> None:
    gan.load_state_dict({k: v * 0.9 if v.is_floating_point() else v for k, v in gan.state_dict().items()})


def freeze(gan: GAN) -> None:
    next(gan.discriminator.parameters()).requires_grad = False


def rest(gan: GAN) -> None:
    gan.set_dormant([next(gan.generator.parameters())])


def evaluate(gan: GAN) -> None:
    gan.generator.eval()


def other_betas(gan: GAN) -> None:
    gan.trainer.optimizers[0].param_groups[0]["betas"] = (0.3, 0.9)


def other_rate(gan: GAN) -> None:
    gan.trainer.optimizers[0].param_groups[0]["initial_lr"] = 1e-3


#: And how many graphs are recorded in all.
CHANGES = {
    load_weights: 2,
    other_rate: 2,
    replace_state: 4,
    freeze: 4,
    evaluate: 4,
    rest: 3,
    other_betas: 3,
}


def check_change(do: Callable[[GAN], None]) -> None:
    case = dataclasses.replace(CASES["dcgan"], steps=13)
    usual = train(case, Once(do), AtEnd())
    Recorder.recorded = 0
    check_equal(train(case, Once(do), CaptureGraphs(), AtEnd()), usual)
    assert Recorder.recorded == CHANGES[do]


@pytest.mark.parametrize("do", CHANGES, ids=lambda do: do.__name__)
def test_a_change_on_the_way_is_noticed(do: Callable[[GAN], None]) -> None:
    check_change(do)


def test_without_a_look_at_them_graphs_would_be_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Graphs, "check", lambda self: None)
    for do in (replace_state, freeze, evaluate, rest, other_betas):
        kills(check_change, do)


def test_batches_of_another_size_have_graphs_of_their_own() -> None:
    def batches() -> Endless:
        return Endless(lambda k: torch.randn(4 if k < 6 else 8, 2, generator=torch.Generator().manual_seed(k)))

    def make() -> GAN:
        gan = mlp()
        gan.batch_sizes = [(0, 4), (24, 8)]
        return gan

    case = Case(make, batches, 4, steps=12)
    check_equal(train(case, CaptureGraphs(), AtEnd()), train(case, AtEnd()))
    assert Recorder.recorded == 4


# ---------------------------------------------------------------------- what cannot be recorded


class Undeclared(Part):
    """Says nothing about graphs."""


class Heir(R1):
    """What R1 says of itself does not hold for it."""


class Asks(Part):
    """Says that it can be replayed, but Python decides by a value."""

    capturable = True

    def after_backward(self, turn: Turn) -> None:
        if turn.fake_logits.mean() > 1e6:
            raise AssertionError


class Replaces(Part):
    """Counts by a new tensor in each turn."""

    capturable = True

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def after_step(self, turn: Turn) -> None:
        self.count = self.count + 1


class Foreign(Part):
    """Draws from torch's own generator."""

    capturable = True

    def drawn(self, turn: Turn, latents: Tensor) -> Tensor:
        return latents + 0.1 * torch.randn_like(latents)


class More(Part):
    """Draws more in each turn."""

    capturable = True

    def drawn(self, turn: Turn, latents: Tensor) -> Tensor:
        for _ in range(turn.number):
            latents = latents + 0.1 * streams.randn(*latents.shape, purpose="more")
        return latents


class Listens(L.Callback):
    def on_after_backward(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        pass


def hooked() -> GAN:
    gan = mlp()
    next(m for m in gan.discriminator.modules() if isinstance(m, nn.Linear)).register_forward_hook(lambda *_: None)
    return gan


def compiled() -> GAN:
    gan = mlp()
    gan.generator._compiled_call_impl = gan.generator._call_impl  # torch.compile itself takes seconds
    return gan


REFUSED = {
    "a part": (lambda: mlp(parts=[Undeclared()]), (), "Undeclared does not say that its turns can be replayed"),
    "an heir": (lambda: mlp(penalties=[Heir()]), (), "Heir does not say"),
    "a schedule of noise": (
        lambda: mlp(parts=[InstanceNoise(Linear(0.1, 0.0, to_kimg=0.01))]),
        (),
        "InstanceNoise does not say",
    ),
    "an optimizer": (
        lambda: mlp(generator_optimizer=RMSprop()),
        (),
        "the steps of RMSprop, the generator's optimizer, cannot be recorded, while those of Adam can",
    ),
    "a callback": (mlp, (Listens(),), "Lightning takes part in backward passes or steps"),
    "a hook": (hooked, (), "a layer of MLPDiscriminator has a hook"),
    "compiled": (compiled, (), "MLPGenerator is compiled"),
    "a value": (lambda: mlp(parts=[Asks()]), (), "a turn of the discriminator could not be recorded (aten."),
    "a tensor": (lambda: mlp(parts=[Replaces()]), (), "replaces one of its tensors, instead of changing it in place"),
    "foreign numbers": (lambda: mlp(parts=[Foreign()]), (), "draws from torch's own generator"),
    "more numbers": (lambda: mlp(parts=[More()]), (), "(more was drawn in another order than in the turn before)"),
}


def told(make: Callable[[], GAN], *callbacks: L.Callback) -> tuple[GAN, list[str]]:
    torch.manual_seed(0)
    gan = make()
    torch.manual_seed(1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quiet_trainer(max_steps=6, callbacks=[*callbacks, AtEnd()]).fit(gan, normal_batches(8, 2))
    return gan, [str(w.message) for w in caught if "Turns run as usual" in str(w.message)]


@pytest.mark.parametrize("name", REFUSED)
def test_it_falls_back_with_one_sentence(name: str) -> None:
    """And trains as it would have."""
    make, callbacks, why = REFUSED[name]
    gan, sentences = told(make, CaptureGraphs(), *callbacks)
    assert len(sentences) == 1 and why in sentences[0]
    assert sentences[0].startswith("Turns run as usual, not as graphs: ") and sentences[0].endswith(".")
    assert "\n" not in sentences[0] and ". " not in sentences[0].replace("aten. ", "")
    assert gan.counts is None
    check_equal(gan, told(make, *callbacks)[0])


def test_a_cpu_records_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(graphs.RECORDERS, "cpu")
    _, sentences = told(mlp, CaptureGraphs())
    assert sentences == ["Turns run as usual, not as graphs: graphs are of CUDA, and the model is on cpu."]


def test_without_the_callback_nothing_is_recorded() -> None:
    gan, sentences = told(mlp)
    assert gan.counts is None and not sentences and not Recorder.recorded


def test_a_second_fit_without_the_callback_is_a_usual_one() -> None:
    gan, _ = told(mlp, CaptureGraphs())
    assert Recorder.recorded == 2 and gan.graphs is None
    quiet_trainer(max_steps=12).fit(gan, normal_batches(8, 2))
    assert Recorder.recorded == 2


# ---------------------------------------------------------------------- the recorder itself


def test_a_recording_computes_nothing_and_a_replay_no_python() -> None:
    x, state, calls = torch.tensor([1.0, 2.0]), torch.zeros(2), []

    def function() -> Tensor:
        calls.append(None)
        doubled = x * 2
        state.add_(doubled)
        return doubled.sum() + len(calls)

    made, replay = Recorder(torch.device("cpu")).record(function)
    assert state.tolist() == [0, 0] and made.isnan()
    for k in range(1, 3):
        x.fill_(k)
        replay()
        assert made.item() == 4 * k + 1  # the number of calls is that of the recording
    assert state.tolist() == [6, 6] and len(calls) == 1


# ---------------------------------------------------------------------- a GPU


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", CASES)
def test_on_a_gpu(name: str) -> None:
    """20 cycles, up to a rate in single precision and sums in another order; plain and lazy turns are replayed."""
    case = dataclasses.replace(CASES[name], steps=20)
    begin = flat(train(case, steps=1, accelerator="gpu"))
    usual = train(case, AtEnd(), accelerator="gpu")
    graphed = train(case, CaptureGraphs(), AtEnd(), accelerator="gpu")
    num_graphs, num_replayed = graphed.counts
    assert num_graphs >= case.graphs and num_replayed >= 20
    way, apart = (flat(usual) - begin).norm(), (flat(usual) - flat(graphed)).norm()
    assert apart <= (0.05 if case.precision == "bf16-mixed" else 0.01) * way
