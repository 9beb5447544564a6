"""Extractors of features: frozen networks whose vectors scores compare."""

from ganzoo.metrics.extractors.base import Extractor, Features

__all__ = ["Extractor", "Features"]
