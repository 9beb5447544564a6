"""APA: Deceive D: Adaptive Pseudo Augmentation for GAN Training with Limited Data.

Jiang, Dai, Wu and Loy 2021, arXiv 2111.06849.
"""

from __future__ import annotations

import torch

from ganzoo import streams
from ganzoo.augment.adaptive import AdaptiveProbability
from ganzoo.parts import PlayerName, Turn
from ganzoo.schedules import Schedule


class APA(AdaptiveProbability):
    """Adaptive pseudo augmentation (Jiang 2021): real data are replaced by fakes with a probability that adapts.

    Each real sample of the discriminator's turn is replaced, with probability p, by the fake of the same turn that has
    its place in the batch, and its label. Penalties at real data see the replaced ones, too. It works on images and
    points. Its measure of overfitting is the paper's lambda_r = E[sign(D(real))], over what was shown as real. A loss
    that compares real and fake in pairs learns nothing from a pair with a replaced sample.
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

    def generated(self, turn: Turn) -> None:
        if turn.real is None or turn.fake is None or self.never:
            return
        replaced = streams.rand(len(turn.real), purpose="apa", device=turn.real.device) < self.p
        mask = replaced.view(-1, *[1] * (turn.real.dim() - 1))
        turn.real = torch.where(mask, turn.fake.detach(), turn.real.detach()).requires_grad_(turn.track_real)
