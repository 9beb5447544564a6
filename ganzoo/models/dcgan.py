"""DCGAN: Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks.

Radford, Metz and Chintala 2016, arXiv 1511.06434; figure 1 and section 4.

Differences from the paper:
- Kernels are 4x4 instead of 5x5, as in the authors' Torch version: with stride 2 they cover the output evenly.
- ``width`` is 64, also as there; ``width=128`` gives the 1024-512-256-128 channels of figure 1.
- Any power-of-two resolution from 8 up: one up-convolution more or less, with the same rule for the channels.
- Classes, when there are some: the generator sees an embedding of the label beside the latent (Mirza and Osindero
  2014), the discriminator has a projection term (Miyato and Koyama 2018). The paper is unconditional.
- Samples are drawn from an average of the weights; ``ema: null`` gives the paper's.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ganzoo.config import default
from ganzoo.errors import UserError
from ganzoo.gan import GAN, Generator
from ganzoo.latents import Latents, Uniform
from ganzoo.layers.norm import NormName, activation_norm, normalize_weights
from ganzoo.optim import Adam, Optimizer


class DCGAN(GAN):
    """Deep convolutional GAN (Radford 2016): strided convolutions, batch normalization, Adam with beta1 0.5."""

    def __init__(
        self,
        image_size: int | tuple[int, int] = 64,
        channels: int = 3,
        *,
        num_classes: int = 0,
        latent_dim: int = 100,
        width: int = 64,
        max_width: int = 1024,
        discriminator_norm: NormName = "batch",
        latents: Latents = default(Uniform),
        generator_optimizer: Optimizer = default(Adam, lr=2e-4, betas=(0.5, 0.999)),
        discriminator_optimizer: Optimizer = default(Adam, lr=2e-4, betas=(0.5, 0.999)),
        **recipe: Any,
    ) -> None:
        """
        Args:
            image_size: Height and width of the images, a power of two from 8 up.
            channels: Channels of the images.
            num_classes: Number of classes of a conditional model; 0: unconditional.
            latent_dim: Components of the latent vector.
            width: Channels at half of the image size; they double with each halving of the resolution.
            max_width: No layer has more channels than this.
            discriminator_norm: Normalization in the discriminator. Gradient penalties need another one than batch.
            latents: The distribution that the generator starts from; the paper's is uniform.
            generator_optimizer: Optimizer of the generator.
            discriminator_optimizer: Optimizer of the discriminator.
            recipe: Every option of the training loop.
        """
        widths = _widths(image_size, width, max_width)
        if latent_dim < 1 or channels < 1:
            raise UserError(f"DCGAN was given latent_dim {latent_dim} and channels {channels}; both are 1 or more.")
        super().__init__(
            DCGANGenerator(widths, channels, latent_dim, num_classes),
            DCGANDiscriminator(widths, channels, num_classes, discriminator_norm),
            num_classes=num_classes,
            latents=latents,
            generator_optimizer=generator_optimizer,
            discriminator_optimizer=discriminator_optimizer,
            **recipe,
        )


class DCGANGenerator(Generator):
    """Latents (N, latent_dim) to images (N, channels, S, S) in [-1, 1]."""

    def __init__(self, widths: list[int], channels: int, latent_dim: int, num_classes: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.embed = nn.Embedding(num_classes, latent_dim) if num_classes else None
        inputs = latent_dim * (2 if num_classes else 1)
        layers: list[nn.Module] = [
            nn.ConvTranspose2d(inputs, widths[-1], 4, 1, 0, bias=False),  # (N, widths[-1], 4, 4)
            nn.BatchNorm2d(widths[-1]),
            nn.ReLU(inplace=True),
        ]
        for wide, narrow in zip(widths[:0:-1], widths[-2::-1], strict=True):
            layers += [nn.ConvTranspose2d(wide, narrow, 4, 2, 1, bias=False), nn.BatchNorm2d(narrow)]
            layers += [nn.ReLU(inplace=True)]  # (N, narrow, 2s, 2s)
        layers += [nn.ConvTranspose2d(widths[0], channels, 4, 2, 1), nn.Tanh()]  # (N, channels, S, S)
        self.layers = nn.Sequential(*layers)
        self.apply(initialize)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.embed is not None:
            latents = torch.cat([latents, self.embed(labels)], dim=1)
        images: Tensor = self.layers(latents[:, :, None, None])
        return images


class DCGANDiscriminator(nn.Module):
    """Images (N, channels, S, S) to logits (N,)."""

    def __init__(self, widths: list[int], channels: int, num_classes: int, norm: NormName) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 4, 2, 1), _leaky()]
        for narrow, wide in pairwise(widths):
            conv = nn.Conv2d(narrow, wide, 4, 2, 1, bias=norm in ("none", "spectral"))
            layers += [conv, activation_norm(norm, wide), _leaky()]  # (N, wide, s/2, s/2)
        self.layers = nn.Sequential(*layers)  # (N, widths[-1], 4, 4)
        self.head = nn.Conv2d(widths[-1], 1, 4)
        self.embed = nn.Embedding(num_classes, widths[-1]) if num_classes else None
        self.apply(initialize)
        normalize_weights(norm, self)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        features = self.layers(images)
        logits: Tensor = self.head(features).flatten()
        if self.embed is not None:
            logits = logits + (self.embed(labels) * features.sum(dim=(2, 3))).sum(dim=1)
        return logits


def initialize(module: nn.Module) -> None:
    """Section 4: weights from N(0, 0.02), scales of batch normalization from N(1, 0.02), biases zero."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Embedding):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d | nn.InstanceNorm2d | nn.GroupNorm):
        nn.init.normal_(module.weight, 1.0, 0.02)
    if isinstance(getattr(module, "bias", None), nn.Parameter):
        nn.init.zeros_(module.bias)  # type: ignore[arg-type]  # a parameter by the line above


def _leaky() -> nn.Module:
    return nn.LeakyReLU(0.2, inplace=True)


def _widths(image_size: int | tuple[int, int], width: int, max_width: int) -> list[int]:
    """Channels from half of the image size down to 4x4."""
    if width < 1 or max_width < 1:
        raise UserError(f"DCGAN was given width {width} and max_width {max_width}; both are 1 or more.")
    if not isinstance(image_size, int) or image_size < 8 or image_size & (image_size - 1):
        raise UserError(f"DCGAN was given images of size {image_size}; it makes square ones of 8, 16, 32, 64, ...")
    levels = image_size.bit_length() - 3
    return [min(width * 2**level, max_width) for level in range(levels)]
