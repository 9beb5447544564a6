"""``ganzoo project``: the latents whose images are nearest to given ones; what needs no torch."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from ganzoo.cli import datasets, sample
from ganzoo.cli.tools import ToolParser
from ganzoo.errors import UserError


@dataclass
class Order:
    """What a command line of ``ganzoo project`` asks for."""

    run: Path
    image: Path
    out: Path  #: the picture; the files beside it have its name
    labels: list[int] | None
    extractor: list[str]  #: options that describe it; empty: pixels are compared
    imports: list[str]
    options: argparse.Namespace


def run(arguments: list[str]) -> int:
    """Search and save; returns the exit code."""
    order = read(arguments)
    from ganzoo.cli import projecting

    return projecting.project(order)


def read(arguments: list[str]) -> Order:
    """Sort a command line.

    Raises:
        UserError: For what can be refused without torch.
    """
    own, groups = datasets.split(arguments, ("extractor",))
    asked = groups["extractor"]
    if asked.configs:
        raise UserError("There is no option --config: the model says by itself what it was trained on.")
    if asked.arguments and not asked.arguments[0].startswith("--extractor="):
        raise UserError(f"{asked.arguments[0].partition('=')[0]} needs --extractor, the one that it is an option of.")
    args = _parser().read(own)
    for name in ("num", "batch_size"):
        if (value := getattr(args, name)) < 1:
            raise UserError(f"--{name} was {value}; give 1 or more.")
    image, out = Path(args.image), Path(args.out)
    if not image.exists():
        raise UserError(f"--image {image} does not exist: give a picture, or a folder or archive of some.")
    if out.suffix.lower() != ".png" or out.is_dir():
        raise UserError(f"--out {out} must be a file that ends in .png; the latents and the record lie beside it.")
    taken = next((path for path in places(out) if path.exists()), None)
    if taken is not None and not args.overwrite:
        raise UserError(f"{taken} exists already: give another --out, or add --overwrite.")
    return Order(Path(args.run), image, out, sample.numbers(args.labels), asked.arguments, asked.imports, args)


def places(out: Path) -> tuple[Path, Path, Path]:
    """The picture, the latents, and the record."""
    return out, out.with_suffix(".pt"), out.with_suffix(".json")


def _parser() -> ToolParser:
    parser = ToolParser(
        "project",
        "Find the latents whose images are nearest to given ones, in the space of a model's styles where it has some\n"
        "(Karras 2020). Writes a picture with a target and what was found in each row; the latents as a .pt file; and\n"
        "a record with the distances, settings and hashes as .json.",
    )
    parser.usage = "ganzoo project RUN_OR_CHECKPOINT --image FILE_OR_FOLDER [options]"
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    add = parser.add_argument
    add("run", metavar="RUN_OR_CHECKPOINT", help="directory of a run, or a .ckpt file")
    add("--image", required=True, metavar="PATH", help="a picture, or a folder or archive of some")
    add("--num", type=int, default=8, help="how many pictures of a folder, in the order of names (%(default)s)")
    add("--out", default="projection.png", help="picture to write; .pt and .json lie beside it (%(default)s)")
    add("--labels", metavar="L,L,...", help="classes, repeated in turn; default: the nearest, or the mean of styles")
    add(
        "--space", choices=("z", "w", "w+"), help="latents, one style, or one per layer; default: w if there are styles"
    )
    add("--steps", type=int, default=1000, help="of Adam (%(default)s)")
    add("--lr", type=float, default=0.1, help="its largest learning rate (%(default)s)")
    add("--candidates", type=int, default=256, help="latents of which z begins with the nearest (%(default)s)")
    add("--fixed_noise", action="store_true", help="leave what the layers draw as it is drawn, for models that draw")
    add("--seed", type=int, default=0, help="the same seed finds the same latents on a CPU (%(default)s)")
    add("--raw", action="store_true", help="use the last weights instead of their average")
    add("--batch_size", type=int, default=8, help="pictures at a time (%(default)s)")
    add("--device", default="auto", help="cpu, cuda, ...; default: a GPU if there is one")
    add("--overwrite", action="store_true", help="replace what is there already")
    return parser


_EXAMPLES = """\
what is near:
  (default)                pixels, at four sizes
  --extractor FILE.pt      features of one that ganzoo extractor trained, or of digits-cnn
  --extractor CLASS        such as Inception, with --extractor.weights FILE
  --import MODULE          import a module of yours that the model needs; may be repeated

examples:
  ganzoo project runs/quickstart-1 --image three.png --labels 3
  ganzoo project runs/stylegan-1 --image photos/ --num 4 --space w+ --out found.png"""
