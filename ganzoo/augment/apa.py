"""APA: Deceive D: Adaptive Pseudo Augmentation for GAN Training with Limited Data.

Jiang, Dai, Wu and Loy 2021, arXiv 2111.06849.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ganzoo import streams
from ganzoo.augment.adaptive import AdaptiveProbability
from ganzoo.errors import UserError
from ganzoo.parts import Part, PlayerName, Turn
from ganzoo.schedules import Schedule

if TYPE_CHECKING:
    from ganzoo.gan import GAN


class APA(AdaptiveProbability):
    """Adaptive pseudo augmentation (Jiang 2021): real data are replaced by fakes with a probability that adapts.

    Each real sample of the discriminator's turn is replaced, with probability p, by the fake of the same turn that has
    its place in the batch, and its label. It works on images and points. Its measure of overfitting is the paper's
    lambda_r = E[sign(D(real))], over what was shown as real. A loss that compares real and fake in pairs learns nothing
    from a pair with a replaced sample.

    Only the turn's own pass over real data is deceived. Penalties look at the data as they are; so those that could use
    the turn's pass make one of their own.
    """

    players: tuple[PlayerName, ...] = ("discriminator",)
    log_prefix = "pseudo"

    def __init__(
        self,
        p: float | Schedule = 0.0,
        *,
        target: float | None = 0.6,
        speed_kimg: float = 500.0,
        interval: int = 4,
    ) -> None:
        """
        Args:
            p: Probability of a replacement at the start; with target null it stays, or follows a schedule of kimg.
            target: Mean sign of D(real) that p is adapted to; null: p is not adapted.
            speed_kimg: Thousands of real samples in which p can go from 0 to 1.
            interval: Turns of the discriminator after which p moves.
        """
        super().__init__(p, target=target, speed_kimg=speed_kimg, interval=interval)

    def setup(self, gan: GAN) -> None:
        super().setup(gan)
        for part in gan.tricks[: gan.tricks.index(self)]:
            if type(part).inputs is not Part.inputs:
                raise UserError(
                    f"APA replaces real data, so it must be named before {type(part).__name__}, which changes what the "
                    "discriminator sees."
                )

    def before_turn(self, turn: Turn) -> None:
        super().before_turn(turn)
        turn.full_precision = False  # so that no penalty takes the turn's pass, which saw fakes, for one over real data

    def inputs(self, turn: Turn, data: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if data is not turn.real or turn.fake is None or self.never:
            return data, labels
        replaced = streams.rand(len(data), purpose="apa", device=data.device) < self.p
        return torch.where(replaced.view(-1, *[1] * (data.dim() - 1)), turn.fake.detach(), data), labels
