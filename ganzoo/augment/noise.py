"""Instance noise: both distributions are blurred, so that they overlap and the critic's gradient does not vanish.

Sonderby, Caballero, Theis, Shi and Huszar 2017, arXiv 1610.04490, section 3.2; Arjovsky and Bottou 2017,
arXiv 1701.04862, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ganzoo import streams
from ganzoo.augment.base import Augmentation
from ganzoo.config import build
from ganzoo.errors import UserError
from ganzoo.schedules import Schedule, value_at


class InstanceNoise(Augmentation):
    """Gaussian noise on everything that the discriminator sees, real and fake (Sonderby 2017; Arjovsky 2017)."""

    capturable = True

    def __init__(self, std: float | Schedule = 0.1) -> None:
        """
        Args:
            std: Standard deviation in units of the data (images span 2), a number or a schedule of kimg.
        """
        super().__init__()
        if not isinstance(std, Schedule | Mapping) and not std >= 0:
            raise UserError(f"The std of InstanceNoise was {std}, but a standard deviation is 0 or more.")
        self.std = build(std)
        self.capturable = not isinstance(self.std, Schedule)  # at 0 nothing is drawn, which is another turn

    def augment(self, data: Tensor, kimg: float = 0.0) -> Tensor:
        """Data of any shape (N, ...) plus noise of variance std^2; ``data`` itself once the schedule is at 0."""
        std = value_at(self.std, kimg)
        if std <= 0:
            return data
        noise = streams.randn(len(data), *data.shape[1:], purpose="instance_noise", device=data.device)
        return data + std * noise.to(data.dtype)
