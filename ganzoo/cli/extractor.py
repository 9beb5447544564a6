"""``ganzoo extractor``: train a small classifier whose features scores can compare; what needs no torch."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from ganzoo.cli import datasets
from ganzoo.cli.arguments import Request
from ganzoo.cli.tools import ToolParser
from ganzoo.errors import UserError


@dataclass
class Order:
    """What a command line of ``ganzoo extractor`` asks for."""

    data: Request
    held_out: Request  #: options that differ for the held-out set; none: a share is held out
    options: argparse.Namespace
    out: Path


def run(arguments: list[str]) -> int:
    """Train an extractor; returns the exit code."""
    order = read(arguments)
    from ganzoo.cli import extracting

    return extracting.train(order)


def read(arguments: list[str]) -> Order:
    """Sort a command line.

    Raises:
        UserError: For what can be refused without torch.
    """
    own, groups = datasets.split(arguments, ("data", "held_out"))
    options = _parser().read(own)
    if options.out is None:
        raise UserError("ganzoo extractor needs a file to write: give --out NAME.pt.")
    out = Path(options.out)
    if out.suffix != ".pt" or out.is_dir():
        raise UserError(f"--out {out} must be a file that ends in .pt; its name is in the names of the scores.")
    if out.exists() and not options.overwrite:
        raise UserError(f"{out} exists already: give another --out, or add --overwrite.")
    if options.epochs is not None and options.kimg is not None:
        raise UserError("--epochs and --kimg were both given, but they say the same: give one of them.")
    if groups["held_out"].arguments and options.held_out is not None:
        raise UserError("--held_out takes a share of the data, and --held_out.NAME another set: give one of them.")
    datasets.check(groups["data"])
    return Order(groups["data"], groups["held_out"], options, out)


def _parser() -> ToolParser:
    parser = ToolParser(
        "extractor",
        "Train a small residual classifier on labelled images. Its features serve scores of images that are unlike\n"
        "ImageNet's, and need no download: they are named after the file, such as fd/digits-cnn.",
    )
    parser.usage = "ganzoo extractor --data CLASS [--data.OPTION VALUE ...] --out NAME.pt [options]"
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    add = parser.add_argument
    add("--out", metavar="FILE.pt", help="file to write")
    add("--overwrite", action="store_true", help="replace what is there already")
    add(
        "--held_out",
        type=float,
        metavar="SHARE",
        help="share of each class that is held out to measure the accuracy (0.2)",
    )
    add("--kimg", type=float, help="thousands of images to train on, repetitions included (200)")
    add("--epochs", type=float, help="the same, as passes through the data")
    add("--width", type=int, default=32, help="channels of the first stage, doubled from stage to stage (%(default)s)")
    add("--blocks", type=int, default=1, help="residual blocks per stage (%(default)s)")
    add("--batch_size", type=int, default=128, help="(%(default)s)")
    add("--lr", type=float, default=0.1, help="peak learning rate of SGD (%(default)s)")
    add("--weight_decay", type=float, default=5e-4, help="(%(default)s)")
    add("--label_smoothing", type=float, default=0.0, help="(%(default)s)")
    add("--shift", type=int, help="pixels by which images are moved at most; default: an eighth of their side")
    add("--seed", type=int, default=0, help="the same seed gives the same weights on a CPU (%(default)s)")
    add("--device", default="auto", help="cpu, cuda, ...; default: a GPU if there is one")
    return parser


_EXAMPLES = """\
data, as in ganzoo fit:
  --data CLASS             such as ImageFolder, with --data.path FOLDER_OR_ARCHIVE; folders are the classes
  --data.mirror true       flip half of the images, where left and right do not matter
  --config FILE            a recipe, of which the section data is read
  --import MODULE          import a module of yours that the data need; may be repeated
  --held_out.OPTION VALUE  hold out another set: the same data but for this option, such as --held_out.split test

examples:
  ganzoo extractor --data Digits --width 12 --kimg 60 --out digits.pt
  ganzoo extractor --config cifar10-folder.yaml --data.path cifar10.tar.xz --held_out.split test --out cifar10.pt"""
