"""The sliced Wasserstein distance of image patches, at each scale of a Laplacian pyramid (Karras 2018, sec. 5).

It needs no network. A level of the pyramid holds what a scale adds to the next coarser one (Burt and Adelson 1983), so
each level's distance is about structures of one size. The coarsest has 16 to 31 pixels, or an odd number.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ganzoo.errors import UserError
from ganzoo.metrics.statistics import keyed
from ganzoo.streams import generator, key

_SIDE = 7  #: pixels of a patch
_COARSEST = 16  #: pixels of the coarsest level


class Patches:
    """Patches of the images that it was shown, at each level; where they are depends on the image's index alone.

    Memory is images x patches x 49 C numbers of 4 bytes at each level: by default 75 kB per image of three channels.
    """

    def __init__(self, *, per_image: int = 128, seed: int = 0) -> None:
        """
        Args:
            per_image: Patches of an image at each level; 128 of 16,384 images is what was published.
            seed: Of the places.
        """
        self.per_image, self.seed = per_image, seed
        self.num = 0
        self._levels: dict[int, list[Tensor]] = {}

    def update(self, images: Tensor, indices: Tensor | None = None) -> None:
        """Cut patches out of images.

        Args:
            images: uint8 (N, C, H, W), all of one size.
            indices: Of the images, (N,); none: they are counted.

        Raises:
            UserError: When the images are smaller than a patch.
        """
        if images.dtype != torch.uint8:
            raise ValueError(f"images of {images.dtype} where uint8 was expected")
        if indices is None:
            indices = torch.arange(self.num, self.num + len(images))
        self.num += len(images)
        for level in pyramid(images.float()):
            height = level.shape[-2]
            self._levels.setdefault(height, []).append(self._cut(level, indices.cpu()).cpu())

    def levels(self) -> dict[int, Tensor]:
        """Patches (num x per_image, C, 49) of each level, by the height of its images in pixels, finest first."""
        for height, found in self._levels.items():
            self._levels[height] = [torch.cat(found)]
        return {height: found[0] for height, found in self._levels.items()}

    def _cut(self, level: Tensor, indices: Tensor) -> Tensor:
        num, channels, height, width = level.shape
        draws = indices[:, None] * self.per_image + torch.arange(self.per_image)
        numbers = keyed(key(self.seed, "patches", height), draws.flatten().numpy())
        places = (numbers % np.uint64((height - _SIDE + 1) * (width - _SIDE + 1))).astype(np.int64)
        top, left = (torch.from_numpy(x).to(level.device) for x in divmod(places, width - _SIDE + 1))
        offsets = torch.arange(_SIDE, device=level.device)
        image = torch.arange(num, device=level.device).repeat_interleave(self.per_image)
        rows, columns = top[:, None, None] + offsets[:, None], left[:, None, None] + offsets
        cut = level.permute(0, 2, 3, 1)[image[:, None, None], rows, columns]  # (P, 7, 7, C)
        return cut.permute(0, 3, 1, 2).reshape(len(image), channels, _SIDE**2)


def sliced_distance(first: Patches, second: Patches, *, directions: int = 512, seed: int = 0) -> dict[int, float]:
    """The distance x 1000, as published, at each level by its height in pixels, finest first.

    Patches of each set are normalized to mean 0 and deviation 1 of each channel. The distance is the mean over random
    directions and sorted patches of the difference of projections.

    Args:
        first: Of as many images as the second, of the same size.
        second: Patches of the other set.
        directions: How many; 512 is what was published.
        seed: Of the directions.

    Raises:
        UserError: When the two sets differ in number or size of images.
    """
    one, two = first.levels(), second.levels()
    shapes = [{height: tuple(patches.shape) for height, patches in levels.items()} for levels in (one, two)]
    if not one or shapes[0] != shapes[1]:
        raise UserError(
            f"The sliced Wasserstein distance compares as many images of the same size and colours, but there are "
            f"{first.num} on one side with levels {list(one)}, and {second.num} on the other with levels {list(two)}."
        )
    return {height: 1000 * _sliced(one[height], two[height], directions, key(seed, height)) for height in one}


def pyramid(images: Tensor) -> list[Tensor]:
    """Laplacian pyramid of images (N, C, H, W), finest first; the last level is the image itself, made small.

    Raises:
        UserError: When the images are smaller than a patch.
    """
    check(*images.shape[-2:])
    levels = []
    while min(images.shape[-2:]) >= 2 * _COARSEST and not (images.shape[-2] % 2 or images.shape[-1] % 2):
        small = _blurred(images, 1.0)[..., ::2, ::2]
        zeros = torch.zeros_like(images)
        zeros[..., ::2, ::2] = small
        levels.append(images - _blurred(zeros, 2.0))
        images = small
    return [*levels, images]


def check(height: int, width: int) -> None:
    """Refuse images that are smaller than a patch.

    Raises:
        UserError: They are.
    """
    if min(height, width) < _SIDE:
        raise UserError(
            f"Images of {height}x{width} pixels are smaller than a patch of the sliced Wasserstein distance, "
            f"{_SIDE}x{_SIDE} pixels: choose another score."
        )


def _blurred(images: Tensor, gain: float) -> Tensor:
    """Rows and columns convolved with (1, 4, 6, 4, 1)/16 times a gain; images are mirrored at the edge."""
    weights = images.new_tensor([1.0, 4.0, 6.0, 4.0, 1.0]) * (gain / 16)
    channels = images.shape[1]
    padded = F.pad(images, (2, 2, 2, 2), mode="reflect")
    padded = F.conv2d(padded, weights.view(1, 1, 1, 5).expand(channels, 1, 1, 5), groups=channels)
    return F.conv2d(padded, weights.view(1, 1, 5, 1).expand(channels, 1, 5, 1), groups=channels)


def _sliced(real: Tensor, fake: Tensor, directions: int, seed: int) -> float:
    """The distance of two sets of patches (P, C, 49)."""
    one, two = _normalized(real), _normalized(fake)
    draw = generator(seed, "directions")
    total = 0.0
    for num in torch.split(torch.arange(directions), 32):
        towards = torch.randn(one.shape[1], len(num), generator=draw)
        towards /= towards.norm(dim=0)
        first, second = (
            np.sort((towards.T @ side.T).numpy(), axis=1) for side in (one, two)
        )  # torch sorts more slowly
        total += float(np.abs(first - second).mean(1, dtype=np.float64).sum())
    return total / directions


def _normalized(patches: Tensor) -> Tensor:
    """(P, 49 C): each channel has mean 0 and deviation 1 over patches and pixels; a constant channel is 0."""
    mean = _mean(patches)
    std = _mean(patches, mean).sqrt()
    return patches.sub(mean.float()).div_(std.float().clamp_min(1e-8)).flatten(1)


def _mean(patches: Tensor, center: Tensor | None = None) -> Tensor:
    """The mean (1, C, 1), or the mean square about a center, in float64 of a piece at a time."""
    total = torch.zeros(1, patches.shape[1], 1, dtype=torch.float64)
    for piece in torch.split(patches, 65_536):
        values = piece.double() if center is None else piece.double().sub_(center).square_()
        total += values.sum((0, 2), keepdim=True)
    return total / (len(patches) * patches.shape[2])
