"""``ganzoo sample`` once torch is there: draw, and write what was drawn."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ganzoo import files
from ganzoo.analysis import between
from ganzoo.errors import UserError
from ganzoo.images import grid, save_gif, save_png, to_image
from ganzoo.sampling import Truncation

if TYPE_CHECKING:
    from PIL import Image

    from ganzoo.gan import GAN

SECONDS = 0.06  #: how long an animation shows a frame


def save(gan: GAN, args: argparse.Namespace) -> str:
    """Draw what a command line asks for, and write it; returns what it is."""
    num_styles = getattr(getattr(gan.generator, "mapping", None), "num_styles", None)
    if args.cutoff is not None and num_styles is not None and args.cutoff > num_styles:
        raise UserError(
            f"--cutoff was {args.cutoff}, but {type(gan).__name__} has {num_styles} layers with styles: give 1 to "
            f"{num_styles}."
        )
    if args.mix is not None:
        return _save_mixed(gan, args)
    if args.interpolate is not None:
        return _save_ways(gan, args)
    labels = args.labels
    if isinstance(labels, list):
        labels = [labels[i % len(labels)] for i in range(args.num)]
    samples = gan.sample(
        args.num,
        seed=args.seed,
        labels=labels,
        averaged=not args.raw,
        truncation=args.truncation,
        cutoff=args.cutoff,
        fixed_noise=args.fixed_noise,
    )
    write(gan, samples, args.out, args.columns)
    return f"{args.num} samples"


def _save_ways(gan: GAN, args: argparse.Namespace) -> str:
    """A row for each way, or an animation that goes round."""
    animated = args.out.suffix.lower() == ".gif" and not args.out.is_dir()
    ways = between.interpolate(gan, args.num, args.interpolate, _options(args), closed=animated)
    if animated:
        _animate(ways[:, :-1].flatten(0, 1), args.out)  # each end is the start of the next
    else:
        write(gan, ways.flatten(0, 1), args.out, args.interpolate + 2)
    return f"{len(ways)} ways between samples"


def _save_mixed(gan: GAN, args: argparse.Namespace) -> str:
    """Fine sources on top, coarse ones at the left, and each pair where its row and column meet."""
    mixed, coarse, fine = between.mix(gan, args.num, args.mix, _options(args))
    white = torch.ones_like(fine[:1])
    rows = [white, fine, *(torch.cat([one[None], row]) for one, row in zip(coarse, mixed, strict=True))]
    write(gan, torch.cat(rows), args.out, args.num + 1)
    return f"{args.num} x {args.num} mixed samples"


def _options(args: argparse.Namespace) -> between.Options:
    cut = None if args.truncation is None else Truncation(args.truncation, args.cutoff)
    return between.Options(args.seed, args.labels, not args.raw, cut)


def write(gan: GAN, samples: Tensor, out: Path, columns: int | None) -> None:
    """One picture, one array, or a directory of single images, as the name of ``out`` says.

    Args:
        gan: The model.
        samples: (N, *shape), as the model makes them: images are in [-1, 1].
        out: Where to.
        columns: Of a picture; none: as many as make it square.

    Raises:
        UserError: Samples of this shape cannot be written so.
    """
    suffix = "" if out.is_dir() else out.suffix.lower()
    if suffix == ".npy":
        with files.atomic(out) as file:
            np.save(file, samples.numpy())
    elif suffix == ".png":
        save_png(out, grid(samples, columns=columns) if samples.dim() == 4 else _picture_of_points(samples))
    elif samples.dim() != 4:
        raise UserError(
            f"{type(gan).__name__} makes points of shape {tuple(samples.shape[1:])}, not images: give an --out that "
            "ends in .png or .npy."
        )
    else:
        digits = max(4, len(str(len(samples) - 1)))
        for i, sample in enumerate(samples):
            save_png(out / f"{i:0{digits}d}.png", to_image(sample))


def _animate(frames: Tensor, out: Path) -> None:
    """An endless animation of single images, without a border."""
    with tempfile.TemporaryDirectory() as folder:
        names = [Path(folder) / f"{i}.png" for i in range(len(frames))]
        for name, frame in zip(names, frames, strict=True):
            save_png(name, grid(frame[None], padding=0))
        save_gif(out, names, num_frames=len(names), seconds=SECONDS, hold_seconds=SECONDS)


def _picture_of_points(samples: Tensor) -> Image.Image:
    from ganzoo.laboratory.pictures import draw_points

    if samples.dim() != 2 or samples.shape[1] > 2:
        raise UserError(
            f"Samples of shape {tuple(samples.shape[1:])} make no picture: give an --out that ends in .npy."
        )
    return draw_points(samples)
