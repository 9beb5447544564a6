"""R3GAN: The GAN is dead; long live the GAN! A Modern GAN Baseline.

Huang, Gokaslan, Kuleshov and Tompkin 2024, arXiv 2501.05441: the relativistic loss with R1 and R2 in each turn, and
residual networks without normalization. Written from the paper; numbers are those of the authors' setting for CIFAR-10.

Both networks have stages of residual blocks, one stage per resolution: 1x1 to twice the channels, 3x3 in groups of 16
channels, 1x1 back, with a bias and a leaky rectifier behind the first two. The generator begins with a learned 4x4 map
that the latents scale; the discriminator ends with one that it sums its last feature map over. The counts of parameters
at 32x32, 20.7M each, are those of this reading: no bias elsewhere, no rectifier before a block, and no layer between
stages of equal width (without classes 20,732,160 and 20,683,776; with ten 20,781,952 and 20,732,800).

Differences from the paper:
- beta2 of Adam stays at its last value, 0.99; the authors' goes there from 0.9.
- The half-life of the average rises in a straight line (a quarter of the images seen, up to 5,000 kimg) and not by
  half a cosine.
- The augmentation has colours at full strength; the authors' is half as strong.
- Any size of 4, 5, 6 or 7 times a power of two, from a map of that size; channels follow one rule, which gives the
  paper's for 32x32 (768) and 256x256 (96 at the images' size, up to 768).
- The paper leaves open on which side of a pixel the filter [1, 2, 1] puts the new ones: here upsampling keeps values at
  even positions, and downsampling is its adjoint. Beyond the border are zeros.
- The product with a label's embedding is divided by the root of its length, so that logits start with variance 1.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ganzoo.config import default
from ganzoo.ema import EMA
from ganzoo.errors import UserError
from ganzoo.gan import GAN, Generator
from ganzoo.layers import pieces
from ganzoo.layers.equalized import fan_in
from ganzoo.layers.filtered import Taps, downsample, upsample
from ganzoo.layers.resnet import base_size, generator_widths
from ganzoo.layers.twice import Conv2d, conv2d, leaky_relu_
from ganzoo.losses import AdversarialLoss, Relativistic
from ganzoo.optim import Adam, Optimizer
from ganzoo.parts import Penalty
from ganzoo.penalties import R1, R2
from ganzoo.precision import at_least_float32
from ganzoo.schedules import Cosine, Schedule

SLOPE = 0.2  #: of the leaky rectifiers
TAPS: Taps = (1.0, 2.0, 1.0)  #: of the filter that changes the resolution
KIMG = 20000.0  #: until when the authors' schedules run

_GAMMA = default(Cosine, start=0.05, end=0.005, to_kimg=KIMG)
_LR = default(Cosine, start=1.0, end=0.25, to_kimg=KIMG)
_ADAM = default(Adam, lr=2e-4, betas=(0.0, 0.99))


class R3GAN(GAN):
    """R3GAN (Huang 2024): relativistic loss, R1 and R2 in each turn, residual networks without normalization."""

    def __init__(
        self,
        image_size: int = 32,
        channels: int = 3,
        *,
        num_classes: int = 0,
        latent_dim: int = 64,
        label_dim: int = 64,
        width: int = 768,
        max_width: int = 768,
        num_blocks: int = 2,
        expansion: int = 2,
        group_size: int = 16,
        loss: AdversarialLoss = default(Relativistic),
        penalties: list[Penalty] = [default(R1, gamma=_GAMMA), default(R2, gamma=_GAMMA)],  # noqa: B006
        generator_optimizer: Optimizer = _ADAM,
        discriminator_optimizer: Optimizer = _ADAM,
        generator_lr: float | Schedule = _LR,
        discriminator_lr: float | Schedule = _LR,
        ema: EMA | None = default(EMA, half_life_kimg=5000.0, rampup=0.25),
        **recipe: Any,
    ) -> None:
        """
        Args:
            image_size: Height and width of the images: 4, 5, 6 or 7 times a power of two, from 8 up.
            channels: Channels of the images.
            num_classes: Number of classes of a conditional model; 0: unconditional.
            latent_dim: Components of the latent vector.
            label_dim: With classes: components of a label's embedding, in either network.
            width: Channels at the size of the images; they double with each halving of the resolution.
            max_width: No stage has more channels than this.
            num_blocks: Residual blocks of each stage.
            expansion: Channels inside a block over those outside.
            group_size: Channels that each 3x3 convolution sees together.
            loss: The adversarial loss.
            penalties: Terms added to the loss of one player.
            generator_optimizer: Optimizer of the generator.
            discriminator_optimizer: Optimizer of the discriminator.
            generator_lr: Factor of the generator's learning rate, a number or a schedule of kimg.
            discriminator_lr: Factor of the discriminator's learning rate, a number or a schedule of kimg.
            ema: Average of the generator's weights that samples are drawn from; none: the weights themselves.
            recipe: Every option of the training loop.
        """
        for name, number in (
            ("channels", channels),
            ("latent_dim", latent_dim),
            ("label_dim", label_dim),
            ("num_blocks", num_blocks),
            ("expansion", expansion),
            ("group_size", group_size),
        ):
            if number < 1:
                raise UserError(f"R3GAN was given {name} {number}, which must be 1 or more.")
        base, widths = base_size(image_size), generator_widths(image_size, width, max_width)
        if uneven := [w for w in widths if w * expansion % group_size]:
            raise UserError(
                f"R3GAN was given group_size {group_size}, but a block of {uneven[0]} channels has "
                f"{uneven[0] * expansion} inside, no multiple of it: choose another group_size, or other widths."
            )
        inside = (num_blocks, expansion, group_size)
        super().__init__(
            R3GANGenerator(base, _stages(widths, *inside), channels, latent_dim, num_classes, label_dim),
            R3GANDiscriminator(base, _stages(widths[::-1], *inside), channels, num_classes, label_dim),
            num_classes=num_classes,
            loss=loss,
            penalties=penalties,
            generator_optimizer=generator_optimizer,
            discriminator_optimizer=discriminator_optimizer,
            generator_lr=generator_lr,
            discriminator_lr=discriminator_lr,
            ema=ema,
            **recipe,
        )


class R3GANGenerator(Generator):
    """Latents (N, latent_dim) and labels (N,) to images (N, channels, S, S), float32, of any range."""

    def __init__(
        self, base: int, stages: list[Stage], channels: int, latent_dim: int, num_classes: int, label_dim: int
    ) -> None:
        super().__init__()
        self.latent_dim, width = latent_dim, stages[0].width
        self.embed = nn.Embedding(num_classes, label_dim) if num_classes else None  # N(0, 1), as latents are
        self.linear = nn.Linear(latent_dim + (label_dim if num_classes else 0), width, bias=False)
        self.basis = nn.Parameter(torch.randn(width, base, base))
        self.stages = nn.ModuleList(stages)
        self.changes = _changes(stages)
        self.image = Conv2d(stages[-1].width, channels, 1, bias=False)
        draw(self.linear)
        draw(self.image)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.embed is not None:
            latents = torch.cat([latents, self.embed(labels)], dim=1)
        x = self.linear(latents)[:, None, None] * positions(self.basis)
        x = x.permute(0, 3, 1, 2)  # (N, widths[0], 4, 4)
        for number, stage in enumerate(self.stages):
            if number:  # a 1x1 convolution commutes with the filter
                x = upsample(self.changes[number - 1](x), TAPS)  # (N, widths[number], 2s, 2s)
            x = stage(x)
        return at_least_float32(self.image(x))  # (N, channels, S, S)


class R3GANDiscriminator(nn.Module):
    """Images (N, channels, S, S) and labels (N,) to logits (N,)."""

    couples_samples = False

    def __init__(self, base: int, stages: list[Stage], channels: int, num_classes: int, label_dim: int) -> None:
        super().__init__()
        width = stages[-1].width
        self.image = Conv2d(channels, stages[0].width, 1, bias=False)
        self.stages = nn.ModuleList(stages)
        self.changes = _changes(stages)
        self.basis = nn.Parameter(torch.randn(width, base, base) / base)
        self.linear = nn.Linear(width, label_dim if num_classes else 1, bias=False)
        self.embed = nn.Embedding(num_classes, label_dim) if num_classes else None
        draw(self.image)
        draw(self.linear)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        unit = pieces.unit_for(self, images, _LINEAR)
        x = self.image(images)  # (N, widths[0], S, S)
        for number, stage in enumerate(self.stages):
            if number:
                x = self.changes[number - 1](downsample(x, TAPS))  # (N, widths[number], s/2, s/2)
            x = stage(x, unit)
        outputs: Tensor = self.linear((x.permute(0, 2, 3, 1) * positions(self.basis)).sum(dim=(1, 2)))
        if self.embed is not None:  # the projection of Miyato and Koyama 2018
            outputs = (outputs * self.embed(labels)).sum(dim=1, keepdim=True) / math.sqrt(outputs.shape[1])
        return pieces.remember(outputs.squeeze(1), images, unit)


class Stage(nn.Sequential):
    """The blocks of one resolution: (N, width, H, W) to the same shape."""

    def __init__(self, width: int, num_blocks: int, expansion: int, group_size: int, depth: int) -> None:
        super().__init__(*(Block(width, expansion, group_size, depth) for _ in range(num_blocks)))
        self.width = width

    def forward(self, x: Tensor, unit: Tensor | None = None) -> Tensor:
        for block in self:
            x = block(x, unit)
        return x


class Block(nn.Module):
    """x plus 1x1, bias, leaky rectifier, grouped 3x3, bias, leaky rectifier, 1x1: the inverted bottleneck.

    It starts as the identity: the last convolution is 0. The weights of the other two are He's for this rectifier (He
    2015, equation 15), times depth^(-1/4), so that the branch is scaled by the root of the number of blocks: the rule
    L^(-1/(2m - 2)) of Fixup for branches of m = 3 layers (Zhang 2019, arXiv 1901.09321, section 3).
    """

    couples_samples = False

    def __init__(self, width: int, expansion: int, group_size: int, depth: int) -> None:
        """
        Args:
            width: Channels of the input and the output.
            expansion: Channels inside, over those outside.
            group_size: Channels that the 3x3 convolution sees together.
            depth: Residual blocks of the whole network.
        """
        super().__init__()
        inside = width * expansion
        self.expand = Conv2d(width, inside, 1)
        self.spatial = Conv2d(inside, inside, 3, padding=1, groups=inside // group_size)
        self.reduce = Conv2d(inside, width, 1, bias=False)
        gain = math.sqrt(2 / (1 + SLOPE**2)) * depth**-0.25
        draw(self.expand, gain)
        draw(self.spatial, gain)
        draw(self.reduce, 0.0)

    def forward(self, x: Tensor, unit: Tensor | None = None) -> Tensor:
        h = leaky_relu_(_biased(self.expand, x, unit), SLOPE)  # (N, expansion * width, H, W)
        h = leaky_relu_(_biased(self.spatial, h, unit), SLOPE)
        sum_: Tensor = x + self.reduce(h)
        return sum_


#: What the discriminator is made of: all linear in pieces.
_LINEAR = (R3GANDiscriminator, Stage, Block, Conv2d, nn.Linear, nn.Embedding, nn.ModuleList, nn.Identity)


def _biased(layer: Conv2d, x: Tensor, unit: Tensor | None) -> Tensor:
    """The convolution, with its bias times ``unit``, (N, 1, 1, 1)."""
    if unit is None:
        y: Tensor = layer(x)
        return y
    assert layer.bias is not None
    y = conv2d(x, layer.weight, padding=int(layer.padding[0]), groups=layer.groups)
    return y.add_(layer.bias[:, None, None] * unit)


def positions(basis: Tensor) -> Tensor:
    """(C, H, W) as (H, W, C): what is multiplied by it, and its gradient, are in channels_last."""
    return basis.permute(1, 2, 0).contiguous()


def draw(layer: nn.Conv2d | nn.Linear, gain: float = 1.0) -> None:
    """Weights from N(0, gain^2 / fan-in): outputs of variance gain^2 for inputs of mean square 1. Biases become 0."""
    nn.init.normal_(layer.weight, std=gain / math.sqrt(fan_in(layer)))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _stages(widths: list[int], num_blocks: int, expansion: int, group_size: int) -> list[Stage]:
    """In the order in which they are passed."""
    return [Stage(width, num_blocks, expansion, group_size, num_blocks * len(widths)) for width in widths]


def _changes(stages: list[Stage]) -> nn.ModuleList:
    """Between stages of different widths a 1x1 convolution; on the side of the smaller maps, where it costs least."""
    found = nn.ModuleList()
    for before, after in pairwise(stages):
        if before.width == after.width:
            found.append(nn.Identity())
        else:
            found.append(Conv2d(before.width, after.width, 1, bias=False))
            draw(found[-1])  # type: ignore[arg-type]  # a convolution
    return found
