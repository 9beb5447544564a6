"""Data modules: images from folders, archives, arrays and named sets."""

from ganzoo.data.base import Batch, GANDataModule
from ganzoo.data.images import ImageData
from ganzoo.data.named import Digits

__all__ = ["Batch", "Digits", "GANDataModule", "ImageData"]
