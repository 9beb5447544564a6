"""Data modules: images from folders, archives, arrays and named sets."""

from ganzoo.data.arrays import Array
from ganzoo.data.base import Batch, GANDataModule
from ganzoo.data.folder import ImageFolder
from ganzoo.data.images import ImageData
from ganzoo.data.named import CIFAR10, MNIST, Digits, FashionMNIST
from ganzoo.data.toy import Ring

__all__ = [
    "CIFAR10",
    "MNIST",
    "Array",
    "Batch",
    "Digits",
    "FashionMNIST",
    "GANDataModule",
    "ImageData",
    "ImageFolder",
    "Ring",
]
