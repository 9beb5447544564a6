"""``ganzoo suggest``: settings by a published rule, from the size of the images and the number of devices; no torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from ganzoo import files
from ganzoo.cli.tools import ToolParser
from ganzoo.cli.words import did_you_mean
from ganzoo.errors import UserError


def run(arguments: list[str]) -> int:
    """Print an overlay, and write it where that is asked for; returns the exit code."""
    args = _parser().read(arguments)
    if args.model not in RULES:
        others = f"there is one for {', '.join(RULES)}"
        raise UserError(f"There is no published rule for {args.model}{did_you_mean(args.model, RULES, others)}")
    for name in ("image_size", "devices"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} was {getattr(args, name)}, but must be 1 or more.")
    out = None if args.out is None else Path(args.out)
    if out is not None and (out.is_dir() or out.suffix not in (".yaml", ".yml")):
        raise UserError(f"--out {out} must be a file that ends in .yaml, so that --config can name it.")
    if out is not None and out.exists() and not args.overwrite:
        raise UserError(f"{out} exists already: give another --out, or add --overwrite.")
    text = RULES[args.model](args.image_size, args.devices, out)
    if out is not None:
        with files.atomic(out, "w", encoding="utf-8") as file:
            file.write(text)
    print(text, end="")
    return 0


def _parser() -> ToolParser:
    parser = ToolParser(
        "suggest",
        "Choose settings of a model by the rule that its authors published, from the size of the images and the "
        "number of devices, and say why. What is printed is an overlay for ganzoo fit --config.",
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help=f"one of {', '.join(RULES)}")
    add("--image_size", type=int, required=True, metavar="PIXELS", help="side of the images")
    add("--devices", type=int, default=1, help="how many train together (%(default)s)")
    add("--out", metavar="FILE.yaml", help="write it there, too")
    add("--overwrite", action="store_true", help="replace what is there already")
    return parser


GROUP = 4  #: samples that the discriminator's minibatch statistic compares


def stylegan(image_size: int, devices: int, out: Path | None = None) -> str:
    """The overlay by the 'auto' setting of Karras 2020b, arXiv 2006.06676 (the authors' code).

    Args:
        image_size: Side of the images.
        devices: How many train together.
        out: The file's name, for the command in its head.
    """
    if image_size < 8:
        raise UserError(f"--image_size was {image_size}, but StyleGAN makes images from 8x8 up.")
    power = image_size & -image_size  # the largest power of two that divides it
    if power == 1 or image_size // power > 15:
        raise UserError(f"--image_size was {image_size}, but StyleGAN makes images of 4 to 15 times a power of two.")
    batch, why_batch = _batch(image_size, devices)
    small, large = image_size < 512, image_size >= 1024
    lr = 0.002 if large else 0.0025
    several = devices > 1
    return _STYLEGAN.format(
        size=image_size,
        where=f"{devices} devices" if several else "1 device",
        command=f"--image_size {image_size}" + (f" --devices {devices}" if several else ""),
        out=out or "auto.yaml",
        batch=batch,
        why_batch=why_batch,
        channel_base=16384 if small else 32768,
        why_channels="half as many channels as in the paper, below 512x512" if small else "as in the paper",
        group=GROUP,
        gamma=f"{0.0002 * image_size**2 / batch:.6g}",
        g_lr=f"{lr * math.sqrt(4 / 5):.4g}",
        d_lr=f"{lr * math.sqrt(16 / 17):.4g}",
        lr=lr,
        why_lr="from 1024x1024 on" if large else "below 1024x1024",
        half_life=f"{batch * 10 / 32:g}",
        trainer=f"trainer:\n  devices: {devices}\n" if several else "",
    )


def _batch(image_size: int, devices: int) -> tuple[int, str]:
    """The joint batch, and the reason of its size."""
    published = min(devices * min(4096 // image_size, 32), 64)
    why = f"{devices} x 4096/{image_size}, at most 32 per device and 64 in all"
    if published < devices * GROUP:
        return devices * GROUP, f"{why}; raised from {published} to the statistic's group of {GROUP} per device"
    whole = published - published % (devices * GROUP)
    if whole < published:
        why += f"; lowered from {published} to whole groups of {GROUP} on each device"
    return whole, why


_STYLEGAN = """\
# overlay: StyleGAN2's 'auto' setting (Karras 2020b) for images of {size}x{size} on {where}
#
#   ganzoo fit --config stylegan.yaml --config {out} --data ImageFolder --data.path FOLDER_OR_ARCHIVE
#
# Networks of the paper's size, for GPUs: on a CPU, which makes less than an image of 64x64 per second with them, take
# those of stylegan.yaml itself.
#
# Written by: ganzoo suggest StyleGAN {command}
data:
  init_args:
    image_size: {size}
    batch_size: {batch}  # {why_batch}
model:
  init_args:
    latent_dim: 512
    style_dim: 512
    mapping_layers: 2  # at all sizes; 8 in the paper
    channel_base: {channel_base}  # {why_channels}
    channel_max: 512
    group: {group}
    penalties:
    - class_path: R1
      init_args:
        gamma: {gamma}  # 0.0002 x {size}^2 / {batch}; a start: try a quarter of it, and four times as much
        every: 16
    - class_path: PathLength
      init_args:
        weight: 2
        every: 4
    generator_optimizer:
      class_path: Adam
      init_args:
        lr: {g_lr}  # {lr:g} {why_lr}, x sqrt(4/5) for a penalty in each 4th turn (see StyleGAN)
        betas: [0.0, 0.99]
    discriminator_optimizer:
      class_path: Adam
      init_args:
        lr: {d_lr}  # {lr:g} {why_lr}, x sqrt(16/17) for one in each 16th
        betas: [0.0, 0.99]
    ema:
      class_path: EMA
      init_args:
        half_life_kimg: {half_life}  # {batch} x 10 / 32
        rampup: 0.05
    total_kimg: 25000
{trainer}"""

#: By model: a function of the size of the images and of the number of devices.
RULES: dict[str, Callable[[int, int, Path | None], str]] = {"StyleGAN": stylegan}
