"""``ganzoo sample``: samples of a trained model, as one picture, as single files, or as an array."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ganzoo.cli import trust
from ganzoo.cli.tools import ToolParser
from ganzoo.errors import UserError

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from ganzoo.gan import GAN


_OTHER_PICTURES = (".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".svg", ".pdf")


def run(arguments: list[str]) -> int:
    """Draw and save samples; returns the exit code."""
    args = _parser().read(arguments)
    labels = _numbers(args.labels)
    out = Path(args.out)
    if args.cutoff is not None and args.truncation is None:
        raise UserError(f"--cutoff was {args.cutoff}, which says where --truncation acts: give that as well.")
    if args.columns is not None and args.columns < 1:
        raise UserError(f"--columns was {args.columns}, but must be 1 or more.")
    _check_out(out, args.overwrite)
    trust.import_modules(args.imports)
    from ganzoo.checkpoint import load_model

    gan = load_model(args.run, args.imports)
    if labels:
        labels = [labels[i % len(labels)] for i in range(args.num)]
    _save(gan, args, out, labels)
    print(f"{args.num} samples of {type(gan).__name__} at {gan.clock.kimg:g} kimg: {out}")
    return 0


def _parser() -> ToolParser:
    parser = ToolParser("sample", "Draw from a trained model. The same seed gives the same images or points.")
    parser.add_argument("run", metavar="RUN_OR_CHECKPOINT", help="directory of a run, or a .ckpt file")
    parser.add_argument("--num", type=int, default=64, help="how many (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the latents (%(default)s)")
    parser.add_argument(
        "--out",
        default="samples.png",
        help="a .png for one picture, a .npy for the numbers, or a directory for single images (%(default)s)",
    )
    parser.add_argument("--columns", type=int, help="columns of the grid; default: as many as make it square")
    parser.add_argument("--labels", metavar="L,L,...", help="classes of a conditional model, repeated in turn")
    parser.add_argument(
        "--truncation",
        type=float,
        metavar="PSI",
        help="better samples of fewer kinds: psi of styles (0: their mean), or the threshold of normal latents",
    )
    parser.add_argument("--cutoff", type=int, metavar="LAYERS", help="truncate the styles of so many first layers only")
    parser.add_argument("--raw", action="store_true", help="use the last weights instead of their average")
    parser.add_argument("--overwrite", action="store_true", help="replace what is there already")
    parser.add_argument(
        "--import",
        dest="imports",
        metavar="MODULE",
        action="append",
        default=[],
        help="import a module of yours that the model needs; may be repeated",
    )
    return parser


def _numbers(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(word) for word in text.split(",")]
    except ValueError as error:
        raise UserError(f"--labels was {text}, but must be numbers of classes, such as 0,1,2.") from error


def _check_out(out: Path, overwrite: bool) -> None:
    """Refuse early what cannot be written."""
    if out.suffix.lower() in _OTHER_PICTURES and not out.is_dir():
        raise UserError(f"--out {out} is neither a .png, nor a .npy, nor a directory; pictures are written as PNG.")
    taken = any(out.iterdir()) if out.is_dir() else out.exists()
    if taken and not overwrite:
        raise UserError(f"{out} exists already: give another --out, or add --overwrite.")


def _save(gan: GAN, args: argparse.Namespace, out: Path, labels: list[int] | None) -> None:
    from ganzoo.images import grid, save_png, to_image

    samples = gan.sample(
        args.num,
        seed=args.seed,
        labels=labels,
        averaged=not args.raw,
        truncation=args.truncation,
        cutoff=args.cutoff,
    )
    suffix = "" if out.is_dir() else out.suffix.lower()
    if suffix == ".npy":
        _save_numbers(samples, out)
    elif suffix == ".png":
        save_png(out, grid(samples, columns=args.columns) if samples.dim() == 4 else _picture_of_points(samples))
    elif samples.dim() != 4:
        raise UserError(
            f"{type(gan).__name__} makes points of shape {tuple(samples.shape[1:])}, not images: give an --out that "
            "ends in .png or .npy."
        )
    else:
        digits = max(4, len(str(args.num - 1)))
        for i, sample in enumerate(samples):
            save_png(out / f"{i:0{digits}d}.png", to_image(sample))


def _save_numbers(samples: Tensor, out: Path) -> None:
    """An array of float32, (N, *shape), as the model makes them: images are in [-1, 1]."""
    import numpy as np

    from ganzoo import files

    with files.atomic(out) as file:
        np.save(file, samples.numpy())


def _picture_of_points(samples: Tensor) -> Image.Image:
    from ganzoo.laboratory.pictures import draw_points

    if samples.dim() != 2 or samples.shape[1] > 2:
        raise UserError(
            f"Samples of shape {tuple(samples.shape[1:])} make no picture: give an --out that ends in .npy."
        )
    return draw_points(samples)
