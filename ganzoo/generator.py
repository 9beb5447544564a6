"""What every generator is."""

from __future__ import annotations

from torch import nn


class Generator(nn.Module):
    """Base of all generators: ``forward(latents, labels)`` with latents of shape (N, latent_dim)."""

    latent_dim: int
