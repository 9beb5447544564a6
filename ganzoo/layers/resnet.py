"""Residual blocks of WGAN-GP, SNGAN, SAGAN and BigGAN, the rule for their channels, and how their weights start.

Gulrajani 2017, arXiv 1704.00028, appendix F; Miyato 2018, arXiv 1802.05957, figure 7 and tables 4 to 6. Channels follow
one rule (:func:`generator_widths`, :func:`discriminator_widths`) that gives the papers' tables.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganzoo.errors import UserError
from ganzoo.layers.conditional import Norm, normalized
from ganzoo.layers.folded import ConvPool2d, UpConv2d, Upsampling

Initialization = Literal["xavier", "orthogonal"]


class GeneratorBlock(nn.Module):
    """norm, ReLU, (upsampling,) 3x3, norm, ReLU, 3x3; beside it a 1x1 convolution, or nothing (Miyato, figure 7)."""

    def __init__(
        self, inputs: int, outputs: int, *, norm: Norm, upsample: bool = True, upsampling: Upsampling = "nearest"
    ) -> None:
        """
        Args:
            inputs: Channels of the input.
            outputs: Channels of the output, and between the two convolutions.
            norm: Makes a normalization, plain or conditional.
            upsample: Double the resolution.
            upsampling: How it is doubled.
        """
        super().__init__()
        self.norm1, self.norm2 = norm(inputs), norm(outputs)
        self.conv1: nn.Module
        self.shortcut: nn.Module | None
        if upsample:
            self.conv1 = UpConv2d(inputs, outputs, 3, upsampling=upsampling)
            self.shortcut = UpConv2d(inputs, outputs, 1, upsampling=upsampling)
        else:
            self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
            self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """x: (N, inputs, H, W); returns (N, outputs, H, W), or twice the size. Norms are given the condition."""
        h = self.conv1(F.relu(normalized(self.norm1, x, condition)))
        h = self.conv2(F.relu(normalized(self.norm2, h, condition), inplace=True))
        sum_: Tensor = h + (x if self.shortcut is None else self.shortcut(x))
        return sum_


class DiscriminatorBlock(nn.Module):
    """(norm,) ReLU, 3x3, (norm,) ReLU, 3x3(, pooling); beside it a (norm and a) 1x1 convolution, or nothing.

    Norms are none in the papers. Where there are some, a 1x1 convolution has one, too, as in StudioGAN.
    """

    couples_samples = False

    def __init__(
        self, inputs: int, outputs: int, *, downsample: bool, hidden: int | None = None, norm: Norm | None = None
    ) -> None:
        """
        Args:
            inputs: Channels of the input.
            outputs: Channels of the output.
            downsample: Halve the resolution by average pooling.
            hidden: Channels between the convolutions; none: as the input (Miyato). BigGAN's are as the output.
            norm: Makes a normalization, or none.
        """
        super().__init__()
        hidden = inputs if hidden is None else hidden
        self.norm1, self.norm2 = (norm(inputs) if norm else None), (norm(hidden) if norm else None)
        self.conv1 = nn.Conv2d(inputs, hidden, 3, padding=1)
        self.conv2 = ConvPool2d(hidden, outputs, 3) if downsample else nn.Conv2d(hidden, outputs, 3, padding=1)
        learned = downsample or inputs != outputs
        kind = ConvPool2d if downsample else nn.Conv2d
        self.norm0 = norm(inputs) if norm and learned else None
        self.shortcut = kind(inputs, outputs, 1) if learned else None

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, inputs, H, W); returns (N, outputs, H, W), or half the size."""
        h = self.conv1(F.relu(_maybe(self.norm1, x)))
        h = self.conv2(F.relu(_maybe(self.norm2, h), inplace=True))
        sum_: Tensor = h + _maybe(self.shortcut, _maybe(self.norm0, x))
        return sum_


class FirstDiscriminatorBlock(nn.Module):
    """The block that sees the data: as the others with pooling, without a rectifier (and norm) in front of it."""

    couples_samples = False

    def __init__(self, inputs: int, outputs: int, *, norm: Norm | None = None) -> None:
        """
        Args:
            inputs: Channels of the data.
            outputs: Channels of the output, and between the convolutions.
            norm: Makes a normalization, or none.
        """
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm1, self.norm0 = (norm(outputs) if norm else None), (norm(inputs) if norm else None)
        self.conv2 = ConvPool2d(outputs, outputs, 3)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, inputs, H, W); returns (N, outputs, H/2, W/2)."""
        h = self.conv2(F.relu(_maybe(self.norm1, self.conv1(x)), inplace=True))
        sum_: Tensor = h + self.shortcut(_maybe(self.norm0, F.avg_pool2d(x, 2)))
        return sum_


def generator_widths(image_size: int, width: int, max_width: int) -> list[int]:
    """Channels from the smallest feature map up: ``width`` at the images' size, twice as many at half, up to a bound.

    256, 256: table 4 of Miyato 2018 (32x32). 64, 512: table 5 (48x48). 64, 1024: table 6 (128x128), and 64x64 as in the
    authors' code.
    """
    levels = (image_size // base_size(image_size)).bit_length()
    _check_widths(width, max_width)
    return [min(width << level, max_width) for level in reversed(range(levels))]


def discriminator_widths(image_size: int, width: int, max_width: int) -> list[int]:
    """Channels of each block's output: ``width`` behind the first, twice as many behind the next, up to a bound.

    There are ceil(log2(S)) - 1 blocks: 4 for 32x32, 5 for 48x48 and 64x64, 6 for 128x128. 128, 128: table 4 of Miyato
    2018; 64, 1024: tables 5 and 6.
    """
    base_size(image_size)
    _check_widths(width, max_width)
    return [min(width << number, max_width) for number in range((image_size - 1).bit_length() - 1)]


def _check_widths(width: int, max_width: int) -> None:
    if min(width, max_width) < 1:
        raise UserError(f"A network of widths {width} to {max_width} was asked for, but each is 1 or more.")


def base_size(image_size: int) -> int:
    """The size from 4 to 7 that, doubled some times, is the images'.

    Raises:
        UserError: When there is none.
    """
    size = image_size
    while isinstance(size, int) and size >= 8 and size % 2 == 0:
        size //= 2
    if not isinstance(size, int) or not 4 <= size < 8 or size == image_size:
        raise UserError(
            f"Images of size {image_size} were asked for, but these networks make square ones of 4, 5, 6 or 7 times a "
            "power of two: 32, 48, 64, 80, 96, 128, ..."
        )
    return size


def bottom_size(image_size: int, asked: int | None) -> int:
    """The resolution at which a discriminator's blocks stop to halve; none asked for: that of the generator's second
    feature map, 8 for 32x32.
    """
    return min(2 * base_size(image_size), image_size // 2) if asked is None else asked


def num_halvings(image_size: int, bottom: int, num_blocks: int) -> int:
    """How many blocks halve the resolution, the first one included.

    Raises:
        UserError: When halving never gives ``bottom``, or takes more blocks than there are.
    """
    for number in range(1, num_blocks + 1):
        if bottom << number == image_size:
            return number
    sizes = [image_size >> n for n in range(1, num_blocks + 1) if image_size % (1 << n) == 0]
    raise UserError(
        f"A discriminator of {num_blocks} blocks for images of size {image_size} was to end at resolution {bottom}, "
        f"but its blocks give {', '.join(map(str, sizes))}: set discriminator_bottom to one of these, or to null."
    )


def initialize(network: nn.Module, law: Initialization) -> None:
    """Draw all weights of linear, convolutional and embedding layers; biases become 0.

    xavier (Glorot 2010, uniform) has gain 1, and sqrt(2) in the 3x3 convolutions of blocks, as in Miyato's code.
    orthogonal (Saxe 2014) has gain 1, as BigGAN's.
    """
    inside = [m for b in network.modules() if isinstance(b, _BLOCKS) for m in (b.conv1, b.conv2)]
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
            if law == "orthogonal":  # torch's wants a tensor in the usual memory format
                drawn = nn.init.orthogonal_(torch.empty_like(module.weight, memory_format=torch.contiguous_format))
                module.weight.data.copy_(drawn)
            else:
                nn.init.xavier_uniform_(module.weight, math.sqrt(2) if module in inside else 1.0)
            if not isinstance(module, nn.Embedding) and module.bias is not None:
                nn.init.zeros_(module.bias)


_BLOCKS = (GeneratorBlock, DiscriminatorBlock, FirstDiscriminatorBlock)


def _maybe(module: nn.Module | None, x: Tensor) -> Tensor:
    output: Tensor = x if module is None else module(x)
    return output
