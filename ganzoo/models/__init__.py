"""The zoo: one file per paper."""

from ganzoo.models.biggan import BigGAN
from ganzoo.models.dcgan import DCGAN
from ganzoo.models.mlp import MLPGAN
from ganzoo.models.progressive import ProgressiveGAN
from ganzoo.models.r3gan import R3GAN
from ganzoo.models.sagan import SAGAN
from ganzoo.models.sngan import SNGAN
from ganzoo.models.stylegan import StyleGAN
from ganzoo.models.wgan_gp import WGANGP

__all__ = ["DCGAN", "MLPGAN", "R3GAN", "SAGAN", "SNGAN", "WGANGP", "BigGAN", "ProgressiveGAN", "StyleGAN"]
