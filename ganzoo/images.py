"""Pictures of samples: grids as PNG, and grids over time as GIF."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ganzoo import files
from ganzoo.errors import UserError

WHITE = 255


def to_uint8(samples: Tensor) -> Tensor:
    """Samples of any shape in [-1, 1] as bytes, rounded; values beyond are clamped, NaN is black. Bytes stay."""
    if samples.dtype == torch.uint8:
        return samples
    return ((samples.float() + 1) * 127.5).round().clamp(0, 255).nan_to_num(0.0).to(torch.uint8)


def to_image(sample: Tensor) -> Image.Image:
    """One sample (C, H, W) in [-1, 1], or its bytes, as a picture: gray, RGB or RGBA for 1, 3 or 4 channels.

    Of 2 channels the first is shown, of 5 or more the first three.
    """
    channels = len(sample) if len(sample) in (1, 3, 4) else (1 if len(sample) == 2 else 3)
    array = to_uint8(sample[:channels]).cpu().permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(array[:, :, 0] if channels == 1 else array)


def grid(samples: Tensor, *, columns: int | None = None, padding: int = 2, min_size: int = 64) -> Image.Image:
    """All samples in rows on white; transparent ones lie on it.

    Args:
        samples: (N, C, H, W) in [-1, 1], or bytes.
        columns: Samples per row; none: as many as make the grid square.
        padding: Pixels between samples and around them.
        min_size: Samples whose shorter side is below it are enlarged by a whole factor, pixel by pixel.

    Raises:
        UserError: When the samples are no images.
    """
    if samples.dim() != 4 or len(samples) == 0:
        raise UserError(
            f"A grid was asked for of samples of shape {tuple(samples.shape)}; it takes images (N, C, H, W)."
        )
    num, _, height, width = samples.shape
    columns = min(columns or math.ceil(math.sqrt(num)), num)
    factor = max(1, min_size // min(height, width))
    height, width = height * factor, width * factor
    cells = [to_image(sample).resize((width, height), Image.Resampling.NEAREST) for sample in to_uint8(samples)]
    mode = "L" if cells[0].mode == "L" else "RGB"
    size = (padding + columns * (width + padding), padding + math.ceil(num / columns) * (height + padding))
    canvas = Image.new(mode, size, WHITE if mode == "L" else (WHITE,) * 3)
    for i, cell in enumerate(cells):
        place = (padding + i % columns * (width + padding), padding + i // columns * (height + padding))
        canvas.paste(cell, place, cell.getchannel("A") if cell.mode == "RGBA" else None)
    return canvas


def save_png(path: str | Path, image: Image.Image) -> None:
    """Write a picture; a crash leaves the old file or the new one."""
    with files.atomic(path) as file:
        image.save(file, format="PNG")


def save_gif(
    path: str | Path,
    frames: Sequence[str | Path],
    *,
    num_frames: int = 40,
    max_side: int = 640,
    seconds: float = 0.15,
    hold_seconds: float = 2.0,
) -> None:
    """Write picture files as an endless animation; a crash leaves the old file or the new one.

    Args:
        path: The animation.
        frames: Picture files in order; with more than ``num_frames``, evenly spaced ones with the first and the last.
        num_frames: Most frames.
        max_side: Longest side in pixels; larger pictures are reduced by a whole factor.
        seconds: How long a frame is shown.
        hold_seconds: How long the last one is shown.
    """
    chosen = spaced(frames, num_frames)
    with Image.open(chosen[-1]) as last:
        size = last.size
    factor = math.ceil(max(size) / max_side)
    palette = _palette([_frame(path, size, factor) for path in spaced(chosen, 8)])
    pictures = (_frame(path, size, factor) for path in chosen)
    if palette is not None:
        pictures = (picture.convert("RGB").quantize(palette=palette, dither=_NO_DITHER) for picture in pictures)
    durations = [round(seconds * 1000)] * (len(chosen) - 1) + [round(hold_seconds * 1000)]
    with files.atomic(path) as file:
        next(pictures).save(
            file, format="GIF", save_all=True, append_images=pictures, duration=durations, loop=0, optimize=False
        )


def spaced(items: Sequence[str | Path], num: int) -> list[str | Path]:
    """At most ``num`` of the items, evenly spaced, with the first and the last."""
    if len(items) <= num:
        return list(items)
    return [items[round(i * (len(items) - 1) / (num - 1))] for i in range(num)]


def _frame(path: str | Path, size: tuple[int, int], factor: int) -> Image.Image:
    """A picture as a frame of the given size, then reduced by a factor."""
    with Image.open(path) as opened:
        image: Image.Image = opened.copy()
    if image.size != size:  # a model that grew
        image = image.resize(size, Image.Resampling.NEAREST)
    return image.reduce(factor) if factor > 1 else image


def _palette(pictures: Sequence[Image.Image]) -> Image.Image | None:
    """256 colours that suit all pictures: frames with colours of their own would flicker. None where all are gray."""
    if all(picture.mode == "L" for picture in pictures):
        return None
    width, height = pictures[0].size
    board = Image.new("RGB", (width, height * len(pictures)))
    for i, picture in enumerate(pictures):
        board.paste(picture, (0, i * height))
    step = max(1, round(math.sqrt(board.width * board.height / _PALETTE_PIXELS)))
    small = board.resize((board.width // step, board.height // step), Image.Resampling.NEAREST)
    return small.quantize(256, dither=_NO_DITHER)


_NO_DITHER = Image.Dither.NONE  # dithered frames look no better and take several times the space
_PALETTE_PIXELS = 250_000  # finding colours takes a second per million pixels
