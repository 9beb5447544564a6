"""Training of a domain extractor: a small classifier of labelled images, with its held-out accuracy.

Everything random is keyed by the seed (``streams.py``), so that the same command gives the same weights on a CPU.
The weights at the end are the ones that are kept: none are chosen by their accuracy, so that number is honest.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ganzoo import __version__, files, streams
from ganzoo.errors import TrainingError, UserError
from ganzoo.metrics.extractors.domain import ResNet, content

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Examples:
    """Labelled images."""

    title: str
    images: Callable[[Rows], Tensor]  #: uint8 (n, C, H, W) of the numbers of images
    labels: Tensor  #: int64 (N,)
    class_names: list[str]
    content_hash: str


@dataclass(frozen=True)
class Recipe:
    """How it is trained: SGD with momentum, a linear warm-up over the first tenth, and a cosine to zero."""

    width: int = 32  #: channels of the first stage, doubled from stage to stage
    blocks: int = 1  #: residual blocks per stage
    kimg: float = 200.0  #: thousands of images to train on, counting repetitions
    batch_size: int = 128
    lr: float = 0.1  #: its peak
    momentum: float = 0.9  #: Nesterov's
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0  #: it raises accuracy a little and makes features poorer (arXiv:2010.16402)
    shift: int = 4  #: pixels by which images are moved at most, in both directions; edges are repeated
    mirror: bool = False  #: whether half of the images are flipped
    seed: int = 0

    def check(self) -> None:
        """Refuse what cannot be trained.

        Raises:
            UserError: For a number out of its range.
        """
        for name in ("width", "blocks", "kimg", "batch_size", "lr"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"{name} was {getattr(self, name)}, but must be more than 0.")
        for name, end in (("label_smoothing", 1.0), ("momentum", 1.0), ("weight_decay", math.inf), ("shift", math.inf)):
            if not 0 <= getattr(self, name) < end:
                below = f" and less than {end:g}" if end < math.inf else ""
                raise UserError(f"{name} was {getattr(self, name)}, but must be 0 or more{below}.")


class Part(NamedTuple):
    """Some of the examples."""

    examples: Examples
    rows: Rows


@dataclass
class Trained:
    """A classifier and what is known about it."""

    network: ResNet
    content: dict[str, Any]  #: of its file
    accuracy: float  #: share of the held-out images that it classifies rightly

    def save(self, path: str | Path) -> None:
        """Write the file, whole or not at all."""
        with files.atomic(path) as file:
            torch.save(self.content, file)


def split(labels: Tensor, share: float) -> tuple[Rows, Rows]:
    """Numbers of the examples to train on and of those held out: of each class ``share``, rounded, but at least one.

    Which ones depends on the labels and their order alone, so that extractors of different seeds can be compared.

    Raises:
        UserError: When a class has fewer than two examples.
    """
    train, held_out = [], []
    for label in sorted(set(labels.tolist())):
        rows = (labels == label).nonzero().squeeze(1)
        if len(rows) < 2:
            raise UserError(
                f"Class {label} has one picture, so none can be held out: give it more, or a separate set with "
                "--held_out.split or --held_out.path."
            )
        num = min(max(round(share * len(rows)), 1), len(rows) - 1)
        rows = rows[torch.randperm(len(rows), generator=streams.generator("held out", label))]
        held_out.append(rows[:num])
        train.append(rows[num:])
    return torch.cat(train).sort().values.numpy(), torch.cat(held_out).sort().values.numpy()


def train(
    examples: Examples,
    held_out: Examples | float,
    recipe: Recipe,
    *,
    device: torch.device | str = "cpu",
    report: Callable[[str], None] = print,
) -> Trained:
    """Train a classifier.

    Args:
        examples: What to train on.
        held_out: Other examples of the same classes, or the share of ``examples`` that is held out.
        recipe: How.
        device: Where.
        report: Is given a line about every ten seconds.

    Raises:
        UserError: Examples that no classifier can be trained on.
        TrainingError: The loss is no finite number any more.
    """
    device = torch.device(device)
    recipe.check()
    part, test = _parts(examples, held_out)
    shape = _shape(part, test)
    architecture = {
        "shape": list(shape),
        "num_classes": len(examples.class_names),
        "width": recipe.width,
        "blocks": recipe.blocks,
    }
    with torch.random.fork_rng(devices=[]):  # layers draw their first weights from the global generator
        torch.manual_seed(streams.key(recipe.seed, "weights"))
        network = ResNet(shape, len(examples.class_names), width=recipe.width, blocks=recipe.blocks)
    network.to(device).to(memory_format=torch.channels_last)
    _optimize(network, part, recipe, device, report)
    accuracy = measure(network, test, device)
    facts = {
        "data": examples.title,
        "content_hash": examples.content_hash,
        "num": len(part.rows),
        "class_names": examples.class_names,
        "held_out": {
            "share": held_out if isinstance(held_out, float) else None,
            "data": test.examples.title,
            "content_hash": test.examples.content_hash,
            "num": len(test.rows),
            "accuracy": accuracy,
        },
        "recipe": asdict(recipe),
        "ganzoo": __version__,
        "torch": torch.__version__.split("+")[0],
    }
    return Trained(network, content(network, architecture, facts), accuracy)


@torch.no_grad()
def measure(network: ResNet, part: Part, device: torch.device | str = "cpu") -> float:
    """Share of some examples that a network classifies rightly."""
    network.eval()
    right = 0
    for start in range(0, len(part.rows), 500):
        rows = part.rows[start : start + 500]
        logits = network(part.examples.images(rows).to(device).float())[1]
        right += int((logits.argmax(1).cpu() == part.examples.labels[rows]).sum())
    return right / len(part.rows)


def moved(images: Tensor, recipe: Recipe, step: int) -> Tensor:
    """float32 images (N, C, H, W), each moved by up to ``shift`` pixels and perhaps flipped; edges are repeated.

    Args:
        images: uint8 (N, C, H, W).
        recipe: Its shift, mirror and seed count.
        step: Number of the batch, to which the draws belong.
    """
    num, _, height, width = images.shape
    generator = streams.generator(recipe.seed, "augment", step)
    offsets = torch.randint(-recipe.shift, recipe.shift + 1, (2, num, 1), generator=generator)
    flips = (torch.rand(num, 1, generator=generator) < 0.5) & torch.tensor(recipe.mirror)
    rows = (torch.arange(height) + offsets[0]).clamp(0, height - 1)  # (N, H)
    columns = (torch.arange(width) + offsets[1]).clamp(0, width - 1)  # (N, W)
    columns = torch.where(flips, columns.flip(1), columns)
    rows, columns = rows.to(images.device), columns.to(images.device)
    places = torch.arange(num, device=images.device)[:, None, None]
    taken = images.permute(0, 2, 3, 1)[places, rows[:, :, None], columns[:, None, :]]  # (N, H, W, C)
    return taken.permute(0, 3, 1, 2).float()


def learning_rate(progress: float) -> float:
    """Relative to its peak, at a share of the training: up to 1 over the first tenth, then down to 0 on a cosine."""
    return min(progress / 0.1, 1.0) if progress < 0.1 else 0.5 * (1 + math.cos(math.pi * (progress - 0.1) / 0.9))


def _optimize(network: ResNet, part: Part, recipe: Recipe, device: torch.device, report: Callable[[str], None]) -> None:
    batch_size = min(recipe.batch_size, len(part.rows))
    steps = max(round(recipe.kimg * 1000 / batch_size), 1)
    optimizer = torch.optim.SGD(
        network.parameters(), recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay, nesterov=recipe.momentum > 0
    )
    network.train()
    begun = said = time.monotonic()
    for step, rows in zip(range(steps), _batches(part.rows, batch_size, recipe.seed), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * learning_rate((step + 0.5) / steps)
        images = moved(part.examples.images(rows).to(device), recipe, step)
        labels = part.examples.labels[rows].to(device)
        loss = F.cross_entropy(network(images)[1], labels, label_smoothing=recipe.label_smoothing)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        now = time.monotonic()
        if now - said > 10 or step == steps - 1:
            said = now
            if not math.isfinite(loss.item()):
                raise TrainingError("The extractor's loss is no finite number any more: lower its --lr.")
            done, speed = (step + 1) * batch_size, (step + 1) * batch_size / (now - begun)
            left = (steps * batch_size - done) / speed
            report(f"{done / 1000:.1f} kimg, loss {loss.item():.3f}, {speed:.0f} images/s, {left:.0f} s left")


def _batches(rows: Rows, size: int, seed: int) -> Iterator[Rows]:
    """Batches without end: every epoch in another order, what does not fill a batch left out."""
    epoch = 0
    while True:
        order = torch.randperm(len(rows), generator=streams.generator(seed, "order", epoch)).numpy()
        for start in range(0, len(rows) - size + 1, size):
            yield rows[order[start : start + size]]
        epoch += 1


def _parts(examples: Examples, held_out: Examples | float) -> tuple[Part, Part]:
    """What is trained on, and what is held out."""
    if len(examples.class_names) < 2 or len(set(examples.labels.tolist())) < 2:
        raise UserError(f"{examples.title} has pictures of one class only, so there is nothing to tell apart.")
    if isinstance(held_out, float):
        if not 0 < held_out < 1:
            raise UserError(f"held_out was {held_out}, but must be a share between 0 and 1, such as 0.2.")
        train_rows, test_rows = split(examples.labels, held_out)
        return Part(examples, train_rows), Part(examples, test_rows)
    if held_out.class_names != examples.class_names:
        raise UserError(
            f"The held-out set {held_out.title} has the classes {', '.join(held_out.class_names[:5])}..., but "
            f"{examples.title} has {', '.join(examples.class_names[:5])}...: give one with the same classes."
        )
    if held_out.content_hash == examples.content_hash:
        raise UserError(f"The held-out set {held_out.title} is the very set that is trained on: give another one.")
    return Part(examples, np.arange(len(examples.labels))), Part(held_out, np.arange(len(held_out.labels)))


def _shape(part: Part, test: Part) -> tuple[int, int, int]:
    """Of one image."""
    channels, height, width = part.examples.images(part.rows[:1]).shape[1:]
    other = tuple(test.examples.images(test.rows[:1]).shape[1:])
    if other != (channels, height, width):
        raise UserError(f"Held-out images have the shape {other}, but those to train on {(channels, height, width)}.")
    return channels, height, width
