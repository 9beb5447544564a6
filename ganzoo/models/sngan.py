"""SNGAN: Spectral Normalization for Generative Adversarial Networks.

Miyato, Kataoka, Koyama and Yoshida 2018, arXiv 1802.05957; table 4, residual networks of 32x32 images. With classes:
cGANs with Projection Discriminator, Miyato and Koyama 2018, arXiv 1802.05637, figure 14.

Differences from the paper:
- The power iteration takes one step per turn of a player instead of one per pass: weights do not move within a turn.
- The discriminator's 3x3 convolutions have as many channels between them as at their input, as in the authors' code.
- A cycle's batches are all of one size; the authors' generator turn had twice as many samples (128 for 64).
- Samples are drawn from an average of the weights; ``ema: null`` gives the paper's.
"""

from __future__ import annotations

from typing import Any

from ganzoo.config import default
from ganzoo.errors import UserError
from ganzoo.gan import GAN
from ganzoo.layers.folded import Upsampling
from ganzoo.layers.resnet import Initialization, bottom_size, discriminator_widths, generator_widths
from ganzoo.layers.resnet_networks import ResNetDiscriminator, ResNetGenerator
from ganzoo.losses import AdversarialLoss, Hinge
from ganzoo.optim import Adam, Optimizer
from ganzoo.plan import Play


class SNGAN(GAN):
    """Residual networks with a spectrally normalized discriminator (Miyato 2018); classes by projection."""

    def __init__(
        self,
        image_size: int = 32,
        channels: int = 3,
        *,
        num_classes: int = 0,
        projection: bool = True,
        latent_dim: int = 128,
        generator_width: int = 256,
        generator_max_width: int = 256,
        discriminator_width: int = 128,
        discriminator_max_width: int = 128,
        discriminator_bottom: int | None = None,
        upsampling: Upsampling = "nearest",
        init: Initialization = "xavier",
        loss: AdversarialLoss = default(Hinge),
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
            projection: With classes, whether the discriminator projects its features on the label's embedding; if not,
                it does not see labels.
            latent_dim: Components of the latent vector.
            generator_width: Channels at the size of the images; they double with each halving of the resolution.
            generator_max_width: No layer of the generator has more channels than this.
            discriminator_width: Channels of the first block; they double from block to block.
            discriminator_max_width: No layer of the discriminator has more channels than this.
            discriminator_bottom: Blocks halve the resolution until it is this; those that are left keep it. None: twice
                the generator's smallest resolution, 8 for 32x32.
            upsampling: How the generator doubles a resolution: nearest (the paper) or bilinear (Mimicry).
            init: Law of the initial weights: xavier (the authors' code) or orthogonal (StudioGAN).
            loss: The adversarial loss.
            play: Turns per cycle.
            generator_optimizer: Optimizer of the generator.
            discriminator_optimizer: Optimizer of the discriminator.
            recipe: Every option of the training loop.
        """
        if min(latent_dim, channels) < 1:
            raise UserError(f"SNGAN was given latent_dim {latent_dim} and channels {channels}; both are 1 or more.")
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
                num_classes=num_classes if projection else 0,
                bottom=bottom_size(image_size, discriminator_bottom),
                init=init,
            ),
            num_classes=num_classes,
            loss=loss,
            play=play,
            generator_optimizer=generator_optimizer,
            discriminator_optimizer=discriminator_optimizer,
            **recipe,
        )
