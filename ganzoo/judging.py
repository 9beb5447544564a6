"""A turn's own passes through the discriminator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from ganzoo.layers.coupling import joined, parted
from ganzoo.parts import Turn
from ganzoo.replay import Snapshot

if TYPE_CHECKING:
    from ganzoo.loop import Loop


def judge(gan: Loop, turn: Turn) -> tuple[Tensor | None, Tensor]:
    """The turn's logits, which it keeps: of its real data, where somebody looks at them, and of its fakes."""
    assert turn.fake is not None
    is_d = turn.player == "discriminator"
    if turn.real is not None and is_d and _may_join(gan, turn):
        turn.real_logits, turn.fake_logits = _together(gan, turn, turn.real, turn.fake)
        return turn.real_logits, turn.fake_logits
    if turn.real is not None and (is_d or gan.loss.needs_real or turn.judge_real):
        turn.before_real = Snapshot(gan.discriminator) if turn.record else None
        turn.real_logits = gan.discriminate(turn.real, turn.real_labels, turn)
    turn.before_fake = Snapshot(gan.discriminator) if turn.record else None
    turn.fake_logits = gan.discriminate(turn.fake, turn.fake_labels, turn)
    return turn.real_logits, turn.fake_logits


def shown(gan: Loop, data: Tensor, labels: Tensor | None, turn: Turn) -> tuple[Tensor, Tensor | None]:
    """Data and labels as the parts show them to a discriminator."""
    for part in gan.tricks:
        if turn.player in part.players:
            data, labels = part.inputs(turn, data, labels)
    return data, labels


def _may_join(gan: Loop, turn: Turn) -> bool:
    """Whether real and fake may pass as one batch, which is faster, and equal where no real sample sees a fake one.

    A part that differentiates one half, or makes one half's pass again, would have to take the other half along.
    """
    return gan.judges_in_groups > 0 and not (turn.track_real or turn.track_fake or turn.record)


def _together(gan: Loop, turn: Turn, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """The logits of both by one pass. The parts show the two halves one after the other, as in two passes."""
    real, real_labels = shown(gan, real, turn.real_labels, turn)
    fake, fake_labels = shown(gan, fake, turn.fake_labels, turn)
    group = gan.judges_in_groups
    labels = None if real_labels is None or fake_labels is None else joined(real_labels, fake_labels, group)
    return parted(turn.call(gan.discriminator, joined(real, fake, group), labels), group)
