"""Numbered samples of a model: sample i depends on (seed, i) alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ganzoo import streams
from ganzoo.errors import UserError

if TYPE_CHECKING:
    from ganzoo.gan import GAN


@torch.no_grad()
def draw(
    gan: GAN, num: int, *, seed: int, labels: Sequence[int] | None, first: int, averaged: bool, batch_size: int
) -> Tensor:
    """The samples of :meth:`ganzoo.gan.GAN.sample`, on the CPU."""
    if num < 1 or batch_size < 1:
        raise UserError(f"{num} samples in batches of {batch_size} were asked for; both must be 1 or more.")
    network = gan.generator_ema if averaged and gan.generator_ema is not None else gan.generator
    training = [module for module in network.modules() if module.training]
    network.eval()
    chosen = choose_labels(gan.num_classes, num, seed=seed, labels=labels, first=first)
    pieces = []
    for at in range(0, num, batch_size):
        numbers = range(first + at, first + min(at + batch_size, num))
        latents = gan.latents.numbered(numbers, gan.generator.latent_dim, seed).to(gan.device)
        piece = None if chosen is None else chosen[at : at + batch_size].to(gan.device)
        with torch.autocast(gan.device.type, enabled=False):
            pieces.append(network(latents, piece).float().cpu())
    for module in training:
        module.training = True
    return torch.cat(pieces)


def choose_labels(num_classes: int, num: int, *, seed: int, labels: Sequence[int] | None, first: int) -> Tensor | None:
    """Labels of numbered samples, (num,) int64: the given ones, else keyed draws, uniform over the classes."""
    if num_classes == 0:
        if labels is not None:
            raise UserError("Labels were given, but this model is unconditional: leave them out.")
        return None
    if labels is None:
        labels = [streams.key(seed, "label", i) % num_classes for i in range(first, first + num)]
    if len(labels) != num or not all(0 <= label < num_classes for label in labels):
        raise UserError(
            f"The labels {list(labels)[:8]} were given for {num} samples; give each one from 0 to {num_classes - 1}."
        )
    return torch.tensor(list(labels))
