"""The drift term of Karras 2018, arXiv 1710.10196, appendix A.1: keeps a critic's outputs near zero."""

from __future__ import annotations

from torch import Tensor

from ganzoo.parts import Penalty, PlayerName, Turn
from ganzoo.schedules import Schedule


class Drift(Penalty):
    """weight E[D(x)^2] at real data: a Wasserstein critic's outputs, which no loss ties down, stay near zero."""

    players: tuple[PlayerName, ...] = ("discriminator",)
    capturable = True

    def __init__(self, weight: float | Schedule = 1e-3, *, fake: bool = False, every: int = 1) -> None:
        """
        Args:
            weight: The paper's epsilon.
            fake: Whether to add the same for fakes, which the paper does not.
            every: Apply it on each so many-th turn, with as many times the weight.
        """
        super().__init__(weight, every=every)
        self.fake = fake

    def value(self, turn: Turn) -> Tensor:
        assert turn.real_logits is not None and turn.fake_logits is not None
        value = turn.real_logits.float().square().mean()
        return value + turn.fake_logits.float().square().mean() if self.fake else value
