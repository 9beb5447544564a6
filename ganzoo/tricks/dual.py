"""A second discriminator beside the first one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ganzoo.errors import UserError
from ganzoo.layers import surgery
from ganzoo.parts import Part, Penalty, Turn
from ganzoo.precision import full_precision

if TYPE_CHECKING:
    from ganzoo.gan import GAN


class DualDiscriminator(Part):
    """A second discriminator of the same architecture, for the loss D2GAN (Nguyen 2017).

    Its logits are stacked behind the first one's: (N,) becomes (N, 2). It starts from other weights, sees the same
    inputs, and is trained by the discriminator's optimizer.
    """

    num_discriminators = 1
    capturable = True
    network: nn.Module

    def rebuild(self, gan: GAN) -> None:
        self.network = surgery.fresh_copy(gan.discriminator)

    def setup(self, gan: GAN) -> None:
        if _shapes(self.network) != _shapes(gan.discriminator):
            raise UserError(
                "A part changed the layers of the first discriminator after DualDiscriminator had copied them: name "
                "DualDiscriminator after the parts that change the discriminator."
            )
        for part in gan.tricks:
            if isinstance(part, Penalty) and "discriminator" in part.players:
                raise UserError(
                    f"{type(part).__name__} would see the first of the two discriminators only: leave it out, as the "
                    "paper of D2GAN does, or leave DualDiscriminator and D2GAN out."
                )

    def logits(self, turn: Turn, real: Tensor | None, fake: Tensor) -> tuple[Tensor | None, Tensor]:
        if real is not None:
            assert turn.real is not None
            real = self._beside(turn, real, turn.real, turn.real_labels)
        assert turn.fake is not None
        return real, self._beside(turn, fake, turn.fake, turn.fake_labels)

    def _beside(self, turn: Turn, logits: Tensor, data: Tensor, labels: Tensor | None) -> Tensor:
        """The logits of both for the same data, in the precision of the turn's own passes."""
        device = turn.gan.device.type
        with full_precision(turn.gan.device) if turn.full_precision else torch.autocast(device):
            second = turn.gan.discriminate(data, labels, turn, self.network)
        return torch.stack([logits, second], dim=-1)


def _shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in network.state_dict().items()}
