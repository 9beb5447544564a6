"""Protocols by name: those of published scores, and two small ones for use while training.

Nothing here imports torch, so that ``ganzoo evaluate --help`` answers at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from ganzoo.config import Config, encode
from ganzoo.errors import UserError
from ganzoo.metrics.protocol import WORDS, BatchNorm, Labels, Protocol, Quantization, Weights

#: What can be measured, and what it is.
METRICS = {
    "fd": "Frechet distance: FID in Inception's features",
    "kd": "kernel distance: KID in Inception's features",
    "is": "inception score",
    "prdc": "precision, recall, density and coverage",
    "intra-fd": "Frechet distance within each class, on average",
    "ppl": "perceptual path length of a model",
    "swd": "sliced Wasserstein distance of patches; needs no extractor",
    "ms-ssim": "similarity of pairs of samples; needs no extractor",
}
_COMMON = ("fd", "kd", "is", "prdc")

#: Metrics that look at pixels alone.
PIXELS = ("swd", "ms-ssim")

_DOMAIN = "ganzoo.metrics.extractors.domain.Domain"
_INCEPTION = "ganzoo.metrics.extractors.inception.Inception"


@dataclass(frozen=True)
class Preset:
    """A protocol, the extractor that it is for, and what is measured unless something else is asked for."""

    about: str
    protocol: Protocol
    extractor: Config
    metrics: tuple[str, ...] = _COMMON


def _inception(**options: Any) -> Config:
    return {"class_path": _INCEPTION, "init_args": options}


#: Facts of each: see docs/evaluation.md.
PRESETS = {
    preset.protocol.name: preset
    for preset in (
        Preset(
            "torch-fidelity 0.4: 50,000 samples against the training set",
            Protocol("torch-fidelity"),
            _inception(resize="tf1-bilinear"),
        ),
        Preset(
            "StudioGAN 0.4: Pillow's bilinear filter, standing statistics, one split",
            Protocol(
                "studiogan",
                quantization="studiogan",
                batch_norm="standing",
                standing_batches=64,
                standing_size=64,
                is_splits=1,
                prdc_k=5,
            ),
            _inception(resize="pil-bilinear-float", logits="biased"),
            ("fd", "is", "prdc"),
        ),
        Preset(
            "NVIDIA's fid50k_full, kid50k_full and is50k: labels as in the data, covariance divided by N",
            Protocol("nvidia", quantization="nvidia", labels="data", is_shuffle=False, covariance="biased"),
            _inception(resize="tf1-bilinear"),
            ("fd", "kd", "is"),
        ),
        Preset(
            "clean-fid on CIFAR-10: Pillow's bicubic filter, 10,000 samples against the test set",
            Protocol("clean-fid", num=10_000, split="test", quantization="nvidia"),
            _inception(resize="clean"),
            ("fd", "kd"),
        ),
        Preset(
            "Mimicry: raw weights, bytes by the samples' own extremes, KID on 10 subsets of 5,000",
            Protocol(
                "mimicry",
                quantization="min-max",
                weights="raw",
                is_shuffle=False,
                kid_subsets=10,
                kid_subset_size=5000,
            ),
            _inception(resize="tf1-bilinear"),
            ("fd", "kd", "is"),
        ),
        Preset(
            "for curves while training: kernel distance on 2,000 samples, with its interval",
            Protocol("quick", num=2000, kid_subsets=20, kid_subset_size=500),
            _inception(resize="tf1-bilinear"),
            ("kd",),
        ),
        Preset(
            "handwritten digits, with the extractor that ganzoo ships: no download",
            Protocol("digits", num=1000, kid_subsets=20, kid_subset_size=500),
            {"class_path": _DOMAIN, "init_args": {"path": "digits-cnn"}},
            ("fd",),
        ),
    )
}


def preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        UserError: There is none.
    """
    if name not in PRESETS:
        raise UserError(f"There is no protocol {name!r}; choose one of {', '.join(PRESETS)}.")
    return PRESETS[name]


def chosen(given: Sequence[str] | None, preset: Preset) -> tuple[str, ...]:
    """What to measure: the given metrics, else the preset's.

    Raises:
        UserError: For one that does not exist.
    """
    metrics = tuple(given) if given else preset.metrics
    for name in metrics:
        if name not in METRICS:
            raise UserError(f"There is no metric {name!r}; choose from {', '.join(METRICS)}.")
    return metrics


def needs_extractor(metrics: Sequence[str]) -> bool:
    """Whether any of these metrics is computed from features."""
    return not set(metrics) <= set(PIXELS)


def changed(protocol: Protocol, changes: Mapping[str, Any]) -> Protocol:
    """The protocol with what was asked for instead; None is for what was not.

    Raises:
        UserError: There is no such choice.
    """
    for name, value in changes.items():
        if name not in WORDS:
            raise UserError(f"In a protocol there is no choice {name}; choose from {', '.join(WORDS)}.")
        if name in _OFFERED and value is not None and value not in _OFFERED[name]:
            raise UserError(f"{name} was {value!r}; choose one of {', '.join(_OFFERED[name])}.")
    return replace(protocol, **{name: value for name, value in changes.items() if value is not None})


#: What may be asked for; a record may also say that images were files, and whatever a split is called.
_OFFERED = {
    "quantization": get_args(Quantization),
    "split": ("train", "test"),
    **{
        name: tuple(choice for choice in get_args(kind) if choice != "files")
        for name, kind in (("weights", Weights), ("batch_norm", BatchNorm), ("labels", Labels))
    },
}


def extractor_options(config: Config) -> str:
    """Settings of an extractor that are named nowhere else in a protocol, in a canonical form."""
    elsewhere = ("weights", "weights_hash", "path", "file", "trust", "resize")
    options = {name: encode(value) for name, value in config["init_args"].items() if name not in elsewhere}
    return ", ".join(f"{name}={options[name]}" for name in sorted(options))
