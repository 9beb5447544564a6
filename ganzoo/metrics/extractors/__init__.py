"""Extractors of features: frozen networks whose vectors scores compare."""

from ganzoo.metrics.extractors.base import Extractor, Features
from ganzoo.metrics.extractors.domain import Domain
from ganzoo.metrics.extractors.exported import Exported
from ganzoo.metrics.extractors.inception import Inception
from ganzoo.metrics.extractors.pretrained import CLIP, DINOv2

__all__ = ["CLIP", "DINOv2", "Domain", "Exported", "Extractor", "Features", "Inception"]
