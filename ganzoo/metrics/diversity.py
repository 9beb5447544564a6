"""How much samples differ from each other, with no real image: MS-SSIM of random pairs (Odena 2017, sec. 4.2)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from ganzoo.errors import UserError

_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  #: of the scales, finest first (Wang 2003, sec. 3.2)
_WINDOW = 11  #: pixels of the Gaussian window, which must fit into the coarsest scale
_PAIRS = 64  #: compared at a time


def mean_similarity(images: Tensor, *, num_pairs: int = 1000, seed: int = 0) -> float:
    """The mean MS-SSIM of random pairs of different images: 1 when all are the same, lower the more they differ.

    As in torchmetrics, the window has 11 pixels (sigma 1.5), negative terms count as 0, and the last scale is averaged
    over the whole image, mirrored at its edge, where Wang 2003 leaves the edge out. Small images have fewer scales
    (:func:`num_scales`) whose weights are scaled to sum to 1, so values of different sizes are not comparable.

    Args:
        images: uint8 (N, C, H, W), of one class where there are classes.
        num_pairs: Drawn with replacement among all pairs.
        seed: Of the draw.

    Raises:
        UserError: When images are too small, or there is only one.
    """
    if images.dtype != torch.uint8:
        raise ValueError(f"images of {images.dtype} where uint8 was expected")
    if len(images) < 2:
        raise UserError("The similarity of pairs needs 2 images or more, and there is one at most.")
    scales = num_scales(*images.shape[-2:])
    weights = tuple(w / sum(_WEIGHTS[:scales]) for w in _WEIGHTS[:scales])
    draw = np.random.default_rng(seed)
    first = draw.integers(len(images), size=num_pairs)
    second = (first + draw.integers(1, len(images), size=num_pairs)) % len(images)
    total = 0.0
    for i in range(0, num_pairs, _PAIRS):
        a, b = (images[torch.from_numpy(which[i : i + _PAIRS]).to(images.device)].float() for which in (first, second))
        similarity = multiscale_structural_similarity_index_measure(
            a, b, kernel_size=_WINDOW, data_range=255.0, betas=weights, reduction="none"
        )
        total += float(similarity.double().sum())
    return total / num_pairs


def num_scales(height: int, width: int) -> int:
    """Scales of an image: 1 from 11 pixels on, 2 from 22, 3 from 44, 4 from 99, and the published 5 from 176.

    Raises:
        UserError: When the image is smaller than the window.
    """
    side = min(height, width)
    # At each scale the window must fit; torchmetrics also asks for the second.
    fits = [s for s in range(1, 6) if side >> s - 1 >= _WINDOW and side // max(1, s - 1) ** 2 >= _WINDOW]
    if not fits:
        raise UserError(
            f"Images of {height}x{width} pixels are smaller than the window of MS-SSIM, {_WINDOW} pixels: measure "
            "diversity by recall or coverage instead."
        )
    return max(fits)
