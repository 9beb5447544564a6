"""SAGAN: Self-Attention Generative Adversarial Networks.

Zhang, Goodfellow, Metaxas and Odena 2019, arXiv 1805.08318; section 3 (attention), section 4 (spectral normalization in
both networks, learning rates of their own).

The default sizes are those of 32x32 images in StudioGAN, which has published scores: 4.39M and 1.08M parameters with
ten classes. The paper's are of 128x128: widths 64, at most 1024, and ``discriminator_bottom`` 4 (sagan-128.yaml). With
1,000 classes these are 42,078,852 and 39,463,618 parameters, 81.5M together, as table 1 of Brock 2019 says of SAGAN.

Differences from the paper:
- Keys and values have half of the resolution, as in the authors' code; ``attention_pool: false`` gives the paper's.
- Gains and biases of classes are not spectrally normalized, as in the authors' code.
- 3x3 convolutions of blocks start sqrt(2) times as large as in the authors' code, which spectral normalization undoes.
- The power iteration takes one step per turn of a player.
- Samples are drawn from an average of the weights; ``ema: null`` gives the paper's.
"""

from __future__ import annotations

from typing import Any

from ganzoo.config import default
from ganzoo.errors import UserError
from ganzoo.gan import GAN
from ganzoo.layers.attention import SelfAttentionLayer, attention_size
from ganzoo.layers.resnet import Initialization, base_size, bottom_size, discriminator_widths, generator_widths
from ganzoo.layers.resnet_networks import Behind, ResNetDiscriminator, ResNetGenerator
from ganzoo.losses import AdversarialLoss, Hinge
from ganzoo.optim import Adam, Optimizer


class SAGAN(GAN):
    """Residual networks with self-attention, both spectrally normalized (Zhang 2019); classes by projection."""

    def __init__(
        self,
        image_size: int = 32,
        channels: int = 3,
        *,
        num_classes: int = 0,
        projection: bool = True,
        latent_dim: int = 128,
        attention_resolution: int | None = None,
        attention_pool: bool = True,
        generator_width: int = 256,
        generator_max_width: int = 256,
        discriminator_width: int = 128,
        discriminator_max_width: int = 128,
        discriminator_bottom: int | None = None,
        init: Initialization = "xavier",
        loss: AdversarialLoss = default(Hinge),
        generator_optimizer: Optimizer = default(Adam, lr=1e-4, betas=(0.0, 0.9)),
        discriminator_optimizer: Optimizer = default(Adam, lr=4e-4, betas=(0.0, 0.9)),
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
            attention_resolution: Of the feature maps behind which there is attention, in both networks; none: half of
                the images', or the next one that is at most 32; 0: no attention.
            attention_pool: Halve the resolution of keys and values, a quarter of the memory.
            generator_width: Channels at the size of the images; they double with each halving of the resolution.
            generator_max_width: No layer of the generator has more channels than this.
            discriminator_width: Channels of the first block; they double from block to block.
            discriminator_max_width: No layer of the discriminator has more channels than this.
            discriminator_bottom: Blocks halve the resolution until it is this; those that are left keep it. None: twice
                the generator's smallest resolution, 8 for 32x32.
            init: Law of the initial weights: xavier (the authors' code) or orthogonal (StudioGAN).
            loss: The adversarial loss.
            generator_optimizer: Optimizer of the generator.
            discriminator_optimizer: Optimizer of the discriminator.
            recipe: Every option of the training loop.
        """
        if min(latent_dim, channels, generator_width, generator_max_width) < 1:
            raise UserError(
                f"SAGAN was given latent_dim {latent_dim}, channels {channels} and a generator of widths "
                f"{generator_width} to {generator_max_width}; each is 1 or more."
            )
        g_widths = generator_widths(image_size, generator_width, generator_max_width)
        d_widths = discriminator_widths(image_size, discriminator_width, discriminator_max_width)
        bottom = bottom_size(image_size, discriminator_bottom)
        size = attention_size(image_size, attention_resolution, max(2 * base_size(image_size), bottom))
        behind: Behind = {size: lambda c: SelfAttentionLayer(c, pool=attention_pool)} if size else {}
        super().__init__(
            ResNetGenerator(
                image_size,
                g_widths,
                channels=channels,
                latent_dim=latent_dim,
                num_classes=num_classes,
                spectral=True,
                init=init,
                behind=behind,
            ),
            ResNetDiscriminator(
                image_size,
                d_widths,
                channels=channels,
                num_classes=num_classes if projection else 0,
                bottom=bottom,
                wide=True,  # as in the authors' code, unlike SNGAN
                init=init,
                behind=behind,
            ),
            num_classes=num_classes,
            loss=loss,
            generator_optimizer=generator_optimizer,
            discriminator_optimizer=discriminator_optimizer,
            **recipe,
        )
