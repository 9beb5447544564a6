"""The one training loop: discriminator and generator take turns.

Written once, since the alternation of turns is where the bugs of GANs live. Everything that differs between
papers is a part or a pair of networks; nothing in this file knows any of them by name.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any, cast

import lightning.pytorch as L
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from ganzoo import internals, streams
from ganzoo.batches import Real, joint_sizes, prepared
from ganzoo.ema import EMA, Follower
from ganzoo.errors import TrainingError, UserError
from ganzoo.fakes import Made, make_ahead, provide
from ganzoo.generator import Generator
from ganzoo.graphs import Graphs
from ganzoo.judging import judge, shown
from ganzoo.latents import Latents
from ganzoo.layers.coupling import sample_group
from ganzoo.losses import AdversarialLoss
from ganzoo.meter import Meter
from ganzoo.parts import Part, PlayerName, Turn
from ganzoo.plan import Clock, Plan
from ganzoo.players import Player
from ganzoo.precision import full_precision, is_autocast
from ganzoo.schedules import Schedule


class Loop(L.LightningModule):
    """Turns, cycles and their clock. :class:`ganzoo.gan.GAN` builds what is declared here."""

    step_seconds = 0.2  #: a training step holds as many cycles as fit into this time; 0: exactly one

    generator: Generator
    discriminator: nn.Module
    generator_ema: nn.Module | None
    loss: AdversarialLoss
    latents: Latents
    ema: EMA | None
    tricks: list[Part]
    players: dict[PlayerName, Player]
    plan: Plan
    num_classes: int
    accumulate: int
    total_kimg: float | None
    adversarial_weight: float | Schedule
    seed: int  #: of all keyed random numbers; that of ``seed_everything`` when training begins

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.clock, self.meter, self.seed = Clock(), Meter(), 0
        self.stop_requested = False  #: set by a callback that wants the training step to end after this cycle
        #: Sizes of the joint batch, each from a place in the data's stream on, in rising order; none: the data's own.
        self.batch_sizes: list[tuple[int, int]] = []
        self._marks: set[float] = set()
        self._may_bundle = self._is_plain = False
        #: In groups of how many samples real and fake may pass the discriminator as one batch; 0: they may not.
        self.judges_in_groups = 0
        self.wants_graphs = False  #: whether turns are to be recorded and replayed, from the next fit on
        self.graphs: Graphs | None = None  #: those of this fit; none: turns run as they are written

    @property
    def complete(self) -> bool:
        """Whether the run has seen ``total_kimg``."""
        return self.total_kimg is not None and self.clock.images >= self.total_kimg * 1000

    def training_step(self, dataloader_iter: Iterator[Any]) -> None:
        """Cycles until something else is due, or ``step_seconds`` have passed.

        Lightning's own work around a training step costs as much as a cycle of small networks. So a step holds as
        many cycles as fit into a moment, and ends where a callback's mark, a stop or the step budget is reached.
        """
        internals.count_steps_of(self.player_optimizers, "generator", self.trainer)
        if self.graphs is not None:
            self.graphs.check()
        until = time.monotonic() + (self.step_seconds if self._may_bundle else 0.0)
        while True:
            self.cycle(dataloader_iter)
            if self._due() or time.monotonic() >= until:
                return

    def cycle(self, loader: Iterator[Any]) -> None:
        """The discriminator's turns, each on a fresh real batch, then the generator's."""
        play, clock = self.plan.current(self.clock), self.clock
        # Everything is fetched before anything moves: data that ends can only end between two cycles.
        needs_real = self.loss.needs_real or any(part.needs_real for part in self.tricks)
        num_batches = max(play.d, int(play.g > 0 and needs_real))
        batches = [[next(loader)[0] for _ in range(self.accumulate)] for _ in range(num_batches)]
        sizes = joint_sizes(self, batches)
        for name, player in self.players.items():
            player.set_learning_rate(self.player_optimizers[name].optimizer, clock.kimg)
        shared: list[Made] | None = [] if play.shared else None
        for i, (batch, size) in enumerate(zip(batches[: play.d], sizes, strict=False)):
            self._take_turn("discriminator", batch, size, shared if i == play.d - 1 else None)
            clock.d_turns += 1
        for i in range(play.g):
            self._take_turn("generator", batches[-1] if batches else None, sizes[-1], shared if i == 0 else None)
            clock.g_turns += 1
        clock.drawn += sum(sizes[:num_batches])
        judged, generated = sum(sizes[: play.d]), play.g * sizes[-1]
        self.plan.end_cycle(clock, judged, generated)
        if play.g:
            self._update_ema(judged or generated)
        if self.complete:
            self.trainer.should_stop = True

    def _take_turn(self, name: PlayerName, batch: list[Any] | None, size: int, ahead: list[Made] | None = None) -> None:
        """One update of one player on a joint batch of ``size``, of which ``batch`` are this rank's micro-batches."""
        number = self.clock.d_turns if name == "discriminator" else self.clock.g_turns
        turn = Turn(self, name, number, self.clock.kimg, ahead=ahead)
        turn.full_precision = not is_autocast(self.device)
        if self.graphs is None:
            self.update(turn, batch, size)
        else:
            self.graphs.take(turn, batch, size)

    def update(self, turn: Turn, batch: list[Any] | None, size: int) -> None:
        """All that a turn does, from the first hook of the parts to the last."""
        name = turn.player
        parts = [part for part in self.tricks if name in part.players]
        opponent = self.players["generator" if name == "discriminator" else "discriminator"]
        optimizer = self.player_optimizers[name]
        optimizer.zero_grad()
        for part in parts:
            part.before_turn(turn)
        shares = turn.ahead is not None
        if shares and name == "discriminator":
            assert batch is not None
            make_ahead(self, turn, batch, size)
        with ExitStack() as stack:
            stack.enter_context(self.players[name].moving(steps=not (shares and name == "generator")))
            stack.enter_context(opponent.resting())
            if name == "generator":  # in the other turn the generator runs without a graph
                stack.enter_context(opponent.frozen())
            for m in range(self.accumulate):
                with self.drawing(turn, m, size):
                    if batch is not None:
                        batch[m] = self._prepare(batch[m])
                    loss = self._loss(turn, parts, batch[m] if batch else None, self._micro(size), m)
                    self._backward(loss / self.accumulate if self.accumulate > 1 else loss)
        for part in parts:
            part.after_backward(turn)
        for p in self.players[name].dormant:
            p.grad = None  # of a term that looks at all weights
        self._step(optimizer)
        for part in parts:
            part.after_step(turn)

    def drawing(self, turn: Turn, m: int, size: int) -> AbstractContextManager[None]:
        """A block whose random numbers are those of this rank's micro-batch ``m`` in a turn on ``size`` samples."""
        micro = self._micro(size)
        start = (m * self.trainer.world_size + self.global_rank) * micro
        streams.seed_global(self.device, self.seed, turn.player, turn.number, "global", start)
        parts = (self.seed, turn.player, turn.number)
        return streams.stream(*parts, start=start, num=micro, total=size, device=self.device)

    def _micro(self, size: int) -> int:
        """How many samples of a joint batch of ``size`` are a micro-batch of one rank."""
        return size // (self.trainer.world_size * self.accumulate)

    def _loss(self, turn: Turn, parts: list[Part], real: Real | None, micro: int, m: int = 0) -> Tensor:
        """The player's loss on one micro-batch, the turn's ``m``-th."""
        is_d = turn.player == "discriminator"
        if real is not None:
            data, turn.real_labels = real
            for part in parts:
                data = part.prepared(turn, data)
            turn.real = data.detach().requires_grad_(turn.track_real)
        provide(self, turn, parts, m, micro)
        real_logits, fake_logits = judge(self, turn)
        if is_d and turn.number == 0:
            self.loss.check_logits(fake_logits)
        with full_precision(self.device):
            for part in parts:
                real_logits, fake_logits = part.logits(turn, real_logits, fake_logits)
            turn.judged_real, turn.judged_fake = real_logits, fake_logits
            if is_d:
                assert real_logits is not None
                loss = self.loss.discriminator(real_logits, fake_logits)
                turn.logs["logits/real"], turn.logs["logits/fake"] = real_logits.mean(), fake_logits.mean()
            else:
                loss = self.loss.generator(fake_logits, real_logits)
            turn.logs["loss/d" if is_d else "loss/g"] = loss
            return self._add_terms(loss, turn, parts)

    def _add_terms(self, loss: Tensor, turn: Turn, parts: list[Part]) -> Tensor:
        weight = turn.value_of(self.adversarial_weight)
        total = loss if isinstance(weight, float) and weight == 1.0 else loss * weight
        for part in parts:
            term = part(turn)
            if term is not None:
                total = total + term
                turn.logs["total/d" if turn.player == "discriminator" else "total/g"] = total
        for name, value in turn.logs.items():
            self.meter.add(name, value.detach(), turn.number)
        turn.logs.clear()
        return total

    def _backward(self, loss: Tensor) -> None:
        """Outside of autocast, or even float32 passes would get half-precision gradients."""
        with full_precision(self.device):
            if self._is_plain:
                loss.backward()  # type: ignore[no-untyped-call]  # torch's own
            else:
                self.manual_backward(loss)

    def _step(self, optimizer: LightningOptimizer) -> None:
        if self._is_plain:
            optimizer._on_before_step()
            self.on_before_optimizer_step(optimizer.optimizer)
            optimizer.optimizer.step()
            optimizer._on_after_step()
        else:
            optimizer.step()

    # ------------------------------------------------------------------ the networks and the batch

    def generate(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """The generator's output in float32, for latents of shape (N, latent_dim)."""
        fake: Tensor = self.generator(latents, labels)
        return fake.float()

    def discriminate(self, data: Tensor, labels: Tensor | None, turn: Turn, network: nn.Module | None = None) -> Tensor:
        """The logits of the discriminator, or of another ``network``, for data as the parts change it."""
        return turn.call(network or self.discriminator, *shown(self, data, labels, turn))

    def _prepare(self, batch: Any) -> Real:
        return prepared(self, batch)

    # ------------------------------------------------------------------ between the turns

    def add_mark(self, every_kimg: float) -> None:
        """Have a training step end wherever a multiple of ``every_kimg`` is reached, for a callback that acts there."""
        if not every_kimg >= 0:
            raise UserError(f"An interval of {every_kimg} kimg was asked for; give a positive number, or 0 for never.")
        self._marks.add(float(every_kimg))

    def check_finite(self) -> None:
        """Wait for the device and look at every scalar since the last log.

        Raises:
            TrainingError: When one is not finite; the sentence names it, its turn and the time.
        """
        bad = self.meter.first_bad()
        if bad is not None:
            name, turn = bad
            raise TrainingError(
                f"{name} is not finite since turn {turn} of its player, before {self.clock.kimg:g} kimg: lower the "
                "learning rate, add a penalty such as R1, or train in 32-bit precision."
            )

    def _due(self) -> bool:
        """Whether the training step must end after this cycle."""
        clock, trainer = self.clock, self.trainer
        out_of_steps = 0 <= trainer.max_steps <= clock.g_turns
        return trainer.should_stop or self.stop_requested or out_of_steps or any(map(clock.crossed, self._marks))

    def set_dormant(self, parameters: Iterable[nn.Parameter]) -> None:
        """Until the next call these parameters take no part: no step, no average over ranks or over time."""
        dormant = frozenset(parameters)
        for player in self.players.values():
            player.dormant = dormant.intersection(player.parameters)
        self._follow()

    def _follow(self) -> None:
        if self.generator_ema is not None:
            self._follower = Follower(self.generator_ema, self.generator, self.players["generator"].dormant)

    def _update_ema(self, images: int) -> None:
        if self.ema is not None:
            self._follower.follow(self.ema.decay(images, self.clock.images))

    def _begin(self) -> None:
        """When all tensors are on their device: list them once, which is slow."""
        trainer = self.trainer
        # Ranks must agree on the number of cycles per step, and a finite loader counts in steps.
        self._may_bundle = trainer.world_size == 1 and trainer.num_training_batches == float("inf")
        self._is_plain = internals.adds_nothing(trainer, self, Loop)
        self.judges_in_groups = sample_group(self.discriminator)
        self.player_optimizers = dict(zip(self.players, cast(list[LightningOptimizer], self.optimizers()), strict=True))
        for name, player in self.players.items():
            player.on_device()
            player.set_hyperparameters(self.player_optimizers[name].optimizer)
        self._follow()
        self.graphs = Graphs.of(self, is_plain=self._is_plain) if self.wants_graphs else None

    # ------------------------------------------------------------------ optimizers

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip here: gradients are averaged over ranks and unscaled by now."""
        player = self.player_of(optimizer)
        if player.clip is not None:
            player.clip(player.trained)

    def player_of(self, optimizer: torch.optim.Optimizer) -> Player:
        """Whose optimizer this is; Lightning keeps them in the order of ``configure_optimizers``."""
        return self.players["generator" if self.trainer.optimizers[0] is optimizer else "discriminator"]

    def configure_optimizers(self) -> Any:
        return [player.new_optimizer() for player in self.players.values()], []
