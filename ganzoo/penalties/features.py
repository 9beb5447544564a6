"""Feature matching: the generator matches a statistic of the data that the discriminator computes."""

from __future__ import annotations

import difflib
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ganzoo import joint
from ganzoo.errors import UserError
from ganzoo.layers.surgery import last_layer
from ganzoo.layers.trace import features_of
from ganzoo.parts import Penalty, PlayerName, Turn
from ganzoo.replay import Snapshot, eager, is_compiled, untouched
from ganzoo.schedules import Schedule

if TYPE_CHECKING:
    from ganzoo.gan import GAN


class FeatureMatching(Penalty):
    """|E f(x) - E f(G(z))|^2 on features f of the discriminator (Salimans 2016, sec. 3.1).

    Features are flattened, so the norm is over channels and positions. Expectations are means over the batch, joint
    over devices; with gradient accumulation each micro-batch has its own. The gradient reaches the generator only.

    The paper has this term in place of the generator's adversarial loss (``alone``); beside it is the more common use.
    The discriminator's loss stays as it is: do not set ``adversarial_weight`` to 0 for it, which would still both.
    """

    players: tuple[PlayerName, ...] = ("generator",)
    needs_real = True
    capturable = True

    def __init__(
        self, weight: float | Schedule = 1.0, *, layer: str | None = None, alone: bool = False, every: int = 1
    ) -> None:
        """
        Args:
            weight: Factor of the squared distance.
            layer: Dotted name of the layer of the discriminator whose output is matched; none: the input of the last
                layer.
            alone: Replace the generator's adversarial loss, as in the paper, instead of adding to it.
            every: Apply it on each so many-th turn, with as many times the weight.
        """
        super().__init__(weight, every=every)
        if alone and every > 1:
            raise UserError(
                f"FeatureMatching was to be the generator's only loss on every {every}th turn, which leaves the others "
                "without one: set every to 1, or alone to false."
            )
        self.layer, self.alone = layer, alone
        self._hooks = ExitStack()
        self._passes: list[tuple[Tensor, Any]] = []

    def setup(self, gan: GAN) -> None:
        if self.layer is None:
            last_layer(gan.discriminator)
        else:
            _check_name(gan.discriminator, self.layer)

    def before_turn(self, turn: Turn) -> None:
        self._hooks.close()  # still open if the last turn was interrupted
        self._passes = []
        if not self.due(turn):
            return
        if not turn.full_precision or is_compiled(turn.gan.discriminator):
            turn.record = True  # to make the pass again
        else:
            self._passes = self._hooks.enter_context(features_of(turn.gan.discriminator, self.layer))

    def logits(self, turn: Turn, real: Tensor | None, fake: Tensor) -> tuple[Tensor | None, Tensor]:
        return real, fake.detach() if self.alone else fake

    def value(self, turn: Turn) -> Tensor:
        assert turn.real is not None and turn.fake is not None
        with torch.no_grad():
            real = self._mean(turn, turn.real, turn.real_labels, turn.real_logits, turn.before_real).detach()
        fake = self._mean(turn, turn.fake, turn.fake_labels, turn.fake_logits, turn.before_fake)
        self._passes.clear()
        return joint.mean(fake - real).square().sum()

    def after_backward(self, turn: Turn) -> None:
        self._hooks.close()

    def _mean(
        self, turn: Turn, data: Tensor, labels: Tensor | None, logits: Tensor | None, moment: Snapshot | None
    ) -> Tensor:
        """Mean features, (D,), of the pass that gave ``logits`` if it was seen, else of one more like it."""
        network = turn.gan.discriminator
        seen = [features for features, output in self._passes if output is logits]
        if not seen:
            like_it = moment.restored() if moment else untouched(network)
            with eager(network), like_it, features_of(network, self.layer) as passes:
                turn.discriminate(data, labels)
            seen = [features for features, _ in passes]
        if not seen:
            raise UserError(
                f"The layer {self.layer} takes no part in what the discriminator computes: name another one."
            )
        return seen[-1].float().flatten(1).mean(0)


def _check_name(network: nn.Module, layer: str) -> None:
    names = [name for name, _ in network.named_modules() if name]
    if layer not in names:
        near = difflib.get_close_matches(layer, names, 3, cutoff=0.4) or names[:3]
        raise UserError(
            f"The discriminator has no layer {layer}, whose features were to be matched; it has {', '.join(near)}."
        )
