"""StyleGAN2: Analyzing and Improving the Image Quality of StyleGAN.

Karras, Laine, Aittala, Hellsten, Lehtinen and Aila 2020, arXiv 1912.04958; sections 2 and 4, figures 2d and 7. The
mapping network, style mixing and truncation are those of Karras, Laine and Aila 2019 (arXiv 1812.04948); classes and
the settings for small data those of Karras 2020b (arXiv 2006.06676). Written from the papers.

Differences from the papers:
- A lazy penalty is a term of the loss of each k-th turn. The authors take an optimizer step of its own for it, so k + 1
  steps where we take k, and multiply the learning rate and the logarithms of the betas by c = k / (k + 1) (2020,
  appendix B). So the betas here are the paper's: over k turns old moments fade as much. The learning rate is sqrt(c)
  times the paper's (in the defaults: c = 4/5 and 16/17): over k turns both ways sum the same gradients, the authors' c
  times as far, but divided by the root of a mean square over k + 1 steps, which is c times ours.
- Samples of a batch are mixed, or not, each for itself and from a layer of its own.
- Any size h 2^k by w 2^k, from a constant of h by w; the number of channels depends on k alone.
- The papers do not say how fast the mean style follows: here each turn of the generator moves it by 1 - 0.998 (the
  authors' later code; 0.995 before).
- Batches of the discriminator are multiples of the group of its minibatch statistic, which is per device.
- With skips in both networks they may grow (``growth``), as in 2019 (appendix C, from 8x8 on) and no more in 2020.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from ganzoo.config import build, default
from ganzoo.errors import UserError
from ganzoo.gan import GAN, Generator
from ganzoo.latents import Normal
from ganzoo.layers.equalized import EqualizedConv2d, EqualizedLinear
from ganzoo.layers.filtered import downsample, upsample
from ganzoo.layers.growth import Growable, pooled
from ganzoo.layers.mapping import MappingNetwork, label_mapping
from ganzoo.layers.minibatch import MinibatchStdDevLayer
from ganzoo.layers.modulated import GAIN, Styling, activate
from ganzoo.layers.style_networks import Architecture, DiscriminatorBlock, GrowingSynthesisNetwork, SynthesisNetwork
from ganzoo.optim import Adam, Optimizer
from ganzoo.parts import Part, Penalty, PlayerName, Turn
from ganzoo.penalties import R1, PathLength
from ganzoo.precision import at_least_float32, full_precision
from ganzoo.tricks import Growing


class StyleGAN(GAN):
    """StyleGAN2 (Karras 2020): a mapping to styles, modulated convolutions, lazy R1 and path length regularization."""

    def __init__(
        self,
        image_size: int | tuple[int, int] = 256,
        channels: int = 3,
        *,
        num_classes: int = 0,
        latent_dim: int = 512,
        style_dim: int = 512,
        mapping_layers: int = 8,
        label_layers: int = 8,
        mapping_lr: float = 0.01,
        channel_base: int = 32768,
        channel_max: int = 512,
        generator_architecture: Architecture = "skip",
        discriminator_architecture: Architecture | None = None,
        mixing: float = 0.9,
        noise: bool = True,
        demodulate: bool = True,
        equalize: bool = True,
        group: int = 4,
        style_decay: float = 0.998,
        clamp: float | None = None,
        growth: Growing | None = None,
        penalties: list[Penalty] = [default(R1, gamma=10.0, every=16), default(PathLength, weight=2.0, every=4)],  # noqa: B006
        parts: list[Part] = [],  # noqa: B006
        generator_optimizer: Optimizer = default(Adam, lr=2.236e-3, betas=(0.0, 0.99)),
        discriminator_optimizer: Optimizer = default(Adam, lr=2.425e-3, betas=(0.0, 0.99)),
        **recipe: Any,
    ) -> None:
        """
        Args:
            image_size: Side of a square, or height and width: 4 to 15 times the same power of two, from 8 up.
            channels: Channels of the images.
            num_classes: Number of classes of a conditional model; 0: unconditional.
            latent_dim: Components of the latent vector.
            style_dim: Components of a style.
            mapping_layers: Layers of the mapping from latents to styles.
            label_layers: Layers of the discriminator's mapping of labels, with classes.
            mapping_lr: Factor of the learning rate of both mappings.
            channel_base: A layer for images of r pixels, counted from 4, has this divided by r channels.
            channel_max: No layer has more channels than this.
            generator_architecture: How resolutions become the image: skip adds an image of each, residual adds
                features, plain does neither.
            discriminator_architecture: The same for the way from the image; none: residual, or skip with ``growth``.
            mixing: Probability that a training image has styles of two latents, one up to some layer.
            noise: Whether layers of the generator add noise.
            demodulate: Whether modulated weights are divided by their norm.
            equalize: Whether layers have the equalized learning rate.
            group: Samples that the discriminator's minibatch standard deviation compares; 0: without it.
            style_decay: Share of the mean style that is kept in each turn of the generator.
            clamp: Largest absolute value of features, for half precision (256 in the paper's code).
            growth: Phases in which both networks grow from a low resolution, with skips in both; none: at full size
                from the start, as in the paper.
            penalties: Terms added to the loss of one player.
            parts: Further tricks, which come after the growth.
            generator_optimizer: Optimizer of the generator.
            discriminator_optimizer: Optimizer of the discriminator.
            recipe: Every option of the training loop.
        """
        base, levels = _base(image_size)
        d_architecture = discriminator_architecture or ("residual" if growth is None else "skip")
        if growth is not None:
            _check_grows(base, generator_architecture, d_architecture)
        for name, number, least in (
            ("channels", channels, 1),
            ("latent_dim", latent_dim, 1),
            ("style_dim", style_dim, 1),
            ("mapping_layers", mapping_layers, 1),
            ("label_layers", label_layers, 1),
            ("channel_base", channel_base, 4 * 2**levels),
            ("channel_max", channel_max, 1),
            ("group", group, 0),
        ):
            if number < least:
                raise UserError(f"StyleGAN was given {name} {number}, which must be {least} or more.")
        if not (0 <= mixing <= 1 and 0 <= style_decay < 1 and mapping_lr > 0):
            raise UserError(
                f"StyleGAN was given mixing {mixing}, style_decay {style_decay} and mapping_lr {mapping_lr}; the first "
                "is in [0, 1], the second in [0, 1), the third above 0."
            )
        widths = [min(channel_base // (4 * 2**level), channel_max) for level in range(levels + 1)]
        options = Styling(style_dim, noise, demodulate, equalize, clamp)
        mapping = MappingNetwork(
            latent_dim, style_dim, mapping_layers, 2 * levels + 2, num_classes, mapping_lr, mixing, equalize
        )
        shape = base, widths, channels, options, generator_architecture
        generator = (
            StyleGANGenerator(mapping, SynthesisNetwork(*shape))
            if growth is None
            else GrowingStyleGANGenerator(mapping, GrowingSynthesisNetwork(*shape))
        )
        label = label_mapping(num_classes, widths[0], label_layers, mapping_lr, equalize) if num_classes else None
        discriminator = (StyleGANDiscriminator if growth is None else GrowingStyleGANDiscriminator)(
            base, widths[::-1], channels, options, architecture=d_architecture, group=group, label=label
        )
        super().__init__(
            generator,
            discriminator,
            num_classes=num_classes,
            penalties=penalties,
            parts=[*([] if growth is None else [build(growth)]), *parts],
            generator_optimizer=generator_optimizer,
            discriminator_optimizer=discriminator_optimizer,
            **recipe,
        )
        if mixing and not isinstance(self.latents, Normal):
            raise UserError(
                f"Styles are mixed with those of normal latents, but latents were {type(self.latents).__name__}: set "
                "mixing to 0, or latents to Normal."
            )
        self.tricks.append(_MeanStyle(style_decay))


class StyleGANGenerator(Generator):
    """Latents (N, latent_dim) to images (N, channels, H, W) through styles w, (N, num_styles, style_dim)."""

    def __init__(self, mapping: MappingNetwork, synthesis: SynthesisNetwork) -> None:
        super().__init__()
        self.mapping, self.synthesis, self.latent_dim = mapping, synthesis, mapping.latent_dim
        self.feature_maps = tuple(f"synthesis.blocks.{i}.conv" for i in range(len(synthesis.blocks)))

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        images: Tensor = self.synthesis(self.mapping(latents, labels))
        return images

    def truncated(self, latents: Tensor, labels: Tensor | None, psi: float, cutoff: int | None = None) -> Tensor:
        """Images of styles at ``psi`` of the way from the mean style, in the first ``cutoff`` layers or all."""
        images: Tensor = self.synthesis(self.truncate(self.mapping(latents, labels), psi, cutoff))
        return images

    def truncate(self, w: Tensor, psi: float, cutoff: int | None = None) -> Tensor:
        """Styles (N, num_styles, style_dim) at ``psi`` of the way from the mean one, of the first layers or all."""
        return torch.cat([torch.lerp(self.mapping.mean_style, w[:, :cutoff], psi), w[:, len(w[0, :cutoff]) :]], dim=1)


class StyleGANDiscriminator(nn.Module):
    """Images (N, channels, H, W) and labels to logits (N,)."""

    couples_samples = False

    above, alpha = 0, 1.0  #: how many blocks are left out, and the share of the next one's features, where it grows

    def __init__(
        self,
        base: tuple[int, int],
        widths: list[int],
        channels: int,
        options: Styling,
        *,
        architecture: Architecture,
        group: int,
        label: nn.Module | None,
    ) -> None:
        super().__init__()
        equalize, last = options.equalize, widths[-1]
        self.stem = EqualizedConv2d(channels, widths[0], 1, gain=GAIN, equalize=equalize)
        self.stems = nn.ModuleList()  # of the image at the resolutions that follow
        if architecture == "skip":
            self.stems.extend(EqualizedConv2d(channels, width, 1, gain=GAIN, equalize=equalize) for width in widths[1:])
        self.first_layers = ("stem", *(f"stems.{i}" for i in range(len(self.stems))))  #: that see the data
        self.blocks = nn.ModuleList(
            DiscriminatorBlock(a, b, options, residual=architecture == "residual") for a, b in pairwise(widths)
        )
        self.feature_maps = tuple(f"blocks.{i}" for i in range(len(self.blocks)))  #: behind which layers may be put
        self.statistics = MinibatchStdDevLayer(group) if group else nn.Identity()
        self.conv = EqualizedConv2d(last + (1 if group else 0), last, 3, gain=GAIN, equalize=equalize)
        self.hidden = EqualizedLinear(last * math.prod(base), last, gain=GAIN, equalize=equalize)
        self.head = EqualizedLinear(last, last if label else 1, equalize=equalize)
        self.label, self.clamp = label, options.clamp
        self.to(memory_format=torch.channels_last)  # as features are

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        x = self.features(images.contiguous(memory_format=torch.channels_last))
        with full_precision(x.device):
            x = activate(self.conv(self.statistics(at_least_float32(x))), self.clamp)
            outputs: Tensor = self.head(activate(self.hidden(x.flatten(1))))
            if self.label is not None:  # the projection of Miyato and Koyama 2018
                outputs = (outputs * self.label(labels)).sum(dim=1, keepdim=True) / math.sqrt(outputs.shape[1])
            return outputs.squeeze(1)

    def features(self, images: Tensor) -> Tensor:
        """Images to (N, widths[-1], h, w), what the last layers see."""
        first, *stems = [self.stem, *self.stems][self.above :]
        x, share = activate(first(images), self.clamp), self.alpha
        for i, block in enumerate(self.blocks[self.above :]):
            x = block(x)  # (N, widths[above + i + 1], H, W)
            if stems:
                images = downsample(images)
                x, share = torch.add(activate(stems[i](images), self.clamp), x, alpha=share), 1.0
        return x


class GrowingStyleGANGenerator(Growable, StyleGANGenerator):
    """The generator with skips while it grows: of a level are its two layers, their styles and its part of the image.

    Styles are as many as the layers in use have, so that mixing changes over at one of those, and the length of a path
    is a mean over those.
    """

    synthesis: GrowingSynthesisNetwork

    def __init__(self, mapping: MappingNetwork, synthesis: GrowingSynthesisNetwork) -> None:
        super().__init__(len(synthesis.blocks), mapping, synthesis)
        self.first_resolution, synthesis.level = synthesis.constant.shape[1], self.level

    def set_level(self, level: int, alpha: float = 1.0) -> None:
        super().set_level(level, alpha)
        self.synthesis.level, self.synthesis.alpha = level, alpha
        self.mapping.num_styles = 2 * level + 2

    def dormant(self) -> list[nn.Parameter]:
        return list(self.synthesis.blocks[self.level + 1 :].parameters())

    def enlarged(self, images: Tensor) -> Tensor:
        return upsample(images)


class GrowingStyleGANDiscriminator(Growable, StyleGANDiscriminator):
    """The discriminator with skips while it grows: the newest level's features have a share of alpha.

    What it sees of the image at the resolutions below stays as it was, so that alpha 0 is the smaller network.
    """

    def __init__(self, base: tuple[int, int], widths: list[int], *arguments: Any, **options: Any) -> None:
        super().__init__(len(widths), base, widths, *arguments, **options)
        self.first_resolution = base[0]

    def set_level(self, level: int, alpha: float = 1.0) -> None:
        super().set_level(level, alpha)
        self.above = self.num_levels - 1 - level

    def features(self, images: Tensor) -> Tensor:
        return super().features(images if self.training else pooled(images, images.shape[-1] // self.resolution))

    def dormant(self) -> list[nn.Parameter]:
        unused = [*[self.stem, *self.stems][: self.above], *self.blocks[: self.above]]
        return [p for module in unused for p in module.parameters()]


class _MeanStyle(Part):
    """Has the mean style of the generator follow, once per turn, the mean over the joint batch."""

    players: tuple[PlayerName, ...] = ("generator",)
    capturable = True

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay, self._means = decay, list[Tensor]()
        self._turn: Turn | None = None  #: whose means these are

    def generated(self, turn: Turn) -> None:
        if turn is not self._turn:
            self._turn, self._means = turn, []
        self._means.append(self._mapping(turn).batch_mean)  # type: ignore[arg-type]  # the generator has just run

    def after_backward(self, turn: Turn) -> None:
        self._mapping(turn).mean_style.lerp_(torch.stack(self._means).mean(dim=0), 1 - self.decay)
        self._turn = None

    def _mapping(self, turn: Turn) -> MappingNetwork:
        return cast(StyleGANGenerator, turn.gan.generator).mapping


def _base(image_size: int | tuple[int, int]) -> tuple[tuple[int, int], int]:
    """Height and width of the constant, and how often they are doubled."""
    h, w = (image_size, image_size) if isinstance(image_size, int) else image_size
    levels = 0
    while h % 2 == w % 2 == 0 and min(h, w) >= 8:
        h, w, levels = h // 2, w // 2, levels + 1
    if not levels or min(h, w) > 15:
        raise UserError(
            f"StyleGAN was given images of size {image_size}; the shorter side is 4 to 15 times a power of two that "
            "divides the longer one, such as 32, 64, (48, 64) or (64, 256)."
        )
    return (h, w), levels


def _check_grows(base: tuple[int, int], generator: Architecture, discriminator: Architecture) -> None:
    if not generator == discriminator == "skip":
        raise UserError(
            f"StyleGAN was to grow with the generator_architecture {generator} and the discriminator_architecture "
            f"{discriminator}, but only with skips each level has an image to fade in: set both to skip, or growth to "
            "null."
        )
    if base[0] != base[1]:
        raise UserError(
            "StyleGAN was to grow with images that are not square: give a square image_size, or set growth to null."
        )
