"""A GAN as a LightningModule: two networks, the parts of a recipe, samples and checkpoints.

The training loop is in :mod:`ganzoo.loop`. Nothing in either file knows a paper or a trick by name.
"""

from __future__ import annotations

from typing import Any

from lightning.pytorch.callbacks import Timer
from torch import Tensor, nn

from ganzoo import checkpoint, internals, memory, sampling
from ganzoo.config import Configurable, build, default
from ganzoo.ema import EMA, averaged_copy
from ganzoo.errors import UserError
from ganzoo.generator import Generator
from ganzoo.latents import Latents, Normal
from ganzoo.layers.minibatch import ComparesSamples
from ganzoo.loop import Loop
from ganzoo.losses import AdversarialLoss, NonSaturating
from ganzoo.optim import Adam, Optimizer
from ganzoo.parts import Part, Penalty, PlayerName
from ganzoo.plan import Plan, Play
from ganzoo.players import Clip, Player
from ganzoo.schedules import Schedule
from ganzoo.strategy import check_trainer

__all__ = ["GAN", "Generator"]


class GAN(Configurable, Loop):
    """A generator and a discriminator, trained in turns.

    Sub-classes build the two networks; their signature is a paper's recipe. All time is in kimg: thousands of
    real images that discriminator turns consumed, over all ranks.
    """

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
        if accumulate < 1:
            raise UserError(f"accumulate was {accumulate}; it is the number of micro-batches per turn, 1 or more.")
        if total_kimg is not None and not total_kimg > 0:
            raise UserError(f"total_kimg was {total_kimg}; a run lasts more than 0 thousand images.")
        self.generator, self.discriminator = generator, discriminator
        self.loss = build(loss)
        self.tricks = [*build(list(parts)), *build(list(penalties))]
        self.parts = nn.ModuleList(self.tricks)
        self.latents, self.ema = build(latents), build(ema)
        self.num_classes, self.accumulate, self.total_kimg = num_classes, accumulate, total_kimg
        self.class_counts: list[int] = []  #: images of each class in the data of the run; empty: not known
        for part in self.tricks:
            part.rebuild(self)
        self.generator_ema = averaged_copy(self.generator) if self.ema else None
        self.adversarial_weight = build(adversarial_weight)
        self.plan = Plan(build(list(stages)), build(play))
        self.players = {
            "generator": self._player("generator", generator_optimizer, generator_lr, generator_clip),
            "discriminator": self._player(
                "discriminator", discriminator_optimizer, discriminator_lr, discriminator_clip
            ),
        }
        self.loss.setup(self)
        for part in self.tricks:
            part.setup(self)
            if part.needs_own_fakes and any(one.shared for one in self.plan.plays):
                raise UserError(
                    f"Both players' turns were to share their fakes, but {type(part).__name__} needs the discriminator "
                    "as the generator's turn finds it before they are made: leave out the part, or play.shared."
                )

    def _player(self, name: PlayerName, optimizer: Optimizer, lr: float | Schedule, clip: Clip | None) -> Player:
        extra = [part for part in self.tricks if part.owner == name]
        network = self.generator if name == "generator" else self.discriminator
        return Player(name, network, extra, optimizer=build(optimizer), lr_schedule=build(lr), clip=build(clip))

    def sample(
        self,
        num: int,
        *,
        seed: int = 0,
        labels: sampling.Labels = None,
        first: int = 0,
        averaged: bool = True,
        batch_size: int = 64,
        truncation: float | None = None,
        cutoff: int | None = None,
        fixed_noise: bool = False,
    ) -> Tensor:
        """Samples number ``first`` to ``first + num``, on the CPU, as the model sees data (images in [-1, 1]).

        Sample i depends on (seed, i) alone, whatever the batch size. Networks run in evaluation mode.

        Args:
            num: How many.
            seed: Seed of the latents and of labels that are not given.
            labels: Class of each sample of a conditional model; 'data': drawn as often as in the data that it was
                trained on; default: uniform over the classes.
            first: Number of the first sample.
            averaged: Use the averaged weights where there are some.
            batch_size: How many at a time.
            truncation: psi of generators with styles (0: their mean, 1: none); the threshold of normal latents of
                others.
            cutoff: With styles: truncate those of so many first layers.
            fixed_noise: Give all samples what the generator draws for the first one, beside its latents.
        """
        cut = None if truncation is None else sampling.Truncation(truncation, cutoff)
        return sampling.draw(
            self,
            num,
            seed=seed,
            labels=labels,
            first=first,
            averaged=averaged,
            batch_size=batch_size,
            truncation=cut,
            fixed_noise=fixed_noise,
        )

    def check_data(self, shape: tuple[int, ...], batch_size: int, world_size: int = 1) -> None:
        """Before training: refuse data that a part, or a layer that compares samples, could not take in its first turn.

        Args:
            shape: Of one sample.
            batch_size: Samples of a turn, over all ranks and micro-batches.
            world_size: Number of ranks.

        Raises:
            UserError: In that case.
        """
        for size in (batch_size, *(size for _, size in self.batch_sizes)):
            seen = (size // (world_size * self.accumulate), *shape)
            for part in self.tricks:
                seen = part.input_shape(seen)
            for layer in (*self.discriminator.modules(), *self.parts.modules()):
                if isinstance(layer, ComparesSamples):
                    layer.check(seen[0])

    def setup(self, stage: str) -> None:
        if stage == "fit":
            check_trainer(self.trainer)
            self.seed = checkpoint.run_seed(self.trainer)
            data = getattr(self.trainer, "datamodule", None)
            self.class_counts = [int(num) for num in getattr(data, "class_counts", [])]
            self._check_ends(by_epochs=self.trainer.max_epochs not in (None, -1))

    def on_train_start(self) -> None:
        self._begin()
        if self.device.type == "cpu":
            memory.keep_freed()
        if self.trainer.num_training_batches == float("inf"):  # then epochs never end
            self._check_ends(by_epochs=False)
        if self.complete:
            self.trainer.should_stop = True

    def on_train_end(self) -> None:
        memory.give_back()

    def _check_ends(self, *, by_epochs: bool) -> None:
        by_time = any(isinstance(callback, Timer) for callback in internals.callbacks_of(self.trainer))
        self.plan.check_ends(self.total_kimg, self.trainer.max_steps, by_epochs or by_time)

    def train(self, mode: bool = True) -> GAN:
        super().train(mode)
        if self.generator_ema is not None:
            self.generator_ema.eval()
        return self

    def on_save_checkpoint(self, checkpoint_: dict[str, Any]) -> None:
        checkpoint_[checkpoint.KEY] = checkpoint.header(self)

    def on_load_checkpoint(self, checkpoint_: dict[str, Any]) -> None:
        checkpoint.restore(self, checkpoint_)
