"""What the discriminator sees, real and fake alike: noise and augmentations, as parts.

They are named before parts that join samples, such as packing.
"""

from ganzoo.augment.ada import ADA
from ganzoo.augment.adaptive import AdaptiveProbability
from ganzoo.augment.apa import APA
from ganzoo.augment.base import Augmentation
from ganzoo.augment.diffaugment import DiffAugment
from ganzoo.augment.noise import InstanceNoise

__all__ = ["ADA", "APA", "AdaptiveProbability", "Augmentation", "DiffAugment", "InstanceNoise"]
