"""Penalties on the discriminator's gradient with respect to its input.

Each is a mean over samples of a function of the sample's own gradient. With batch normalization in the
discriminator a sample's logit depends on the other samples, so that there is no such gradient: refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ganzoo import streams
from ganzoo.errors import UserError
from ganzoo.parts import Penalty, PlayerName, Turn
from ganzoo.schedules import Schedule

if TYPE_CHECKING:
    from ganzoo.gan import GAN


class _InputGradient(Penalty):
    """A penalty on the per-sample gradient of the logits at some points."""

    players: tuple[PlayerName, ...] = ("discriminator",)

    def __init__(self, weight: float | Schedule, *, every: int, allow_batch_norm: bool) -> None:
        super().__init__(weight, every=every)
        self.allow_batch_norm = allow_batch_norm

    def setup(self, gan: GAN) -> None:
        if not self.allow_batch_norm and any(isinstance(m, _BatchNorm) for m in gan.discriminator.modules()):
            raise UserError(
                f"{type(self).__name__} penalizes each sample's own gradient, but batch normalization in the "
                "discriminator couples the samples: set discriminator_norm to none, instance, layer or spectral, or "
                "allow_batch_norm to reproduce a recipe that did it."
            )

    def gradient(self, turn: Turn, points: Tensor, labels: Tensor | None) -> Tensor:
        """Gradient of each sample's logits at its point, (N, D), in float32 and with a graph."""
        points = points.detach().float().requires_grad_()
        logits = turn.discriminate(points, labels)
        (gradient,) = torch.autograd.grad(logits.sum(), points, create_graph=True)
        return gradient.flatten(1)


class _SquaredGradient(_InputGradient):
    """gamma/2 times the mean squared norm."""

    def __init__(self, gamma: float | Schedule = 10.0, *, every: int = 1, allow_batch_norm: bool = False) -> None:
        """
        Args:
            gamma: The paper's gamma, with its 1/2 in front.
            every: Apply it on each so many-th turn, with as many times the weight.
            allow_batch_norm: Accept batch normalization in the discriminator.
        """
        super().__init__(gamma, every=every, allow_batch_norm=allow_batch_norm)

    def half_square(self, turn: Turn, points: Tensor, labels: Tensor | None) -> Tensor:
        """1/2 E|grad D|^2 at the points."""
        return self.gradient(turn, points, labels).square().sum(1).mean() / 2


class R1(_SquaredGradient):
    """gamma/2 E|grad D(x)|^2 at real data (Mescheder 2018, eq. 9)."""

    def value(self, turn: Turn) -> Tensor:
        assert turn.real is not None
        return self.half_square(turn, turn.real, turn.real_labels)


class R2(_SquaredGradient):
    """gamma/2 E|grad D(x)|^2 at fakes (Mescheder 2018, eq. 10)."""

    def value(self, turn: Turn) -> Tensor:
        assert turn.fake is not None
        return self.half_square(turn, turn.fake, turn.fake_labels)


class WassersteinGradientPenalty(_InputGradient):
    """weight E(|grad D(x)| - 1)^2 on lines between real and fake (WGAN-GP, Gulrajani 2017, eq. 3)."""

    def __init__(self, weight: float | Schedule = 10.0, *, every: int = 1, allow_batch_norm: bool = False) -> None:
        """
        Args:
            weight: The paper's lambda.
            every: Apply it on each so many-th turn, with as many times the weight.
            allow_batch_norm: Accept batch normalization in the critic.
        """
        super().__init__(weight, every=every, allow_batch_norm=allow_batch_norm)

    def value(self, turn: Turn) -> Tensor:
        assert turn.real is not None and turn.fake is not None
        share = streams.rand(len(turn.real), *[1] * (turn.real.dim() - 1), purpose="gp", device=turn.real.device)
        points = share * turn.real.detach() + (1 - share) * turn.fake.detach()
        norms: Tensor = torch.linalg.vector_norm(self.gradient(turn, points, turn.real_labels), dim=1)
        excess: Tensor = norms - 1
        return excess.square().mean()
