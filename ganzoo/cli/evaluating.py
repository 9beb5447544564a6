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
from ganzoo.callbacks.memory import is_out_of_memory
from ganzoo.cli import datasets, extractors, quiet, trust
from ganzoo.cli.arguments import Request
from ganzoo.cli.devices import device
from ganzoo.cli.evaluate import Order, is_model
from ganzoo.cli.places import class_names
from ganzoo.cli.words import did_you_mean
from ganzoo.config import build
from ganzoo.data.files import open_files
from ganzoo.data.folder import ImageFolder
from ganzoo.errors import TrainingError, UserError
from ganzoo.metrics import measures, presets, record, reference
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
    try:
        found = [measure(order) for order in orders]
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            "The memory is too small for this evaluation: make batch_size smaller than "
            f"{orders[0].options.batch_size}, or leave out kd, prdc and intra-fd, which keep every feature vector."
        ) from error
    print("\n\n".join(record.tables(records) for records in found))
    if path := orders[0].options.json:
        with files.explained("The file of the records"):  # after they are shown: what took hours is not lost
            record.save([one for records in found for one in records], path)
    return 0


def measure(order: Order) -> list[Record]:
    """The records of every model or folder that is asked for."""
    imports = order.against.imports
    trust.import_modules(imports)
    models = _checkpoints(order) if is_model(order.target) else []
    made = None if models else _images(order.target, order)
    data = _reference(order, models, made)
    if made is not None and order.options.num not in (None, made.num):
        raise UserError(
            f"--num was {order.options.num:,}, but {order.target} holds {made.num:,} images, which are all measured: "
            "leave it out."
        )
    if made is not None:  # before a long pass over the reference
        sizes = replace(order.protocol, num=made.num, reference_num=data.num)
        measures.check(order.metrics, sizes, made.shape)
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
    for remark in evaluation.remarks(min(one.protocol.num for one in records)):
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
    if trained_on is not None:
        reference.check(trained_on)
    shape = next((tuple(data.shape) for data in (made, trained_on) if data is not None), None)
    if not against.arguments and not against.configs:
        if trained_on is None:
            raise UserError("There is nothing to compare with: name real images by --against.")
        return reference.with_split(trained_on, order.protocol.split)
    words = [f"--data{word.removeprefix('--against')}" for word in against.arguments]
    if words and words[0].startswith("--data="):
        named = words[0].removeprefix("--data=")
        if Path(named).exists():
            if len(words) == 1:
                return _images(Path(named), order, shape=shape, split=None)
            size = [f"--data.channels={shape[0]}", f"--data.image_size=[{shape[1]},{shape[2]}]"] if shape else []
            words[:1] = ["--data=ImageFolder", f"--data.path={named}", *size]
        else:
            _check_data_set(named)
    data = datasets.build(Request(words, against.configs, against.imports), _COMMAND)
    if not any(word.startswith("--data.split=") for word in words):
        data = reference.with_split(data, order.protocol.split)
    if shape is not None and tuple(data.shape[1:]) != shape[1:]:
        raise UserError(
            f"The reference has {data.shape[1]}x{data.shape[2]} pixels, what is measured {shape[1]}x{shape[2]}: "
            f"add --against.image_size {shape[1]}."
        )
    return data


def _check_data_set(named: str) -> None:
    """Refuse what is neither a place nor a class; one of a module that is not named is left to the parser.

    Raises:
        UserError: The sentence says what may be compared with.
    """
    from ganzoo.cli.parser import load_parts
    from ganzoo.data import GANDataModule

    load_parts()
    module, _, name = named.rpartition(".")
    if module and name[:1].isupper() and named.replace(".", "").isidentifier():
        return
    known = class_names(GANDataModule)
    if named not in known:
        allowed = "give a folder or an archive of images, or a data set that ganzoo list shows, such as CIFAR10"
        raise UserError(f"--against {named} is no file, no folder and no data set{did_you_mean(named, known, allowed)}")


def _images(path: Path, order: Order, *, shape: tuple[int, ...] | None = None, split: str | None = ".") -> ImageData:
    """Images of another program, as large and as coloured as the first one, unless ``shape`` (C, H, W) is given."""
    from PIL import Image, UnidentifiedImageError

    found = open_files(str(path))
    kinds, seen_through = dict[str, tuple[int, int, int]](), False
    looked = set(found.names[:: max(1, len(found.names) // 256)])
    for name, reader, _ in found.read(lambda name: name in looked):
        with suppress(UnidentifiedImageError), Image.open(io.BytesIO(reader())) as image:
            kinds[name] = (1 if image.mode in ("1", "L", "I;16") else 3, image.height, image.width)
            seen_through = seen_through or image.has_transparency_data
    if not kinds:
        raise UserError(f"There are no images in {path}: give a folder or an archive of some.")
    channels, height, width = shape or kinds[min(kinds)]
    if shape is None and (side := order.options.image_size):
        height = width = side
    if set(kinds.values()) != {(channels, height, width)}:
        print(
            f"note: pictures of {path} are read as {height}x{width} {'gray' if channels == 1 else 'in colours'}; those "
            "that are not so are cropped, resized and converted, which changes their score",
            file=sys.stderr,
        )
    if seen_through:
        print(
            f"note: transparent pictures of {path} are put on white; programs that drop transparency score otherwise",
            file=sys.stderr,
        )
    labels = "intra-fd" in order.metrics
    return ImageFolder(
        str(path), split=split, image_size=(height, width), channels=channels, batch_size=1, labels=labels
    )


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
