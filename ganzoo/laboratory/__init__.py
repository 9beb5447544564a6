"""The toy laboratory: distributions small enough to see how well a GAN learns them."""

from ganzoo.laboratory.distribution import Distribution

__all__ = ["Distribution"]
