"""The benchmarks compare like with like: the bare loop is the same training, and FLOPs are counted right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmarks.speed import cycles, levers, limits, overhead, recipes
from benchmarks.speed.__main__ import main
from benchmarks.speed.bare import BareLoop
from benchmarks.speed.clocks import Clocks
from benchmarks.speed.noise import Noise
from benchmarks.speed.stages import Stages
from ganzoo import streams
from ganzoo.ablation.timing import Subject
from ganzoo.gan import GAN
from ganzoo.models import DCGAN, MLPGAN
from ganzoo.parts import Part, Penalty, Turn
from ganzoo.penalties import R1
from ganzoo.plan import Play
from tests.common import fit, flat, normal_batches
from tests.mutants import kills


class SameLatents(BareLoop):
    """Draws what the trainer's loop draws in each turn."""

    def __init__(self, gan: GAN, seed: int) -> None:
        super().__init__(gan)
        self.seed, self.turns = seed, {"discriminator": 0, "generator": 0}

    def _latents(self, real: Tensor) -> Tensor:
        turn = "discriminator" if torch.is_grad_enabled() is False else "generator"
        number = self.turns[turn]
        self.turns[turn] += 1
        with streams.stream(self.seed, turn, number, start=0, num=len(real), total=len(real), device=real.device):
            return self.gan.latents.draw(len(real), self.gan.generator.latent_dim, real.device)


@pytest.mark.parametrize("d", [1, 3])
def test_the_bare_loop_trains_as_the_trainer_does(d: int) -> None:
    """Same latents, same batches: bitwise the same networks and averages."""

    def make() -> MLPGAN:
        torch.manual_seed(1)
        return MLPGAN(num_layers=1, hidden=16, total_kimg=5 * d * 8 / 1000, play=Play(d, 1))

    trained, by_hand = make(), make()
    fit(trained, normal_batches(8, 2))
    loop = SameLatents(by_hand, trained.seed)
    loop.run(iter(normal_batches(8, 2)), 5)
    assert trained.clock.g_turns == 5
    for name in ("generator", "discriminator", "generator_ema"):
        assert torch.equal(flat(getattr(trained, name)), flat(getattr(by_hand, name))), name
    assert not torch.equal(flat(by_hand.generator), flat(make().generator))


class MeanLogit(Penalty):
    """A term without a product of matrices."""

    def value(self, turn: Turn) -> Tensor:
        assert turn.fake_logits is not None
        return turn.fake_logits.mean()


@pytest.mark.parametrize("every", [1, 3])
def test_flops_of_a_cycle(every: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One hidden layer of h units, latents of z and data of x components, a batch of n: products of matrices only.

    Of the generator, z h + h x multiply-adds forward; of the discriminator, x h + h. Backward, each layer takes once as
    much for its weights and once for its input, where they need a gradient. The D turn: G forward, D forward and
    backward for real and fake, without a gradient of the input. The G turn: G forward; D forward and backward for the
    input only; G backward, without a gradient of the latents.
    """
    monkeypatch.setattr(cycles, "ceiling", lambda device, dtype: Clocks(1e9, 1e9))
    h, z, x, n = 16, 3, 5, 4
    options = ["--model", "MLPGAN", f"--model.hidden={h}", "--model.num_layers=1", f"--model.latent_dim={z}"]
    cli = recipes.parse(None, [x], [*options, f"--data.batch_size={n}", "--trainer.accelerator=cpu"])
    cli.model.tricks.append(MeanLogit(every=every))
    row = cycles.measure(recipes.subject(cli), rounds=2, cycles=3)
    generator, discriminator = z * h + h * x, x * h + h
    d_turn = generator + 2 * (2 * discriminator + h)
    g_turn = generator + 2 * discriminator + generator + h * x
    assert row["gflop_per_image"] == pytest.approx(2 * (d_turn + g_turn) / 1e9, rel=1e-4)
    assert (row["batch"], row["cycles_per_round"], row["d_per_g"]) == (n, 3, 1)
    assert row["generator_parameters"] == generator + h + x
    parts = row["parts_ms"]
    assert row["lightning_share"] == pytest.approx(parts["trainer"] / sum(parts.values()), abs=1e-3)
    assert all(parts[f"{who} {what}"] > 0 for who in "DG" for what in ("forward", "backward"))
    assert all(parts[name] > 0 for name in ("D penalties", "G penalties", "optimizers", "EMA", "logging"))
    assert row["share_of_ceiling"] == pytest.approx(row["index"] * row["gflop_per_image"] / 1000, rel=0.05, abs=1e-3)


def test_lazy_penalties_are_weighted_by_their_intervals() -> None:
    gan = DCGAN(8, 1, width=4, discriminator_norm="none", penalties=[R1(every=4), R1(every=6)])
    assert cycles.lazy_period(gan) == 12


def test_the_overhead_pairs_equal_numbers_of_cycles(tmp_path: Path) -> None:
    case = overhead.Case(lambda: MLPGAN(num_layers=1, hidden=8), (8, 2))
    gan = case.make()
    interleave = overhead.Interleave(BareLoop(gan), case.shape)
    overhead.fit(case, 2.0, [interleave])
    assert len(interleave.pairs) > 2
    assert all(fit.cpu > 0 and bare.cpu > 0 for bare, fit in interleave.pairs)
    assert interleave.loop.images >= 8 * len(interleave.pairs)


class Clock:
    """Moves when it is told to."""

    def __init__(self) -> None:
        self.ms = 0.0

    def __call__(self) -> Clocks:
        return Clocks(self.ms / 1e3, self.ms / 1e3)


class Takes(nn.Module):
    """Passes on what it is given, so many milliseconds later."""

    def __init__(self, clock: Clock, ms: int) -> None:
        super().__init__()
        self.clock, self.ms = clock, ms

    def forward(self, x: Tensor) -> Tensor:
        self.clock.ms += self.ms
        return x


class SlowPenalty(Penalty):
    """Looks at the discriminator once more, and takes a while of its own, in hooks, too."""

    players = ("discriminator",)
    clock: Clock

    def before_turn(self, turn: Turn) -> None:
        self.clock.ms += 0.25

    def logits(self, turn: Turn, real: Tensor | None, fake: Tensor) -> tuple[Tensor | None, Tensor]:
        self.clock.ms += 0.5
        return real, fake

    def value(self, turn: Turn) -> Tensor:
        assert turn.real is not None
        self.clock.ms += 7
        return turn.discriminate(turn.real).mean()


class SlowTrick(Part):
    """Whose time is that of no term."""

    players = ("discriminator",)
    clock: Clock

    def logits(self, turn: Turn, real: Tensor | None, fake: Tensor) -> tuple[Tensor | None, Tensor]:
        self.clock.ms += 0.125
        return real, fake


def test_stages_add_up_and_none_is_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("benchmarks.speed.stages.now", clock)
    gan = MLPGAN(num_layers=1, hidden=4, penalties=[SlowPenalty(every=2)], play=Play(2, 1))
    gan.tricks.append(SlowTrick())
    for part in gan.tricks:
        part.clock = clock
    gan.generator.layers.append(Takes(clock, 10))
    gan.discriminator.layers.append(Takes(clock, 200))
    end_cycle = gan.plan.end_cycle

    def slowly(*args: int) -> None:
        clock.ms += 3000
        end_cycle(*args)

    monkeypatch.setattr(gan.plan, "end_cycle", slowly)
    taken = Stages(6, warm=1)
    cycles.fit(Subject(gan, Noise([2], batch_size=4), {"accelerator": "cpu"}), taken)
    rows = taken.rows()
    assert "cycle" not in vars(gan) and "forward" not in vars(gan.discriminator)  # as before
    assert not {"forward", "logits", "before_turn"} & vars(gan.tricks[0]).keys()
    plain, lazy = "discriminator's turn", "discriminator's turn with lazy terms"
    expected = {  # in milliseconds per cycle; of its two turns of the discriminator, one is due
        "loop": 3000 + 2 * 0.125,
        f"{lazy}: discriminator forward": 400,
        f"{lazy}: discriminator forward in SlowPenalty": 200,
        f"{plain}: discriminator forward": 400,
        "generator's turn: discriminator forward": 200,
        f"{plain}: generator forward": 10,
        f"{lazy}: generator forward": 10,
        "generator's turn: generator forward": 10,
        f"{lazy}: SlowPenalty": 7 + 0.25 + 0.5,
        f"{plain}: SlowPenalty": 0.25 + 0.5,
    }
    assert {stage: round(ms, 6) for stage, ms in rows.items() if ms > 1e-6} == expected
    parts = {name: round(ms, 6) for name, ms in taken.parts().items() if ms > 1e-6}
    assert parts == {"D forward": 820, "D penalties": 207 + 2 * 0.75, "G forward": 210, "loop": 3000.25}
    assert {"data", "trainer", f"{plain}: optimizer", f"{lazy}: backward", "average of the generator"} < rows.keys()


def test_a_backward_pass_that_is_longer_with_lazy_terms_is_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every four turns one takes 30 ms, the others 10: of 15 ms per cycle, 5 are the penalty's."""
    clock = Clock()
    monkeypatch.setattr("benchmarks.speed.stages.now", clock)
    gan = MLPGAN(num_layers=1, hidden=4, penalties=[MeanLogit(every=4)])
    backward = gan._backward

    def slowly(loss: Tensor) -> None:
        lazy = gan.clock.d_turns == gan.clock.g_turns and gan.clock.d_turns % 4 == 0  # of the discriminator
        clock.ms += 30 if lazy else 10
        backward(loss)

    monkeypatch.setattr(gan, "_backward", slowly)
    gan.step_seconds = 0.0
    taken = Stages(8)
    cycles.fit(Subject(gan, Noise([2], batch_size=4), {"accelerator": "cpu"}), taken)
    parts = {name: round(ms, 6) for name, ms in taken.parts().items() if ms > 1e-6}
    assert parts == {"D backward": 10, "D penalties": 5, "G backward": 10}


def test_the_peak_of_memory_begins_anew() -> None:
    """512 MB more than before while they are there; a reset forgets them, where the system can."""
    limits.reset_peak_memory()
    before = limits.peak_memory(torch.device("cpu"))
    held = torch.ones(128 * 2**20)
    with_it = limits.peak_memory(torch.device("cpu"))
    assert 400 * 2**20 < with_it - before < 600 * 2**20  # what else is held may shrink meanwhile
    del held
    limits.reset_peak_memory()
    assert limits.peak_memory(torch.device("cpu")) <= with_it


OURS = ["--model", "MLPGAN", "--data.batch_size", "8", "--trainer.accelerator", "cpu"]


@pytest.mark.slow
def test_the_command_compares_two_sets_of_options_by_turns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Twenty layers take longer than one; the same options take as long."""
    ours = ["--model", "MLPGAN", "--model.hidden", "64", "--data.batch_size", "256", "--trainer.accelerator", "cpu"]
    ratios = []
    for more in ("--model.num_layers 20", "--model.num_layers 2"):
        out = tmp_path / "out.json"
        main(["--shape", "2", "--seconds", "1", "--vs", more, "--json", str(out), "--", *ours])
        ratios.append(json.loads(out.read_text())["rows"][0]["cpu"])
        assert f'"vs": "{more}"' in capsys.readouterr().out
    assert ratios[0] > 2.0
    assert 0.7 < ratios[1] < 1.4


def test_the_command_switches_a_lever_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(levers, "ceiling", lambda device, dtype: Clocks(1e9, 1e9))
    out = tmp_path / "out.json"
    main(["--shape", "2", "--seconds", "0.1", "--vs", "logging=off", "--json", str(out), "--", *OURS])
    (row,) = json.loads(out.read_text())["rows"]
    assert row["vs"] == "logging=off"
    assert list(row["gain"]) == ["logging"]
    assert row["gain"]["logging"]["median"] > 1.2  # of a cycle so small


@pytest.mark.parametrize(
    ("vs", "sentence"),
    [
        ("folds=off shortcuts=off", "one LEVER=off; several levers, each by itself and all at once"),
        ("fold=off", "There is no lever fold; there are folds, "),
        ("folds", "give options of fit, which begin with --, or one LEVER=off"),
        ("folds=off", "The lever folds has no gain in this model: nothing in the model is what it is about."),
    ],
)
def test_a_lever_that_cannot_be_switched_is_answered_with_why(
    vs: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(levers, "ceiling", lambda device, dtype: Clocks(1e9, 1e9))
    out = tmp_path / "out.json"
    with pytest.raises(SystemExit, match=sentence):
        main(["--shape", "2", "--seconds", "0.1", "--vs", vs, "--json", str(out), "--", *OURS])
    assert not out.exists()


def test_indices_of_the_same_thing_are_compared() -> None:
    def row(**more: object) -> dict[str, object]:
        facts = {"recipe": "a", "device": "cpu", "threads": 1, "precision": "32-true", "batch": 8, "index": 10.0}
        return facts | more

    def check(against) -> None:
        older = [{"recipe": "a", "stages_ms": {}}, row(threads=2, index=1.0), row(index=4.0), row(batch=4, index=2.0)]
        assert against(row(), older) == {"index_ratio": 2.5}
        assert against(row(batch=4), older) == {"index_ratio": 5.0}
        for other in ({"device": "cuda"}, {"precision": "bf16-mixed"}, {"threads": 4}):
            (why,) = against(row(**other), older[:2] + older[3:]).values()
            assert why.startswith("the older record is of ") and "batch 4" in why and next(iter(other)) in why
        assert against(row(recipe="b"), older) == {
            "not_compared": "there is no index of this recipe in the older record"
        }
        assert against({"recipe": "a", "stages_ms": {}}, older) == {"not_compared": "there is no index here"}

    def by_name_alone(one: dict, older: list[dict]) -> dict[str, float]:
        found = [o for o in older if o["recipe"] == one["recipe"] and "index" in o]
        return {"index_ratio": one["index"] / found[-1]["index"]} if found else {}

    check(recipes.against)
    kills(check, by_name_alone)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_without_a_gpu_the_command_says_so() -> None:
    with pytest.raises(SystemExit, match="torch sees no GPU here"):
        main(["dcgan.yaml", "--device", "cuda"])


@pytest.mark.slow
def test_an_older_record_gives_a_ratio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cycles, "ceiling", lambda device, dtype: Clocks(1e9, 1e9))
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    given = ["--shape", "2", "--device", "cpu", "--rounds", "2"]
    main([*given, "--json", str(old), "--", *OURS])
    facts = json.loads(old.read_text())
    assert facts["rows"][0]["peak_memory_mb"] > 50
    facts["rows"][0]["index"] *= 1000
    old.write_text(json.dumps(facts))
    main([*given, "--compare", str(old), "--json", str(new), "--", *OURS])
    row = json.loads(new.read_text())["rows"][0]
    assert row["index_ratio"] == pytest.approx(row["index"] / facts["rows"][0]["index"], abs=1e-3)
