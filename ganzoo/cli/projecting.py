"""``ganzoo project`` once torch is there."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ganzoo import checkpoint, files
from ganzoo.analysis import projection
from ganzoo.analysis.distances import FeatureDistance, Pixels
from ganzoo.analysis.projection import Projection, Search
from ganzoo.cli import extractors, quiet, trust
from ganzoo.cli.devices import device
from ganzoo.cli.evaluating import Line
from ganzoo.cli.project import Order, places
from ganzoo.data.files import is_picture, open_files
from ganzoo.data.framing import Framing
from ganzoo.errors import UserError
from ganzoo.images import grid, save_png
from ganzoo.metrics import record

if TYPE_CHECKING:
    from ganzoo.gan import GAN


class Picture(NamedTuple):
    """A target."""

    name: str
    content: bytes


def project(order: Order) -> int:
    """Search what a command line asks for, and write it; returns the exit code."""
    quiet.silence()
    trust.import_modules(order.imports)
    options, path = order.options, checkpoint.find(order.run)
    search = Search(options.steps, options.lr, move_noise=not options.fixed_noise, candidates=options.candidates)
    place = device(options.device)
    gan = checkpoint.load_model(path, order.imports).to(place)
    pictures = _pictures(order.image, options.num)
    targets = _targets(pictures, _framing(path, projection.image_shape(gan)))
    distance: Pixels | FeatureDistance = Pixels()
    if order.extractor:
        distance = FeatureDistance(extractors.parse(order.extractor, order.imports, "ganzoo project").to(place))
    line = Line()
    found = projection.project(
        gan,
        targets,
        labels=order.labels and [order.labels[i % len(order.labels)] for i in range(len(targets))],
        space=options.space,
        distance=distance,
        search=search,
        averaged=not options.raw,
        seed=options.seed,
        batch_size=options.batch_size,
        report=line.show,
    )
    line.clear()
    hashes, facts = record.describe(gan)
    hashes["checkpoint"] = files.sha256(path)
    settings = {"space": found.space, "distance": distance.facts(), "seed": options.seed, **asdict(search)}
    facts |= {"kimg": gan.clock.kimg, "weights": _weights(gan, found), "settings": settings, "hashes": hashes}
    _write(order.out, pictures, targets, found, facts)
    start, end = found.start.mean().item(), found.end.mean().item()
    print(
        f"{len(targets)} images in the space {found.space} of {type(gan).__name__} at {gan.clock.kimg:g} kimg, mean "
        f"distance {start:.4g} at the start, {end:.4g} at the end: {', '.join(map(str, places(order.out)))}"
    )
    return 0


def _pictures(path: Path, num: int) -> list[Picture]:
    """A picture, or the first ones of a folder or an archive."""
    if path.is_file() and is_picture(path.name):
        return [Picture(path.name, path.read_bytes())]
    try:
        found = open_files(str(path))
    except UserError as error:
        raise UserError(
            f"--image {path} is neither a picture nor a folder, zip or tar of some that is whole."
        ) from error
    chosen = found.names[:num]
    if not chosen:
        raise UserError(f"There are no pictures in {path}: give a picture, or a folder or archive of some.")
    if len(found.names) > num:
        print(f"note: {num} of the {len(found.names)} pictures are projected (--num)", file=sys.stderr)
    content = {name: reader() for name, reader, _ in found.read(lambda name: name in chosen)}
    return [Picture(name, content[name]) for name in chosen]


def _framing(path: Path, shape: tuple[int, ...]) -> Framing:
    """How the model's data makes pictures of this shape, or would by default."""
    data: dict[str, Any] = checkpoint.read(path)[checkpoint.KEY]["data"] or {}
    usual = {"fit": "crop", "background": "white", "resample": "bicubic"}
    chosen = {name: data.get("init_args", {}).get(name, value) for name, value in usual.items()}
    channels, height, width = shape
    return Framing(height, width, channels, **chosen)


def _targets(pictures: list[Picture], framing: Framing) -> Tensor:
    """(N, C, H, W) in [-1, 1]."""
    pixels = []
    for picture in pictures:
        try:
            pixels.append(framing.file(picture.content))
        except MemoryError:
            raise
        except Exception as error:  # decoders raise anything for a damaged file, SyntaxError included
            raise UserError(
                f"{picture.name} cannot be read as a picture ({type(error).__name__}): leave it out, or mend it."
            ) from error
    return torch.from_numpy(np.stack(pixels)).float() / 127.5 - 1


def _weights(gan: GAN, found: Projection) -> str:
    return "averaged" if found.averaged and gan.generator_ema is not None else "raw"


def _write(out: Path, pictures: list[Picture], targets: Tensor, found: Projection, facts: dict[str, Any]) -> None:
    """The latents, the record, and the picture, each whole or not at all."""
    picture, latents, written = places(out)
    projection.save(found, latents)
    images = [
        {
            "name": one.name,
            "sha256": hashlib.sha256(one.content).hexdigest(),
            "label": None if found.labels is None else int(found.labels[i]),
            "start": float(found.start[i]),
            "end": float(found.end[i]),
        }
        for i, one in enumerate(pictures)
    ]
    files.write_json(written, {"kind": "ganzoo projection", "format": 1, **facts, "images": images})
    save_png(picture, grid(torch.stack([targets, found.images], dim=1).flatten(0, 1), columns=2))
