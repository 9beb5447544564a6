"""Each metric: what it needs of the images, and the scores that it makes of that."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ganzoo.errors import UserError
from ganzoo.metrics import diversity, frechet, inception_score, kernel, manifold, path, sliced
from ganzoo.metrics.collecting import Collected, Needs
from ganzoo.metrics.protocol import Protocol
from ganzoo.metrics.record import Score

_TORCH_FIDELITY_SEED = 2020  #: of its draws, unless another is asked for


def needs(metrics: Sequence[str], protocol: Protocol) -> Needs:
    """What these metrics need of the samples."""
    pixels = {"swd": protocol.swd_images, "ms-ssim": 2 * protocol.ssim_pairs}
    return Needs(
        moments="fd" in metrics,
        rows=bool({"kd", "prdc", "intra-fd"} & set(metrics)),
        logits="is" in metrics,
        labels="intra-fd" in metrics,
        steps="ppl" in metrics,
        pixels=max((num for metric, num in pixels.items() if metric in metrics), default=None),
    )


def check(metrics: Sequence[str], protocol: Protocol, shape: tuple[int, ...]) -> None:
    """Refuse images, or numbers of them, that are too small for the chosen scores.

    Args:
        metrics: What is measured.
        protocol: With the numbers of samples and of real images.
        shape: Of an image, (C, H, W).

    Raises:
        UserError: One of them cannot be computed.
    """
    smallest = min(protocol.num, protocol.reference_num)
    if "kd" in metrics and protocol.kid_subset_size > smallest:
        raise UserError(
            f"The kernel distance compares subsets of {protocol.kid_subset_size} images, but there are {smallest}: "
            "set kid_subset_size to that or less, or give more images."
        )
    if "prdc" in metrics and protocol.prdc_k >= smallest:
        raise UserError(
            f"Precision and recall look at {protocol.prdc_k} neighbours, but there are {smallest}: give more."
        )
    if "is" in metrics and protocol.is_splits > protocol.num:
        raise UserError(f"The inception score has {protocol.is_splits} splits of {protocol.num} samples: give more.")
    if "fd" in metrics and smallest < 2:
        raise UserError("The Frechet distance compares covariances, and there is one image only: give more.")
    if "swd" in metrics:
        sliced.check(*shape[1:])
    if "ms-ssim" in metrics:
        diversity.num_scales(*shape[1:])
        if protocol.num < 2:
            raise UserError("MS-SSIM compares pairs of samples, and there is one only: give more.")


def _frechet(real: Collected, fake: Collected, protocol: Protocol) -> dict[str, Score]:
    a, b = fake.moments, real.moments
    assert a is not None and b is not None
    unbiased = protocol.covariance == "unbiased"
    return {"fd": Score(frechet.frechet_distance(a.mean, a.covariance(unbiased), b.mean, b.covariance(unbiased)))}


def _intra_class(real: Collected, fake: Collected, protocol: Protocol) -> dict[str, Score]:
    assert real.rows is not None and fake.rows is not None and real.labels is not None and fake.labels is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", frechet.RankWarning)  # it is a remark of the evaluation
        value = frechet.intra_class(
            *(fake.rows, fake.labels, real.rows, real.labels), unbiased=protocol.covariance == "unbiased"
        )
    return {"intra-fd": Score(value)}


def _kernel(real: Collected, fake: Collected, protocol: Protocol) -> dict[str, Score]:
    assert real.rows is not None and fake.rows is not None
    found = kernel.kernel_distance(
        fake.rows,
        real.rows,
        subsets=protocol.kid_subsets,
        subset_size=protocol.kid_subset_size,
        generator=_draws(protocol),
    )
    return {"kd": Score(*found)}


def _inception(real: Collected, fake: Collected, protocol: Protocol) -> dict[str, Score]:
    assert fake.logits is not None
    found = inception_score.inception_score(
        fake.logits, splits=protocol.is_splits, shuffle=protocol.is_shuffle, generator=_draws(protocol)
    )
    return {"is": Score(*found)}


def _manifold(real: Collected, fake: Collected, protocol: Protocol) -> dict[str, Score]:
    assert real.rows is not None and fake.rows is not None
    return {name: Score(value) for name, value in manifold.prdc(real.rows, fake.rows, k=protocol.prdc_k).items()}


def _path(real: Collected, fake: Collected, protocol: Protocol) -> dict[str, Score]:
    assert fake.steps is not None
    return {"ppl": Score(path.trimmed(fake.steps).mean)}


def _sliced(real: Collected, fake: Collected, protocol: Protocol) -> dict[str, Score]:
    """Of each level by its height in pixels, and the mean over levels."""
    assert real.pixels is not None and fake.pixels is not None
    num = min(protocol.swd_images, len(real.pixels), len(fake.pixels))
    sides = [_patches(x[:num], protocol) for x in (fake.pixels, real.pixels)]
    levels = sliced.sliced_distance(*sides, directions=protocol.swd_directions, seed=protocol.seed)
    return {"swd": Score(float(np.mean(list(levels.values()))))} | {
        f"swd/{height}": Score(value) for height, value in levels.items()
    }


def _patches(images: Tensor, protocol: Protocol) -> sliced.Patches:
    patches = sliced.Patches(per_image=protocol.swd_patches, seed=protocol.seed)
    for batch in torch.split(images, 256):
        patches.update(batch)
    return patches


def _similarity(real: Collected, fake: Collected, protocol: Protocol) -> dict[str, Score]:
    assert fake.pixels is not None
    images = fake.pixels[: 2 * protocol.ssim_pairs]
    return {"ms-ssim": Score(diversity.mean_similarity(images, num_pairs=protocol.ssim_pairs, seed=protocol.seed))}


def _draws(protocol: Protocol) -> np.random.RandomState:
    """As torch-fidelity draws with the seed of its own plus the protocol's."""
    return np.random.RandomState(_TORCH_FIDELITY_SEED + protocol.seed)


#: Real images and samples to scores by what they are.
MEASURES: dict[str, Callable[[Collected, Collected, Protocol], dict[str, Score]]] = {
    "fd": _frechet,
    "intra-fd": _intra_class,
    "kd": _kernel,
    "is": _inception,
    "prdc": _manifold,
    "ppl": _path,
    "swd": _sliced,
    "ms-ssim": _similarity,
}
