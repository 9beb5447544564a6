"""BigGAN: Large Scale GAN Training for High Fidelity Natural Image Synthesis.

Brock, Donahue and Simonyan 2019, arXiv 1809.11096; section 3, and table 4 of appendix B (128x128). The defaults are of
ImageNet at 128x128. With 1,000 classes that is 70,433,988 and 87,982,370 parameters, the counts that the tests of
Google's reimplementation demand (compare_gan, resnet_biggan); table 1 of the paper has 158.3M for both, which is 0.1M
less. biggan.yaml has the sizes of StudioGAN for 32x32.

Truncation is an option of sampling (``ganzoo sample --truncation``), and standing statistics one of the protocol of an
evaluation. The paper's orthogonal regularization is the penalty ``OrthogonalRegularization`` with ``off_diagonal``.

Differences from the paper:
- Images of 256x256 and more have 16 times the width at the three smallest resolutions, where the paper goes down to 8
  times at the third.
- The power iteration takes one step per turn of a player, and batch normalization takes each device's batch.
- Without classes a chunk of the latent vector alone gives the gains and biases of each block.
- The average of the weights begins with the run unless ``start_kimg`` says otherwise.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganzoo.config import default
from ganzoo.ema import EMA
from ganzoo.errors import UserError
from ganzoo.gan import GAN, Generator
from ganzoo.layers.attention import SelfAttentionLayer, attention_size
from ganzoo.layers.conditional import VectorBatchNorm2d
from ganzoo.layers.norm import normalize_all
from ganzoo.layers.resnet import (
    GeneratorBlock,
    Initialization,
    base_size,
    discriminator_widths,
    generator_widths,
    initialize,
)
from ganzoo.layers.resnet_networks import Behind, ResNetDiscriminator
from ganzoo.losses import AdversarialLoss, Hinge
from ganzoo.optim import Adam, Optimizer
from ganzoo.plan import Play


class BigGAN(GAN):
    """Large residual networks with attention, latents that reach every block, and a shared embedding (Brock 2019)."""

    def __init__(
        self,
        image_size: int = 128,
        channels: int = 3,
        *,
        num_classes: int = 0,
        projection: bool = True,
        latent_dim: int | None = None,
        shared_dim: int = 128,
        attention_resolution: int | None = None,
        generator_width: int = 96,
        generator_max_width: int = 1536,
        discriminator_width: int = 96,
        discriminator_max_width: int = 1536,
        discriminator_bottom: int | None = None,
        init: Initialization = "orthogonal",
        loss: AdversarialLoss = default(Hinge),
        play: Play = default(Play, d=2),
        generator_optimizer: Optimizer = default(Adam, lr=5e-5, betas=(0.0, 0.999)),
        discriminator_optimizer: Optimizer = default(Adam, lr=2e-4, betas=(0.0, 0.999)),
        ema: EMA | None = default(EMA, half_life_kimg=28390.0),
        **recipe: Any,
    ) -> None:
        """
        Args:
            image_size: Height and width of the images: 4, 5, 6 or 7 times a power of two, 32 or more in the paper.
            channels: Channels of the images.
            num_classes: Number of classes of a conditional model; 0: unconditional.
            projection: With classes, whether the discriminator projects its features on the label's embedding; if not,
                it does not see labels.
            latent_dim: Components of the latent vector, which is cut into a chunk for the first layer and one for each
                block; none: 20 for each (120 at 128x128).
            shared_dim: Components of the embedding of a class that all blocks share.
            attention_resolution: Of the feature maps behind which there is attention, in both networks; none: half of
                the images', or the next one that is at most 64; 0: no attention.
            generator_width: Channels at the size of the images (the paper's ch); they double with each halving of the
                resolution.
            generator_max_width: No layer of the generator has more channels than this (16 ch).
            discriminator_width: Channels of the first block; they double from block to block.
            discriminator_max_width: No layer of the discriminator has more channels than this.
            discriminator_bottom: Blocks halve the resolution until it is this; those that are left keep it. None: the
                generator's smallest resolution, 4 for 128x128.
            init: Law of the initial weights: orthogonal (the paper) or xavier.
            loss: The adversarial loss.
            play: Turns per cycle.
            generator_optimizer: Optimizer of the generator.
            discriminator_optimizer: Optimizer of the discriminator.
            ema: Average of the generator's weights: a decay of 0.9999 at the paper's 4,096 images per step.
            recipe: Every option of the training loop.
        """
        if min(shared_dim, channels, generator_width, generator_max_width) < 1:
            raise UserError(
                f"BigGAN was given shared_dim {shared_dim}, channels {channels} and a generator of widths "
                f"{generator_width} to {generator_max_width}; each is 1 or more."
            )
        g_widths = generator_widths(image_size, generator_width, generator_max_width)
        d_widths = discriminator_widths(image_size, discriminator_width, discriminator_max_width)
        base = base_size(image_size)
        bottom = base if discriminator_bottom is None else discriminator_bottom
        size = attention_size(image_size, attention_resolution, max(2 * base, bottom), largest=64)
        behind: Behind = {size: lambda c: SelfAttentionLayer(c, pool=True)} if size else {}
        super().__init__(
            BigGANGenerator(
                image_size,
                g_widths,
                channels=channels,
                latent_dim=20 * len(g_widths) if latent_dim is None else latent_dim,
                num_classes=num_classes,
                shared_dim=shared_dim,
                init=init,
                behind=behind,
            ),
            ResNetDiscriminator(
                image_size,
                d_widths,
                channels=channels,
                num_classes=num_classes if projection else 0,
                bottom=bottom,
                wide=True,
                init=init,
                behind=behind,
            ),
            num_classes=num_classes,
            loss=loss,
            play=play,
            generator_optimizer=generator_optimizer,
            discriminator_optimizer=discriminator_optimizer,
            ema=ema,
            **recipe,
        )


class BigGANGenerator(Generator):
    """Latents (N, latent_dim) to images (N, channels, S, S) in [-1, 1] (figure 15 of appendix B).

    The first chunk of the latents enters the first layer. Each block's gains and biases are linear in its own chunk and
    the embedding of the class. All weights but the embedding's are spectrally normalized.
    """

    memory_format = torch.channels_last  #: of feature maps and kernels

    def __init__(
        self,
        image_size: int,
        widths: list[int],
        *,
        channels: int,
        latent_dim: int,
        num_classes: int,
        shared_dim: int,
        init: Initialization,
        behind: Behind,
    ) -> None:
        super().__init__()
        chunk, rest = divmod(latent_dim, len(widths))
        if rest or chunk < 1:
            raise UserError(
                f"BigGAN was given latents of {latent_dim} components, which are cut into {len(widths)} equal chunks "
                f"for images of size {image_size}: give a multiple of {len(widths)}, such as {20 * len(widths)}."
            )
        self.latent_dim, self.base = latent_dim, base_size(image_size)
        condition_dim = chunk + (shared_dim if num_classes else 0)
        self.linear = nn.Linear(chunk, widths[0] * self.base**2)
        self.blocks, self.behind = nn.ModuleList(), nn.ModuleDict()
        for number, (inputs, outputs) in enumerate(pairwise(widths)):
            self.blocks.append(GeneratorBlock(inputs, outputs, norm=lambda c: VectorBatchNorm2d(c, condition_dim)))
            if (size := self.base << number + 1) in behind:
                self.behind[str(number)] = behind[size](outputs)
        self.norm = nn.BatchNorm2d(widths[-1])
        self.conv = nn.Conv2d(widths[-1], channels, 3, padding=1)
        initialize(self, init)
        normalize_all(self)
        self.shared = nn.Embedding(num_classes, shared_dim) if num_classes else None
        if self.shared is not None:
            initialize(self.shared, init)
        self.to(memory_format=self.memory_format)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        first, *chunks = latents.chunk(len(self.blocks) + 1, dim=1)
        if self.shared is not None:
            embedded = self.shared(labels)
            chunks = [torch.cat([embedded, chunk], dim=1) for chunk in chunks]
        x = self.linear(first).view(len(latents), -1, self.base, self.base)  # (N, widths[0], 4, 4)
        x = x.contiguous(memory_format=self.memory_format)
        for number, (block, condition) in enumerate(zip(self.blocks, chunks, strict=True)):
            x = block(x, condition)  # (N, widths[number + 1], 2s, 2s)
            if str(number) in self.behind:
                x = self.behind[str(number)](x)
        images: Tensor = self.conv(F.relu(self.norm(x), inplace=True)).tanh()  # (N, channels, S, S)
        return images
