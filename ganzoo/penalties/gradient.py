"""Penalties on the discriminator's gradient with respect to its input.

Each is a mean over samples of a function of the sample's own gradient: that of the sum of its logits, with respect to
all of its values, through whatever parts do to the data before the discriminator sees them. Where M logits judge N
samples together (packing), an input is a pack of N/M consecutive samples, and has one gradient.

With batch normalization in the discriminator a sample's logit depends on the other samples, so that there is no such
gradient: refused. A discriminator that looks at statistics of its batch on purpose (minibatch standard deviation) or at
a fixed batch (virtual batch normalization) is allowed.

All gradients are computed in float32 without a compiled graph. R1 and R2 use the turn's own pass where it was such a
pass; otherwise they make it again, with the same noise and the same statistics before it, so that the gradient is the
same. The penalties at other points have a pass of their own. No pass that is made for a penalty alone moves a statistic
of the discriminator: running means and spectral vectors record one real and one fake batch per turn, as without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ganzoo import joint, streams
from ganzoo.errors import UserError
from ganzoo.layers.pieces import origin
from ganzoo.parts import Penalty, PlayerName, Turn
from ganzoo.replay import Snapshot, eager, is_compiled, untouched
from ganzoo.schedules import Schedule

if TYPE_CHECKING:
    from ganzoo.gan import GAN


class _InputGradient(Penalty):
    """A penalty on each input's own gradient at some points."""

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

    def gradient(self, turn: Turn, points: Tensor, labels: Tensor | None, moment: Snapshot | None = None) -> Tensor:
        """The gradient of each input, (M, D), by a pass of its own, or by the pass after ``moment``, made again."""
        network = turn.gan.discriminator
        points = points.detach().float().requires_grad_()
        with eager(network), moment.restored() if moment else untouched(network):
            logits = turn.discriminate(points, labels)
            return self.differentiate(logits, points)

    def differentiate(self, logits: Tensor, points: Tensor) -> Tensor:
        """The gradient of each input, (M, D) with a graph, for logits (M, ...) of points (N, ...)."""
        (gradient,) = torch.autograd.grad(logits.sum(), points, create_graph=True)
        return _per_input(gradient, logits)


def _per_input(gradient: Tensor, logits: Tensor) -> Tensor:
    """The gradient (N, ...) of M logits as (M, D): of a pack of points, where several are one input."""
    return gradient.reshape(min(len(logits), len(gradient)), -1)


class _SquaredGradient(_InputGradient):
    """gamma/2 times the mean squared norm."""

    def __init__(self, gamma: float | Schedule = 10.0, *, every: int = 1, allow_batch_norm: bool = False) -> None:
        """
        Args:
            gamma: The paper's gamma, with its 1/2 in front.
            every: Apply it on each so many-th turn, with as many times the weight.
            allow_batch_norm: Accept batch normalization in the discriminator.
        """
        if not isinstance(gamma, Schedule | Mapping) and not gamma >= 0:
            raise UserError(f"The gamma of {type(self).__name__} was {gamma}, but a penalty's weight is 0 or more.")
        super().__init__(gamma, every=every, allow_batch_norm=allow_batch_norm)

    def half_square(self, gradient: Tensor) -> Tensor:
        """1/2 E|grad D|^2 of gradients (M, D)."""
        return gradient.square().sum(1).mean() / 2


class _AtJudgedPoints(_SquaredGradient):
    """A penalty where the turn's own pass gives the gradient, if it was in float32 and eager.

    Where the discriminator is linear in pieces, the adversarial loss is computed from that gradient, too
    (:mod:`ganzoo.layers.pieces`), which saves a third of the turn's work.
    """

    _gradient: Tensor | None = None  # of the micro-batch's points, if the loss has asked for it

    def shares(self, turn: Turn) -> bool:
        """Whether the turn's own passes can be differentiated twice in float32."""
        return turn.full_precision and not is_compiled(turn.gan.discriminator)

    def prepare(self, turn: Turn) -> bool:
        """Before a turn: whether its points should require a gradient. If its passes cannot be used, record them."""
        if self.due(turn) and not self.shares(turn):
            turn.record = True
        return self.due(turn) and self.shares(turn)

    def judged(self, turn: Turn, points: Tensor | None, logits: Tensor) -> Tensor:
        """The logits of the turn's own pass, (M,), as the loss should see them: from their gradient, if that is due."""
        found, self._gradient = origin(logits), None
        if found is None or points is None or not (points.requires_grad and self.due(turn) and self.shares(turn)):
            return logits
        gradient, by_input, by_unit = torch.autograd.grad(logits.sum(), (points, *found), create_graph=True)
        self._gradient = _per_input(gradient, logits)
        return (by_input * found.inputs.detach()).flatten(1).sum(1) + by_unit.flatten()

    def at(
        self,
        turn: Turn,
        points: Tensor | None,
        labels: Tensor | None,
        logits: Tensor | None,
        moment: Snapshot | None,
    ) -> Tensor:
        """1/2 E|grad D|^2 at points that the turn has judged, or by a pass of its own."""
        assert points is not None
        if self._gradient is not None:
            gradient, self._gradient = self._gradient, None
            return self.half_square(gradient)
        if logits is not None and points.requires_grad and self.shares(turn):
            return self.half_square(self.differentiate(logits, points))
        return self.half_square(self.gradient(turn, points, labels, moment))


class R1(_AtJudgedPoints):
    """gamma/2 E|grad D(x)|^2 at real data (Mescheder 2018, eq. 9)."""

    capturable = True

    def before_turn(self, turn: Turn) -> None:
        turn.track_real |= self.prepare(turn)

    def logits(self, turn: Turn, real: Tensor | None, fake: Tensor) -> tuple[Tensor | None, Tensor]:
        return real if real is None else self.judged(turn, turn.real, real), fake

    def value(self, turn: Turn) -> Tensor:
        return self.at(turn, turn.real, turn.real_labels, turn.real_logits, turn.before_real)


class R2(_AtJudgedPoints):
    """gamma/2 E|grad D(x)|^2 at fakes (Mescheder 2018, eq. 10)."""

    capturable = True

    def before_turn(self, turn: Turn) -> None:
        turn.track_fake |= self.prepare(turn)

    def logits(self, turn: Turn, real: Tensor | None, fake: Tensor) -> tuple[Tensor | None, Tensor]:
        return real, self.judged(turn, turn.fake, fake)

    def value(self, turn: Turn) -> Tensor:
        return self.at(turn, turn.fake, turn.fake_labels, turn.fake_logits, turn.before_fake)


class ZeroCenteredGradientPenalty(_SquaredGradient):
    """gamma/2 E|grad D(x)|^2 on lines between real and fake (Thanh-Tung 2019; its lambda is gamma/2)."""

    log_name = "zero_centered"
    capturable = True

    def value(self, turn: Turn) -> Tensor:
        return self.half_square(self.gradient(turn, between(turn), turn.real_labels))


class _NormPenalty(_InputGradient):
    """weight E(|grad D(x)| - target)^2."""

    def __init__(
        self, weight: float | Schedule, *, target: float, one_sided: bool, every: int, allow_batch_norm: bool
    ) -> None:
        super().__init__(weight, every=every, allow_batch_norm=allow_batch_norm)
        if not target >= 0:
            raise UserError(f"The target of {type(self).__name__} was {target}, but it is a norm: 0 or more.")
        self.target, self.one_sided = target, one_sided

    def square_excess(self, gradient: Tensor) -> Tensor:
        """The mean squared distance of norms from the target, for gradients (M, D)."""
        norms: Tensor = torch.linalg.vector_norm(gradient, dim=1)
        excess = norms - self.target
        return (excess.clamp(min=0) if self.one_sided else excess).square().mean()


class WassersteinGradientPenalty(_NormPenalty):
    """weight E(|grad D(x)| - 1)^2 on lines between real and fake (WGAN-GP, Gulrajani 2017, eq. 3)."""

    log_name = "wgan_gp"
    capturable = True

    def __init__(
        self,
        weight: float | Schedule = 10.0,
        *,
        target: float = 1.0,
        one_sided: bool = False,
        every: int = 1,
        allow_batch_norm: bool = False,
    ) -> None:
        """
        Args:
            weight: The paper's lambda.
            target: Norm that the gradient is drawn to.
            one_sided: Penalize norms above the target only (WGAN-LP, Petzka 2018).
            every: Apply it on each so many-th turn, with as many times the weight.
            allow_batch_norm: Accept batch normalization in the critic.
        """
        super().__init__(weight, target=target, one_sided=one_sided, every=every, allow_batch_norm=allow_batch_norm)

    def value(self, turn: Turn) -> Tensor:
        return self.square_excess(self.gradient(turn, between(turn), turn.real_labels))


class DRAGAN(_NormPenalty):
    """weight E(|grad D(x + delta)| - target)^2 around real data (Kodali 2017).

    The paper draws delta from N(0, c I): set ``deviation`` to the root of its c. The authors' code, which is the
    default here, perturbs by ``scale`` times the standard deviation of the batch times uniform numbers in [0, 1), one
    for each value, and goes a uniform share of the way there, one for each sample. That standard deviation is of all
    values of the batch, joint over devices; with gradient accumulation each micro-batch has its own.
    """

    capturable = True

    def __init__(
        self,
        weight: float | Schedule = 10.0,
        *,
        target: float = 1.0,
        scale: float = 0.5,
        deviation: float | None = None,
        every: int = 1,
        allow_batch_norm: bool = False,
    ) -> None:
        """
        Args:
            weight: The paper's lambda.
            target: The paper's k, the norm that the gradient is drawn to.
            scale: Largest perturbation in standard deviations of the batch, as in the authors' code.
            deviation: Standard deviation of Gaussian noise as in the paper, in units of the data, instead of ``scale``.
            every: Apply it on each so many-th turn, with as many times the weight.
            allow_batch_norm: Accept batch normalization in the discriminator.
        """
        super().__init__(weight, target=target, one_sided=False, every=every, allow_batch_norm=allow_batch_norm)
        for name, size in (("scale", scale), ("deviation", deviation)):
            if size is not None and not size >= 0:
                raise UserError(f"The {name} of DRAGAN's noise was {size}, but it is 0 or more.")
        self.scale, self.deviation = scale, deviation

    def value(self, turn: Turn) -> Tensor:
        return self.square_excess(self.gradient(turn, self.perturbed(turn), turn.real_labels))

    def perturbed(self, turn: Turn) -> Tensor:
        """Points around the turn's real data, of the same shape."""
        assert turn.real is not None
        real = turn.real.detach()
        if self.deviation is not None:
            return real + self.deviation * streams.randn(*real.shape, purpose="dragan", device=real.device)
        spread = joint.mean((real - joint.mean(real.mean())).square().mean()).sqrt()
        noise = streams.rand(*real.shape, purpose="dragan", device=real.device)
        return real + _shares(turn, real, "dragan share") * self.scale * spread * noise


def between(turn: Turn) -> Tensor:
    """Points on the lines between real and fake samples, (N, *shape), each at a uniform share of the way."""
    assert turn.real is not None and turn.fake is not None
    real, fake = turn.real.detach(), turn.fake.detach()
    share = _shares(turn, real, "gp")
    return share * real + (1 - share) * fake


def _shares(turn: Turn, data: Tensor, purpose: str) -> Tensor:
    """A uniform number in [0, 1) for each input, (N, 1, ...): samples that are judged together have the same."""
    shares = streams.rand(len(data), *[1] * (data.dim() - 1), purpose=purpose, device=data.device)
    packed = len(data) // len(turn.real_logits) if turn.real_logits is not None else 1
    return shares[::packed].repeat_interleave(packed, 0) if packed > 1 else shares
