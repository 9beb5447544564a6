"""An auxiliary classifier in the discriminator: AC-GAN, Odena 2017, arXiv 1610.09585, section 3."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganzoo.config import build
from ganzoo.errors import UserError
from ganzoo.layers.norm import normalize_all
from ganzoo.layers.spectral import is_spectral
from ganzoo.layers.trace import features_of
from ganzoo.parts import Part, Turn
from ganzoo.precision import full_precision
from ganzoo.replay import Snapshot, eager, is_compiled, untouched
from ganzoo.schedules import Schedule
from ganzoo.tricks.networks import features_tell_labels, last_input

if TYPE_CHECKING:
    from ganzoo.gan import GAN


class AuxiliaryClassifier(Part):
    """The discriminator names the class, and the generator is to be recognized (AC-GAN, Odena 2017, L_C in sec. 3).

    A linear layer on what the discriminator's last layer is given, trained by the discriminator's optimizer, and
    spectrally normalized where the discriminator is. Cross-entropy in nats is added to both players' losses: on real
    data and on fakes in the discriminator's turn, on fakes in the generator's. By itself the discriminator sees no
    labels, as in the paper. Name it behind the parts that change the discriminator's layers.
    """

    capturable = True

    def __init__(
        self,
        weight: float | Schedule = 1.0,
        *,
        generator_weight: float | Schedule = 1.0,
        fakes: bool = True,
        hide_labels: bool = True,
    ) -> None:
        """
        Args:
            weight: Factor of the cross-entropy in the discriminator's loss.
            generator_weight: The same for the generator (0.1 in the authors' code of WGAN-GP).
            fakes: Whether the classifier learns from fakes, too, as in the paper.
            hide_labels: Show the discriminator class 0 in the place of every label, so that a conditional one judges as
                an unconditional one would. Without it a projection or the like stays.
        """
        super().__init__()
        for given in (weight, generator_weight):
            if not isinstance(given, Schedule | Mapping) and not given >= 0:
                raise UserError(f"A weight of AuxiliaryClassifier was {given}, but it is 0 or more.")
        self.weight, self.generator_weight = build(weight), build(generator_weight)
        self.fakes, self.hide_labels = fakes, hide_labels
        self._hooks = ExitStack()
        self._passes: list[tuple[Tensor, Any]] = []

    def rebuild(self, gan: GAN) -> None:
        if not gan.num_classes:
            raise UserError(
                "AuxiliaryClassifier names the classes of samples, but this model is unconditional: ask the data for "
                "labels (data.labels true) or set model.num_classes, or leave it out."
            )
        self.head = nn.Linear(last_input(gan, "AuxiliaryClassifier"), gan.num_classes)
        if any(is_spectral(module) for module in gan.discriminator.modules()):
            normalize_all(self)

    def setup(self, gan: GAN) -> None:
        if last_input(gan, "AuxiliaryClassifier") != self.head.in_features:
            raise UserError(
                "A part changed the layers of the discriminator after AuxiliaryClassifier had looked at them: name "
                "AuxiliaryClassifier after the parts that change the discriminator."
            )
        if not self.hide_labels and features_tell_labels(gan):
            raise UserError(
                f"{type(gan.discriminator).__name__} is given the label with the data, so that a classifier on its "
                "features could read it there: set hide_labels of AuxiliaryClassifier to true."
            )

    def before_turn(self, turn: Turn) -> None:
        self._hooks.close()  # still open if the last turn was interrupted
        self._passes = []
        if is_compiled(turn.gan.discriminator):
            turn.record = True  # to make the pass again
        else:
            self._passes = self._hooks.enter_context(features_of(turn.gan.discriminator, None))

    def inputs(self, turn: Turn, data: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return data, torch.zeros_like(labels) if self.hide_labels and labels is not None else labels

    def forward(self, turn: Turn) -> Tensor:
        assert turn.fake is not None
        fake = turn.fake, turn.fake_labels, turn.fake_logits, turn.before_fake
        if turn.player == "generator":
            loss = self._cross_entropy(turn, "generator", *fake)
            weight = self.generator_weight
        else:
            assert turn.real is not None
            real = turn.real, turn.real_labels, turn.real_logits, turn.before_real
            loss = self._cross_entropy(turn, "real", *real)
            if self.fakes:
                loss = loss + self._cross_entropy(turn, "fake", *fake)
            weight = self.weight
        self._passes.clear()
        return loss * turn.value_of(weight)

    def after_backward(self, turn: Turn) -> None:
        self._hooks.close()

    def _cross_entropy(
        self, turn: Turn, name: str, data: Tensor, labels: Tensor | None, logits: Tensor | None, moment: Snapshot | None
    ) -> Tensor:
        """-E log P(label | sample), by the pass that gave ``logits`` if it was seen, else by one more like it."""
        assert labels is not None
        network = turn.gan.discriminator
        seen = [_rows_behind(logits, *one) for one in self._passes if logits is not None and _is_of(logits, one[1])]
        if not seen:
            like_it = moment.restored() if moment else untouched(network)
            with eager(network), like_it, features_of(network, None) as passes:
                turn.discriminate(data, labels)
            seen = [features for features, _ in passes]
        with full_precision(turn.gan.device):
            loss = F.cross_entropy(self.head(seen[-1].float().flatten(1)), labels)
        turn.logs[f"loss/class_{name}"] = loss
        return loss


def _is_of(logits: Tensor, output: Any) -> bool:
    """Whether logits are the output of a pass, or some rows of it: real and fake may have passed together."""
    if not isinstance(output, Tensor) or logits.is_meta:
        return logits is output
    return logits.untyped_storage().data_ptr() == output.untyped_storage().data_ptr()


def _rows_behind(logits: Tensor, features: Tensor, output: Tensor) -> Tensor:
    """The features of the samples whose logits these are, of all that passed together."""
    start = (logits.storage_offset() - output.storage_offset()) // max(output.stride(0), 1)
    return features[start : start + len(logits)]
