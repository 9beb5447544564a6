"""Latent optimisation: LOGAN, Wu et al. 2019, arXiv 1912.00953."""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ganzoo.config import build
from ganzoo.errors import UserError
from ganzoo.latents import Normal
from ganzoo.parts import Part, Turn
from ganzoo.precision import full_precision
from ganzoo.replay import eager, untouched
from ganzoo.schedules import Schedule

if TYPE_CHECKING:
    from ganzoo.gan import GAN


class LatentOptimization(Part):
    """Both players see fakes of z' = clip(z + alpha df/dz), f(z) = D(G(z)): one step uphill (Wu 2019, alg. 1).

    The generator learns through the step, too, as in the paper; the discriminator takes z' as it is, where the paper
    also differentiates its step. It is the paper's plain gradient, without its natural one, moves all components of z,
    and has no term for the length of the step. Samples of a trained model are of z itself. The step needs a pass
    through both networks, in float32, which moves none of their statistics; with batch normalization the steps of a
    batch depend on each other.
    """

    capturable = True

    def __init__(self, alpha: float | Schedule = 0.1, *, bound: float | None = 1.0) -> None:
        """
        Args:
            alpha: Length of the step in units of the gradient, a number or a schedule of kimg.
            bound: Latents are clipped to [-bound, bound], 1 in the paper; none: not at all, as fits normal ones.
        """
        super().__init__()
        if bound is not None and not bound > 0:
            raise UserError(f"Latents were to be clipped to a bound of {bound}; give one above 0, or none.")
        self.alpha, self.bound = build(alpha), bound

    def setup(self, gan: GAN) -> None:
        if self.bound is not None and isinstance(gan.latents, Normal):
            warnings.warn(
                f"LatentOptimization clips latents to [-{self.bound:g}, {self.bound:g}], but those of samples are "
                "normal and reach further: set latents to Uniform, or bound to none.",
                stacklevel=2,
            )

    def drawn(self, turn: Turn, latents: Tensor) -> Tensor:
        with full_precision(turn.gan.device):
            moved = latents + turn.value_of(self.alpha) * self.slope(turn, latents)
            return moved if self.bound is None else moved.clamp(-self.bound, self.bound)

    def slope(self, turn: Turn, latents: Tensor) -> Tensor:
        """df/dz of each sample, (N, latent_dim), with a graph in a generator turn."""
        generator, discriminator = turn.gan.generator, turn.gan.discriminator
        quietly = (untouched(generator), untouched(discriminator), eager(generator), eager(discriminator))
        with ExitStack() as stack:
            for block in (torch.enable_grad(), *quietly):
                stack.enter_context(block)
            points = latents if latents.requires_grad else latents.detach().requires_grad_()
            logits = turn.discriminate(turn.generate(points, turn.fake_labels), turn.fake_labels)
            per_sample = logits.flatten(1).mean(1) if logits.dim() > 1 else logits
            (slope,) = torch.autograd.grad(per_sample.sum(), points, create_graph=turn.player == "generator")
        return slope
