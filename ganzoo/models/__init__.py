"""The zoo: one file per paper."""

from ganzoo.models.dcgan import DCGAN
from ganzoo.models.mlp import MLPGAN
from ganzoo.models.progressive import ProgressiveGAN
from ganzoo.models.sngan import SNGAN
from ganzoo.models.wgan_gp import WGANGP

__all__ = ["DCGAN", "MLPGAN", "SNGAN", "WGANGP", "ProgressiveGAN"]
