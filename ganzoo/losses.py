"""Adversarial losses: functions of logits, no networks inside.

Each takes the discriminator's logits, of any shape with the batch first, and returns the mean over their
elements as a float32 scalar. Logits in half precision are raised to float32 before anything else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganzoo import joint
from ganzoo.config import Configurable, build, default
from ganzoo.errors import UserError

if TYPE_CHECKING:
    from ganzoo.gan import GAN


#: Modules of torch, and nodes of its graph, that make probabilities of logits.
_SQUASHING = ("Sigmoid", "LogSigmoid", "Softmax", "LogSoftmax")
#: Nodes of the graph behind which a value is the same one.
_ONLY_MOVES = tuple(
    "Alias AsStrided Cat Clone Expand Index Permute ReshapeAlias Select Slice Split SplitWithSizes Squeeze Stack T "
    "ToCopy Transpose Unbind UnsafeView Unsqueeze View".split()
)


def _last_of(network: nn.Module) -> nn.Module:
    """The last layer of a plain sequence that changes values."""
    while isinstance(network, nn.Sequential) and len(network):
        layers = [layer for layer in network if not isinstance(layer, nn.Identity | nn.Flatten | nn.Unflatten)]
        network = layers[-1] if layers else nn.Identity()
    return network


class AdversarialLoss(Configurable, nn.Module):
    """The game between generator and discriminator."""

    needs_real = False  #: whether the generator's loss looks at logits of real data too
    #: Whether the generator minimizes what the discriminator maximizes. Its loss then leaves out the half of real data,
    #: a constant for it, unless it is given their logits: where it looks ahead through updates, they depend on it.
    zero_sum = False
    #: Settings of other losses, and why this one has them not.
    why_not: ClassVar[dict[str, str]] = dict.fromkeys(
        ("real_target", "fake_target"),
        "has no labels that could be smoothed: use NonSaturating, Saturating or LeastSquares, or leave it out",
    )
    num_discriminators = 1  #: how many discriminators it takes the logits of; where several, in the last dimension

    def setup(self, gan: GAN) -> None:
        """Once, when the model is complete: refuse a discriminator whose output does not fit.

        Raises:
            UserError: For one that ends in a squashing function, and for another number of discriminators.
        """
        name, last = type(self).__name__, type(_last_of(gan.discriminator)).__name__
        if last in _SQUASHING:
            raise self._squashed(last)
        given = 1 + sum(part.num_discriminators for part in gan.tricks)
        if given < self.num_discriminators:
            raise UserError(
                f"The loss {name} takes the logits of {self.num_discriminators} discriminators, but the model has "
                f"{given}: add the part DualDiscriminator."
            )
        if given > self.num_discriminators:
            raise UserError(
                f"The model has {given} discriminators, but the loss {name} takes the logits of "
                f"{self.num_discriminators}: use the loss D2GAN, or leave DualDiscriminator out."
            )

    def check_logits(self, logits: Tensor) -> None:
        """In the first turn, before anything is learnt: the same of a squashing function anywhere in a ``forward``.

        Raises:
            UserError: The logits are its values.
        """
        node = logits.grad_fn
        while node is not None:
            name = node.name().rstrip("0123456789").removesuffix("Backward")
            if name in _SQUASHING:
                raise self._squashed(name)
            node = node.next_functions[0][0] if name in _ONLY_MOVES and node.next_functions else None

    def _squashed(self, by: str) -> UserError:
        return UserError(
            f"The discriminator ends in {by}, but {type(self).__name__} takes logits and squashes them itself where it "
            "must: remove that last layer."
        )

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
    """Cross-entropy; the generator minimizes log(1 - D(G(z))), the minimax game (Goodfellow 2014, eq. 1).

    Smoothed labels are the discriminator's alone: the generator's loss has the targets 1 and 0.
    """

    zero_sum = True

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        loss = -cross_entropy(fake_logits, 0.0)
        return loss if real_logits is None else loss - cross_entropy(real_logits, 1.0)


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

    zero_sum = True

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return fake_logits.float().mean() - real_logits.float().mean()

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        loss = -fake_logits.float().mean()
        return loss if real_logits is None else loss + real_logits.float().mean()


class LeastSquares(AdversarialLoss):
    """Least squares against targets (Mao 2017, eq. 2; its eq. 9 by default), each half with its factor 1/2."""

    def __init__(
        self, real_target: float = 1.0, fake_target: float = 0.0, *, generator_target: float | None = None
    ) -> None:
        """
        Args:
            real_target: The paper's b, the discriminator's target for real data.
            fake_target: The paper's a, its target for fakes; -1, and 0 for the generator, give the Pearson divergence.
            generator_target: The paper's c, the generator's target for fakes; none: that of real data.
        """
        super().__init__()
        if not fake_target < real_target:
            raise UserError(f"The targets were real {real_target} and fake {fake_target}; real must be above fake.")
        self.real_target, self.fake_target = real_target, fake_target
        self.generator_target = real_target if generator_target is None else generator_target

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        real, fake = real_logits.float() - self.real_target, fake_logits.float() - self.fake_target
        return (real.square().mean() + fake.square().mean()) / 2

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        return (fake_logits.float() - self.generator_target).square().mean() / 2


class Relativistic(AdversarialLoss):
    """Each real sample is to look more real than one fake: RpGAN (Jolicoeur-Martineau 2018).

    softplus(-(real - fake)) for the discriminator, softplus(real - fake) for the generator: log 2 at equal logits.
    Real sample i of a batch is compared with fake i.
    """

    needs_real = True

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return F.softplus(_paired(fake_logits, real_logits)).mean()

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        assert real_logits is not None
        return F.softplus(_paired(real_logits, fake_logits)).mean()


class RelativisticAverage(AdversarialLoss):
    """Each sample is to look more, or less, real than the others' mean: RaGAN (Jolicoeur-Martineau 2018).

    A loss is applied to logits minus the mean logit of the other side; the generator's is the same with the sides
    exchanged. It is the sum of both halves, as in the paper: 2 log 2 at equal logits, twice what
    implementations give that take the halves' mean (``adversarial_weight`` 0.5 for that); LeastSquares keeps its own
    factor 1/2, which the paper's RaLSGAN does not have. Means are over the batch of
    all ranks, for each output of the discriminator; with gradient accumulation they are of one micro-batch.
    """

    needs_real = True

    def __init__(self, loss: AdversarialLoss = default(NonSaturating)) -> None:
        """
        Args:
            loss: What is applied: NonSaturating gives RaGAN, Hinge RaHingeGAN, LeastSquares with targets 1 and -1
                RaLSGAN. Label smoothing is an option of NonSaturating, and the discriminator's alone: the generator
                has the targets 1 and 0 (Salimans 2016 smooths what the discriminator learns).
        """
        super().__init__()
        self.loss = build(loss)
        if not isinstance(self.loss, _CrossEntropy | Hinge | LeastSquares):
            raise UserError(
                f"RelativisticAverage was given the loss {type(self.loss).__name__}, but it compares by NonSaturating, "
                "Hinge or LeastSquares."
            )

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return self._compare(self.loss, real_logits, fake_logits)

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        assert real_logits is not None
        loss = NonSaturating() if isinstance(self.loss, _CrossEntropy) else self.loss  # its targets, not smoothed
        return self._compare(loss, fake_logits, real_logits)

    def _compare(self, loss: AdversarialLoss, high: Tensor, low: Tensor) -> Tensor:
        high, low = high.float(), low.float()
        return loss.discriminator(high - joint.mean(low.mean(0)), low - joint.mean(high.mean(0)))


class D2GAN(AdversarialLoss):
    """Two discriminators, one that rewards real data and one that rewards fakes (Nguyen 2017, eq. 1).

    Both maximize J = alpha E log D1(x) - E D1(G(z)) - E D2(x) + beta E log D2(G(z)), which the generator minimizes;
    D = softplus(logit) > 0. At the optimum D1 = alpha p_data/p_g and D2 = beta p_g/p_data, so that alpha weighs
    KL(p_data || p_g), which punishes lost modes, and beta the reverse KL, which punishes bad samples. Logits are of
    shape (N, ..., 2), as the part DualDiscriminator makes them.
    """

    zero_sum = True
    num_discriminators = 2

    def __init__(self, alpha: float = 1.0, beta: float = 1.0) -> None:
        """
        Args:
            alpha: Weight of log D1 at real data, in (0, 1] in the paper.
            beta: Weight of log D2 at fakes, in (0, 1] in the paper.
        """
        super().__init__()
        if not (alpha > 0 and beta > 0):
            raise UserError(f"D2GAN was given alpha {alpha} and beta {beta}; both must be above 0.")
        self.alpha, self.beta = alpha, beta

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return self._real(real_logits) - self.generator(fake_logits)

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        first, second = _columns(fake_logits)
        loss = self.beta * log_softplus(second).mean() - F.softplus(first).mean()
        return loss if real_logits is None else loss - self._real(real_logits)

    def _real(self, logits: Tensor) -> Tensor:
        first, second = _columns(logits)
        return F.softplus(second).mean() - self.alpha * log_softplus(first).mean()


def cross_entropy(logits: Tensor, target: float) -> Tensor:
    """Mean binary cross-entropy of logits against one target probability, as softplus terms."""
    logits = logits.float()
    loss = F.softplus(-logits).mean() * target if target else 0.0
    return loss + F.softplus(logits).mean() * (1 - target) if target < 1 else loss  # type: ignore[return-value]  # a tensor


def log_softplus(logits: Tensor) -> Tensor:
    """log(softplus(x)), elementwise; below -15 it is x to float32, where softplus(x) itself underflows in the end."""
    far = logits < -15
    return torch.where(far, logits, F.softplus(logits.masked_fill(far, 0.0)).log())


def _paired(a: Tensor, b: Tensor) -> Tensor:
    if a.shape != b.shape:
        raise UserError(
            f"Relativistic compares each real sample with one fake, but was given logits of shapes {tuple(a.shape)} "
            f"and {tuple(b.shape)}: use RelativisticAverage."
        )
    return a.float() - b.float()


def _columns(logits: Tensor) -> tuple[Tensor, Tensor]:
    if logits.dim() < 2 or logits.shape[-1] != 2:
        raise UserError(
            f"D2GAN takes logits of two discriminators, (N, ..., 2), but was given {tuple(logits.shape)}: add the part "
            "DualDiscriminator."
        )
    first, second = logits.float().unbind(-1)
    return first, second
