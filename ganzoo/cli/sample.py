"""``ganzoo sample``: images of a trained model, as one grid or as single files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ganzoo.cli import trust
from ganzoo.cli.tools import ToolParser
from ganzoo.errors import UserError

if TYPE_CHECKING:
    from ganzoo.gan import GAN


_OTHER_PICTURES = (".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".svg", ".pdf")


def run(arguments: list[str]) -> int:
    """Draw and save samples; returns the exit code."""
    args = _parser().read(arguments)
    labels = _numbers(args.labels)
    out = Path(args.out)
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
    parser = ToolParser("sample", "Draw images from a trained model. The same seed gives the same images.")
    parser.add_argument("run", metavar="RUN_OR_CHECKPOINT", help="directory of a run, or a .ckpt file")
    parser.add_argument("--num", type=int, default=64, help="how many (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the latents (%(default)s)")
    parser.add_argument(
        "--out", default="samples.png", help="a .png for one grid, or a directory for single PNGs (%(default)s)"
    )
    parser.add_argument("--columns", type=int, help="columns of the grid; default: as many as make it square")
    parser.add_argument("--labels", metavar="L,L,...", help="classes of a conditional model, repeated in turn")
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
        raise UserError(f"--out {out} is neither a .png nor a directory; grids are written as PNG.")
    taken = any(out.iterdir()) if out.is_dir() else out.exists()
    if taken and not overwrite:
        raise UserError(f"{out} exists already: give another --out, or add --overwrite.")


def _save(gan: GAN, args: argparse.Namespace, out: Path, labels: list[int] | None) -> None:
    from ganzoo.images import grid, save_png, to_image

    samples = gan.sample(args.num, seed=args.seed, labels=labels, averaged=not args.raw)
    if samples.dim() != 4:
        raise UserError(f"{type(gan).__name__} makes points of shape {tuple(samples.shape[1:])}, not images.")
    if out.suffix.lower() == ".png" and not out.is_dir():
        save_png(out, grid(samples, columns=args.columns))
        return
    digits = max(4, len(str(args.num - 1)))
    for i, sample in enumerate(samples):
        save_png(out / f"{i:0{digits}d}.png", to_image(sample))
