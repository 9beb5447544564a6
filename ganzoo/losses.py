"""Adversarial losses: functions of logits, no networks inside.

Each takes the discriminator's logits, of any shape with the batch first, and returns the mean over their
elements as a float32 scalar. Logits in half precision are raised to float32 before anything else.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ganzoo.config import Configurable
from ganzoo.errors import UserError


class AdversarialLoss(Configurable, nn.Module):
    """The game between generator and discriminator."""

    needs_real = False  #: whether the generator's loss looks at logits of real data too

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """What the discriminator minimizes."""
        raise NotImplementedError(f"{type(self).__name__} must define discriminator(real_logits, fake_logits).")

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        """What the generator minimizes."""
        raise NotImplementedError(f"{type(self).__name__} must define generator(fake_logits, real_logits).")


class _CrossEntropy(AdversarialLoss):
    """The discriminator of Goodfellow 2014, eq. 1, with the label smoothing of Salimans 2016, sec. 3.4."""

    def __init__(self, real_target: float = 1.0, fake_target: float = 0.0) -> None:
        """
        Args:
            real_target: Label of real data in [0, 1]; 0.9 is one-sided label smoothing.
            fake_target: Label of fakes in [0, 1]; with 0.1 as well the smoothing is two-sided.
        """
        super().__init__()
        if not 0 <= fake_target < real_target <= 1:
            raise UserError(
                f"The targets were real {real_target} and fake {fake_target}; they need 0 <= fake < real <= 1."
            )
        self.real_target, self.fake_target = real_target, fake_target

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return cross_entropy(real_logits, self.real_target) + cross_entropy(fake_logits, self.fake_target)


class NonSaturating(_CrossEntropy):
    """Cross-entropy; the generator maximizes log D(G(z)) (Goodfellow 2014, sec. 3)."""

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        return cross_entropy(fake_logits, 1.0)


class Saturating(_CrossEntropy):
    """Cross-entropy; the generator minimizes log(1 - D(G(z))), the minimax game (Goodfellow 2014, eq. 1)."""

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        return -cross_entropy(fake_logits, 0.0)


class Hinge(AdversarialLoss):
    """Hinge loss (Lim and Ye 2017; Miyato 2018, eq. 16)."""

    def __init__(self, margin: float = 1.0) -> None:
        """
        Args:
            margin: Logits beyond this margin on the right side cost nothing.
        """
        super().__init__()
        self.margin = margin

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return F.relu(self.margin - real_logits.float()).mean() + F.relu(self.margin + fake_logits.float()).mean()

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        return -fake_logits.float().mean()


class Wasserstein(AdversarialLoss):
    """The critic's difference of means (Arjovsky 2017); needs a Lipschitz bound such as a gradient penalty."""

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return fake_logits.float().mean() - real_logits.float().mean()

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        return -fake_logits.float().mean()


class LeastSquares(AdversarialLoss):
    """Least squares with targets 0 and 1 (Mao 2017, eq. 9: a = 0, b = c = 1), each with its factor 1/2."""

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return ((real_logits.float() - 1).square().mean() + fake_logits.float().square().mean()) / 2

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        return (fake_logits.float() - 1).square().mean() / 2


def cross_entropy(logits: Tensor, target: float) -> Tensor:
    """Mean binary cross-entropy of logits against one target probability, as softplus terms."""
    logits = logits.float()
    loss = F.softplus(-logits).mean() * target if target else 0.0
    return loss + F.softplus(logits).mean() * (1 - target) if target < 1 else loss  # type: ignore[return-value]  # a tensor
