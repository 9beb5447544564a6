"""The methods of the table: a loss, and what else differs from the plain GAN."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ganzoo.losses import D2GAN, AdversarialLoss, NonSaturating, Relativistic, Wasserstein

Discriminate = Callable[[Tensor], Tensor]  #: points (S, F, N) to logits (S, N)


class StackedPenalty:
    """A penalty on the input gradient, as the sum over seeds of each seed's own mean."""

    def __call__(self, discriminate: Discriminate, real: Tensor, fake: Tensor, share: Tensor) -> Tensor:
        """For real and fake points (S, F, B) and uniform numbers (S, 1, B): a scalar."""
        raise NotImplementedError

    def config(self) -> dict[str, Any]:
        """Name and numbers."""
        return {"name": type(self).__name__, **vars(self)}


class ZeroCentred(StackedPenalty):
    """R1 and R2 at once: gamma/2 E|grad D|^2 at real and at fake points (Mescheder 2018, eq. 9 and 10)."""

    def __init__(self, gamma: float) -> None:
        self.gamma = gamma

    def __call__(self, discriminate: Discriminate, real: Tensor, fake: Tensor, share: Tensor) -> Tensor:
        gradient = _gradient(discriminate, torch.cat([real, fake], dim=2))
        return gradient.square().sum() * (self.gamma / 2 / real.shape[2])


class OneCentred(StackedPenalty):
    """weight E(|grad D| - 1)^2 on lines between real and fake (WGAN-GP, Gulrajani 2017, eq. 3)."""

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def __call__(self, discriminate: Discriminate, real: Tensor, fake: Tensor, share: Tensor) -> Tensor:
        norms: Tensor = torch.linalg.vector_norm(_gradient(discriminate, fake.lerp(real, share)), dim=1)
        return (norms - 1).square().sum() * (self.weight / real.shape[2])


def _gradient(discriminate: Discriminate, points: Tensor) -> Tensor:
    points = points.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(discriminate(points).sum(), points, create_graph=True)
    return gradient


@dataclass(frozen=True)
class Method:
    """A row of the table."""

    name: str
    title: str
    loss: AdversarialLoss = field(default_factory=NonSaturating)
    packing: int = 1  #: points that the discriminator judges together
    group: int = 0  #: of the minibatch standard deviation; 0: none
    unroll: int = 0  #: steps of the discriminator that the generator looks ahead
    penalty: StackedPenalty | None = None
    turns: int = 1  #: updates of the discriminator per update of the generator
    copies: int = 1  #: discriminators
    notes: tuple[str, ...] = ()  #: what a reader must know about this row

    def config(self) -> dict[str, Any]:
        """All that decides the numbers, as plain data."""
        return {
            "name": self.name,
            "loss": self.loss.config(),
            "packing": self.packing,
            "minibatch_std_group": self.group,
            "unroll": self.unroll,
            "penalty": self.penalty.config() if self.penalty else None,
            "turns": self.turns,
            "discriminators": self.copies,
        }


def _pacgan(degree: int) -> Method:
    return Method(f"pacgan{degree}", f"PacGAN{degree}", packing=degree)


#: In the order in which ``run --all`` fills the table.
METHODS = {
    m.name: m
    for m in (
        Method("gan", "GAN"),
        _pacgan(2),
        Method(
            "rpgan",
            "RpGAN + R1 + R2",
            Relativistic(),
            penalty=ZeroCentred(0.1),
            notes=("gamma 0.1 for both penalties, not tuned.",),
        ),
        Method(
            "wgan_gp",
            "WGAN-GP",
            Wasserstein(),
            penalty=OneCentred(0.1),
            notes=("lambda 0.1, as Gulrajani's code for points; one critic turn per cycle, as all rows (there: 5).",),
        ),
        _pacgan(3),
        _pacgan(4),
        Method("minibatch_std", "Minibatch std", group=4, notes=("groups of 4, before the last layer (Karras 2018).",)),
        Method("d2gan", "D2GAN", D2GAN(), copies=2, notes=("alpha 1 and beta 1, not tuned.",)),
        Method(
            "unrolled",
            "Unrolled GAN",
            unroll=5,
            notes=(
                "5 steps on the cycle's own batch, gradient through Adam's update (Metz 2017); the published row is of "
                "VEEGAN's own networks and training.",
            ),
        ),
    )
}
