"""The fakes of a turn: made in it, or shared by both players' turns.

Where a play is ``shared``, the discriminator's last turn of a cycle looks at the fakes that the generator's next one
goes back through. They are made once, with their graph, before the discriminator moves. That saves a pass of the
generator per cycle and is another algorithm: its gradient is by a discriminator that has just learnt from these fakes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ganzoo import streams
from ganzoo.parts import Part, Turn

if TYPE_CHECKING:
    from ganzoo.loop import Loop


class Made(NamedTuple):
    """Of a micro-batch."""

    latents: Tensor
    labels: Tensor | None
    fake: Tensor  #: with its graph


def provide(gan: Loop, turn: Turn, parts: Sequence[Part], m: int, micro: int) -> None:
    """Give a turn the latents, labels and fakes of its micro-batch ``m``, of ``micro`` samples."""
    is_d = turn.player == "discriminator"
    if turn.ahead is None:
        with torch.set_grad_enabled(not is_d):
            _make(gan, turn, parts, micro)
    else:
        turn.latents, turn.fake_labels, turn.fake = turn.ahead[m]
    assert turn.fake is not None
    if is_d:
        turn.fake = turn.fake.detach().requires_grad_(turn.track_fake)
    if is_d or turn.ahead is None:  # of shared ones the generator's parts have heard when they were made
        for part in parts:
            part.generated(turn)


def make_ahead(gan: Loop, turn: Turn, batch: list[Any], size: int) -> None:
    """Fill ``turn.ahead``, of a discriminator's turn, with the fakes of the generator's next one, by its own draws."""
    assert turn.ahead is not None
    own = Turn(gan, "generator", gan.clock.g_turns, turn.kimg, full_precision=turn.full_precision)
    parts = [part for part in gan.tricks if own.player in part.players]
    with gan.players["discriminator"].resting(), gan.players["generator"].moving(), torch.enable_grad():
        for m in range(gan.accumulate):
            with gan.drawing(turn, m, size):
                batch[m] = gan._prepare(batch[m])
            own.real_labels = batch[m].labels
            with gan.drawing(own, m, size):
                _make(gan, own, parts, gan._micro(size))
            assert own.latents is not None and own.fake is not None
            for part in parts:
                part.generated(own)
            turn.ahead.append(Made(own.latents, own.fake_labels, own.fake))


def _make(gan: Loop, turn: Turn, parts: Sequence[Part], micro: int) -> None:
    turn.latents = gan.latents.draw(micro, gan.generator.latent_dim, gan.device)
    turn.fake_labels = _labels(gan, turn.real_labels, micro)
    for part in parts:
        turn.latents = part.drawn(turn, turn.latents)
    turn.fake = gan.generate(turn.latents, turn.fake_labels)


def _labels(gan: Loop, real_labels: Tensor | None, num: int) -> Tensor | None:
    """Fakes take the labels of the turn's real batch, so that both follow the data's distribution."""
    if gan.num_classes == 0:
        return None
    if real_labels is not None:
        return real_labels
    return streams.randint(gan.num_classes, num, purpose="label", device=gan.device)
