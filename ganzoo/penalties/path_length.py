"""Path length regularization: equal steps in the generator's style space change the image equally much."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol, cast

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ganzoo import streams
from ganzoo.errors import UserError
from ganzoo.parts import Penalty, PlayerName, Turn
from ganzoo.precision import full_precision
from ganzoo.replay import eager, untouched
from ganzoo.schedules import Schedule

if TYPE_CHECKING:
    from ganzoo.gan import GAN


class StyleBased(Protocol):
    """What a generator must have: two networks, so that ``synthesis(mapping(latents, labels))`` is its output."""

    def mapping(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        """Styles w, (N, D), or (N, L, D) with one for each of L layers."""

    def synthesis(self, w: Tensor) -> Tensor:
        """Images, (N, C, H, W), or points, (N, d)."""


class PathLength(Penalty):
    """weight E(|J^T y| - a)^2, J the Jacobian of images by styles (Karras 2020, sec. 3.2, eq. 4).

    y is normal with variance 1/(H W): with the paper's unit variance the penalty would be H W times as large. For
    styles of L layers, (N, L, D), the squared length is the sum over D and the mean over L; for one style, (N, D),
    it is the sum over D, through all layers that use it. So the paper's weight (appendix B) is the default of 2 where
    there are 2 log2(H) - 2 layers, each with its style.

    a is the mean of all lengths in the first 1/decay turns, and from then on a moving one. It is a constant for the
    gradient. Lengths are compared with a as it was before the turn, and a moves once per turn: so several devices and
    gradient accumulation equal one process with the joint batch. The first turn only measures; its penalty is 0.

    The pass is one of its own: in float32, of a share of the turn's latents, without the discriminator. It moves no
    statistic of the generator.
    """

    players: tuple[PlayerName, ...] = ("generator",)
    owner: PlayerName = "generator"
    capturable = True
    mean: Tensor
    num_turns: Tensor

    def __init__(
        self, weight: float | Schedule = 2.0, *, every: int = 4, decay: float = 0.01, fraction: float = 0.5
    ) -> None:
        """
        Args:
            weight: Factor of the penalty.
            every: Apply it on each so many-th turn of the generator, with as many times the weight.
            decay: Rate at which the mean length follows, per turn that the penalty applies in; in (0, 1].
            fraction: Share of the batch that it is computed on: 1, or one k-th for every k-th sample. A micro-batch
                that k does not divide is thinned by their greatest common divisor.
        """
        super().__init__(weight, every=every)
        if not 0 < decay <= 1:
            raise UserError(f"The decay of PathLength was {decay}, but it must be above 0 and at most 1.")
        if not 0 < fraction <= 1 or abs(round(1 / fraction) * fraction - 1) > 0.01:
            raise UserError(f"PathLength was to use a fraction of {fraction} of the batch; give 1, 1/2, 1/3, 1/4, ...")
        self.decay, self.step = decay, round(1 / fraction)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("num_turns", torch.zeros((), dtype=torch.int64))
        self._measured: list[Tensor] = []  # mean length of each micro-batch of the turn

    def setup(self, gan: GAN) -> None:
        name = type(gan.generator).__name__
        if not all(callable(getattr(gan.generator, network, None)) for network in ("mapping", "synthesis")):
            raise UserError(
                f"PathLength measures steps in the space between a mapping and a synthesis network, which {name} does "
                "not have: use a style-based generator, or leave the penalty out."
            )
        if any(isinstance(m, _BatchNorm) for m in gan.generator.modules()):
            raise UserError(
                f"PathLength measures each sample's own Jacobian, but batch normalization in {name} couples the "
                "samples: use another normalization there."
            )

    def before_turn(self, turn: Turn) -> None:
        self._measured.clear()

    def value(self, turn: Turn) -> Tensor:
        lengths = self.lengths(turn)
        self._measured.append(lengths.detach().mean())
        # No question that the device would have to answer: in the first turn each length is its own target.
        target = torch.where(self.num_turns > 0, self.mean, lengths.detach())
        return (lengths - target).square().mean()

    def after_backward(self, turn: Turn) -> None:
        if self._measured:
            rate = (1 / (self.num_turns + 1)).clamp(min=self.decay)
            self.mean.lerp_(torch.stack(self._measured).mean(), rate)
            self.num_turns += 1
            self._measured.clear()

    def lengths(self, turn: Turn) -> Tensor:
        """|J^T y| of each sample used, (N * fraction,), float32 and with a graph."""
        assert turn.latents is not None
        network = turn.gan.generator
        step = math.gcd(self.step, len(turn.latents))
        latents = turn.latents[::step].float()
        labels = None if turn.fake_labels is None else turn.fake_labels[::step]
        generator = cast(StyleBased, network)
        with full_precision(turn.gan.device), eager(network), untouched(network), streams.thinned(step, "path length"):
            w = generator.mapping(latents, labels)
            w = w if w.requires_grad else w.detach().requires_grad_()
            return self.length(generator.synthesis(w), w)

    def length(self, images: Tensor, w: Tensor) -> Tensor:
        """|J^T y| for images (N, C, H, W) made of w (N, D) or (N, L, D)."""
        y = streams.randn(*images.shape, purpose="y", device=images.device) / math.sqrt(math.prod(images.shape[2:]))
        (gradient,) = torch.autograd.grad((images.float() * y).sum(), w, create_graph=True)
        lengths: Tensor = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
        return lengths / math.sqrt(math.prod(w.shape[1:-1]))
