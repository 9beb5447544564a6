"""What all augmentations share: where they act, and which channels of an image are colours."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ganzoo.errors import UserError
from ganzoo.parts import Part, Turn
from ganzoo.precision import full_precision


class Augmentation(Part):
    """Base of augmentations: random changes of what the discriminator sees, real or fake, in turns of both players.

    They are differentiable, so that the generator learns through them. Random numbers belong to the joint batch and are
    others for each sample and each pass. Gradient penalties see augmented samples, and differentiate with respect to
    the samples before the augmentation (as Karras 2020 does for R1): R1 and R2 see those of the turn's own passes,
    penalties at other points newly augmented ones.

    Parts act on the discriminator's input in the order in which they are named. Augmentations come before parts that
    join several samples into one, such as packing: those would be given packs.
    """

    def input_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        self.fits(torch.empty(shape, device="meta"))
        return shape

    def fits(self, data: Tensor) -> None:
        """Refuse data of a shape that cannot be augmented; its values are not looked at.

        Raises:
            UserError: In that case.
        """

    def inputs(self, turn: Turn, data: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
        with full_precision(data.device):
            return self.augment(data.float(), turn.kimg), labels

    def augment(self, data: Tensor, kimg: float = 0.0) -> Tensor:
        """The changed data, of the same shape and type; ``data`` itself where nothing changes.

        Args:
            data: (N, C, H, W) images in [-1, 1], of single or double precision. The result may leave that range.
            kimg: The time, for schedules.
        """
        raise NotImplementedError(f"{type(self).__name__} must define augment(data, kimg).")


def num_colours(data: Tensor, part: str) -> int:
    """How many of the channels are colours: 1 of gray images, 3 of RGB images, with or without alpha behind them.

    Raises:
        UserError: For data that are no images of 1 to 4 channels; ``part`` is what wanted to colour them.
    """
    channels = images_only(data, part).shape[1]
    if channels > 4:
        raise UserError(
            f"{part} was given {channels} channels, but colours need 1 (gray), 2 (with alpha), 3 (RGB) or 4 (RGBA): "
            "leave its color operations out, or name it before the part that joins samples."
        )
    return 1 if channels < 3 else 3


def images_only(data: Tensor, part: str) -> Tensor:
    """The data, if they are images (N, C, H, W).

    Raises:
        UserError: For anything else, such as points.
    """
    if data.dim() != 4:
        raise UserError(
            f"{part} changes images (N, C, H, W), but was given data of shape {tuple(data.shape)}: use InstanceNoise, "
            "which takes points as well."
        )
    return data


def pick(part: str, option: str, names: Sequence[str], allowed: tuple[str, ...]) -> tuple[str, ...]:
    """Names that were chosen of ``allowed``, in the order of ``allowed``.

    Raises:
        UserError: For a name that is not allowed, or a name given twice.
    """
    if set(names) - set(allowed) or len(set(names)) < len(names):
        raise UserError(f"{part} was given {option} {list(names)}; choose each at most once from {', '.join(allowed)}.")
    return tuple(name for name in allowed if name in names)


def per_sample(values: Tensor, data: Tensor) -> Tensor:
    """Numbers (N,) as (N, 1, 1, 1), in the type of the data."""
    return values.to(data.dtype).view(-1, *[1] * (data.dim() - 1))


def box(rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor], data: Tensor) -> Tensor:
    """Which pixels are in each sample's box, (N, 1, H, W), bool: from the first number (N,) up to below the second."""
    y, x = (torch.arange(size, device=data.device)[None] for size in data.shape[2:])
    in_rows = (y >= rows[0][:, None]) & (y < rows[1][:, None])  # (N, H)
    in_columns = (x >= columns[0][:, None]) & (x < columns[1][:, None])  # (N, W)
    return (in_rows[:, :, None] & in_columns[:, None, :])[:, None]
