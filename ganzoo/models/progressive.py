"""Progressive GAN: Progressive Growing of GANs for Improved Quality, Stability, and Variation.

Karras, Aila, Laine and Lehtinen 2018, arXiv 1710.10196; table 2 and appendix A.1. The defaults are those of
1024x1024, where each network has 23.1 million parameters. A decay of 0.999 per update of the generator's average, in
batches of 16, is a half-life of 11.1 kimg.

Differences from the paper:
- Any power-of-two resolution from 8 up, by the same rule for the channels.
- Batches are as large as the data say; the paper's, 16 up to 128x128, then 14, 6 and 3, are an option of ``growth``.
- The minibatch standard deviation is over the samples that one pass sees, which on several devices is one device's.
- Classes, when there are some: the generator sees an embedding of the label beside the latent (Mirza and Osindero
  2014), the discriminator has a projection term (Miyato and Koyama 2018).
- In evaluation mode images always have the full size.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ganzoo.config import build, default
from ganzoo.ema import EMA
from ganzoo.errors import UserError
from ganzoo.gan import GAN, Generator
from ganzoo.layers.equalized import equalized
from ganzoo.layers.growth import Growable, blended, pooled, upsampled
from ganzoo.layers.minibatch import MinibatchStdDevLayer
from ganzoo.layers.norm import PixelNormLayer
from ganzoo.losses import AdversarialLoss, Wasserstein
from ganzoo.optim import Adam, Optimizer
from ganzoo.parts import Part, Penalty
from ganzoo.penalties import Drift, WassersteinGradientPenalty
from ganzoo.tricks import Growing


class ProgressiveGAN(GAN):
    """Progressive growing (Karras 2018): from 4x4 up, one faded-in level after the other, with WGAN-GP."""

    def __init__(
        self,
        image_size: int | tuple[int, int] = 1024,
        channels: int = 3,
        *,
        num_classes: int = 0,
        latent_dim: int = 512,
        channel_base: int = 16384,
        channel_max: int = 512,
        stddev_group: int | None = None,
        stddev_channels: int = 1,
        growth: Growing | None = default(Growing),
        loss: AdversarialLoss = default(Wasserstein),
        penalties: list[Penalty] = [default(WassersteinGradientPenalty), default(Drift)],  # noqa: B006  never changed
        parts: list[Part] = [],  # noqa: B006
        generator_optimizer: Optimizer = default(Adam, lr=1e-3, betas=(0.0, 0.99)),
        discriminator_optimizer: Optimizer = default(Adam, lr=1e-3, betas=(0.0, 0.99)),
        ema: EMA | None = default(EMA, half_life_kimg=11.1, rampup=None),
        **recipe: Any,
    ) -> None:
        """
        Args:
            image_size: Height and width of the images, a power of two from 8 up.
            channels: Channels of the images.
            num_classes: Number of classes of a conditional model; 0: unconditional.
            latent_dim: Components of the latent vector.
            channel_base: Channels times resolution, the same for all layers that ``channel_max`` does not bound.
            channel_max: No layer has more channels than this.
            stddev_group: Samples per group of the minibatch standard deviation; none: all that a pass sees.
            stddev_channels: Its number of statistics; 0: without it.
            growth: The phases; none: at full size from the start.
            loss: The adversarial loss.
            penalties: Terms added to the loss of one player; the paper's belong to ``Wasserstein``.
            parts: Further tricks, which come after the growth.
            generator_optimizer: Optimizer of the generator.
            discriminator_optimizer: Optimizer of the discriminator.
            ema: Average of the generator's weights.
            recipe: Every other option of the training loop.
        """
        widths = _widths(image_size, channel_base, channel_max)
        if min(latent_dim, channels) < 1 or stddev_channels < 0:
            raise UserError(
                f"ProgressiveGAN was given latent_dim {latent_dim}, channels {channels} and stddev_channels "
                f"{stddev_channels}; the first two are 1 or more, the last one 0 or more."
            )
        statistic = MinibatchStdDevLayer(stddev_group, num_channels=stddev_channels) if stddev_channels else None
        super().__init__(
            ProgressiveGenerator(widths, channels, latent_dim, num_classes),
            ProgressiveDiscriminator(widths, channels, num_classes, statistic),
            num_classes=num_classes,
            loss=loss,
            penalties=penalties,
            parts=[*([] if growth is None else [build(growth)]), *parts],
            generator_optimizer=generator_optimizer,
            discriminator_optimizer=discriminator_optimizer,
            ema=ema,
            **recipe,
        )


class ProgressiveGenerator(Growable, Generator):
    """Latents (N, latent_dim) to images (N, channels, r, r), whose values are not bounded.

    In training r is the resolution of the present level, in evaluation mode that of the last one. Latents are put on a
    hypersphere first.
    """

    def __init__(self, widths: list[int], channels: int, latent_dim: int, num_classes: int) -> None:
        super().__init__(len(widths))
        self.latent_dim = latent_dim
        self.embed = nn.Embedding(num_classes, latent_dim) if num_classes else None
        self.sphere = PixelNormLayer()
        inputs = latent_dim * (2 if num_classes else 1)
        first = equalized(nn.ConvTranspose2d(inputs, widths[0], 4))  # (N, widths[0], 4, 4)
        self.blocks = nn.ModuleList([nn.Sequential(*_normed(first), *_normed(_conv(widths[0], widths[0])))])
        for wide, narrow in pairwise(widths):
            convs = [*_normed(_conv(wide, narrow)), *_normed(_conv(narrow, narrow))]
            self.blocks.append(nn.Sequential(nn.Upsample(scale_factor=2), *convs))  # (N, narrow, 2s, 2s)
        self.ports = nn.ModuleList(equalized(nn.Conv2d(width, channels, 1), gain=1.0) for width in widths)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.embed is not None:
            latents = torch.cat([latents, self.embed(labels)], dim=1)
        x = self.sphere(latents)[:, :, None, None]
        for block in self.blocks[: self.level]:
            x = block(x)
        images: Tensor = self.ports[self.level](self.blocks[self.level](x))
        if self.fading:
            images = blended(upsampled(self.ports[self.level - 1](x)), images, self.alpha)
        return images if self.training else upsampled(images, self.full_resolution // self.resolution)


class ProgressiveDiscriminator(Growable):
    """Images (N, channels, r, r) to logits (N,), with r as in the generator."""

    def __init__(
        self, widths: list[int], channels: int, num_classes: int, statistic: MinibatchStdDevLayer | None
    ) -> None:
        super().__init__(len(widths))
        self.ports = nn.ModuleList(nn.Sequential(_conv(channels, width, 1), _leaky()) for width in widths)
        extra = 0 if statistic is None else statistic.num_channels
        last = [_conv(widths[0] + extra, widths[0]), _leaky(), equalized(nn.Conv2d(widths[0], widths[0], 4)), _leaky()]
        self.blocks = nn.ModuleList([nn.Sequential(*([] if statistic is None else [statistic]), *last, nn.Flatten())])
        for wide, narrow in pairwise(widths):
            convs = [_conv(narrow, narrow), _leaky(), _conv(narrow, wide), _leaky()]
            self.blocks.append(nn.Sequential(*convs, nn.AvgPool2d(2)))  # (N, wide, s/2, s/2)
        self.head = equalized(nn.Linear(widths[0], 1), gain=1.0)
        self.embed = nn.Embedding(num_classes, widths[0]) if num_classes else None

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        if not self.training:
            images = pooled(images, images.shape[-1] // self.resolution)
        x = self.blocks[self.level](self.ports[self.level](images))
        if self.fading:
            x = blended(self.ports[self.level - 1](pooled(images)), x, self.alpha)
        for level in reversed(range(self.level)):
            x = self.blocks[level](x)
        logits: Tensor = self.head(x).flatten()
        if self.embed is not None:
            logits = logits + (self.embed(labels) * x).sum(dim=1) / x.shape[1] ** 0.5
        return logits


def _conv(inputs: int, outputs: int, size: int = 3) -> nn.Module:
    """A convolution that keeps the resolution."""
    return equalized(nn.Conv2d(inputs, outputs, size, padding=size // 2))


def _normed(layer: nn.Module) -> list[nn.Module]:
    """A layer of the generator, with what follows."""
    return [layer, _leaky(), PixelNormLayer()]


def _leaky() -> nn.Module:
    return nn.LeakyReLU(0.2, inplace=True)


def _widths(image_size: int | tuple[int, int], channel_base: int, channel_max: int) -> list[int]:
    """Channels at each level, from 4x4 up."""
    if not isinstance(image_size, int) or image_size < 8 or image_size & (image_size - 1):
        raise UserError(f"ProgressiveGAN was given images of size {image_size}; it makes square ones of 8, 16, 32, ...")
    if channel_base < image_size or channel_max < 1:
        raise UserError(
            f"ProgressiveGAN was given channel_base {channel_base} and channel_max {channel_max} for images of "
            f"{image_size}; the first is at least the image size, so that the last layer has a channel, the second 1."
        )
    return [min(channel_max, channel_base // (4 << level)) for level in range(image_size.bit_length() - 2)]
