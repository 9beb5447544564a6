"""Extractors of features: frozen networks whose vectors scores compare."""

from ganzoo.metrics.extractors.base import Extractor, Features
from ganzoo.metrics.extractors.domain import Domain

__all__ = ["Domain", "Extractor", "Features"]
