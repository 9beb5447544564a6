"""Numbered samples of a model: sample i depends on (seed, i) alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ganzoo import streams
from ganzoo.errors import UserError

if TYPE_CHECKING:
    from ganzoo.gan import GAN


def draw(
    gan: GAN, num: int, *, seed: int, labels: Sequence[int] | None, first: int, averaged: bool, batch_size: int
) -> Tensor:
    """The samples of :meth:`ganzoo.gan.GAN.sample`, on the CPU."""
    if num < 1 or batch_size < 1:
        raise UserError(f"{num} samples in batches of {batch_size} were asked for; both must be 1 or more.")
    network = network_of(gan, averaged=averaged)
    training = [module for module in network.modules() if module.training]
    network.eval()
    chosen = choose_labels(gan.num_classes, num, seed=seed, labels=labels, first=first)
    numbers = range(first, first + num)
    samples = torch.cat([x.cpu() for x in batches(gan, network, numbers, chosen, seed=seed, batch_size=batch_size)])
    for module in training:
        module.training = True
    return samples


def network_of(gan: GAN, *, averaged: bool) -> nn.Module:
    """The generator with the averaged weights, where they are asked for and there are some; else the trained one."""
    return gan.generator_ema if averaged and gan.generator_ema is not None else gan.generator


@torch.no_grad()
def batches(
    gan: GAN, network: nn.Module, numbers: range, labels: Tensor | None, *, seed: int, batch_size: int
) -> Iterator[Tensor]:
    """Samples with these numbers in order, float32 (n, ...) on the model's device, ``batch_size`` at a time.

    Args:
        gan: The model.
        network: Its generator, or a copy of it, in the mode in which it is to run.
        numbers: Which samples.
        labels: int64 (len(numbers),) for a conditional model.
        seed: Seed of the latents.
        batch_size: How many at a time.
    """
    for at in range(0, len(numbers), batch_size):
        piece = numbers[at : at + batch_size]
        latents = gan.latents.numbered(piece, gan.generator.latent_dim, seed).to(gan.device)
        classes = None if labels is None else labels[at : at + batch_size].to(gan.device)
        with torch.autocast(gan.device.type, enabled=False):
            samples = network(latents, classes).float()
        yield samples


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
