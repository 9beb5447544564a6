"""What a score depends on besides the model, as a small object that every score carries.

The same weights have been published with FIDs of 11.07 and 12.96, because one of the choices below differed. So two
scores may stand in one column only if their protocols have the same :attr:`Protocol.id`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from ganzoo.errors import UserError

Quantization = Literal["round", "nvidia", "studiogan", "min-max"]
Weights = Literal["ema", "raw", "files"]
BatchNorm = Literal["running", "standing", "batch", "files"]
Labels = Literal["uniform", "data", "files"]
Covariance = Literal["unbiased", "biased"]
Space = Literal["z", "w"]
Stretch = Literal["full", "end"]

_CHOICES = {
    "weights": Weights,
    "batch_norm": BatchNorm,
    "labels": Labels,
    "covariance": Covariance,
    "ppl_space": Space,
    "ppl_sampling": Stretch,
}
_COUNTS = (
    *("num", "is_splits", "kid_subsets", "kid_subset_size", "prdc_k"),
    *("swd_images", "swd_patches", "swd_directions", "ssim_pairs"),
)


@dataclass(frozen=True)
class Protocol:
    """All choices behind a score. What names a network or data set is empty until they are known."""

    name: str = "custom"  #: of the preset that it comes from; no part of the id
    extractor: str = ""  #: name of the network whose features are compared
    extractor_hash: str = ""  #: SHA-256 of the file of its weights
    extractor_options: str = ""  #: its further settings
    resize: str = ""  #: how images get the extractor's size
    quantization: str = "round"  #: how samples become bytes; files: they were bytes
    num: int = 50_000  #: generated samples
    reference: str = ""  #: title of the real images
    split: str = "train"  #: which part of the set they are
    reference_hash: str = ""  #: SHA-256 of their pixels
    reference_num: int = 0  #: how many they are: all of the split
    weights: Weights = "ema"  #: the average where the model has one, or what was trained; files: not drawn here
    batch_norm: BatchNorm = "running"  #: statistics of batch normalization in the generator
    standing_batches: int = 0  #: with ``standing``: batches over which its statistics are gathered anew
    standing_size: int = 0  #: with ``standing``: the largest of these batches, sizes are drawn; ``batch``: of each one
    truncation: float | None = None  #: psi of styles, or the threshold of normal latents; None: off
    labels: Labels = "uniform"  #: where classes of a conditional model's samples come from
    seed: int = 0  #: of the samples, and of whatever scores draw: splits, subsets, pairs, patches, directions
    is_splits: int = 10
    is_shuffle: bool = True  #: whether splits are drawn; else they are runs of samples
    kid_subsets: int = 100
    kid_subset_size: int = 1000
    prdc_k: int = 3
    covariance: Covariance = "unbiased"  #: divided by N - 1, or by N
    swd_images: int = 4096  #: of either side at most, for the sliced Wasserstein distance; published: 16,384
    swd_patches: int = 128  #: of an image at each level
    swd_directions: int = 512
    ssim_pairs: int = 1000  #: of samples, for MS-SSIM
    ppl_space: Space = "z"  #: of the paths: latents, or styles
    ppl_sampling: Stretch = "full"  #: where on a path its step is: anywhere, or at its end
    ppl_epsilon: float = 1e-4  #: length of the step, as a share of the path

    def __post_init__(self) -> None:
        for name, kind in _CHOICES.items():
            if getattr(self, name) not in get_args(kind):
                raise UserError(f"{name} was {getattr(self, name)!r}; choose one of {', '.join(get_args(kind))}.")
        for name in _COUNTS:
            if getattr(self, name) < 1:
                raise UserError(f"{WORDS[name]} was {getattr(self, name)}; give 1 or more.")
        if not 0 < self.ppl_epsilon <= 1:
            raise UserError(f"{WORDS['ppl_epsilon']} was {self.ppl_epsilon:g}; give a share of the path, such as 1e-4.")
        if self.batch_norm == "standing" and (self.standing_batches < 1 or self.standing_size < 2):
            raise UserError(
                f"Standing statistics over {self.standing_batches} batches of up to {self.standing_size} samples were "
                "asked for; give 1 batch or more, of 2 samples or more."
            )

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits that differ where any choice does; names are none where the content is known.

        Choices that came later count where they are not the default, so that records from before keep their id.
        """
        content = {name: getattr(self, name) for name in _decisive(self)}
        content = {name: value for name, value in content.items() if name not in _LATER or value != _LATER[name]}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def label(self) -> str:
        """For tables and plots: the preset and the id."""
        return f"{self.name} {self.id}"

    def state(self) -> dict[str, Any]:
        """Plain data, with the id."""
        return {**asdict(self), "id": self.id}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Protocol:
        """The inverse of :meth:`state`.

        Raises:
            UserError: It holds other choices than this version knows, or its id is not theirs.
        """
        given = _LATER | {key: value for key, value in state.items() if key != "id"}
        known = {field.name for field in fields(cls)}
        if given.keys() != known:
            odd = ", ".join(sorted(given.keys() ^ known))
            raise UserError(f"The protocol of this record does not fit this version of ganzoo ({odd}).")
        found = cls(**given)
        if state.get("id") != found.id:
            raise UserError(f"The protocol of this record was changed: its id is {state.get('id')}, not {found.id}.")
        return found


#: Each choice in words, as the subject of a sentence.
WORDS = {
    "extractor": "The extractor",
    "extractor_hash": "The hash of the extractor's weights",
    "extractor_options": "The setting of the extractor",
    "resize": "The way of resizing",
    "quantization": "The rounding to bytes",
    "num": "The number of samples",
    "reference": "The reference set",
    "split": "The split of the reference",
    "reference_hash": "The hash of the reference's content",
    "reference_num": "The number of reference images",
    "weights": "The kind of weights",
    "batch_norm": "The mode of batch normalization",
    "standing_batches": "The number of batches for standing statistics",
    "standing_size": "The largest batch for statistics of batch normalization",
    "truncation": "The truncation",
    "labels": "The source of labels",
    "seed": "The seed",
    "is_splits": "The number of splits of the inception score",
    "is_shuffle": "The drawing of the splits",
    "kid_subsets": "The number of subsets of the kernel distance",
    "kid_subset_size": "The size of a subset of the kernel distance",
    "prdc_k": "The neighbour k of precision and recall",
    "covariance": "The divisor of the covariance",
    "swd_images": "The number of images of the sliced Wasserstein distance",
    "swd_patches": "The number of patches of an image",
    "swd_directions": "The number of directions of the sliced Wasserstein distance",
    "ssim_pairs": "The number of pairs of MS-SSIM",
    "ppl_space": "The space of the paths",
    "ppl_sampling": "The place of a step on its path",
    "ppl_epsilon": "The length of a step on its path",
}

#: Choices that came when there were records already, with what those were measured by, if at all.
_LATER: dict[str, Any] = {
    field.name: field.default for field in fields(Protocol) if field.name.startswith(("swd_", "ssim_", "ppl_"))
}


def differences(a: Protocol, b: Protocol) -> list[str]:
    """What differs between two protocols, a sentence each; empty where scores may be compared."""
    same = a.reference_hash == b.reference_hash
    return [
        f"{words} is {_shown(getattr(a, name))} and {_shown(getattr(b, name))}."
        for name, words in WORDS.items()
        if getattr(a, name) != getattr(b, name) and (name in _decisive(a) or not same)
    ]


def _decisive(protocol: Protocol) -> list[str]:
    """The choices that can make two scores differ: images are the same under any title."""
    titles = ("reference", "split") if protocol.reference_hash else ()
    return [name for name in WORDS if name not in titles]


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int):
        return f"{value:,}"
    text = str(value) or "unknown"
    return text[:12] if len(text) == 64 else text  # a hash
