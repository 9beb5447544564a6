"""``ganzoo evaluate`` once torch is there."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganzoo import checkpoint, files
from ganzoo.callbacks.base import images_of
from ganzoo.cli import datasets, extractors, quiet, trust
from ganzoo.cli.arguments import Request
from ganzoo.cli.devices import device
from ganzoo.cli.evaluate import Order, is_model
from ganzoo.config import build
from ganzoo.data.files import open_files
from ganzoo.data.folder import ImageFolder
from ganzoo.errors import UserError
from ganzoo.metrics import presets, record, reference
from ganzoo.metrics.evaluation import Evaluation
from ganzoo.metrics.extractors.base import Extractor
from ganzoo.metrics.record import Record

if TYPE_CHECKING:
    import torch

    from ganzoo.data import ImageData

_COMMAND = "ganzoo evaluate"


def evaluate(*orders: Order) -> int:
    """Measure what a command line asks for, in one file; returns the exit code."""
    quiet.silence()
    found = [measure(order) for order in orders]
    if path := orders[0].options.json:
        record.save([one for records in found for one in records], path)
    print("\n\n".join(f"Protocol {records[0].protocol.label}\n\n{record.table(records)}" for records in found))
    return 0


def measure(order: Order) -> list[Record]:
    """The records of every model or folder that is asked for."""
    imports = order.against.imports
    trust.import_modules(imports)
    models = _checkpoints(order) if is_model(order.target) else []
    made = None if models else _images(order.target, order)
    data = _reference(order, models, made)
    line = Line()
    where = device(order.options.device)
    extractor = _extractor(order)
    evaluation = Evaluation(
        order.protocol,
        extractor.to(where) if extractor else None,
        data,
        metrics=order.metrics,
        batch_size=order.options.batch_size,
        report=line.show,
    )
    if made is not None:
        records = [_of_images(evaluation, made, order.target)]
    else:
        records = [_of_model(evaluation, path, order, where) for path in models]
    line.clear()
    for remark in evaluation.remarks(records[0].protocol.num):
        print(f"note: {remark}", file=sys.stderr)
    return records


def _of_model(evaluation: Evaluation, path: Path, order: Order, where: torch.device) -> Record:
    gan = checkpoint.load_model(path, order.against.imports).to(where)
    collected = evaluation.collect(gan, max_seconds=order.options.max_seconds)
    protocol = replace(evaluation.protocol, num=collected.num)
    hashes, facts = record.describe(gan)
    hashes["checkpoint"] = files.sha256(path)
    subject = f"{path.resolve().parents[1].name}/{path.name}" if path.parent.name == "checkpoints" else path.name
    return Record(subject, protocol, evaluation.scores(collected), gan.clock.kimg, hashes, facts)


def _of_images(evaluation: Evaluation, made: ImageData, target: Path) -> Record:
    collected = evaluation.collect_images(made)
    hashes = {"images": made.content_hash, "code": record.code_hash()}
    return Record(
        target.resolve().name, evaluation.of_images(collected.num), evaluation.scores(collected), None, hashes
    )


def _checkpoints(order: Order) -> list[Path]:
    if not order.options.all:
        return [checkpoint.find(order.target)]
    folder = order.target / "checkpoints"
    numbered = sorted(path for path in folder.glob("kimg-*.ckpt") if images_of(path) >= 0)
    last = checkpoint.find(order.target)
    return [*numbered, *([] if any(path.samefile(last) for path in numbered) else [last])]


def _reference(order: Order, models: Sequence[Path], made: ImageData | None) -> Any:
    """The real images: those that were named, or those that the run was trained on."""
    against, imports = order.against, order.against.imports
    own = checkpoint.read(models[0])[checkpoint.KEY]["data"] if models else None
    trained_on = None if own is None else build(own, imports)
    shape = next((tuple(data.shape) for data in (made, trained_on) if data is not None), None)
    if not against.arguments and not against.configs:
        if trained_on is None:
            raise UserError("There is nothing to compare with: name real images by --against.")
        return reference.with_split(trained_on, order.protocol.split)
    named = against.arguments[0].partition("=")[2] if against.arguments else ""
    if against.arguments and Path(named).exists():
        if shape is None:
            return _images(Path(named), order)
        return _folder(Path(named), shape[1:], order, gray=shape[0] == 1)
    words = [f"--data{word.removeprefix('--against')}" for word in against.arguments]
    data = datasets.build(Request(words, against.configs, against.imports), _COMMAND)
    if shape is not None and tuple(data.shape[1:]) != shape[1:]:
        raise UserError(
            f"The reference has {data.shape[1]}x{data.shape[2]} pixels, what is measured {shape[1]}x{shape[2]}: "
            f"add --against.image_size {shape[1]}."
        )
    return data


def _images(path: Path, order: Order) -> ImageData:
    """Images of another program, at their own size: that of the first one."""
    from PIL import Image, UnidentifiedImageError

    found = open_files(str(path))
    kinds = dict[str, tuple[int, int, bool]]()
    looked = set(found.names[:: max(1, len(found.names) // 256)])
    for name, reader, _ in found.read(lambda name: name in looked):
        with suppress(UnidentifiedImageError), Image.open(io.BytesIO(reader())) as image:
            kinds[name] = (image.height, image.width, image.mode in ("1", "L", "I;16"))
    if kinds:
        height, width, gray = kinds[min(kinds)]
        if len(set(kinds.values())) > 1:
            print(
                f"note: the pictures of {path} differ in size or colours: all are read as the first one, "
                f"{height}x{width} {'gray' if gray else 'in colours'}, cropped and resized",
                file=sys.stderr,
            )
        return _folder(path, order.options.image_size or (height, width), order, gray=gray)
    raise UserError(f"There are no images in {path}: give a folder or an archive of some.")


def _folder(path: Path, size: int | tuple[int, ...], order: Order, *, gray: bool) -> ImageData:
    """All images of a folder or archive; those of another size are cropped and resized, which their title tells."""
    labels = "intra-fd" in order.metrics
    return ImageFolder(str(path), split=".", image_size=size, channels=1 if gray else 3, batch_size=1, labels=labels)


def _extractor(order: Order) -> Extractor | None:
    """The one that was named, or the protocol's; none where pixels alone are compared."""
    words = list(order.extractor)
    if not presets.needs_extractor(order.metrics):
        if words:
            raise UserError(f"{', '.join(order.metrics)} needs no extractor: leave {words[0].partition('=')[0]} out.")
        return None
    if not words:
        preset: Extractor = build(order.preset.extractor)
        return preset
    if not words[0].startswith("--extractor="):  # options for the protocol's
        words.insert(0, f"--extractor={order.preset.extractor['class_path']}")
        words[1:1] = [f"--extractor.{name}={value}" for name, value in order.preset.extractor["init_args"].items()]
    return extractors.parse(words, order.against.imports, _COMMAND)


class Line:
    """How far it is: in place on a terminal, else a line now and then."""

    def __init__(self, seconds: float = 10.0) -> None:
        self.seconds, self._terminal = seconds, sys.stderr.isatty()
        self._due = time.monotonic() + (0.2 if self._terminal else seconds)

    def show(self, text: str) -> None:
        if time.monotonic() >= self._due:
            print(f"\r\x1b[2K{text}" if self._terminal else text, end="" if self._terminal else "\n", file=sys.stderr)
            sys.stderr.flush()
            self._due = time.monotonic() + (0.2 if self._terminal else self.seconds)

    def clear(self) -> None:
        if self._terminal:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)
