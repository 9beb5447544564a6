"""Tricks that change the game itself: what is updated, what is judged together, and by whom."""

from ganzoo.tricks.attention import SelfAttention
from ganzoo.tricks.auxiliary import AuxiliaryClassifier
from ganzoo.tricks.dual import DualDiscriminator
from ganzoo.tricks.freeze import FreezeD
from ganzoo.tricks.growing import Growing
from ganzoo.tricks.latent_optimization import LatentOptimization
from ganzoo.tricks.minibatch import MinibatchDiscrimination, MinibatchStdDev
from ganzoo.tricks.normalization import EqualizedLearningRate, PixelNorm, SpectralNorm, VirtualBatchNorm
from ganzoo.tricks.packing import Packing
from ganzoo.tricks.topk import TopK
from ganzoo.tricks.unrolled import Unrolled

__all__ = [
    "AuxiliaryClassifier",
    "DualDiscriminator",
    "EqualizedLearningRate",
    "FreezeD",
    "Growing",
    "LatentOptimization",
    "MinibatchDiscrimination",
    "MinibatchStdDev",
    "Packing",
    "PixelNorm",
    "SelfAttention",
    "SpectralNorm",
    "TopK",
    "Unrolled",
    "VirtualBatchNorm",
]
