"""What the generator starts from: the distribution of its latent vectors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ganzoo import streams
from ganzoo.config import Configurable
from ganzoo.errors import UserError


class Latents(Configurable):
    """A distribution of latent vectors."""

    def draw(self, num: int, dim: int, device: torch.device) -> Tensor:
        """Latents for training, shape (num, dim): this process's rows of the keyed joint draw."""
        raise NotImplementedError(f"{type(self).__name__} must define draw(num, dim, device).")

    def numbered(self, numbers: range, dim: int, seed: int) -> Tensor:
        """Latents of samples with given numbers, shape (len(numbers), dim), on the CPU.

        Row i depends on (seed, number, dim) alone: not on the batch size, the device or the other rows.
        """
        with streams.numbered(numbers, seed, "sample", device=torch.device("cpu")):
            return self.draw(len(numbers), dim, torch.device("cpu"))

    def truncated(self, latents: Tensor, threshold: float) -> Tensor:
        """The same latents brought to the dense middle of the distribution, for samples of fewer kinds and better.

        Raises:
            UserError: The distribution has no such middle.
        """
        raise UserError(
            f"A truncation of {threshold:g} was asked for, but {type(self).__name__} latents have no tails to cut: "
            "leave truncation out."
        )

    def plausible(self, latents: Tensor) -> Tensor:
        """The nearest latents (N, dim) that a draw could well have given, of such as an optimizer has moved.

        Unless a distribution knows better, all are.
        """
        return latents


class Normal(Latents):
    """Independent standard normal components."""

    def draw(self, num: int, dim: int, device: torch.device) -> Tensor:
        return streams.randn(num, dim, purpose="latent", device=device)

    def truncated(self, latents: Tensor, threshold: float) -> Tensor:
        """Components of the normal distribution cut off at +-threshold (Brock 2019, section 3.1).

        The paper draws again what falls outside. Here each component keeps its rank: it moves to the same quantile of
        the truncated distribution, which is the same one, and a sample changes smoothly with the threshold.
        """
        if not threshold > 0:
            raise UserError(f"A truncation of {threshold:g} was asked for; a threshold of latents is above 0.")
        inside = math.erf(threshold / math.sqrt(2))  # P(|z| < threshold)
        # By erf and not by the distribution function, which has no digits left in its upper tail.
        moved = math.sqrt(2) * torch.erfinv(inside * torch.erf(latents.double() / math.sqrt(2)))
        return moved.clamp(-threshold, threshold).to(latents.dtype)

    def plausible(self, latents: Tensor) -> Tensor:
        """Of a length within three standard deviations of a draw's.

        The length of d components has a mean of about sqrt(d - 1/2) and a variance of about 1/2 (chi distribution).
        """
        usual, margin = math.sqrt(latents.shape[1] - 0.5), 3 * math.sqrt(0.5)
        lengths = latents.norm(dim=1, keepdim=True)
        allowed = lengths.clamp(max(usual - margin, 0), usual + margin)
        nearest: Tensor = latents * (allowed / lengths.clamp_min(1e-12))
        return nearest


class Uniform(Latents):
    """Independent components, uniform in [-1, 1)."""

    def draw(self, num: int, dim: int, device: torch.device) -> Tensor:
        return streams.rand(num, dim, purpose="latent", device=device) * 2 - 1

    def plausible(self, latents: Tensor) -> Tensor:
        """With components in [-1, 1]."""
        return latents.clamp(-1, 1)
