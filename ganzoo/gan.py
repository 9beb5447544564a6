"""The one training loop: a GAN as a LightningModule whose discriminator and generator take turns.

Everything that differs between papers is a part (losses, penalties, augmentations, schedules) or a pair of
networks; nothing in this file knows any of them by name.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import Timer
from torch import Tensor, nn

from ganzoo import checkpoint, streams
from ganzoo.config import Config, Configurable, build, default
from ganzoo.ema import EMA, averaged_copy, update_average
from ganzoo.errors import TrainingError, UserError
from ganzoo.latents import Latents, Normal
from ganzoo.losses import AdversarialLoss, NonSaturating
from ganzoo.meter import Meter
from ganzoo.optim import Adam, Optimizer
from ganzoo.parts import Part, Penalty, PlayerName, Turn
from ganzoo.plan import Clock, Plan, Play
from ganzoo.players import Clip, Player
from ganzoo.schedules import Schedule, value_at
from ganzoo.strategy import check_strategy


class Generator(nn.Module):
    """Base of all generators: ``forward(latents, labels)`` with latents of shape (N, latent_dim)."""

    latent_dim: int


class GAN(Configurable, L.LightningModule):
    """A generator and a discriminator, trained in turns.

    Sub-classes build the two networks; their signature is a paper's recipe. All time is in kimg: thousands of
    real images that discriminator turns consumed, over all ranks.
    """

    step_seconds = 0.05  #: a training step holds as many cycles as fit into this time; 0: exactly one

    def __init__(
        self,
        generator: Generator,
        discriminator: nn.Module,
        *,
        num_classes: int = 0,
        loss: AdversarialLoss = default(NonSaturating),
        penalties: list[Penalty] = [],  # noqa: B006  never changed; a tuple would not be a list in YAML
        parts: list[Part] = [],  # noqa: B006
        latents: Latents = default(Normal),
        generator_optimizer: Optimizer = default(Adam),
        discriminator_optimizer: Optimizer = default(Adam),
        generator_lr: float | Schedule = 1.0,
        discriminator_lr: float | Schedule = 1.0,
        generator_clip: Clip | None = None,
        discriminator_clip: Clip | None = None,
        adversarial_weight: float | Schedule = 1.0,
        play: Play = default(Play),
        stages: list[Play] = [],  # noqa: B006
        accumulate: int = 1,
        ema: EMA | None = default(EMA),
        total_kimg: float | None = None,
    ) -> None:
        """
        Args:
            generator: Maps latents (N, latent_dim) and labels to data.
            discriminator: Maps data and labels to logits, with the batch first.
            num_classes: Number of classes of a conditional model; 0: unconditional.
            loss: The adversarial loss.
            penalties: Terms added to the loss of one player.
            parts: Further tricks with hooks into the turns, in order.
            latents: The distribution that the generator starts from.
            generator_optimizer: Optimizer of the generator.
            discriminator_optimizer: Optimizer of the discriminator.
            generator_lr: Factor of the generator's learning rate, a number or a schedule of kimg.
            discriminator_lr: Factor of the discriminator's learning rate, a number or a schedule of kimg.
            generator_clip: Clipping of the generator's gradient.
            discriminator_clip: Clipping of the discriminator's gradient.
            adversarial_weight: Factor of the adversarial loss of both players.
            play: Turns per cycle, from the end of the stages to the end of the run.
            stages: Plays that come first, each with its length in kimg.
            accumulate: Micro-batches per turn whose gradients are averaged; the batch size is their total.
            ema: Average of the generator's weights that samples are drawn from; none: the weights themselves.
            total_kimg: Thousands of real images after which the run ends.
        """
        super().__init__()
        self.automatic_optimization = False
        if accumulate < 1:
            raise UserError(f"accumulate was {accumulate}; it is the number of micro-batches per turn, 1 or more.")
        if total_kimg is not None and not total_kimg > 0:
            raise UserError(f"total_kimg was {total_kimg}; a run lasts more than 0 thousand images.")
        self.generator, self.discriminator = generator, discriminator
        self.loss: AdversarialLoss = build(loss)
        self.parts = nn.ModuleList([*build(list(parts)), *build(list(penalties))])
        self.latents: Latents = build(latents)
        self.ema: EMA | None = build(ema)
        self.generator_ema = averaged_copy(generator) if self.ema else None
        self.num_classes, self.accumulate, self.total_kimg = num_classes, accumulate, total_kimg
        self.adversarial_weight = build(adversarial_weight)
        self.plan, self.clock, self.meter = Plan(build(list(stages)), build(play)), Clock(), Meter()
        self.stop_requested = False  #: set by a callback that wants the training step to end after this cycle
        self._marks: set[float] = set()
        self._may_bundle = False
        self.seed = 0  #: of all keyed random numbers; taken from ``seed_everything`` when training begins
        self._players: dict[PlayerName, Player] = {
            "generator": self._player("generator", generator_optimizer, generator_lr, generator_clip),
            "discriminator": self._player(
                "discriminator", discriminator_optimizer, discriminator_lr, discriminator_clip
            ),
        }
        for part in self.parts:
            part.setup(self)

    # ------------------------------------------------------------------ the loop

    def training_step(self, dataloader_iter: Iterator[Any]) -> None:
        """Cycles until something else is due, or ``step_seconds`` have passed.

        Lightning's own work around a training step costs as much as a cycle of small networks. So a step holds as
        many cycles as fit into a moment, and ends where a callback's mark, a stop or the step budget is reached.
        """
        self._count_generator_steps_only()
        until = time.monotonic() + (self.step_seconds if self._may_bundle else 0.0)
        while True:
            self.cycle(dataloader_iter)
            if self._due() or time.monotonic() >= until:
                return

    def cycle(self, batches_iter: Iterator[Any]) -> None:
        """The discriminator's turns, each on a fresh real batch, then the generator's."""
        play, clock = self.plan.current(self.clock), self.clock
        # Everything is fetched before anything moves: data that ends can only end between two cycles.
        num_batches = max(play.d, int(play.g > 0 and self.loss.needs_real))
        batches = [[next(batches_iter)[0] for _ in range(self.accumulate)] for _ in range(num_batches)]
        size = self._joint_size(batches)
        self._set_learning_rates(clock.kimg)
        for batch in batches[: play.d]:
            self._take_turn("discriminator", batch, size)
            clock.d_turns += 1
        for _ in range(play.g):
            self._take_turn("generator", batches[-1] if batches else None, size)
            clock.g_turns += 1
        clock.drawn += num_batches * size
        self.plan.end_cycle(clock, play.d * size, play.g * size)
        if play.g:
            self._update_ema((play.d or play.g) * size)
        if self.total_kimg is not None and clock.images >= self.total_kimg * 1000:
            self.trainer.should_stop = True

    def _due(self) -> bool:
        """Whether the training step must end after this cycle."""
        clock, trainer = self.clock, self.trainer
        out_of_steps = 0 <= trainer.max_steps <= clock.g_turns
        return trainer.should_stop or self.stop_requested or out_of_steps or any(map(clock.crossed, self._marks))

    def _take_turn(self, name: PlayerName, batch: list[Any] | None, size: int) -> None:
        """One update of one player on a joint batch of ``size``, of which ``batch`` are this rank's micro-batches."""
        player, opponent = self._players[name], self._players[_OTHER[name]]
        number = self.clock.d_turns if name == "discriminator" else self.clock.g_turns
        turn = Turn(self, name, number, self.clock.kimg)
        parts = [part for part in self.parts if name in part.players]
        optimizer = self._optimizer(name)
        optimizer.zero_grad()
        for part in parts:
            part.before_turn(turn)
        micro = size // (self.trainer.world_size * self.accumulate)
        with ExitStack() as stack:
            stack.enter_context(opponent.resting())
            if name == "generator":  # in the other turn the generator runs without a graph
                stack.enter_context(opponent.frozen())
            for m in range(self.accumulate):
                start = (m * self.trainer.world_size + self.global_rank) * micro
                streams.seed_global(self.device, self.seed, name, number, "global", start)
                with streams.stream(self.seed, name, number, start=start, total=size, device=self.device):
                    if batch is not None:
                        batch[m] = self._prepare(batch[m])
                    loss = self._loss(turn, parts, batch[m] if batch else None, micro)
                    self._backward(loss / self.accumulate if self.accumulate > 1 else loss)
        for part in parts:
            part.after_backward(turn)
        optimizer.step()
        if torch.is_autocast_enabled(self.device.type):
            torch.clear_autocast_cache()  # it holds half-precision copies of the weights that have just moved
        for part in parts:
            part.after_step(turn)

    def _loss(self, turn: Turn, parts: list[Part], real: Real | None, micro: int) -> Tensor:
        """The player's loss on one micro-batch."""
        if real is not None:
            turn.real, turn.real_labels = real
            if turn.track_real:
                turn.real = turn.real.detach().requires_grad_()
        turn.latents = self.latents.draw(micro, self.generator_network.latent_dim, self.device)
        turn.fake_labels = self._fake_labels(turn.real_labels, micro)
        is_d = turn.player == "discriminator"
        with torch.set_grad_enabled(not is_d):
            turn.fake = self.generate(turn.latents, turn.fake_labels)
        if turn.real is not None and (is_d or self.loss.needs_real):
            turn.real_logits = self.discriminate(turn.real, turn.real_labels, turn)
        turn.fake_logits = self.discriminate(turn.fake, turn.fake_labels, turn)
        with torch.autocast(self.device.type, enabled=False):
            real_logits, fake_logits = turn.real_logits, turn.fake_logits
            for part in parts:
                real_logits, fake_logits = part.logits(turn, real_logits, fake_logits)
            if is_d:
                assert real_logits is not None
                loss = self.loss.discriminator(real_logits, fake_logits)
                self._log("logits/real", real_logits.mean(), turn)
                self._log("logits/fake", fake_logits.mean(), turn)
            else:
                loss = self.loss.generator(fake_logits, real_logits)
            self._log("loss/d" if is_d else "loss/g", loss, turn)
            return self._add_terms(loss, turn, parts)

    def _add_terms(self, loss: Tensor, turn: Turn, parts: list[Part]) -> Tensor:
        weight = value_at(self.adversarial_weight, turn.kimg)
        if weight != 1.0:
            loss = loss * weight
        for part in parts:
            term = part(turn)
            if term is not None:
                loss = loss + term
        for name, value in turn.logs.items():
            self._log(name, value, turn)
        turn.logs.clear()
        return loss

    def _backward(self, loss: Tensor) -> None:
        """Outside of autocast, or even float32 passes would get half-precision gradients."""
        with torch.autocast(self.device.type, enabled=False):
            self.manual_backward(loss)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip here: gradients are averaged over ranks and unscaled by now."""
        player = self.player_of(optimizer)
        if player.clip is not None:
            player.clip(player.trained)

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

    # ------------------------------------------------------------------ the two networks

    @property
    def generator_network(self) -> Generator:
        return self.generator  # type: ignore[return-value]  # nn.Module attributes are untyped

    def generate(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """The generator's output in float32, for latents of shape (N, latent_dim)."""
        return self.generator(latents, labels).float()

    def discriminate(self, data: Tensor, labels: Tensor | None, turn: Turn) -> Tensor:
        """The discriminator's logits for data as the parts change it."""
        for part in self.parts:
            if turn.player in part.players:
                data, labels = part.inputs(turn, data, labels)
        return self.discriminator(data, labels)  # type: ignore[no-any-return]  # nn.Module calls are untyped

    @torch.no_grad()
    def sample(
        self,
        num: int,
        *,
        seed: int = 0,
        labels: Sequence[int] | None = None,
        first: int = 0,
        averaged: bool = True,
        batch_size: int = 64,
    ) -> Tensor:
        """Samples number ``first`` to ``first + num``, on the CPU, as the model sees data (images in [-1, 1]).

        Sample i depends on (seed, i) alone, whatever the batch size. Networks run in evaluation mode.

        Args:
            num: How many.
            seed: Seed of the latents and of labels that are not given.
            labels: Class of each sample of a conditional model; default: uniform over the classes.
            first: Number of the first sample.
            averaged: Use the averaged weights where there are some.
            batch_size: How many at a time.
        """
        network = self.generator_ema if averaged and self.generator_ema is not None else self.generator
        was_training = network.training
        network.eval()
        chosen = self._sample_labels(num, seed, labels, first)
        pieces = []
        for at in range(0, num, batch_size):
            numbers = range(first + at, first + min(at + batch_size, num))
            latents = self.latents.numbered(numbers, self.generator_network.latent_dim, seed).to(self.device)
            piece = None if chosen is None else chosen[at : at + batch_size].to(self.device)
            with torch.autocast(self.device.type, enabled=False):
                pieces.append(network(latents, piece).float().cpu())
        network.train(was_training)
        return torch.cat(pieces)

    def _sample_labels(self, num: int, seed: int, labels: Sequence[int] | None, first: int) -> Tensor | None:
        if self.num_classes == 0:
            if labels is not None:
                raise UserError("Labels were given, but this model is unconditional: leave them out.")
            return None
        if labels is None:
            numbers = range(first, first + num)
            labels = [streams.key(seed, "label", i) % self.num_classes for i in numbers]
        if len(labels) != num or not all(0 <= label < self.num_classes for label in labels):
            raise UserError(
                f"{len(labels)} labels between {min(labels)} and {max(labels)} were given for {num} samples; "
                f"give one per sample, from 0 to {self.num_classes - 1}."
            )
        return torch.tensor(list(labels))

    def _fake_labels(self, real_labels: Tensor | None, num: int) -> Tensor | None:
        """Fakes take the labels of the turn's real batch, so that both follow the data's distribution."""
        if self.num_classes == 0:
            return None
        if real_labels is not None:
            return real_labels
        return streams.randint(self.num_classes, num, purpose="label", device=self.device)

    # ------------------------------------------------------------------ helpers of the loop

    def player_of(self, optimizer: torch.optim.Optimizer) -> Player:
        """Whose optimizer this is; Lightning keeps them in the order of :meth:`configure_optimizers`."""
        generator, discriminator = self._players["generator"], self._players["discriminator"]
        return generator if self.trainer.optimizers[0] is optimizer else discriminator

    def _player(self, name: PlayerName, optimizer: Optimizer, lr: float | Schedule, clip: Clip | None) -> Player:
        extra = [part for part in self.parts if part.owner == name]
        network = self.generator if name == "generator" else self.discriminator
        return Player(name, network, extra, optimizer=build(optimizer), lr_schedule=build(lr), clip=build(clip))

    def _joint_size(self, batches: list[list[Any]]) -> int:
        """Size of the joint batch: over ranks and micro-batches."""
        if not batches:
            return int(self.trainer.datamodule.batch_size)  # type: ignore[attr-defined]  # set by Lightning's fit
        first = batches[0][0]
        data = first[0] if isinstance(first, tuple | list) else first
        return len(data) * self.trainer.world_size * self.accumulate

    def _prepare(self, batch: Any) -> Real:
        """Data and labels as the model sees them; the datamodule says how, and plain tensors pass through."""
        if isinstance(batch, Real):  # a generator turn looks at the last discriminator turn's batch
            return batch
        datamodule = getattr(self.trainer, "datamodule", None)
        if hasattr(datamodule, "prepare"):
            data, labels = datamodule.prepare(batch, self.device)
        else:
            data, labels = batch if isinstance(batch, tuple | list) else (batch, None)
            data, labels = data.to(self.device), None if labels is None else labels.to(self.device)
        return Real(data, labels if self.num_classes else None)

    def _set_learning_rates(self, kimg: float) -> None:
        for name, player in self._players.items():
            factor = value_at(player.lr_schedule, kimg)
            for group in self._optimizer(name).param_groups:
                group["lr"] = group["initial_lr"] * factor

    def _update_ema(self, images: int) -> None:
        if self.ema is None or self.generator_ema is None:
            return
        (average, buffers), (current, current_buffers) = self._averaged
        update_average(average, current, self.ema.decay(images, self.clock.images))
        for buffer, now in zip(buffers, current_buffers, strict=True):
            buffer.copy_(now)

    def _log(self, name: str, value: Tensor, turn: Turn) -> None:
        self.meter.add(name, value.detach(), turn.number)

    def _optimizer(self, name: PlayerName) -> Any:
        generator, discriminator = self.optimizers()  # type: ignore[misc]  # two optimizers, always
        return generator if name == "generator" else discriminator

    def _count_generator_steps_only(self) -> None:
        """Lightning counts every optimizer's steps; here a step is an update of the generator (Lightning #17958)."""
        profiler = self.trainer.profiler
        counted = self._optimizer("discriminator")
        counted._on_before_step = lambda: profiler.start("optimizer_step")
        counted._on_after_step = lambda: profiler.stop("optimizer_step")

    # ------------------------------------------------------------------ Lightning's hooks

    def setup(self, stage: str) -> None:
        if stage == "fit":
            check_strategy(self.trainer)
            self.seed = checkpoint.run_seed(self.trainer)

    def on_train_start(self) -> None:
        trainer = self.trainer
        by_epochs = trainer.max_epochs not in (None, -1) and trainer.num_training_batches != float("inf")
        by_time = any(isinstance(callback, Timer) for callback in trainer.callbacks)  # type: ignore[attr-defined]
        # Ranks must agree on the number of cycles per step, and a finite loader counts in steps.
        self._may_bundle = trainer.world_size == 1 and trainer.num_training_batches == float("inf")
        for player in self._players.values():
            player.on_device()
        self._averaged = _tensors(self.generator_ema), _tensors(self.generator)
        self.plan.check_ends(self.total_kimg, trainer.max_steps, by_epochs or by_time)

    def configure_optimizers(self) -> Any:
        optimizers = []
        for player in self._players.values():
            optimizer = player.optimizer(player.trained)
            for group in optimizer.param_groups:
                group.setdefault("initial_lr", group["lr"])
            # Lightning leaves unscaling to a fused optimizer, after the hook that clips; this makes it unscale before.
            optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]
            optimizers.append(optimizer)
        return optimizers, []

    def train(self, mode: bool = True) -> GAN:
        super().train(mode)
        if self.generator_ema is not None:
            self.generator_ema.eval()
        return self

    def on_save_checkpoint(self, checkpoint_: dict[str, Any]) -> None:
        checkpoint_[checkpoint.KEY] = checkpoint.header(self)

    def on_load_checkpoint(self, checkpoint_: dict[str, Any]) -> None:
        checkpoint.restore(self, checkpoint_)


def _tensors(network: nn.Module | None) -> tuple[list[Tensor], list[Tensor]]:
    """Parameters and buffers; listing them is slow, so it is done once."""
    return ([], []) if network is None else (list(network.parameters()), list(network.buffers()))


class Real(NamedTuple):
    """A prepared micro-batch of real data."""

    data: Tensor
    labels: Tensor | None


_OTHER: dict[PlayerName, PlayerName] = {"generator": "discriminator", "discriminator": "generator"}

