"""Growing: what each turn sees and trains at which time, what rests, and that a run goes on as if never stopped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ganzoo.callbacks import Log, explain_out_of_memory
from ganzoo.callbacks.progress import Speed, describe
from ganzoo.checkpoint import load_model
from ganzoo.config import build
from ganzoo.data import Digits
from ganzoo.errors import UserError
from ganzoo.gan import GAN
from ganzoo.layers.growth import Growable
from ganzoo.losses import Hinge, NonSaturating
from ganzoo.models import DCGAN, ProgressiveGAN
from ganzoo.models.progressive import ProgressiveDiscriminator, ProgressiveGenerator
from ganzoo.parts import Part, Turn
from ganzoo.penalties import R1, OrthogonalRegularization
from ganzoo.plan import Play
from ganzoo.schedules import Linear
from ganzoo.tricks import Growing
from tests.common import fit, flat, max_difference, normal_batches, quiet_trainer
from tests.mutants import kills
from tests.test_resume import same

BATCH = 16
#: Stable for 3 batches, faded in over 4; the levels begin at 48, 160 and 272 images.
QUICK = {"stabilize_kimg": 0.048, "fade_kimg": 0.064}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANZOO_CACHE", str(tmp_path / "cache"))


def growing(growth: Growing | None, size: int = 16, **options) -> ProgressiveGAN:
    torch.manual_seed(2)
    given = {"latent_dim": 5, "channel_base": 48, "channel_max": 8, "growth": growth, **options}
    gan = ProgressiveGAN(size, 1, **given)
    gan.step_seconds = 0.0
    return gan


def run(gan: GAN, steps: int, **options) -> GAN:
    fit(gan, normal_batches(BATCH, 1, 16, 16), max_steps=steps, **options)
    return gan


def on_digits(gan: GAN, **options):
    """A run on data whose batch may change its size."""
    trainer = quiet_trainer(**options)
    trainer.fit(gan, Digits(image_size=16, batch_size=BATCH))
    return trainer


class Watch(Part):
    """Keeps what the discriminator's turns saw."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[dict] = []

    def forward(self, turn: Turn) -> None:
        if turn.player == "discriminator":
            gan = turn.gan
            self.seen.append(
                {
                    "images": gan.clock.images,
                    "level": gan.generator.level,
                    "alpha": gan.generator.alpha,
                    "all": {(m.level, m.alpha) for m in gan.modules() if isinstance(m, Growable)},
                    "real": turn.real,
                    "fake": tuple(turn.fake.shape),
                    "lr": [o.optimizer.param_groups[0]["lr"] for o in gan.player_optimizers.values()],
                }
            )


# ---------------------------------------------------------------------- when


def test_phases_of_the_paper() -> None:
    """800 kimg at 4x4, then 800 kimg for each fade-in and 800 kimg between two of them."""
    with torch.device("meta"):
        gan = ProgressiveGAN(1024, ema=None)
    phases = gan.tricks[0].phases
    stable = [phase.start for phase in phases if not phase.fade]
    fading = [phase.start for phase in phases if phase.fade]
    assert stable == [1_600_000 * level for level in range(9)]
    assert fading == [1_600_000 * level - 800_000 for level in range(1, 9)]
    assert [phase.fade for phase in phases if phase.fade] == [800_000] * 8
    assert [phase.level for phase in phases] == [0, *(level for level in range(1, 9) for _ in range(2))]


def check_time(cls: type[Growing]) -> None:
    """Level, alpha, the data of each turn: a function of the images seen before it."""
    watch = Watch()
    gan = run(growing(cls(**QUICK), parts=[watch]), 15)
    for seen in watch.seen:
        images = seen["images"]
        # 3 batches at 4x4, 4 of fading in, 3 at 8x8, 4 of fading in, then 16x16
        level = 0 if images < 48 else 1 if images < 160 else 2
        alpha = {0: 1.0, 1: min(1, (images - 48) / 64), 2: min(1, (images - 160) / 64)}[level]
        assert seen["all"] == {(level, alpha)}  # both networks and the average
        assert tuple(seen["real"].shape) == seen["fake"] == (BATCH, 1, 4 << level, 4 << level)
    assert [seen["images"] for seen in watch.seen] == list(range(0, 15 * BATCH, BATCH))
    assert gan.generator.level == 2
    assert not gan.generator.fading


class OneLate(Growing):
    def phase_at(self, images: int):
        return super().phase_at(max(0, images - BATCH))


class AverageStaysBehind(Growing):
    def setup(self, gan: GAN) -> None:
        super().setup(gan)
        self.networks = self.networks[:2]


class NeverFades(Growing):
    def before_turn(self, turn: Turn) -> None:
        super().before_turn(turn)
        for network in self.networks:
            network.set_level(network.level)


def test_time() -> None:
    check_time(Growing)
    for mutant in (OneLate, AverageStaysBehind, NeverFades):
        kills(check_time, mutant)


def test_real_images_are_blended_for_everything_in_the_turn() -> None:
    """At the first turn of a fade-in each square of four pixels is one colour; where it is stable, none is."""
    watch = Watch()
    run(growing(Growing(**QUICK), parts=[watch]), 9)

    def is_flat(images: Tensor) -> bool:
        return torch.equal(images[:, :, ::2, ::2].repeat_interleave(2, 2).repeat_interleave(2, 3), images)

    assert [is_flat(seen["real"]) for seen in watch.seen] == [False] * 3 + [True] + [False] * 5


def test_tables_by_resolution_and_a_start() -> None:
    """Numbers hold from their resolution on; a fade-in of no length is none."""
    gan = growing(Growing({8: 0.1, 32: 0.3}, fade_kimg={4: 0.2, 16: 0}, start_resolution=8), size=32)
    phases = [(phase.level, phase.start, phase.fade) for phase in gan.tricks[0].phases]
    assert phases == [(1, 0, 0), (2, 100, 0), (3, 200, 0)]
    assert gan.generator.resolution == 8
    again = build(gan.config())  # plain data has its keys as text
    assert [(p.level, p.start, p.fade) for p in again.tricks[0].phases] == phases


def test_learning_rates_by_resolution() -> None:
    watch = Watch()
    growth = Growing(**QUICK, lr={4: 1.0, 8: 1.5, 16: 0.25})
    run(growing(growth, parts=[watch], discriminator_lr=Linear(1.0, 0.0, to_kimg=1.0)), 12)
    for seen in watch.seen:
        images = seen["images"]
        factor = 1.0 if images < 48 else 1.5 if images < 160 else 0.25
        assert seen["lr"] == pytest.approx([1e-3 * factor, 1e-3 * factor * (1 - images / 1000)])


# ---------------------------------------------------------------------- batches


@pytest.mark.parametrize("accumulate", [1, 2])
def test_batches_by_resolution(accumulate: int) -> None:
    """24 at 4x4, 16 at 8x8, 8 at 16x16; phases begin at 48, 112, 160, 224: no image is left out or comes twice."""
    watch = Watch()
    growth = Growing(**QUICK, batch_size={4: 24, 8: 16, 16: 8})
    gan = growing(growth, parts=[watch], accumulate=accumulate)
    on_digits(gan, max_steps=14)
    sizes = [24] * 2 + [16] * 7 + [8] * 5
    seen = watch.seen[::accumulate]
    assert [len(turn["real"]) * accumulate for turn in seen] == sizes
    assert [turn["images"] for turn in seen] == [sum(sizes[:k]) for k in range(14)]
    assert gan.clock.images == gan.clock.drawn == sum(sizes)


def test_a_boundary_within_a_cycle() -> None:
    """Of three discriminator turns per cycle; images are counted as they were."""
    watch = Watch()
    gan = growing(Growing(**QUICK, batch_size={4: 24, 8: 16}), parts=[watch], play=Play(3, 1))
    on_digits(gan, max_steps=2)
    assert [len(turn["real"]) for turn in watch.seen] == [24, 24, 16, 16, 16, 16]
    assert [turn["level"] for turn in watch.seen] == [0] * 3 + [1] * 3
    assert gan.clock.images == gan.clock.drawn == 112


def check_below(cls: type[Growing]) -> None:
    """Of a table that begins at 16x16, levels below have the data's batches and the rate as it is."""
    gan = growing(cls(**QUICK, batch_size={16: 8}, lr={16: 0.5}))
    assert gan.batch_sizes == [(160, 8), (224, 8)]
    for player in gan.players.values():
        assert [player.lr_schedule(kimg) for kimg in (0.0, 0.1, 0.159, 0.16, 0.3)] == [1.0, 1.0, 1.0, 0.5, 0.5]


class FirstHoldsBelow(Growing):
    """The smallest number of a table for what is below it, too."""

    def __init__(self, *args, batch_size, lr, **options) -> None:
        super().__init__(*args, batch_size={4: batch_size[16]}, lr={4: lr[16]}, **options)


def test_below_a_table() -> None:
    check_below(Growing)
    kills(check_below, FirstHoldsBelow)


def test_data_of_another_size_are_refused_before_training() -> None:
    trainer = quiet_trainer(max_steps=1)
    with pytest.raises(UserError, match=r"Growing ends at 16x16.*\(1, 32, 32\).*image_size"):
        trainer.fit(growing(Growing(**QUICK)), Digits(image_size=32, batch_size=BATCH))


@pytest.mark.parametrize(("stabilize", "fade"), [(0, 0), (0, 0.032), (0.032, 0)])
def test_phases_of_no_length(stabilize: float, fade: float) -> None:
    """The level of each turn is that of the last phase which has begun; batches are those of that phase."""
    watch = Watch()
    sizes = {4: 8, 8: 16, 16: 32}
    on_digits(growing(Growing(stabilize, fade_kimg=fade, batch_size=sizes), parts=[watch]), max_steps=6)
    for seen in watch.seen:
        images = seen["images"]
        both = round(1000 * (stabilize + fade))
        level = 2 if both == 0 else min(2, images // both + (stabilize == 0))
        assert seen["level"] == level
        assert len(seen["real"]) == sizes[4 << level]
        assert seen["alpha"] == (min(1, (images - both * (level - 1)) / 32) if fade else 1.0)


# ---------------------------------------------------------------------- who rests


class Everything(Part):
    """A term that looks at all weights."""

    def forward(self, turn: Turn) -> Tensor:
        return 0.1 * sum(p.square().sum() for p in turn.gan.players[turn.player].trained)


def unused(network: Growable) -> list[nn.Parameter]:
    """What a network at 4x4 with two more levels does not need."""
    modules = [network.blocks[1], network.blocks[2], network.ports[1], network.ports[2]]
    return [p for module in modules for p in module.parameters()]


def check_rest(cls: type[Growing], *parts: Part) -> None:
    """In the first phase the levels above keep their weights, in the average too, and the optimizer knows them not."""
    fresh, gan = growing(None), growing(cls(1.0), parts=list(parts))
    num_groups = [[len(g["params"]) for g in optimizer.param_groups] for optimizer in gan.configure_optimizers()[0]]
    trainer = fit(gan, normal_batches(BATCH, 1, 16, 16), max_steps=3)
    for name in ("generator", "discriminator", "generator_ema"):
        network = getattr(gan, name)
        for now, before in zip(unused(network), unused(getattr(fresh, name)), strict=True):
            assert torch.equal(now, before)
        assert not torch.equal(flat(network.blocks[0]), flat(getattr(fresh, name).blocks[0]))
    for optimizer, network in zip(trainer.optimizers, (gan.generator, gan.discriminator), strict=True):
        known = set(optimizer.state)
        assert not known & set(unused(network))
        assert known == set(network.parameters()) - set(unused(network))
        player = gan.player_of(optimizer)
        assert set(player.active) == known  # what is averaged over ranks
        assert [len(g["params"]) for g in optimizer.param_groups] == num_groups[trainer.optimizers.index(optimizer)]


class NobodyRests(Growing):
    def before_turn(self, turn: Turn) -> None:
        super().before_turn(turn)
        turn.gan.set_dormant([])


def test_levels_above_take_no_part() -> None:
    check_rest(Growing)
    check_rest(Growing, Everything())
    check_rest(Growing, OrthogonalRegularization())
    kills(lambda cls: check_rest(cls, Everything()), NobodyRests)
    kills(check_rest, NobodyRests)  # what would be averaged over ranks


def check_average_rests(cls: type[Growing]) -> None:
    """Levels above keep what the average has of them, even where the generator has something else."""
    gan = growing(cls(1.0))
    with torch.no_grad():
        for p in unused(gan.generator_ema):
            p.add_(1.0)
    before = [p.clone() for p in unused(gan.generator_ema)]
    run(gan, 3)
    assert all(torch.equal(now, old) for now, old in zip(unused(gan.generator_ema), before, strict=True))


def test_the_average_of_levels_above_rests() -> None:
    check_average_rests(Growing)
    kills(check_average_rests, NobodyRests)


@pytest.mark.parametrize(("loss", "penalties"), [(Hinge(), []), (NonSaturating(), [R1(1.0)])])
def test_other_losses_train_every_level(loss, penalties) -> None:
    fresh, gan = growing(None), growing(Growing(**QUICK), loss=loss, penalties=penalties)
    run(gan, 12)
    assert gan.generator.level == 2
    for name in ("generator", "discriminator"):
        for modules in ("blocks", "ports"):
            pairs = zip(getattr(getattr(gan, name), modules), getattr(getattr(fresh, name), modules), strict=True)
            for now, before in pairs:
                assert flat(now).isfinite().all()
                assert not torch.equal(flat(now), flat(before))


def check_retired(cls: type[Growing]) -> None:
    """Behind a fade-in the old port moves no more, though its optimizer has momentum, and is known no longer."""
    gan = growing(cls(**QUICK), generator_optimizer=build(ADAM), discriminator_optimizer=build(ADAM))
    run(gan, 7)  # to the end of the first fade-in
    before = [flat(network.ports[0]) for network in (gan.generator, gan.discriminator)]
    trainer = quiet_trainer(max_steps=3)
    gan.clock.g_turns = 0  # the fit counts anew
    trainer.fit(gan, normal_batches(BATCH, 1, 16, 16, seed=1))
    assert gan.generator.level == 1 and not gan.generator.fading
    for network, old, optimizer in zip((gan.generator, gan.discriminator), before, trainer.optimizers, strict=True):
        assert torch.equal(flat(network.ports[0]), old)
        assert not set(optimizer.state) & set(network.ports[0].parameters())


ADAM = {"class_path": "ganzoo.optim.Adam", "init_args": {"lr": 0.001, "betas": [0.9, 0.99]}}


def test_the_old_port_retires() -> None:
    check_retired(Growing)
    kills(check_retired, NeverStable)


class NeverStable(Growing):
    """The old path stays with a share of nearly nothing."""

    def before_turn(self, turn: Turn) -> None:
        super().before_turn(turn)
        for network in self.networks:
            network.set_level(network.level, min(network.alpha, 0.999))


class Steps(Part):
    """Keeps how many steps Adam counts for the first block of the player's network, and for its newest."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, int]] = []

    def after_step(self, turn: Turn) -> None:
        player = turn.gan.players[turn.player]
        state = turn.gan.player_optimizers[turn.player].optimizer.state
        blocks = player.network.blocks[0], player.network.blocks[player.network.level]
        (first,), (newest,) = ({int(state[p]["step"]) for p in block.parameters()} for block in blocks)
        self.seen.append((first, newest))


def steps(make) -> list[tuple[int, int]]:
    """Of each turn of either player."""
    watch = Steps()
    run(growing(make(**QUICK), parts=[watch]), 11)
    return watch.seen


def check_reset(make) -> None:
    """All moments begin anew when a fade-in begins, after 3 turns, and when it ends, after 7, and after 10."""
    assert steps(make) == [(n, n) for n in (1, 2, 3, 1, 2, 3, 4, 1, 2, 3, 1) for _ in range(2)]


def check_no_reset(make) -> None:
    """Layers that were there go on, new ones count from their first turn."""
    newest = [1, 2, 3, 1, 2, 3, 4, 5, 6, 7, 1]
    assert steps(make) == [(n + 1, new) for n, new in enumerate(newest) for _ in range(2)]


def test_moments() -> None:
    def kept(**options) -> Growing:
        return Growing(**options, reset_moments=False)

    check_reset(Growing)
    check_no_reset(kept)
    kills(check_reset, kept)
    kills(check_no_reset, Growing)


# ---------------------------------------------------------------------- a run that stops and goes on


def stopped_at(folder: Path, steps: int, start: Path | None = None, spoil=None, num_workers=0) -> dict:
    gan = growing(Growing(**QUICK, batch_size={4: 24, 8: 16, 16: 8}, lr={8: 2.0}), stddev_group=4)
    if spoil is not None:
        spoil(gan)
    trainer = quiet_trainer(max_steps=steps)
    torch.manual_seed(4 if start is None else 99)  # another state of the global generator must not matter
    data = Digits(image_size=16, batch_size=BATCH, num_workers=num_workers)
    trainer.fit(gan, data, ckpt_path=start, weights_only=True)
    path = folder / f"{steps}-{start is not None}.ckpt"
    trainer.save_checkpoint(path)
    return {"path": path, **torch.load(path, weights_only=True)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("whole")
        patch.setenv("GANZOO_CACHE", str(folder))
        return stopped_at(folder, 15)


def check_resume(whole: dict, folder: Path, stop: int, spoil=None) -> None:
    parts = stopped_at(folder, 15, stopped_at(folder, stop)["path"], spoil)
    for key in ("state_dict", "optimizer_states", "ganzoo"):
        same(whole[key], parts[key], key)


#: Turns before: 2 at 4x4 (48 images), 4 of fading in (112), 3 at 8x8 (160), 8 of fading in.
@pytest.mark.parametrize("stop", [1, 2, 4, 6, 9, 12])
def test_resume_is_bitwise_inside_a_fade_in_and_at_a_boundary(whole: dict, tmp_path: Path, stop: int) -> None:
    check_resume(whole, tmp_path, stop)


def forget(gan: GAN) -> None:
    """As if level and alpha were no part of the state."""
    for network in gan.tricks[0].networks:
        network.set_extra_state = lambda state: None


def keep_moments(gan: GAN) -> None:
    """As if a run that stopped exactly at a boundary had passed it."""
    gan.tricks[0].reset_moments = False


def test_a_resume_needs_level_and_alpha(whole: dict, tmp_path: Path) -> None:
    kills(lambda spoil: check_resume(whole, tmp_path, 4, spoil), forget)


def test_a_resume_at_a_boundary_resets_moments(whole: dict, tmp_path: Path) -> None:
    kills(lambda spoil: check_resume(whole, tmp_path, 9, spoil), keep_moments)


def test_the_model_of_a_checkpoint_shows_what_it_had(tmp_path: Path) -> None:
    gan = load_model(stopped_at(tmp_path, 5)["path"])  # the last turn was at 80 images
    assert (gan.generator.level, gan.generator.alpha) == (1, 0.5)
    samples = gan.sample(2)
    assert samples.shape == (2, 1, 16, 16)
    assert torch.equal(samples, samples[:, :, ::2, ::2].repeat_interleave(2, 2).repeat_interleave(2, 3))


# ---------------------------------------------------------------------- what is said, what is refused


def test_log_and_progress_tell_the_phase(tmp_path: Path) -> None:
    gan = growing(Growing(**QUICK))
    trainer = quiet_trainer(max_steps=5, callbacks=[Log(0)], default_root_dir=tmp_path)
    trainer.fit(gan, normal_batches(BATCH, 1, 16, 16))
    names, values = (line.split(",") for line in (tmp_path / "metrics.csv").read_text().splitlines())
    row = dict(zip(names, map(float, values), strict=True))
    assert (row["growth/level"], row["growth/alpha"], row["growth/phase"]) == (1, 0.25, 1)
    speed = Speed()
    speed.note(0.0, 0, None)
    shown = describe(trainer, gan, speed, {})
    assert {"level 1", "alpha 0.25", "phase 1", "0.1 kimg"} <= set(shown)


def test_phases_are_counted() -> None:
    gan = growing(Growing(**QUICK))
    found = []
    for level, alpha in ((0, 1.0), (1, 0.0), (1, 1.0), (2, 0.5), (2, 1.0)):
        for network in gan.tricks[0].networks:
            network.set_level(level, alpha)
        found.append(gan.tricks[0].facts()["growth/phase"])
    assert found == [0, 1, 2, 3, 4]


def test_too_small_a_memory_is_told_with_the_phase_s_own_batch() -> None:
    gan = growing(Growing(**QUICK, batch_size={4: 24, 8: 16}), accumulate=2)
    on_digits(gan, max_steps=3)
    sentence = explain_out_of_memory(MemoryError(), gan, Digits(image_size=16, batch_size=32))
    assert "batches of 16 images in 2 pieces of 8; 8 fit: set the batch size of this phase to 8" in str(sentence)
    assert "set model.accumulate to 4" in str(sentence)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stabilize_kimg": -1}, "stabilize_kimg.*0 or more"),
        ({"fade_kimg": {8: -2.0}}, "fade_kimg.*0 or more"),
        ({"stabilize_kimg": float("inf")}, "stabilize_kimg.*finite"),
        ({"batch_size": {4: 0}}, "batch_size.*1 or more"),
        ({"lr": {4: -1.0}}, "lr.*0 or more"),
        ({"lr": {}}, "lr .* empty"),
        ({"stabilize_kimg": {8: 3.0}}, r"nothing below 8.* for 4: add it, such as \{4: 3, 8: 3\}"),
        ({"fade_kimg": {16: 3.0}}, r"fade_kimg.*nothing below 16.* for 8: add it, such as \{8: 3, 16: 3\}"),
        ({"start_resolution": 5}, "start at 5.*4, 8, 16"),
    ],
)
def test_numbers_that_mean_nothing(options, words: str) -> None:
    with pytest.raises(UserError, match=words):
        growing(Growing(**options))


def test_what_does_not_go_together() -> None:
    with pytest.raises(UserError, match=r"DCGANGenerator has no levels.*ProgressiveGAN"):
        DCGAN(16, 1, width=4, parts=[Growing()])
    with pytest.raises(UserError, match="Growing twice"):
        growing(Growing(), parts=[Growing()])
    with pytest.raises(UserError, match=r"batch_size.*no discriminator turns"):
        growing(Growing(batch_size={4: 8}), stages=[Play(0, 1, kimg=1)])
    trainer = quiet_trainer(max_steps=1)
    with pytest.raises(UserError, match=r"batch_size of 6 .*4 micro-batches"):
        trainer.fit(growing(Growing(batch_size={4: 8, 8: 6}), accumulate=4), Digits(image_size=16, batch_size=8))


def test_a_run_that_ends_before_it_has_grown_is_told() -> None:
    """In full size from 2 * 0.048 + 2 * 0.064 kimg on."""
    early = growing(Growing(**QUICK), total_kimg=0.2)  # as it is built to draw samples, too, it is told nothing
    with pytest.warns(UserWarning, match=r"full resolution, 16, from 0\.224 kimg on.*ends at 0\.2: raise total_kimg"):
        early.check_data((1, 16, 16), BATCH)
    early.check_data((1, 16, 16), BATCH)  # once
    growing(Growing(**QUICK), total_kimg=0.3).check_data((1, 16, 16), BATCH)


@pytest.mark.slow
def test_resume_is_bitwise_with_loader_processes(whole: dict, tmp_path: Path) -> None:
    """They hold batches of the next phase already when the run stops."""
    parts = stopped_at(tmp_path, 15, stopped_at(tmp_path, 5, num_workers=2)["path"], num_workers=2)
    for key in ("state_dict", "optimizer_states"):
        same(whole[key], parts[key], key)


def test_it_is_a_part_for_any_model_with_levels() -> None:
    """The networks are all that it asks for."""
    networks = ProgressiveGenerator([4, 4, 4], 1, 5, 0), ProgressiveDiscriminator([4, 4, 4], 1, 0, None)
    watch = Watch()
    run(GAN(*networks, parts=[Growing(**QUICK), watch], loss=NonSaturating()), 5)
    assert [seen["level"] for seen in watch.seen] == [0, 0, 0, 1, 1]


def test_mixed_precision_and_the_way_through_plain_data() -> None:
    gan = run(growing(Growing(**QUICK)), 6, precision="bf16-mixed")
    exact = run(growing(Growing(**QUICK)), 6)
    assert 0 < (flat(gan) - flat(exact)).abs().max() < 0.1
    again = build(exact.config())
    assert again.config() == exact.config()
    again.load_state_dict(exact.state_dict())
    again.clock.load(exact.clock.state())
    again.step_seconds = 0.0
    for one in (exact, again):
        torch.manual_seed(0)
        run(one, 9)
    assert max_difference(exact.state_dict(), again.state_dict()) == 0.0
