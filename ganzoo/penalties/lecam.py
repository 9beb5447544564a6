"""LeCam regularization: logits stay near a running mean of the other side's."""

from __future__ import annotations

import torch
from torch import Tensor

from ganzoo.errors import UserError
from ganzoo.parts import Penalty, PlayerName, Turn
from ganzoo.schedules import Schedule


class LeCam(Penalty):
    """E|D(x) - a_F|^2 + E|D(G(z)) - a_R|^2 with anchors a_R, a_F, for few training data (Tseng 2021, R_LC).

    The anchors are exponential averages of the mean logits of real data and of fakes, over devices and micro-batches.
    They begin as the first turn's means and move at the end of every turn of the discriminator, so a turn is compared
    with those before it; in the first one the penalty is zero. The equation is the paper's; its authors' code also
    cuts D(x) - a_F and a_R - D(G(z)) at zero from below.
    """

    players: tuple[PlayerName, ...] = ("discriminator",)
    log_name = "lecam"
    capturable = True
    real_anchor: Tensor
    fake_anchor: Tensor
    ready: Tensor

    def __init__(
        self, weight: float | Schedule = 0.3, *, decay: float = 0.99, start_kimg: float = 0.0, every: int = 1
    ) -> None:
        """
        Args:
            weight: The paper's lambda, which depends on the scale of the logits: its authors' programs have 0.3 for
                BigGAN with Hinge on CIFAR, and for StyleGAN2 with NonSaturating, R1 and ADA 1e-6 on CIFAR-10 and
                3e-7 on FFHQ.
            decay: The paper's gamma, by which the old anchor counts in each turn; 0.99 in its authors' StyleGAN2, 0.9
                in their BigGAN. The defaults 0.3 and 0.99 together are those of StudioGAN's BigGAN on CIFAR-10.
            start_kimg: Before this time the anchors move and there is no penalty; the authors' BigGAN begins after
                1,000 cycles.
            every: Apply it on each so many-th turn, with as many times the weight; the anchors move in every turn.
        """
        super().__init__(weight, every=every)
        if not 0 <= decay < 1 or not start_kimg >= 0:
            raise UserError(
                f"LeCam was given decay {decay} and start_kimg {start_kimg}; a decay is in [0, 1), a time 0 or more."
            )
        self.decay, self.start_kimg = decay, start_kimg
        # Buffers of floating point: the strategy averages them over ranks after they moved.
        for name in ("real_anchor", "fake_anchor", "ready"):
            self.register_buffer(name, torch.zeros(()))
        self._means: list[Tensor] = []

    def due(self, turn: Turn) -> bool:
        return turn.kimg >= self.start_kimg and super().due(turn)

    def before_turn(self, turn: Turn) -> None:
        self._means = []

    def forward(self, turn: Turn) -> Tensor | None:
        real, fake = _logits(turn)
        self._means.append(torch.stack([real.detach().mean(), fake.detach().mean()]))
        return super().forward(turn)

    def value(self, turn: Turn) -> Tensor:
        real, fake = _logits(turn)
        distance = (real - self.fake_anchor).square().mean() + (fake - self.real_anchor).square().mean()
        return distance * self.ready  # a product, since to ask the device would wait for it

    def after_backward(self, turn: Turn) -> None:
        real, fake = torch.stack(self._means).mean(0)
        share = 1 - self.decay * self.ready
        self.real_anchor.lerp_(real, share)
        self.fake_anchor.lerp_(fake, share)
        self.ready.fill_(1.0)


def _logits(turn: Turn) -> tuple[Tensor, Tensor]:
    assert turn.real_logits is not None and turn.fake_logits is not None
    return turn.real_logits.float(), turn.fake_logits.float()
