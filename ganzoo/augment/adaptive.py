"""A probability that follows how far the discriminator overfits (Karras 2020, arXiv 2006.06676, section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ganzoo import joint
from ganzoo.config import build
from ganzoo.errors import UserError
from ganzoo.parts import Part, Turn
from ganzoo.schedules import Schedule, value_at

if TYPE_CHECKING:
    from ganzoo.gan import GAN


class AdaptiveProbability(Part):
    """Base of augmentations whose probability ``p`` keeps r_t = E[sign(D(real))] at a target (Karras 2020, eq. 1).

    The mean is over the real images that the discriminator judged in ``interval`` of its turns, as it saw them: joint
    over ranks and micro-batches. Then ``p`` moves once, by the share of ``speed_kimg`` that these images are: up if r_t
    is above the target, down if it is below, and stays in [0, 1]. It is the same on all ranks and in the checkpoint.
    """

    log_prefix = "augment"
    p: Tensor  #: the probability, a float32 scalar
    signs: Tensor  #: sum of the signs since p moved
    images: Tensor  #: over how many images of one rank

    def __init__(self, p: float | Schedule, *, target: float | None, speed_kimg: float, interval: int) -> None:
        """
        Args:
            p: The probability in [0, 1] that training starts with; with target null it stays, or follows a schedule.
            target: Value of r_t that p is to reach; null: p is not adapted.
            speed_kimg: Thousands of real images in which p can go from 0 to 1.
            interval: Turns of the discriminator after which p moves.
        """
        super().__init__()
        name, scheduled = type(self).__name__, isinstance(p, Schedule | Mapping)
        if scheduled and target is not None:
            raise UserError(f"{name} was given a schedule of p and a target: set target to null, or p to a number.")
        if not scheduled and not 0 <= p <= 1:  # type: ignore[operator]  # a number by now
            raise UserError(f"The p of {name} was {p}, but a probability is between 0 and 1.")
        if target is not None and not -1 < target < 1:
            raise UserError(f"The target of {name} was {target}, but a mean of signs lies between -1 and 1.")
        if not speed_kimg > 0 or interval < 1:
            raise UserError(
                f"{name} was given speed_kimg {speed_kimg} and interval {interval}: the first must be above 0, the "
                "second 1 or more."
            )
        self.schedule, self.target, self.speed_kimg, self.interval = build(p), target, speed_kimg, interval
        self.register_buffer("p", torch.tensor(value_at(self.schedule, 0.0)))
        self.register_buffer("signs", torch.tensor(0.0))
        self.register_buffer("images", torch.tensor(0.0))

    def setup(self, gan: GAN) -> None:
        """Refuse losses that do not change when a constant is added to all logits: their sign means nothing."""
        if self.target is None:
            return
        real, fake = (
            torch.tensor(x, device="cpu")[:, None].expand(2, gan.loss.num_discriminators)
            for x in ([2.0, -0.5], [0.5, -1])
        )
        value, shifted = gan.loss.discriminator(real, fake), gan.loss.discriminator(real + 1, fake + 1)
        if torch.allclose(value, shifted):
            raise UserError(
                f"{type(self).__name__} adapts p by the sign of D(real), but {type(gan.loss).__name__} only looks at "
                "differences of logits, whose sign means nothing: set target to null, and p to a number or a schedule."
            )

    def before_turn(self, turn: Turn) -> None:
        if self.target is None:  # the recipe's p counts, whatever a checkpoint holds
            self.p.fill_(value_at(self.schedule, turn.kimg))

    def logits(self, turn: Turn, real: Tensor | None, fake: Tensor) -> tuple[Tensor | None, Tensor]:
        """Count the signs of a micro-batch. Ranks average both sums with the gradients, before ``after_step``."""
        if turn.player == "discriminator" and turn.real is not None and turn.real_logits is not None:
            sign = turn.real_logits.detach().float().sign().mean()
            self.signs += sign * len(turn.real)
            self.images += len(turn.real)
            turn.logs[f"{self.log_prefix}/r_t"] = sign
            turn.logs[f"{self.log_prefix}/p"] = self.p.clone()
        return real, fake

    def after_step(self, turn: Turn) -> None:
        if turn.player != "discriminator" or (turn.number + 1) % self.interval:
            return
        if self.target is not None:
            share = self.images * (joint.num_processes() / (self.speed_kimg * 1000))
            direction = (self.signs / self.images - self.target).sign()
            self.p.copy_((self.p + direction * share).clamp(0, 1))
        self.signs.zero_()
        self.images.zero_()

    @property
    def never(self) -> bool:
        """Whether p is known to be 0. On an accelerator a p that moves is not looked at: that would wait for it."""
        if self.target is None and not isinstance(self.schedule, Schedule):
            return bool(self.schedule == 0)
        return self.p.device.type == "cpu" and self.p.item() == 0
