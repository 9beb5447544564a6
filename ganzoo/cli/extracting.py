"""``ganzoo extractor`` once torch is there."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import torch

from ganzoo import files
from ganzoo.cli import datasets
from ganzoo.cli.devices import device
from ganzoo.errors import UserError
from ganzoo.metrics import training

if TYPE_CHECKING:
    from ganzoo.cli.extractor import Order
    from ganzoo.data import GANDataModule

_COMMAND = "ganzoo extractor"


def train(order: Order) -> int:
    """Train what a command line asks for; returns the exit code."""
    place = device(order.options.device)
    data = datasets.build(order.data, _COMMAND)
    other = datasets.changed(order.data, order.held_out, "held_out", _COMMAND) if order.held_out.arguments else None
    examples = labelled(data)
    share = 0.2 if order.options.held_out is None else order.options.held_out
    held_out = share if other is None else labelled(other)
    recipe = _recipe(order, data, examples)
    trained = training.train(examples, held_out, recipe, device=place, report=_say)
    with files.explained(f"The extractor {order.out}"):
        trained.save(order.out)
    facts = trained.content["facts"]
    print(
        f"{order.out}: {100 * trained.accuracy:.2f} % of {facts['held_out']['num']} held-out images right "
        f"({facts['num']} to train on, {len(facts['class_names'])} classes, {trained.network.num_features} features)"
    )
    return 0


def labelled(data: GANDataModule) -> training.Examples:
    """Images of a data module with their classes.

    Raises:
        UserError: They are no images, or have no classes.
    """
    name = type(data).__name__
    if len(data.shape) != 3:
        raise UserError(f"{name} holds no images, but an extractor is a classifier of images: give others by --data.")
    if not data.class_names:
        raise UserError(
            f"{datasets.title(data)} has no classes, which an extractor learns to tell apart: sort the pictures into "
            "one folder per class, or name a labels_file."
        )
    data.labels = True  # before the images are opened
    if data.num is None:
        raise UserError(f"{name} has no end, so nothing of it can be held out: give data of a known number of images.")
    blocks = [data.dataset[np.arange(i, min(i + 1000, data.num))].labels for i in range(0, data.num, 1000)]
    labels = torch.cat([block for block in blocks if block is not None])
    return training.Examples(
        datasets.title(data), lambda rows: data.dataset[rows].data, labels, data.class_names, data.content_hash
    )


def _recipe(order: Order, data: GANDataModule, examples: training.Examples) -> training.Recipe:
    asked = order.options
    kimg = 200.0 if asked.kimg is None else asked.kimg
    if asked.epochs is not None:
        kimg = asked.epochs * len(examples.labels) / 1000
    return training.Recipe(
        width=asked.width,
        blocks=asked.blocks,
        kimg=kimg,
        batch_size=asked.batch_size,
        lr=asked.lr,
        weight_decay=asked.weight_decay,
        label_smoothing=asked.label_smoothing,
        shift=min(data.shape[1:]) // 8 if asked.shift is None else asked.shift,
        mirror=bool(getattr(data, "mirror", False)),
        seed=asked.seed,
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
