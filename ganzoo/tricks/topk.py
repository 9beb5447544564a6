"""The generator learns from its best fakes alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from ganzoo.errors import UserError
from ganzoo.parts import Part, PlayerName, Turn

if TYPE_CHECKING:
    from ganzoo.gan import GAN


class TopK(Part):
    """The generator learns from the fakes with the highest logits; the others have no gradient (Sinha 2020, alg. 1).

    The best are taken of each rank's micro-batch. Where the discriminator gives several logits to a sample, such as
    one for each patch, their mean counts; where it judges packs, the best packs are taken.
    """

    players: tuple[PlayerName, ...] = ("generator",)

    def __init__(self, minimum: float = 0.5, *, factor: float = 0.9998) -> None:
        """
        Args:
            minimum: Share of the batch that is always kept, in (0, 1].
            factor: The share falls from 1 by this factor per kimg, in (0, 1]; 0.9998 is the paper's 0.99 per epoch of
                50 thousand images.
        """
        super().__init__()
        if not (0 < minimum <= 1 and 0 < factor <= 1):
            raise UserError(
                f"TopK was given minimum {minimum} and factor {factor}; both must be above 0 and at most 1."
            )
        self.minimum, self.factor = minimum, factor

    def setup(self, gan: GAN) -> None:
        if gan.loss.needs_real or gan.loss.num_discriminators > 1:
            raise UserError(
                f"TopK drops fakes by their logit, but {type(gan.loss).__name__} compares a fake's logits with others: "
                "use a loss of single logits, such as NonSaturating or Hinge."
            )

    def share(self, kimg: float) -> float:
        """The share of the batch that the generator learns from."""
        return max(self.minimum, float(self.factor**kimg))

    def logits(self, turn: Turn, real: Tensor | None, fake: Tensor) -> tuple[Tensor | None, Tensor]:
        k = max(1, round(len(fake) * self.share(turn.kimg)))
        if k == len(fake):
            return real, fake
        scores = fake.detach().float().reshape(len(fake), -1).mean(1)
        return real, fake[scores.topk(k).indices]
