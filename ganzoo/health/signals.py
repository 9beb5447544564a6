"""Numbers that tell a healthy game from a failing one, whatever the architecture and the loss.

The classic failures look alike in the losses, which are no distance to anything. These four numbers tell them apart;
:mod:`ganzoo.health.diagnosis` gives the failures their names.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor, nn

from ganzoo.errors import UserError
from ganzoo.parts import Part, Turn
from ganzoo.precision import full_precision


class Signals(Part):
    """Logs separation, diversity, the generator's signal and both gradient norms, on each so many-th turn.

    - ``health/separation``: the share of pairs of a real and a fake sample in which the real one has the higher logit
      (the area under the ROC curve): 0.5 where the discriminator cannot tell them apart, 1 where it always can.
    - ``health/diversity``: the mean distance between two fakes over that between two real samples, in the space of
      the data: near 1 for a good generator, near 0 for one that has collapsed to a point.
    - ``health/signal``: the mean absolute slope of the generator's loss over a logit, times the batch size: 1 where a
      fake's logit counts fully, 0 where the loss is saturated and teaches nothing (Arjovsky and Bottou 2017).
    - ``health/gradient_g`` and ``health/gradient_d``: Euclidean norms of the whole gradient, before clipping.

    Per rank, then averaged. It draws no random numbers and changes nothing: the run is the same without it.
    """

    capturable = True

    def __init__(self, every: int = 10) -> None:
        """
        Args:
            every: Measure on each so many-th turn of each player.
        """
        super().__init__()
        if every < 1:
            raise UserError(f"Signals on every {every} turns were asked for; every must be 1 or more.")
        self.every = every

    def graph_key(self, turn: Turn) -> Hashable:
        return turn.number % self.every == 0

    def forward(self, turn: Turn) -> Tensor | None:
        if turn.number % self.every or turn.fake_logits is None:
            return None
        with torch.no_grad():
            if turn.player == "generator":
                turn.logs["health/signal"] = signal(turn)
            elif turn.real_logits is not None and turn.real is not None and turn.fake is not None:
                turn.logs["health/separation"] = separation(_scalar(turn.real_logits), _scalar(turn.fake_logits))
                turn.logs["health/diversity"] = diversity(turn.fake, turn.real)
        return None

    def after_backward(self, turn: Turn) -> None:
        if turn.number % self.every:
            return
        player = turn.gan.players[turn.player]
        scaler = getattr(turn.gan.trainer.precision_plugin, "scaler", None)
        norm = gradient_norm(player.trained) / (scaler.get_scale() if scaler is not None else 1.0)
        turn.gan.meter.add(f"health/gradient_{turn.player[0]}", norm, turn.number)


def separation(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Share of (real, fake) pairs with the higher logit on the real side; ties count half.

    Args:
        real_logits: (N,).
        fake_logits: (M,).
    """
    difference = real_logits.float()[:, None] - fake_logits.float()[None, :]
    return (difference.sign().mean() + 1) / 2


def diversity(fake: Tensor, real: Tensor) -> Tensor:
    """Mean distance of two different fakes over the mean distance of two different real samples.

    Args:
        fake: (N, ...), at least two.
        real: (M, ...), at least two.
    """
    return _mean_distance(fake) / _mean_distance(real).clamp_min(1e-12)


def signal(turn: Turn) -> Tensor:
    """Mean absolute slope of the generator's loss over one logit that it is given, times their number."""
    assert turn.judged_fake is not None
    logits = turn.judged_fake.detach().float().requires_grad_()
    real = None if turn.judged_real is None else turn.judged_real.detach()
    with torch.enable_grad(), full_precision(logits.device):
        (slope,) = torch.autograd.grad(turn.gan.loss.generator(logits, real), logits)
    return slope.abs().sum()


def gradient_norm(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Euclidean norm of all gradients together, a scalar."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return torch.zeros((), device=parameters[0].device if parameters else None)
    norms: Tensor = torch.stack(torch._foreach_norm(gradients))
    return norms.square().sum().sqrt()


def _scalar(logits: Tensor) -> Tensor:
    """One number per sample: the mean of those that the discriminator gives."""
    return logits.flatten(1).mean(1) if logits.dim() > 1 else logits


def _mean_distance(samples: Tensor) -> Tensor:
    flat, num = samples.detach().float().flatten(1), len(samples)
    # Without the matrix product that torch takes for large inputs: it loses small distances.
    distances: Tensor = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.sum() / (num * (num - 1))
