"""WGAN-GP: Improved Training of Wasserstein GANs.

Gulrajani, Ahmed, Arjovsky, Dumoulin and Courville 2017, arXiv 1704.00028; the residual networks of appendix F for
32x32 images, in the form of SNGAN's table 4 (arXiv 1802.05957), as Mimicry and StudioGAN have them.

Differences from the paper:
- The generator has 256 channels and the critic no normalization (128 channels and layer normalization in the authors'
  code); both are Mimicry's. ``discriminator_norm: layer`` brings the normalization back.
- A cycle's batches are all of one size; the authors' generator turn had twice as many samples.
- Classes, when there are some, act by conditional batch normalization and a projection (Miyato and Koyama 2018); the
  paper has an auxiliary classifier, which is the part ``AuxiliaryClassifier``.
- Samples are drawn from an average of the weights; ``ema: null`` gives the paper's.
"""

from __future__ import annotations

from typing import Any, Literal

from ganzoo.config import default
from ganzoo.errors import UserError
from ganzoo.gan import GAN
from ganzoo.layers.folded import Upsampling
from ganzoo.layers.norm import NormName, activation_norm
from ganzoo.layers.resnet import Initialization, bottom_size, discriminator_widths, generator_widths
from ganzoo.layers.resnet_networks import ResNetDiscriminator, ResNetGenerator
from ganzoo.losses import AdversarialLoss, Wasserstein
from ganzoo.optim import Adam, Optimizer
from ganzoo.parts import Penalty
from ganzoo.penalties import WassersteinGradientPenalty
from ganzoo.plan import Play


class WGANGP(GAN):
    """Residual networks, the Wasserstein loss and a gradient penalty (Gulrajani 2017); no norm in the critic."""

    def __init__(
        self,
        image_size: int = 32,
        channels: int = 3,
        *,
        num_classes: int = 0,
        latent_dim: int = 128,
        generator_width: int = 256,
        generator_max_width: int = 256,
        discriminator_width: int = 128,
        discriminator_max_width: int = 128,
        discriminator_bottom: int | None = None,
        discriminator_norm: NormName = "none",
        pooling: Literal["sum", "mean"] = "mean",
        upsampling: Upsampling = "nearest",
        init: Initialization = "xavier",
        loss: AdversarialLoss = default(Wasserstein),
        penalties: list[Penalty] = [default(WassersteinGradientPenalty, weight=10.0)],  # noqa: B006  never changed
        play: Play = default(Play, d=5),
        generator_optimizer: Optimizer = default(Adam, lr=2e-4, betas=(0.0, 0.9)),
        discriminator_optimizer: Optimizer = default(Adam, lr=2e-4, betas=(0.0, 0.9)),
        **recipe: Any,
    ) -> None:
        """
        Args:
            image_size: Height and width of the images: 4, 5, 6 or 7 times a power of two.
            channels: Channels of the images.
            num_classes: Number of classes of a conditional model; 0: unconditional.
            latent_dim: Components of the latent vector.
            generator_width: Channels at the size of the images; they double with each halving of the resolution.
            generator_max_width: No layer of the generator has more channels than this.
            discriminator_width: Channels of the first block; they double from block to block.
            discriminator_max_width: No layer of the discriminator has more channels than this.
            discriminator_bottom: Blocks halve the resolution until it is this; those that are left keep it. None: twice
                the generator's smallest resolution, 8 for 32x32.
            discriminator_norm: Normalization in the critic; batch needs allow_batch_norm of the penalty.
            pooling: Whether the critic averages its last feature map over positions (Mimicry) or adds it up.
            upsampling: How the generator doubles a resolution: nearest (the paper) or bilinear (Mimicry).
            init: Law of the initial weights: xavier or orthogonal (StudioGAN).
            loss: The adversarial loss.
            penalties: Terms added to the loss of one player.
            play: Turns per cycle.
            generator_optimizer: Optimizer of the generator.
            discriminator_optimizer: Optimizer of the discriminator.
            recipe: Every option of the training loop.
        """
        if min(latent_dim, channels) < 1:
            raise UserError(f"WGANGP was given latent_dim {latent_dim} and channels {channels}; both are 1 or more.")
        has_layers = discriminator_norm not in ("none", "spectral")
        super().__init__(
            ResNetGenerator(
                image_size,
                generator_widths(image_size, generator_width, generator_max_width),
                channels=channels,
                latent_dim=latent_dim,
                num_classes=num_classes,
                upsampling=upsampling,
                init=init,
            ),
            ResNetDiscriminator(
                image_size,
                discriminator_widths(image_size, discriminator_width, discriminator_max_width),
                channels=channels,
                num_classes=num_classes,
                bottom=bottom_size(image_size, discriminator_bottom),
                pooling=pooling,
                norm=(lambda width: activation_norm(discriminator_norm, width)) if has_layers else None,
                spectral=discriminator_norm == "spectral",
                init=init,
            ),
            num_classes=num_classes,
            loss=loss,
            penalties=penalties,
            play=play,
            generator_optimizer=generator_optimizer,
            discriminator_optimizer=discriminator_optimizer,
            **recipe,
        )
