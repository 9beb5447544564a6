"""From styles to images, and what is at one resolution of either network: Karras 2020, arXiv 1912.04958, fig. 2d, 7."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from ganzoo.layers.equalized import EqualizedConv2d
from ganzoo.layers.filtered import before_strided, downsample, upsample
from ganzoo.layers.growth import blended, upsampled
from ganzoo.layers.modulated import GAIN, ModulatedConv2d, NoiseMode, StyledConv, Styling, activate
from ganzoo.precision import at_least_float32

Architecture = Literal["skip", "residual", "plain"]


class SynthesisNetwork(nn.Module):
    """Styles (N, num_styles, style_dim), or (N, style_dim) for all layers, to images (N, channels, H, W)."""

    def __init__(
        self, base: tuple[int, int], widths: list[int], channels: int, options: Styling, architecture: Architecture
    ) -> None:
        super().__init__()
        self.num_styles = 2 * len(widths)
        self.noise: NoiseMode = "random"  #: that of calls which do not say another one
        self.constant = nn.Parameter(torch.randn(widths[0], *base))
        self.blocks = nn.ModuleList()
        for level, width in enumerate(widths):
            size = (base[0] * 2**level, base[1] * 2**level)
            has_rgb = architecture == "skip" or level == len(widths) - 1
            inputs = widths[level - 1] if level else 0
            block = SynthesisBlock(
                inputs,
                width,
                size,
                channels if has_rgb else 0,
                options,
                residual=architecture == "residual" and level > 0,
            )
            self.blocks.append(block)

    def forward(self, w: Tensor, noise: NoiseMode | None = None) -> Tensor:
        """Images, float32, with noise that is drawn for each, or is that of the buffers, or without."""
        image = self.images(w, noise, len(self.blocks))[-1]
        assert image is not None
        return image

    def images(self, w: Tensor, noise: NoiseMode | None, num_blocks: int) -> list[Tensor | None]:
        """What there is of the image behind each of the first blocks."""
        styles = w.unbind(1) if w.dim() == 3 else [w] * self.num_styles
        x = self.constant.expand(len(w), -1, -1, -1).contiguous(memory_format=torch.channels_last)
        images: list[Tensor | None] = [None]
        for level, block in enumerate(self.blocks[:num_blocks]):
            mine = styles[max(2 * level - 1, 0) : 2 * level + 2]  # the last one is for the image and the next block
            x, image = block(x, images[-1], mine, noise or self.noise, f"noise.{level}")
            images.append(image)
        return images[1:]


class GrowingSynthesisNetwork(SynthesisNetwork):
    """The same with skips, up to the block ``level``, whose part of the image has a share of ``alpha``.

    The image of a level is that of the level below, upsampled, plus alpha times its own. In training it has the size of
    the level, in evaluation mode the full one, with pixels repeated. Styles are those of the layers in use.
    """

    level, alpha = 0, 1.0

    def forward(self, w: Tensor, noise: NoiseMode | None = None) -> Tensor:
        """Images (N, channels, r, r), float32, with noise as above."""
        *_, below, image = [None, *self.images(w, noise, self.level + 1)]
        assert image is not None
        if below is not None and self.alpha < 1:
            image = blended(upsample(below), image, self.alpha)
        return image if self.training else upsampled(image, 2 ** (len(self.blocks) - 1 - self.level))


class SynthesisBlock(nn.Module):
    """The layers of one resolution: up-convolution, but for the first; convolution; image, where there is one."""

    def __init__(
        self, inputs: int, outputs: int, size: tuple[int, int], channels: int, options: Styling, *, residual: bool
    ) -> None:
        super().__init__()
        half = math.sqrt(0.5) if residual else 1.0  # the sum of two keeps the variance
        self.up = StyledConv(inputs, outputs, size, options, up=True) if inputs else None
        self.conv = StyledConv(outputs, outputs, size, options, gain=GAIN * half)
        self.skip = (
            EqualizedConv2d(inputs, outputs, 1, bias=False, gain=half, equalize=options.equalize) if residual else None
        )
        self.rgb = (
            ModulatedConv2d(outputs, channels, 1, options.style_dim, demodulate=False, equalize=options.equalize)
            if channels
            else None
        )
        self.rgb_bias = nn.Parameter(torch.zeros(channels)) if channels else None

    def forward(
        self, x: Tensor, image: Tensor | None, styles: list[Tensor], noise: NoiseMode, name: str
    ) -> tuple[Tensor, Tensor | None]:
        before = x
        if self.up is not None:
            x = self.up(x, styles[0], noise, f"{name}.up")  # (N, outputs, 2H, 2W)
        x = self.conv(x, styles[-2], noise, name)
        if self.skip is not None:
            x = x + upsample(self.skip(before))  # a 1x1 convolution commutes with resampling
        if self.rgb is not None:
            rgb = at_least_float32(self.rgb(x, styles[-1], self.rgb_bias))  # (N, channels, 2H, 2W)
            image = rgb if image is None else upsample(image) + rgb
        return x, image


class DiscriminatorBlock(nn.Module):
    """(N, inputs, 2H, 2W) to (N, outputs, H, W): a convolution, and one behind a filter with stride 2."""

    couples_samples = False

    def __init__(self, inputs: int, outputs: int, options: Styling, *, residual: bool) -> None:
        super().__init__()
        half, equalize = math.sqrt(0.5) if residual else 1.0, options.equalize
        self.conv = EqualizedConv2d(inputs, inputs, 3, gain=GAIN, equalize=equalize)
        self.down = EqualizedConv2d(inputs, outputs, 3, stride=2, padding=0, gain=GAIN * half, equalize=equalize)
        self.skip = EqualizedConv2d(inputs, outputs, 1, bias=False, gain=half, equalize=equalize) if residual else None
        self.clamp = options.clamp

    def forward(self, x: Tensor) -> Tensor:
        y = activate(self.conv(x), self.clamp)
        y = activate(self.down(before_strided(y)), self.clamp)
        return y if self.skip is None else torch.add(y, self.skip(downsample(x)))
