"""The zoo: one file per paper."""

from ganzoo.models.dcgan import DCGAN
from ganzoo.models.mlp import MLPGAN

__all__ = ["DCGAN", "MLPGAN"]
