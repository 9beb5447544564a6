"""The generator and the discriminator of residual blocks that WGAN-GP and SNGAN use, and others build on.

Gulrajani 2017, arXiv 1704.00028, appendix F; Miyato 2018, arXiv 1802.05957, tables 4 to 6; with classes: Miyato and
Koyama 2018, arXiv 1802.05637, figure 14.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganzoo.generator import Generator
from ganzoo.layers.conditional import Norm, batch_norm
from ganzoo.layers.folded import Upsampling
from ganzoo.layers.norm import normalize_all
from ganzoo.layers.resnet import (
    DiscriminatorBlock,
    FirstDiscriminatorBlock,
    GeneratorBlock,
    Initialization,
    base_size,
    initialize,
    num_halvings,
)

Behind = Mapping[int, Callable[[int], nn.Module]]  #: by resolution: makes the layer that follows, for so many channels


class ResNetGenerator(Generator):
    """Latents (N, latent_dim) to images (N, channels, S, S) in [-1, 1]; labels (N,) choose gains and biases of norms.

    A linear layer gives the smallest feature map, from 4x4 to 7x7; blocks double it up to the size of the images.
    """

    memory_format = torch.channels_last  #: of feature maps and kernels

    def __init__(
        self,
        image_size: int,
        widths: list[int],
        *,
        channels: int = 3,
        latent_dim: int = 128,
        num_classes: int = 0,
        upsampling: Upsampling = "nearest",
        spectral: bool = False,
        init: Initialization = "xavier",
        behind: Behind = {},  # noqa: B006  never changed
    ) -> None:
        """
        Args:
            image_size: S, see :func:`generator_widths`.
            widths: Channels of the smallest feature map and of each block's output.
            channels: Channels of the images.
            latent_dim: Components of the latent vector.
            num_classes: Classes that batch normalization is conditional on; 0: none.
            upsampling: How blocks double the resolution.
            spectral: Spectral normalization of all weights.
            init: Law of the initial weights.
            behind: Makes a layer behind the block of a resolution.
        """
        super().__init__()
        self.latent_dim, self.num_classes = latent_dim, num_classes
        self.base, norm = base_size(image_size), batch_norm(num_classes)
        self.linear = nn.Linear(latent_dim, widths[0] * self.base**2)
        self.blocks, self.behind = nn.ModuleList(), nn.ModuleDict()
        for number, (inputs, outputs) in enumerate(pairwise(widths)):
            self.blocks.append(GeneratorBlock(inputs, outputs, norm=norm, upsampling=upsampling))
            if (size := self.base << number + 1) in behind:
                self.behind[str(number)] = behind[size](outputs)
        self.norm = nn.BatchNorm2d(widths[-1])
        self.conv = nn.Conv2d(widths[-1], channels, 3, padding=1)
        initialize(self, init)
        if spectral:
            normalize_all(self)
        self.to(memory_format=self.memory_format)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        x = self.linear(latents).view(len(latents), -1, self.base, self.base)  # (N, widths[0], 4, 4)
        x = x.contiguous(memory_format=self.memory_format)
        for number, block in enumerate(self.blocks):
            x = block(x, labels)  # (N, widths[number + 1], 2s, 2s)
            if str(number) in self.behind:
                x = self.behind[str(number)](x)
        images: Tensor = self.conv(F.relu(self.norm(x), inplace=True)).tanh()  # (N, channels, S, S)
        return images


class ResNetDiscriminator(nn.Module):
    """Images (N, channels, S, S) to logits (N,), with a projection of the labels' embedding where there are classes."""

    couples_samples = False
    memory_format = torch.channels_last  #: of feature maps and kernels
    first_layers = ("blocks.0.conv1", "blocks.0.shortcut")  #: that see the data

    def __init__(
        self,
        image_size: int,
        widths: list[int],
        *,
        channels: int = 3,
        num_classes: int = 0,
        bottom: int = 8,
        pooling: Literal["sum", "mean"] = "sum",
        wide: bool = False,
        norm: Norm | None = None,
        spectral: bool = True,
        init: Initialization = "xavier",
        behind: Behind = {},  # noqa: B006  never changed
    ) -> None:
        """
        Args:
            image_size: S.
            widths: Channels of each block's output.
            channels: Channels of the images.
            num_classes: Classes of the projection; 0: none.
            bottom: The first blocks halve the resolution until it is this; the others keep it.
            pooling: Whether the last feature map is added up or averaged over its positions.
            wide: Blocks have the channels of their output between their convolutions, instead of their input's.
            norm: Makes a normalization of activations, or none.
            spectral: Spectral normalization of all weights.
            init: Law of the initial weights.
            behind: Makes a layer behind the first block whose output has a resolution.
        """
        super().__init__()
        self.pooling, self.behind, size = pooling, nn.ModuleDict(), image_size // 2
        halvings = num_halvings(image_size, bottom, len(widths))
        self.blocks = nn.ModuleList([FirstDiscriminatorBlock(channels, widths[0], norm=norm)])
        for number, outputs in enumerate(widths):
            if number:
                inputs, hidden, down = widths[number - 1], outputs if wide else None, number < halvings
                self.blocks.append(DiscriminatorBlock(inputs, outputs, downsample=down, hidden=hidden, norm=norm))
                size //= 2 if down else 1
            if size in behind and (not number or down):
                self.behind[str(number)] = behind[size](outputs)
        self.head = nn.Linear(widths[-1], 1)
        self.embed = nn.Embedding(num_classes, widths[-1]) if num_classes else None
        initialize(self, init)
        if spectral:
            normalize_all(self)
        self.to(memory_format=self.memory_format)

    def features(self, images: Tensor) -> Tensor:
        """What logits are linear in: (N, widths[-1])."""
        x = images.contiguous(memory_format=self.memory_format)
        for number, block in enumerate(self.blocks):
            x = block(x)
            if str(number) in self.behind:
                x = self.behind[str(number)](x)
        x = F.relu(x)
        return x.sum(dim=(2, 3)) if self.pooling == "sum" else x.mean(dim=(2, 3))

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        features = self.features(images)
        logits: Tensor = self.head(features).squeeze(1)
        if self.embed is not None:
            logits = logits + (self.embed(labels) * features).sum(dim=1)
        return logits
