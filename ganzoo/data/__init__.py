"""Data modules: images from folders, archives, arrays and named sets."""

from ganzoo.data.arrays import Array
from ganzoo.data.base import Batch, GANDataModule
from ganzoo.data.folder import ImageFolder
from ganzoo.data.images import ImageData
from ganzoo.data.named import CIFAR10, MNIST, Digits, FashionMNIST
from ganzoo.data.toy import Grid, Mixture, Ring, Spiral, SwissRoll, Toy, TwoMoons

__all__ = [
    "CIFAR10",
    "MNIST",
    "Array",
    "Batch",
    "Digits",
    "FashionMNIST",
    "GANDataModule",
    "Grid",
    "ImageData",
    "ImageFolder",
    "Mixture",
    "Ring",
    "Spiral",
    "SwissRoll",
    "Toy",
    "TwoMoons",
]
