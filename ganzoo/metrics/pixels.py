"""The way of pixels into a feature extractor: rounding to bytes, and the filter that gives them the network's size.

Both move a published score by whole points (Parmar 2022, "On aliased resizing"), so each protocol's own is kept, to the
last bit where its program defines it, and named for what it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ganzoo.errors import UserError
from ganzoo.images import to_uint8
from ganzoo.metrics.protocol import Quantization

Resize = Literal["tf1-bilinear", "clean", "pil-bilinear-float", "none"]

QUANTIZATIONS: tuple[str, ...] = get_args(Quantization)
RESIZES: tuple[str, ...] = get_args(Resize)

_LARGEST = 16.0  # a generator without an output function passes 1, by far less than bytes taken for floats do


def quantize(images: Tensor, mode: Quantization = "round", *, extremes: tuple[float, float] | None = None) -> Tensor:
    """Samples of a generator as bytes, the way a protocol does it.

    - ``round``: the nearest level of (x + 1) 127.5, as ganzoo writes pictures.
    - ``nvidia``: x 127.5 + 128, clamped, rounded down (StyleGAN2-ADA and its successors).
    - ``studiogan``: (x + 1)/2 255 + 0.5, clamped, rounded down (StudioGAN; what torchvision's ``save_image`` does).
    - ``min-max``: the set's own smallest and largest value become 0 and 255 (Mimicry), so a sample's bytes depend on
      the other samples; only for comparison with what was published so.

    Args:
        images: Of any shape in [-1, 1], float; values a little beyond are clamped. Bytes stay as they are.
        mode: One of the above.
        extremes: With ``min-max``, the smallest and largest value of the whole set that the images are part of; none:
            the images are the set.

    Raises:
        UserError: For integers, values that are not finite, and those that cannot be of the range [-1, 1].
    """
    if images.dtype == torch.uint8:
        return images
    _check_range(images)
    x = images.float()
    if mode == "round":
        return to_uint8(x)
    if mode == "nvidia":
        x = x * 127.5 + 128
    elif mode == "studiogan":
        x = (x + 1) / 2 * 255 + 0.5
    elif mode == "min-max":
        low, high = extremes or (float(x.min()), float(x.max()))
        x = (x - low) / (high - low + 1e-5) * 255 + 0.5
    else:
        raise UserError(f"There is no quantization {mode!r}; choose one of {', '.join(QUANTIZATIONS)}.")
    return x.clamp(0, 255).to(torch.uint8)


def resize(images: Tensor, size: int, mode: Resize) -> Tensor:
    """Images in the size of a network, not rounded.

    - ``tf1-bilinear``: TensorFlow 1's ``resize_bilinear``, a part of the published Inception network: no smoothing, and
      pixel i lies at i in/out. Torch-fidelity's arithmetic, bit by bit.
    - ``clean``: Pillow's bicubic filter for each channel in float, which smooths when it reduces; clamped to 0 and 255
      (clean-fid; also DINOv2 in dgm-eval).
    - ``pil-bilinear-float``: Pillow's bilinear filter for each channel in float (StudioGAN's "friendly").
    - ``none``: they have the size already.

    Args:
        images: uint8 (N, C, H, W).
        size: Of both sides.
        mode: One of the above.

    Returns:
        float32 (N, C, size, size) in [0, 255], on the device of the images. Pillow itself computes on a CPU; elsewhere,
        and where a gradient is asked for, the same filter in float64, within 4e-5 of it.

    Raises:
        UserError: For images that have another size with ``none``.
    """
    if mode == "tf1-bilinear":
        return _tf1_bilinear(images, size)
    if mode == "clean":
        return _smooth(images, size, "bicubic").clamp(0, 255)
    if mode == "pil-bilinear-float":
        return _smooth(images, size, "bilinear")
    if mode != "none":
        raise UserError(f"There is no way to resize called {mode!r}; choose one of {', '.join(RESIZES)}.")
    if images.shape[2:] != (size, size):
        given = f"{images.shape[2]}x{images.shape[3]}"
        raise UserError(
            f"The images have {given} pixels and are not to be resized, but the network takes {size}x{size}: choose "
            f"one of {', '.join(RESIZES[:-1])} for resize."
        )
    return images.float()


def normalize(x: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(x/255 - mean)/std for each channel.

    Args:
        x: float32 (N, C, H, W) in [0, 255].
        mean: One number, or one for each channel, of the range [0, 1].
        std: The same.
    """
    center, width = (torch.tensor(numbers, dtype=x.dtype, device=x.device).view(-1, 1, 1) for numbers in (mean, std))
    return (x / 255 - center) / width


def _check_range(images: Tensor) -> None:
    if not images.is_floating_point():
        kind = str(images.dtype).removeprefix("torch.")
        raise UserError(f"The images are {kind}; give uint8 of the range 0 to 255, or floats of the range -1 to 1.")
    largest = float(images.abs().max()) if images.numel() else 0.0
    if not largest <= _LARGEST:  # NaN, too
        raise UserError(
            f"The images reach {largest:.4g}, so they are not of the range -1 to 1 that a generator makes; divide by "
            "127.5 and subtract 1, or give bytes as uint8, if they are of the range 0 to 255."
        )


def _tf1_bilinear(images: Tensor, size: int) -> Tensor:
    """Along the rows first: each is computed once, however many rows of the result need it."""
    top, bottom, down = _neighbours(images.shape[2], size, images.device)
    left, right, along = _neighbours(images.shape[3], size, images.device)
    if images.shape[2] > 2 * size:  # most rows are needed by none
        images = images.index_select(2, torch.cat([top, bottom]))
        top = torch.arange(size, device=images.device)
        bottom = top + size
    x = _between(images.float(), left, right, along, dim=3)
    return _between(x, top, bottom, down[:, None], dim=2)


def _neighbours(given: int, size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Of each pixel of the result: the pixel before it, the one after it, and how far it is towards that."""
    place = torch.arange(size, dtype=torch.float32, device=device) * (given / size)
    before = place.long()
    return before, (before + 1).clamp_max(given - 1), place - before


def _between(x: Tensor, before: Tensor, after: Tensor, share: Tensor, *, dim: int) -> Tensor:
    first = x.index_select(dim, before)
    return first + (x.index_select(dim, after) - first) * share


def _smooth(images: Tensor, size: int, mode: Literal["bilinear", "bicubic"]) -> Tensor:
    by_pillow = images.device.type == "cpu" and not images.requires_grad
    return (_pillow if by_pillow else _like_pillow)(images, size, mode)


def _like_pillow(images: Tensor, size: int, mode: str) -> Tensor:
    """In float64: the weights of torch's float32 are off by up to 7e-3 levels."""
    x = F.interpolate(images.double(), size=(size, size), mode=mode, antialias=True, align_corners=False)
    return x.float()


def _pillow(images: Tensor, size: int, mode: str) -> Tensor:
    resample = Image.Resampling[mode.upper()]
    planes = images.flatten(0, 1).numpy().astype(np.float32)
    out = np.empty((len(planes), size, size), np.float32)
    for plane, place in zip(planes, out, strict=True):
        place[:] = np.asarray(Image.fromarray(plane).resize((size, size), resample))
    return torch.from_numpy(out).view(*images.shape[:2], size, size)
