"""ganzoo: train, compare, understand and trust generative adversarial networks."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0.dev0"

#: Public names and their modules, imported on first use: ``import ganzoo`` alone loads no torch.
_PLACES = {
    "GAN": "ganzoo.gan",
    "Trainer": "ganzoo.trainer",
    "load_model": "ganzoo.checkpoint",
} | dict.fromkeys(
    ("BigGAN", "DCGAN", "MLPGAN", "ProgressiveGAN", "R3GAN", "SAGAN", "SNGAN", "StyleGAN", "WGANGP"), "ganzoo.models"
)

__all__ = [*sorted(_PLACES), "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'ganzoo' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return __all__
