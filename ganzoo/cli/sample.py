"""``ganzoo sample``: samples of a trained model, as one picture, as single files, or as an array."""

from __future__ import annotations

import argparse
from pathlib import Path

from ganzoo.cli import trust
from ganzoo.cli.tools import ToolParser
from ganzoo.errors import UserError

_OTHER_PICTURES = (".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".svg", ".pdf")


def run(arguments: list[str]) -> int:
    """Draw and save samples; returns the exit code."""
    args = read(arguments)
    trust.import_modules(args.imports)
    from ganzoo.checkpoint import load_model
    from ganzoo.cli import sampled

    gan = load_model(args.run, args.imports)
    what = sampled.save(gan, args)
    print(f"{what} of {type(gan).__name__} at {gan.clock.kimg:g} kimg: {args.out}")
    return 0


def read(arguments: list[str]) -> argparse.Namespace:
    """Sort a command line.

    Raises:
        UserError: For what can be refused without torch.
    """
    args = _parser().read(arguments)
    args.out = Path(args.out)
    args.labels = args.labels if args.labels == "data" else numbers(args.labels, ", or data")
    if args.cutoff is not None and args.truncation is None:
        raise UserError(f"--cutoff was {args.cutoff}, which says where --truncation acts: give that as well.")
    if args.cutoff is not None and args.cutoff < 1:
        raise UserError(f"--cutoff was {args.cutoff}, but must be 1 or more: the number of layers.")
    if args.columns is not None and args.columns < 1:
        raise UserError(f"--columns was {args.columns}, but must be 1 or more.")
    _check_ways(args)
    _check_out(args.out, args.overwrite)
    if args.num is None:
        args.num = 64 if args.interpolate is None and args.mix is None else 6
    return args


def _parser() -> ToolParser:
    parser = ToolParser("sample", "Draw from a trained model. The same seed gives the same images or points.")
    add = parser.add_argument
    add("run", metavar="RUN_OR_CHECKPOINT", help="directory of a run, or a .ckpt file")
    add("--num", type=int, help="how many (64); of samples on the way, or of either kind of sources (6)")
    add("--seed", type=int, default=0, help="seed of the latents (%(default)s)")
    add(
        "--out",
        default="samples.png",
        help="a .png for one picture, a .npy for the numbers, a directory for single images, or a .gif of ways "
        "(%(default)s)",
    )
    add("--columns", type=int, help="columns of the grid; default: as many as make it square")
    add(
        "--labels",
        metavar="L,L,...",
        help="classes of a conditional model, repeated in turn; data: drawn as often as in the data that it was "
        "trained on; default: uniformly drawn",
    )
    add(
        "--truncation",
        type=float,
        metavar="PSI",
        help="better samples of fewer kinds: psi of styles (0: their mean, -1: opposite ones), or the threshold of "
        "normal latents",
    )
    add("--cutoff", type=int, metavar="LAYERS", help="truncate the styles of so many first layers only")
    add(
        "--interpolate",
        type=int,
        metavar="FRAMES",
        help="ways from each sample to the next, one in a row, with so many images between: through styles where the "
        "model has some, else through latents",
    )
    add(
        "--mix",
        type=int,
        metavar="LAYERS",
        help="styles of one sample, at the left, in so many first layers, and of another one, on top, in the others",
    )
    add("--fixed_noise", action="store_true", help="the same noise in all samples, for models that draw some")
    add("--raw", action="store_true", help="use the last weights instead of their average")
    add("--overwrite", action="store_true", help="replace what is there already")
    add(
        "--import",
        dest="imports",
        metavar="MODULE",
        action="append",
        default=[],
        help="import a module of yours that the model needs; may be repeated",
    )
    return parser


def numbers(text: str | None, otherwise: str = "") -> list[int] | None:
    """The classes that ``--labels`` gives.

    Args:
        text: What was given.
        otherwise: What else could have been, for the error.

    Raises:
        UserError: They are no numbers.
    """
    if text is None:
        return None
    try:
        return [int(word) for word in text.split(",")]
    except ValueError as error:
        raise UserError(f"--labels was {text}, but must be numbers of classes, such as 0,1,2{otherwise}.") from error


def _check_ways(args: argparse.Namespace) -> None:
    """Refuse what does not go with pictures of two samples."""
    given = [name for name in ("interpolate", "mix") if getattr(args, name) is not None]
    if len(given) == 2:
        raise UserError("--interpolate and --mix make different pictures: give one of them.")
    suffix = "" if args.out.is_dir() else args.out.suffix.lower()
    if suffix == ".gif" and given != ["interpolate"]:
        raise UserError(f"--out {args.out} is an animation, which is made of ways: give --interpolate FRAMES as well.")
    if not given:
        return
    if args.columns is not None:
        raise UserError(f"--columns cannot be given with --{given[0]}, which says itself what is in a row.")
    if args.fixed_noise:
        raise UserError(f"--fixed_noise is of no use with --{given[0]}, whose images share their noise: leave it out.")
    if args.mix is not None and suffix != ".png":
        raise UserError(f"--out {args.out} was given, but --mix makes one picture: give an --out that ends in .png.")


def _check_out(out: Path, overwrite: bool) -> None:
    """Refuse early what cannot be written."""
    if out.suffix.lower() in _OTHER_PICTURES and not out.is_dir():
        raise UserError(f"--out {out} is neither a .png, nor a .npy, nor a directory; pictures are written as PNG.")
    taken = any(out.iterdir()) if out.is_dir() else out.exists()
    if taken and not overwrite:
        raise UserError(f"{out} exists already: give another --out, or add --overwrite.")
