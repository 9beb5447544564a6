"""From latents and labels to styles: Karras 2019, arXiv 1812.04948, figure 1b and section 3.1.

Labels are those of Karras 2020b, arXiv 2006.06676.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganzoo import streams
from ganzoo.layers.equalized import EqualizedLinear
from ganzoo.layers.modulated import GAIN
from ganzoo.layers.norm import PixelNormLayer
from ganzoo.precision import at_least_float32, full_precision


class MappingNetwork(nn.Module):
    """Latents and labels to styles (N, num_styles, style_dim), all alike, or mixed of two in training."""

    mean_style: Tensor

    def __init__(
        self,
        latent_dim: int,
        style_dim: int,
        num_layers: int,
        num_styles: int,
        num_classes: int = 0,
        lr_multiplier: float = 0.01,
        mixing: float = 0.0,
        equalize: bool = True,
    ) -> None:
        """
        Args:
            latent_dim: Components of a latent vector, which is normalized first.
            style_dim: Components of a style.
            num_layers: Layers of the perceptron.
            num_styles: Layers of the synthesis network that have a style.
            num_classes: Number of classes, whose embedding is put beside the latent; 0: unconditional.
            lr_multiplier: Factor of the learning rate.
            mixing: Probability that a sample has styles of two latents in training.
            equalize: Whether layers have the equalized learning rate.
        """
        super().__init__()
        self.latent_dim, self.num_styles, self.mixing = latent_dim, num_styles, mixing
        self.normalize = PixelNormLayer()
        self.embed = LabelEmbedding(num_classes, style_dim, equalize) if num_classes else None
        inputs = latent_dim + (style_dim if num_classes else 0)
        self.layers = perceptron(inputs, style_dim, num_layers, lr_multiplier, equalize)
        self.register_buffer("mean_style", torch.zeros(style_dim))
        self.batch_mean: Tensor | None = None  #: of the styles of the last call, before mixing

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        style = self.style(latents, labels)
        self.batch_mean = style.detach().mean(dim=0)
        styles = style[:, None].expand(-1, self.num_styles, -1)
        if not (self.training and self.mixing):
            return styles
        num, device = len(latents), latents.device
        other = streams.randn(num, self.latent_dim, purpose="mixing latent", device=device).to(latents.dtype)
        first = 1 + streams.randint(self.num_styles - 1, num, purpose="mixing layer", device=device)
        chosen = streams.rand(num, purpose="mixing", device=device) < self.mixing
        layer = torch.arange(self.num_styles, device=device)
        mixed = chosen[:, None] & (layer >= first[:, None])  # (N, num_styles)
        return torch.where(mixed[:, :, None], self.style(other, labels)[:, None], styles)

    def style(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """One style for each latent, (N, style_dim), in float32 or more."""
        with full_precision(latents.device):
            x = self.normalize(at_least_float32(latents))
            if self.embed is not None:
                x = torch.cat([x, self.embed(labels).to(x.dtype)], dim=1)
            style: Tensor = self.layers(x)
            return style


class LabelEmbedding(nn.Module):
    """Labels (N,) to vectors (N, outputs) of mean square 1, at least float32."""

    couples_samples = False

    def __init__(self, num_classes: int, outputs: int, equalize: bool) -> None:
        super().__init__()
        self.linear = EqualizedLinear(num_classes, outputs, equalize=equalize)
        self.normalize = PixelNormLayer()

    def forward(self, labels: Tensor) -> Tensor:
        one_hot = F.one_hot(labels, self.linear.in_features).to(self.linear.weight.dtype)
        embedded: Tensor = self.normalize(self.linear(one_hot))
        return embedded


def label_mapping(
    num_classes: int, width: int, num_layers: int, lr_multiplier: float = 0.01, equalize: bool = True
) -> nn.Module:
    """Labels (N,) to vectors (N, width), by an embedding and a perceptron."""
    embedding = LabelEmbedding(num_classes, width, equalize)
    return nn.Sequential(embedding, *perceptron(width, width, num_layers, lr_multiplier, equalize))


def perceptron(inputs: int, width: int, num_layers: int, lr_multiplier: float, equalize: bool) -> nn.Sequential:
    """Linear maps and leaky rectifiers, (N, inputs) to (N, width)."""
    sizes = [inputs] + [width] * num_layers
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [EqualizedLinear(a, b, gain=GAIN, lr_multiplier=lr_multiplier, equalize=equalize), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers)
