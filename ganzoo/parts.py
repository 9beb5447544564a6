"""What fits every model: the hooks of a training turn, and what a turn shows to them.

A trick that needs to see or change a turn is a :class:`Part`. It is named in a recipe by its class path and
needs no edit of the loop: penalties, weight clipping, unrolling, top-k, packing, further discriminators and
auxiliary heads all use the hooks below.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from torch import Tensor, nn
from torch.func import functional_call

from ganzoo.config import Configurable, build
from ganzoo.errors import UserError
from ganzoo.precision import full_precision
from ganzoo.replay import Snapshot
from ganzoo.schedules import Schedule, value_at

if TYPE_CHECKING:
    from ganzoo.fakes import Made
    from ganzoo.gan import GAN
    from ganzoo.loop import Loop

PlayerName = Literal["discriminator", "generator"]


@dataclass
class Turn:
    """One update of one player, as the parts see it. With gradient accumulation, tensors are of the micro-batch."""

    gan: Loop
    player: PlayerName
    number: int  #: how many turns this player took before
    kimg: float
    real: Tensor | None = None  #: (N, *shape), float32, as the model sees data; in a generator turn the last real batch
    real_labels: Tensor | None = None  #: (N,), int64
    latents: Tensor | None = None  #: (N, latent_dim)
    fake: Tensor | None = None  #: (N, *shape); without a graph in a discriminator turn
    fake_labels: Tensor | None = None
    real_logits: Tensor | None = None
    fake_logits: Tensor | None = None
    judged_real: Tensor | None = None  #: the logits that the adversarial loss is given, as the parts changed them
    judged_fake: Tensor | None = None
    full_precision: bool = True  #: whether this turn's own passes are in float32, so that a penalty may use them
    track_real: bool = False  #: set in ``before_turn`` to have ``real`` require a gradient
    track_fake: bool = False  #: the same for ``fake`` in a discriminator turn, where it has no graph
    record: bool = False  #: set in ``before_turn`` to have snapshots before the discriminator's passes
    before_real: Snapshot | None = None  #: to make the pass that gave ``real_logits`` again, if ``record`` is set
    before_fake: Snapshot | None = None  #: the same for ``fake_logits``
    judge_real: bool = False  #: set in ``before_turn`` to have a generator turn's loss see logits of real data, too
    #: Tensors that stand for parameters in this turn's passes through the discriminator, the loop's own included.
    stand_ins: dict[nn.Parameter, Tensor] = field(default_factory=dict)
    #: In the two turns that share their fakes: these, by micro-batch, once they are made.
    ahead: list[Made] | None = None
    logs: dict[str, Tensor] = field(default_factory=dict)  #: scalars to log under their name, detached
    #: Where the turn is recorded as a graph: ``factor`` times what a schedule says, in a tensor that follows the time.
    scheduled: Callable[[Schedule, float], Tensor] | None = None

    def value_of(self, value: float | Schedule, factor: float = 1.0) -> float | Tensor:
        """``factor`` times a number, or what a schedule says now: a float32 scalar where the turn is recorded."""
        if self.scheduled is not None and isinstance(value, Schedule):
            return self.scheduled(value, factor)
        return value_at(value, self.kimg) * factor

    def discriminate(self, data: Tensor, labels: Tensor | None = None, network: nn.Module | None = None) -> Tensor:
        """Logits of the discriminator, or of another ``network``, in float32, outside of autocast."""
        return self._eager(lambda: self.gan.discriminate(data.float(), labels, self, network))

    def generate(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Output of the generator in float32, outside of autocast."""
        return self._eager(lambda: self.gan.generate(latents.float(), labels))

    def call(self, network: nn.Module, data: Tensor, labels: Tensor | None) -> Tensor:
        """Output of a network with this turn's ``stand_ins`` in the place of its parameters."""
        if not self.stand_ins:
            output: Tensor = network(data, labels)
            return output
        replaced = {name: self.stand_ins[p] for name, p in network.named_parameters() if p in self.stand_ins}
        output = functional_call(network, replaced, (data, labels))
        return output

    def _eager(self, function: Callable[[], Tensor]) -> Tensor:
        with full_precision(self.gan.device):
            return function()


class Part(Configurable, nn.Module):
    """A trick with hooks into the turns of the players.

    ``players`` says in whose turns the hooks run. Parameters of a part belong to the optimizer of ``owner``;
    buffers are saved with the model. Floating-point buffers of the parts of a player are averaged over ranks with its
    gradients, between ``after_backward`` and ``after_step``: a statistic that is linear in the samples, such as a
    running mean, becomes the joint one when it moves in ``after_backward`` or before.
    """

    players: tuple[PlayerName, ...] = ("discriminator", "generator")
    owner: PlayerName = "discriminator"
    needs_real = False  #: whether its hooks look at real data in turns of the generator, so that each has some
    #: Whether ``drawn`` or ``generated`` in a generator turn need the discriminator as that turn finds it, so that the
    #: fakes cannot have been made before the discriminator moved.
    needs_own_fakes = False
    num_discriminators = 0  #: how many discriminators it puts beside the model's; ``logits`` stacks theirs behind
    #: Whether turns with one :meth:`graph_key` do the same operations on the same tensors, so that one of them can be
    #: recorded and replayed for the others: the hooks keep nothing in Python that a later turn looks at, change their
    #: tensors in place, ask for no value of a tensor, and read schedules through :meth:`Turn.value_of`. It holds for
    #: the class that says it, and not for its heirs.
    capturable = False

    def rebuild(self, gan: GAN) -> None:
        """Once, before optimizers and the average are made: change layers of the networks, or replace a network.

        What is drawn here comes from torch's global generator, as all initial weights do.
        """

    def setup(self, gan: GAN) -> None:
        """Once, when the model is complete: look at the networks, refuse what cannot work."""

    def before_turn(self, turn: Turn) -> None:
        """Before the first forward pass of the turn."""

    def prepared(self, turn: Turn, real: Tensor) -> Tensor:
        """When a micro-batch of real data is on the device: change what the turn takes for real, in order of the parts.

        All that follows sees the result, penalties included; ``inputs`` changes only what the discriminator is shown.
        """
        return real

    def drawn(self, turn: Turn, latents: Tensor) -> Tensor:
        """When the latents of a micro-batch are drawn: change what the generator starts from, in order of the parts."""
        return latents

    def generated(self, turn: Turn) -> None:
        """When the fakes of a micro-batch are there, before the discriminator sees anything."""

    def input_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Of what ``inputs`` makes of data of a shape, (micro-batch, ...): asked before training.

        Raises:
            UserError: The part does not go with such data.
        """
        return shape

    def inputs(self, turn: Turn, data: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Change what the discriminator sees, real or fake, in order of the parts."""
        return data, labels

    def logits(self, turn: Turn, real: Tensor | None, fake: Tensor) -> tuple[Tensor | None, Tensor]:
        """Change or select logits before the adversarial loss."""
        return real, fake

    def forward(self, turn: Turn) -> Tensor | None:
        """A term of the player's loss, a scalar; called after the adversarial loss, outside of autocast."""
        return None

    def after_backward(self, turn: Turn) -> None:
        """When all gradients of the turn are there, before the optimizer's step."""

    def after_step(self, turn: Turn) -> None:
        """After the optimizer's step."""

    def graph_key(self, turn: Turn) -> Hashable:
        """Before a turn: what Python will decide in it, such as whether a term is due."""
        return None

    def facts(self) -> dict[str, float]:
        """What the log's rows and the progress say about it as it is now, by the name in the log."""
        return {}


class Penalty(Part):
    """A term ``weight * every * value`` of the loss on each ``every``-th turn of its player.

    The factor keeps the mean over turns (lazy regularization, Karras 2020, sec. 3.1).
    """

    def __init__(self, weight: float | Schedule = 1.0, *, every: int = 1) -> None:
        """
        Args:
            weight: Factor of the penalty, a number or a schedule of kimg.
            every: Apply it on each so many-th turn of its player, with as many times the weight.
        """
        super().__init__()
        if not isinstance(weight, Schedule | Mapping) and not weight >= 0:
            raise UserError(f"The weight of {type(self).__name__} was {weight}, but a penalty's weight is 0 or more.")
        if every < 1:
            raise UserError(f"A penalty on every {every} turns was asked for; every must be 1 or more.")
        self.weight, self.every = build(weight), every

    def due(self, turn: Turn) -> bool:
        """Whether the penalty applies in this turn."""
        return turn.number % self.every == 0

    def graph_key(self, turn: Turn) -> Hashable:
        return self.due(turn)

    def forward(self, turn: Turn) -> Tensor | None:
        if not self.due(turn):
            return None
        value = self.value(turn)
        turn.logs[f"penalty/{self.log_name}"] = value.detach()
        return value * turn.value_of(self.weight, self.every)

    def value(self, turn: Turn) -> Tensor:
        """The penalty before its weight, a float32 scalar."""
        raise NotImplementedError(f"{type(self).__name__} must define value(turn).")

    @property
    def log_name(self) -> str:
        """The class's name in snake case; the value is logged as ``penalty/`` and this."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", type(self).__name__).lower()
