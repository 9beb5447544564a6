"""MS-SSIM of pairs: equal images, a written-out reference, which scales small images have."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d
from torch import Tensor

from ganzoo.errors import UserError
from ganzoo.metrics.diversity import mean_similarity, num_scales
from tests.mutants import kills

WEIGHTS = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])


def images(num: int, side: int, *, seed: int = 0, scale: int = 8) -> Tensor:
    """Smooth ones, so that their similarities differ from zero at each scale."""
    draw = torch.Generator().manual_seed(seed)
    blocks = torch.randint(0, 256, (num, 3, side // scale, side // scale), generator=draw).float()
    return torch.nn.functional.interpolate(blocks, size=(side, side), mode="bilinear").to(torch.uint8)


def window(x: np.ndarray) -> np.ndarray:
    """Means under a Gaussian of 11 pixels and sigma 1.5; the image is mirrored at the edge."""
    weights = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    for axis in (1, 2):
        x = correlate1d(x, weights / weights.sum(), axis=axis, mode="mirror")
    return x


def ms_ssim(a: np.ndarray, b: np.ndarray, scales: int) -> float:
    """Wang 2003, eq. 7, of images (C, H, W) in 0 ... 255; weights of fewer scales sum to 1.

    As in torchmetrics, contrast is averaged where the window fits into the image, and the last scale over all of it.
    """
    exponents, value = WEIGHTS[:scales] / WEIGHTS[:scales].sum(), 1.0
    for scale in range(scales):
        ma, mb = window(a), window(b)
        va, vb, cov = window(a * a) - ma**2, window(b * b) - mb**2, window(a * b) - ma * mb
        contrast = (2 * cov + (0.03 * 255) ** 2) / (va + vb + (0.03 * 255) ** 2)
        luminance = (2 * ma * mb + (0.01 * 255) ** 2) / (ma**2 + mb**2 + (0.01 * 255) ** 2)
        term = (contrast * luminance).mean() if scale == scales - 1 else contrast[:, 5:-5, 5:-5].mean()
        value *= max(term, 0.0) ** exponents[scale]
        if scale < scales - 1:
            a, b = (x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2).mean((2, 4)) for x in (a, b))
    return float(value)


def equals_reference(similarity: Callable[..., float]) -> None:
    """Of two images there is one pair. Sizes with 1, 2, 3 and 5 scales."""
    for side, scales in ((16, 1), (32, 2), (64, 3), (176, 5)):
        x = images(1, side).repeat(2, 1, 1, 1)
        x[1] = (0.7 * x[0].float() + 0.3 * images(1, side, seed=1)[0].float()).to(torch.uint8)
        expected = ms_ssim(*x.double().numpy(), scales=scales)
        assert 0.2 < expected < 0.99
        assert similarity(x, num_pairs=3) == pytest.approx(expected, abs=1e-4)


def test_reference() -> None:
    equals_reference(mean_similarity)


@pytest.mark.parametrize(
    "mutant",
    [
        lambda x, num_pairs: 1 - mean_similarity(x, num_pairs=num_pairs),
        lambda x, num_pairs: ms_ssim(*x.double().numpy(), scales=1),
        lambda x, num_pairs: ms_ssim(*(x.double().numpy() / 255), scales=num_scales(*x.shape[2:])),
    ],
)
def test_wrong_similarities(mutant: Callable[..., float]) -> None:
    kills(equals_reference, mutant)


def is_over_pairs_of_different_images(similarity: Callable[..., float]) -> None:
    """All the same: 1. Two kinds of images in equal numbers, n in all: n/2 - 1 of n - 1 partners are of one's kind."""
    same = images(1, 32).expand(10, -1, -1, -1)
    assert similarity(same, num_pairs=50) == pytest.approx(1, abs=1e-5)
    kinds = images(2, 32)
    across = mean_similarity(kinds, num_pairs=2)
    expected = 1 / 3 + 2 / 3 * across
    found = similarity(kinds.repeat(2, 1, 1, 1), num_pairs=1000)
    assert found == pytest.approx(expected, abs=4 * (1 - across) * (2 / 9 / 1000) ** 0.5)


def test_pairs() -> None:
    is_over_pairs_of_different_images(mean_similarity)
    kills(is_over_pairs_of_different_images, with_itself)


def with_itself(x: Tensor, num_pairs: int) -> float:
    """Pairs of any two images, also of one with itself."""
    share = 1 / len(x)
    return share + (1 - share) * mean_similarity(x, num_pairs=num_pairs)


def test_seed() -> None:
    x = images(20, 16)
    assert mean_similarity(x, num_pairs=30) == mean_similarity(x, num_pairs=30)
    assert mean_similarity(x, num_pairs=30) != mean_similarity(x, num_pairs=30, seed=1)


def test_scales() -> None:
    sizes = {11: 1, 21: 1, 22: 2, 32: 2, 43: 2, 44: 3, 64: 3, 98: 3, 99: 4, 128: 4, 175: 4, 176: 5, 256: 5, 1024: 5}
    assert {side: num_scales(side, side) for side in sizes} == sizes
    assert num_scales(256, 32) == 2
    for side in sizes:
        if side <= 176:
            assert mean_similarity(images(1, side, scale=1).repeat(2, 1, 1, 1), num_pairs=1) == pytest.approx(
                1, abs=1e-5
            )


def test_refusals() -> None:
    with pytest.raises(UserError, match="8x8 pixels are smaller than the window of MS-SSIM, 11"):
        mean_similarity(images(3, 8))
    with pytest.raises(UserError, match="2 images or more"):
        mean_similarity(images(1, 16))
    with pytest.raises(ValueError, match="uint8"):
        mean_similarity(images(2, 16).float())
