"""What a discriminator says of points: its landscape, its gradient field, and what the optimal one would say."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ganzoo.errors import UserError
from ganzoo.loop import Loop
from ganzoo.losses import AdversarialLoss, LeastSquares, NonSaturating, Saturating
from ganzoo.replay import evaluating


@dataclass(frozen=True)
class Judgement:
    """What a discriminator says of points, on the CPU."""

    values: Tensor  #: (N,): D(x) in [0, 1] where the loss makes it a probability, else the critic's value
    directions: Tensor  #: (N, d), gradient of the logits: whither the generator's loss pushes fakes
    is_probability: bool


@dataclass(frozen=True)
class Optimum:
    """The optimal discriminator of two densities."""

    values: Tensor  #: (N,), comparable to those of a :class:`Judgement`; NaN where neither has a density
    formula: str  #: what they are, in TeX


def judge(gan: Loop, points: Tensor) -> Judgement | None:
    """What the discriminator says of points (N, d); it is left as it was.

    None where it cannot judge one point alone: it needs labels, sees several samples at once (packing), or compares
    the samples of a batch (minibatch statistics).
    """
    if gan.num_classes:
        return None
    points = points.detach().to(gan.device).requires_grad_()
    with evaluating(gan.discriminator), torch.enable_grad(), torch.autocast(gan.device.type, enabled=False):
        logits = _logits(gan.discriminator, points)
        if logits is None or not _is_pointwise(gan.discriminator, points, logits):
            return None
        (directions,) = torch.autograd.grad(logits.sum(), points)
    values, is_probability = _values(gan.loss, logits.detach().cpu())
    return Judgement(values, directions.cpu(), is_probability)


def optimum(loss: AdversarialLoss, p_data: Tensor, p_g: Tensor) -> Optimum | None:
    """The optimal discriminator where the densities of data and generator are these; None: no such form.

    D* = p_data / (p_data + p_g) (Goodfellow 2014, proposition 1; for least squares Mao 2017, eq. 5), and with smoothed
    targets a and b D* = (a p_data + b p_g) / (p_data + p_g) (Salimans 2016, sec. 3.4).
    """
    total = p_data + p_g
    share = p_data / total.where(total > 0, torch.nan)
    if isinstance(loss, NonSaturating | Saturating):
        real, fake = loss.real_target, loss.fake_target
        return Optimum(fake + (real - fake) * share, _formula(real, fake))
    return Optimum(share, _formula(1.0, 0.0)) if isinstance(loss, LeastSquares) else None  # its targets become 1 and 0


def _formula(real: float, fake: float) -> str:
    above = ("" if real == 1 else f"{real:g} ") + "p_{data}"
    return rf"{f'({above} + {fake:g} p_g)' if fake else above} / (p_{{data}} + p_g)"


def _values(loss: AdversarialLoss, logits: Tensor) -> tuple[Tensor, bool]:
    """Values to show. Losses without targets do not fix the level of a critic, so its middle is 0."""
    if isinstance(loss, NonSaturating | Saturating):
        return logits.sigmoid(), True
    if isinstance(loss, LeastSquares):  # whatever its targets are, they become 0 and 1
        return (logits - loss.fake_target) / (loss.real_target - loss.fake_target), True
    return logits - logits.median(), False


def _logits(network: nn.Module, points: Tensor) -> Tensor | None:
    """One logit per point, or None."""
    try:
        logits: Tensor = network(points, None)
    except (RuntimeError, UserError):  # made for data of another shape, or for groups that divide the batch
        return None
    return logits.float().flatten(1).mean(1) if logits.dim() > 1 else logits.float()


def _is_pointwise(network: nn.Module, points: Tensor, logits: Tensor) -> bool:
    """Whether each logit belongs to one point, whatever the others are."""
    if len(logits) != len(points):
        return False
    alone = _logits(network, points[: len(points) // 2 + 1])
    return alone is not None and torch.allclose(alone, logits[: len(alone)], rtol=1e-3, atol=1e-3)
