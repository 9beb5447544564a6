"""The alternation of turns: P1 to P3, P5, P6 and the count of steps."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from ganzoo.errors import TrainingError, UserError
from ganzoo.gan import GAN
from ganzoo.losses import AdversarialLoss, NonSaturating, Wasserstein
from ganzoo.models import DCGAN, MLPGAN
from ganzoo.optim import SGD, Adam
from ganzoo.parts import Part, Turn
from ganzoo.plan import Play
from ganzoo.players import Clip
from ganzoo.schedules import Linear
from tests.common import Critic, Endless, fit, flat, normal_batches, quiet_trainer


class Spy(Part):
    """Keeps what it sees at each hook of each turn."""

    def __init__(self) -> None:
        super().__init__()
        self.turns: list[tuple[str, int]] = []
        self.states: list[tuple[str, str, dict]] = []
        self.real: list[torch.Tensor] = []
        self.latents: list[torch.Tensor] = []
        self.rates: list[tuple[float, float, float]] = []

    def before_turn(self, turn: Turn) -> None:
        self.turns.append((turn.player, turn.number))
        self.states.append((turn.player, "before", copy.deepcopy(turn.gan.state_dict())))
        g, d = turn.gan.trainer.optimizers
        self.rates.append((turn.kimg, g.param_groups[0]["lr"], d.param_groups[0]["lr"]))

    def forward(self, turn: Turn) -> None:
        self.latents.append(turn.latents.clone())
        if turn.player == "discriminator":
            self.real.append(turn.real.clone())

    def after_step(self, turn: Turn) -> None:
        self.states.append((turn.player, "after", copy.deepcopy(turn.gan.state_dict())))


def moved(before: dict, after: dict, prefix: str) -> list[str]:
    return [k for k in before if k.startswith(prefix) and not torch.equal(before[k], after[k])]


class SpectralCritic(nn.Module):
    """Spectral and batch normalization, and a buffer of a kind that the loop knows nothing about."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = spectral_norm(nn.Linear(64, 8)), nn.BatchNorm1d(8), nn.Linear(8, 1)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x, labels=None):
        self.calls += 1
        return self.last(self.norm(self.first(x.flatten(1)))).squeeze(1)


def test_a_turn_moves_nothing_of_the_other_player() -> None:
    """P1: no parameter, no running statistic, no spectral vector and no other buffer of the idle network."""
    spy = Spy()
    generator = DCGAN(8, 1, width=4).generator
    gan = GAN(generator, SpectralCritic(), parts=[spy], total_kimg=0.064)
    fit(gan, normal_batches(16, 1, 8, 8))
    assert len(spy.states) == 16
    for (player, _, before), (_, _, after) in zip(spy.states[::2], spy.states[1::2], strict=True):
        idle = {"generator": "discriminator", "discriminator": "generator"}[player]
        assert moved(before, after, f"{idle}.") == []
        own = moved(before, after, f"{player}.")
        if player == "generator":
            assert set(own) == {k for k in before if k.startswith("generator.")}  # weights and running statistics
        else:
            names = {"first.parametrizations.weight.0._u", "norm.running_mean", "calls", "last.weight"}
            assert {f"discriminator.{n}" for n in names} <= set(own)


def test_idle_batch_norm_still_uses_the_statistics_of_the_batch() -> None:
    gan = DCGAN(8, 1, width=4)
    player = gan.players["generator"]
    latents = torch.randn(6, 100)
    expected = gan.generator(latents)
    with player.resting():
        assert torch.equal(gan.generator(latents), expected)
    gan.generator.eval()
    assert not torch.allclose(gan.generator(latents), expected)


@pytest.mark.parametrize(("d", "g"), [(1, 1), (5, 1), (1, 2), (3, 2)])
def test_turns_are_counted_exactly_and_each_d_turn_has_a_fresh_batch(d: int, g: int) -> None:
    """P2, and steps are generator updates whatever the ratio."""
    spy = Spy()
    gan = MLPGAN(hidden=4, parts=[spy], play=Play(d, g))
    loader = normal_batches(8, 2)
    trainer = fit(gan, loader, max_steps=4 * g)
    cycle = [("discriminator", k) for k in range(d)] + [("generator", k) for k in range(g)]
    expected = [(p, n + c * (d if p == "discriminator" else g)) for c in range(4) for p, n in cycle]
    assert spy.turns == expected
    assert trainer.global_step == gan.clock.g_turns == 4 * g
    assert gan.clock.images == 4 * d * 8
    assert len(spy.real) == 4 * d
    assert all(torch.equal(a, b) for a, b in zip(spy.real, loader.given, strict=False))
    assert len({x.sum().item() for x in spy.latents}) == len(spy.latents)  # no latents twice


def test_a_plan_in_stages_moves_the_ratio_over_time() -> None:
    """P3: D alone for 40 images, G alone for 24 generated ones, D twice per cycle for 32, then one to one."""
    spy = Spy()
    stages = [Play(1, 0, kimg=0.040), Play(0, 1, kimg=0.024), Play(2, 1, kimg=0.032)]
    gan = MLPGAN(hidden=4, parts=[spy], stages=stages, total_kimg=0.088)

    class Data(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(normal_batches(8, 2))

    import lightning.pytorch as L

    class Module(L.LightningDataModule):
        batch_size = 8

        def train_dataloader(self):
            return torch.utils.data.DataLoader(Data(), batch_size=None)

    fit(gan, Module())
    letters = "".join(player[0] for player, _ in spy.turns)
    assert letters == "d" * 5 + "g" * 3 + "ddg" * 2 + "dg" * 2
    assert (gan.clock.stage, gan.clock.images, gan.clock.d_turns, gan.clock.g_turns) == (3, 88, 11, 7)


@pytest.mark.parametrize(
    ("options", "trainer"),
    [({}, {}), ({"play": Play(0, 1), "total_kimg": 1.0}, {}), ({"play": Play(1, 0)}, {"max_steps": 5})],
)
def test_a_plan_that_could_never_end_is_refused(options, trainer) -> None:
    with pytest.raises(UserError, match="would never end"):
        fit(MLPGAN(hidden=4, **options), normal_batches(8, 2), **trainer)


def test_stages_need_a_length_and_the_last_play_has_none() -> None:
    with pytest.raises(UserError, match="Stage 0"):
        MLPGAN(stages=[Play(1, 0)])
    with pytest.raises(UserError, match="lasts to the end"):
        MLPGAN(play=Play(1, 1, kimg=5))
    with pytest.raises(UserError, match="at least one"):
        Play(0, 0)


def test_learning_rates_follow_their_schedules_per_player() -> None:
    """P5 and P8: TTUR, each rate on its own schedule, at the kimg when the cycle begins."""
    spy = Spy()
    gan = MLPGAN(
        hidden=4,
        parts=[spy],
        generator_optimizer=Adam(1e-4),
        discriminator_optimizer=Adam(4e-4),
        generator_lr=Linear(1.0, 0.0, to_kimg=0.08),
        discriminator_lr=0.5,
        total_kimg=0.08,
    )
    fit(gan, normal_batches(8, 2))
    assert len(spy.rates) == 20
    for kimg, g, d in spy.rates:
        assert g == pytest.approx(1e-4 * (1 - kimg / 0.08))
        assert d == pytest.approx(2e-4)


class Gradients(Part):
    """Keeps the gradient that reaches the optimizer, by watching the step of plain SGD with rate 1."""

    def before_turn(self, turn: Turn) -> None:
        self.before = {n: flat(p.network) for n, p in turn.gan.players.items()}

    def after_step(self, turn: Turn) -> None:
        kept = self.__dict__.setdefault("kept", {"generator": [], "discriminator": []})
        kept[turn.player].append(self.before[turn.player] - flat(turn.gan.players[turn.player].network))


def gradients(clips: dict, **options) -> dict[str, list[torch.Tensor]]:
    torch.manual_seed(3)
    watch = Gradients()
    rates = {"generator_optimizer": SGD(1.0), "discriminator_optimizer": SGD(1.0)}
    gan = MLPGAN(hidden=8, loss=Wasserstein(), parts=[watch], **rates, **clips)
    fit(gan, normal_batches(8, 2), max_steps=1, **options)
    return watch.__dict__["kept"]


def test_clipping_acts_per_network() -> None:
    """P6: the norm after clipping is min(norm, bound), each value at most its bound, and the other player is free."""
    free = gradients({})
    norms = {name: steps[0].norm().item() for name, steps in free.items()}
    half = norms["discriminator"] / 2
    clipped = gradients({"discriminator_clip": Clip(half)})
    assert clipped["discriminator"][0].norm().item() == pytest.approx(half, rel=1e-4)
    assert torch.allclose(clipped["discriminator"][0], free["discriminator"][0] / 2, atol=1e-6)
    above = gradients({"discriminator_clip": Clip(norms["discriminator"] * 2)})
    assert torch.equal(above["discriminator"][0], free["discriminator"][0])
    bound = free["generator"][0].abs().max().item() / 3
    by_value = gradients({"generator_clip": Clip(value=bound)})
    assert torch.equal(by_value["discriminator"][0], free["discriminator"][0])
    assert torch.allclose(by_value["generator"][0], free["generator"][0].clamp(-bound, bound), atol=1e-6)


def test_clipping_is_of_unscaled_gradients_under_a_loss_scaler() -> None:
    """P6: with fp16's scaler the unscaled gradient is what is clipped."""
    from lightning.pytorch.plugins import MixedPrecision

    free = gradients({})
    half = free["discriminator"][0].norm().item() / 2
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=1024.0))
    clipped = gradients({"discriminator_clip": Clip(half)}, plugins=[plugin])
    assert clipped["discriminator"][0].norm().item() == pytest.approx(half, rel=2e-2)
    cosine = torch.cosine_similarity(clipped["discriminator"][0], free["discriminator"][0], dim=0)
    assert cosine > 0.999


def test_fused_adam_is_clipped_under_a_loss_scaler_too() -> None:
    """A fused optimizer unscales inside its step unless told otherwise, which is after the clipping."""
    from lightning.pytorch.plugins import MixedPrecision

    seen = []

    class Look(Part):
        def after_step(self, turn: Turn) -> None:
            if turn.player == "discriminator":
                seen.append(torch.cat([p.grad.flatten() for p in turn.gan.discriminator.parameters()]).norm().item())

    torch.manual_seed(3)
    gan = MLPGAN(hidden=8, parts=[Look()], discriminator_clip=Clip(0.01))
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
    trainer = fit(gan, normal_batches(8, 2), max_steps=2, plugins=[plugin])
    assert trainer.precision_plugin.scaler.get_scale() == 65536
    assert seen == pytest.approx([0.01, 0.01], rel=1e-3)


def test_accumulated_micro_batches_equal_one_batch() -> None:
    batches = [torch.randn(12, 2, generator=torch.Generator().manual_seed(k)) for k in range(3)]
    results = []
    for accumulate in (1, 3):
        torch.manual_seed(0)
        gan = MLPGAN(hidden=8, accumulate=accumulate, generator_optimizer=SGD(0.1), discriminator_optimizer=SGD(0.1))
        micro = [piece for batch in batches for piece in batch.chunk(accumulate)]
        fit(gan, Endless(lambda k, micro=micro: micro[k % len(micro)]), max_steps=3)
        results.append(flat(gan))
        assert gan.clock.images == 36
    assert torch.allclose(results[0], results[1], atol=1e-6)


def test_real_batch_of_the_last_d_turn_serves_a_generator_loss_that_needs_it() -> None:
    seen = []

    class Look(AdversarialLoss):
        needs_real = True

        def discriminator(self, real_logits, fake_logits):
            return NonSaturating().discriminator(real_logits, fake_logits)

        def generator(self, fake_logits, real_logits=None):
            seen.append(real_logits.detach().clone())
            return NonSaturating().generator(fake_logits)

    class Keep(Part):
        players = ("generator",)

        def forward(self, turn: Turn) -> None:
            kept.append((turn.real.clone(), turn.gan.discriminator(turn.real).detach().clone()))

    kept: list = []
    gan = MLPGAN(hidden=4, loss=Look(), parts=[Keep()], play=Play(2, 1), generator_optimizer=SGD(0.1))
    loader = normal_batches(8, 2)
    fit(gan, loader, max_steps=2)
    assert torch.equal(kept[0][0], loader.given[1])
    assert torch.equal(seen[0], kept[0][1])
    assert gan.clock.images == gan.clock.drawn == 32


def test_frozen_parameters_stay_frozen() -> None:
    """FreezeD: what the user froze is neither moved nor unfrozen by the turns."""
    gan = MLPGAN(hidden=4, num_layers=2, total_kimg=0.032)
    frozen = gan.discriminator.layers[0]
    frozen.requires_grad_(False)
    before = flat(frozen)
    fit(gan, normal_batches(8, 2))
    assert torch.equal(flat(frozen), before)
    flags = [p.requires_grad for p in gan.discriminator.parameters()]
    assert flags == [False, False] + [True] * (len(flags) - 2)


def test_a_generator_turn_leaves_the_gradients_of_the_discriminator_alone() -> None:
    seen: dict[str, list[torch.Tensor]] = {"before": [], "after": []}

    class Watch(Part):
        players = ("generator",)

        def before_turn(self, turn: Turn) -> None:
            seen["before"].append(torch.cat([p.grad.flatten().clone() for p in turn.gan.discriminator.parameters()]))

        def after_backward(self, turn: Turn) -> None:
            seen["after"].append(torch.cat([p.grad.flatten().clone() for p in turn.gan.discriminator.parameters()]))

    fit(MLPGAN(hidden=4, parts=[Watch()]), normal_batches(8, 2), max_steps=3)
    assert len(seen["before"]) == 3
    assert all(torch.equal(a, b) for a, b in zip(*seen.values(), strict=True))


@pytest.mark.parametrize("hook", ["on_before_optimizer_step", "on_after_backward", "on_before_backward", ""])
def test_lightnings_hooks_are_called_where_somebody_listens_and_change_nothing(hook) -> None:
    import lightning.pytorch as L

    calls = []

    class Listener(L.Callback):
        pass

    if hook:
        setattr(Listener, hook, lambda self, *args: calls.append(hook))
    torch.manual_seed(5)
    gan = MLPGAN(hidden=4, discriminator_clip=Clip(0.05), play=Play(2, 1))
    trainer = fit(gan, normal_batches(8, 2), max_steps=4, callbacks=[Listener()])
    assert len(calls) == (12 if hook else 0)
    assert trainer.global_step == 4
    torch.manual_seed(5)
    plain = MLPGAN(hidden=4, discriminator_clip=Clip(0.05), play=Play(2, 1))
    fit(plain, normal_batches(8, 2), max_steps=4)
    assert plain._is_plain
    assert gan._is_plain == (not hook)
    assert torch.equal(flat(gan), flat(plain))


def test_flags_are_restored_after_an_error() -> None:
    player = MLPGAN(hidden=4).players["discriminator"]
    with pytest.raises(ZeroDivisionError), player.frozen():
        assert not any(p.requires_grad for p in player.parameters)
        raise ZeroDivisionError
    assert all(p.requires_grad for p in player.parameters)


def test_weights_cast_for_autocast_are_fresh_in_each_turn() -> None:
    """Autocast may keep half-precision copies of weights until its outermost block ends, which spans all turns."""
    runs = []
    for step_seconds, play in ((0.0, Play(3, 1)), (0.05, Play(3, 1))):
        torch.manual_seed(0)
        gan = MLPGAN(hidden=8, play=play, generator_optimizer=SGD(0.5), discriminator_optimizer=SGD(0.5))
        gan.step_seconds = step_seconds
        fit(gan, normal_batches(8, 2), max_steps=3, precision="bf16-mixed")
        runs.append(torch.cat([flat(gan.generator), flat(gan.discriminator)]))
    by_hand = _reference_bf16(3, 3)
    assert torch.equal(runs[0], runs[1])
    assert torch.allclose(runs[0], by_hand, atol=1e-6)


def _reference_bf16(cycles: int, d: int) -> torch.Tensor:
    """The same turns, each in an autocast block of its own."""
    from ganzoo import streams

    torch.manual_seed(0)
    gan = MLPGAN(hidden=8)
    loss, batches, turn = NonSaturating(), iter(normal_batches(8, 2)), {"discriminator": 0, "generator": 0}

    def latents(name: str) -> torch.Tensor:
        with streams.stream(0, name, turn[name], start=0, num=8, total=8, device=torch.device("cpu")):
            return streams.randn(8, 2, purpose="latent")

    def step(network: nn.Module, value: torch.Tensor) -> None:
        grads = torch.autograd.grad(value, list(network.parameters()))
        for p, g in zip(network.parameters(), grads, strict=True):
            p.data -= 0.5 * g

    for _ in range(cycles):
        for _ in range(d):
            with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
                with torch.no_grad():
                    fake = gan.generator(latents("discriminator")).float()
                logits = gan.discriminator(next(batches)), gan.discriminator(fake)
            step(gan.discriminator, loss.discriminator(*logits))
            turn["discriminator"] += 1
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            logits_g = gan.discriminator(gan.generator(latents("generator")).float())
        step(gan.generator, loss.generator(logits_g))
        turn["generator"] += 1
    return torch.cat([flat(gan.generator), flat(gan.discriminator)])


def test_a_loss_that_is_not_finite_is_named_with_its_turn() -> None:
    class Poison(Part):
        players = ("discriminator",)

        def forward(self, turn: Turn):
            return turn.fake_logits.sum() * float("nan") if turn.number == 5 else None

    gan = MLPGAN(hidden=4, parts=[Poison()], total_kimg=0.08)
    fit(gan, normal_batches(8, 2))
    with pytest.raises(TrainingError, match="total/d is not finite since turn 5 of its player"):
        gan.check_finite()


def test_a_loader_with_a_smaller_last_batch_is_refused_within_a_cycle() -> None:
    batches = [torch.randn(8, 2), torch.randn(4, 2)]
    with pytest.raises(UserError, match=r"batches of \[4, 8\]"):
        fit(MLPGAN(hidden=4, play=Play(2, 1)), Endless(lambda k: batches[k % 2]), max_steps=1)


def test_a_stage_without_data_needs_to_know_the_batch_size() -> None:
    with pytest.raises(UserError, match="batch_size"):
        fit(MLPGAN(hidden=4, stages=[Play(0, 1, kimg=1)]), normal_batches(8, 2), max_steps=1)


def test_a_resume_takes_the_hyperparameters_of_the_recipe(tmp_path) -> None:
    """The optimizer's state in a checkpoint holds the old ones."""
    first = MLPGAN(hidden=4)
    fit(first, normal_batches(8, 2), max_steps=2).save_checkpoint(tmp_path / "a.ckpt")
    still = MLPGAN(hidden=4, generator_optimizer=Adam(0.0, (0.1, 0.2)))
    trainer = quiet_trainer(max_steps=4)
    trainer.fit(still, normal_batches(8, 2), ckpt_path=tmp_path / "a.ckpt", weights_only=True)
    assert torch.equal(flat(still.generator), flat(first.generator))
    assert trainer.optimizers[0].param_groups[0]["betas"] == (0.1, 0.2)
    assert not torch.equal(flat(still.discriminator), flat(first.discriminator))


def test_a_buffer_of_a_part_counts_in_the_turns_of_both_players() -> None:
    class Count(Part):
        players = ("generator",)

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(()))

        def forward(self, turn: Turn) -> None:
            self.mean += 1

    gan = MLPGAN(hidden=4, parts=[Count()])
    fit(gan, normal_batches(8, 2), max_steps=5)
    assert gan.tricks[0].mean.item() == 5


@pytest.mark.parametrize(("precision", "expected"), [("32-true", True), ("bf16-mixed", False)])
def test_a_turn_says_whether_its_own_passes_were_of_full_precision(precision, expected) -> None:
    seen = []

    class Look(Part):
        def forward(self, turn: Turn) -> None:
            seen.append((turn.full_precision, turn.fake_logits.dtype == torch.float32))

    fit(MLPGAN(hidden=4, parts=[Look()]), normal_batches(8, 2), max_steps=1, precision=precision)
    assert seen == [(expected, expected)] * 2


def test_conditional_model_without_labels_is_refused() -> None:
    with pytest.raises(UserError, match="came without labels"):
        fit(MLPGAN(hidden=4, num_classes=3, total_kimg=1.0), normal_batches(8, 2))


def test_unfit_options_are_refused() -> None:
    with pytest.raises(UserError, match="accumulate was 0"):
        MLPGAN(accumulate=0)
    with pytest.raises(UserError, match="total_kimg was -1"):
        MLPGAN(total_kimg=-1)
    with pytest.raises(UserError, match="clipping norm was 0"):
        Clip(0)
    with pytest.raises(UserError, match="An interval of -1 kimg"):
        GAN(MLPGAN().generator, Critic(2)).add_mark(-1)
