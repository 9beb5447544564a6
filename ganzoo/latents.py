"""What the generator starts from: the distribution of its latent vectors."""

from __future__ import annotations

import torch
from torch import Tensor

from ganzoo import streams
from ganzoo.config import Configurable


class Latents(Configurable):
    """A distribution of latent vectors."""

    def draw(self, num: int, dim: int, device: torch.device) -> Tensor:
        """Latents for training, shape (num, dim): this process's rows of the keyed joint draw."""
        raise NotImplementedError(f"{type(self).__name__} must define draw(num, dim, device).")

    def numbered(self, indices: range, dim: int, seed: int) -> Tensor:
        """Latents of samples with given numbers, shape (len(indices), dim), on the CPU.

        Row i depends on (seed, number, dim) alone: not on the batch size, the device or the other rows.
        """
        rows = []
        for i in indices:
            with streams.stream(seed, "sample", i, start=0, num=1, total=1, device=torch.device("cpu")):
                rows.append(self.draw(1, dim, torch.device("cpu")))
        return torch.cat(rows)


class Normal(Latents):
    """Independent standard normal components."""

    def draw(self, num: int, dim: int, device: torch.device) -> Tensor:
        return streams.randn(num, dim, purpose="latent", device=device)


class Uniform(Latents):
    """Independent components, uniform in [-1, 1)."""

    def draw(self, num: int, dim: int, device: torch.device) -> Tensor:
        return streams.rand(num, dim, purpose="latent", device=device) * 2 - 1
