"""Numbered samples of a model: sample i depends on (seed, i) alone."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ganzoo import streams
from ganzoo.errors import UserError
from ganzoo.replay import evaluating

if TYPE_CHECKING:
    from ganzoo.gan import GAN


#: Classes of samples: each one given, drawn as the data have them, or drawn uniformly.
Labels = Sequence[int] | Literal["data"] | None


class Truncation(NamedTuple):
    """How far samples are drawn towards the middle, where they are better and more alike."""

    psi: float  #: of styles: the share of the way from their mean; of latents: the threshold that they stay within
    cutoff: int | None = None  #: of styles: only those of so many first layers; None: of all


@runtime_checkable
class TruncatesStyles(Protocol):
    """A generator that truncates in a space of its own."""

    def truncated(self, latents: Tensor, labels: Tensor | None, psi: float, cutoff: int | None) -> Tensor:
        """What ``forward`` gives, from styles at ``psi`` of the way from their mean (Karras 2019, appendix B)."""


def draw(
    gan: GAN,
    num: int,
    *,
    seed: int,
    labels: Labels,
    first: int,
    averaged: bool,
    batch_size: int,
    truncation: Truncation | None = None,
    fixed_noise: bool = False,
) -> Tensor:
    """The samples of :meth:`ganzoo.gan.GAN.sample`, on the CPU."""
    if num < 1 or batch_size < 1:
        raise UserError(f"{num} samples in batches of {batch_size} were asked for; both must be 1 or more.")
    network = network_of(gan, averaged=averaged)
    counts = gan.class_counts
    chosen = choose_labels(gan.num_classes, num, seed=seed, labels=labels, first=first, class_counts=counts)
    numbers = range(first, first + num)
    options: dict[str, Any] = {"seed": seed, "batch_size": batch_size}
    found = batches(gan, network, numbers, chosen, **options, truncation=truncation, fixed_noise=fixed_noise)
    with evaluating(network):
        return torch.cat([x.cpu() for x in found])


def network_of(gan: GAN, *, averaged: bool) -> nn.Module:
    """The generator with the averaged weights, where they are asked for and there are some; else the trained one."""
    return gan.generator_ema if averaged and gan.generator_ema is not None else gan.generator


@torch.no_grad()
def batches(
    gan: GAN,
    network: nn.Module,
    numbers: range,
    labels: Tensor | None,
    *,
    seed: int,
    batch_size: int,
    truncation: Truncation | None = None,
    fixed_noise: bool = False,
) -> Iterator[Tensor]:
    """Samples with these numbers in order, float32 (n, ...) on the model's device, ``batch_size`` at a time.

    Args:
        gan: The model.
        network: Its generator, or a copy of it, in the mode in which it is to run.
        numbers: Which samples.
        labels: int64 (len(numbers),) for a conditional model.
        seed: Seed of the latents, and of whatever the generator draws for each sample.
        batch_size: How many at a time.
        truncation: How far they are drawn towards the middle; None: not at all.
        fixed_noise: Whether all of them have what the generator draws for the first one, beside its latents.

    Raises:
        UserError: The noise was to be fixed, and the generator draws none.
    """
    for at in range(0, len(numbers), batch_size):
        piece = numbers[at : at + batch_size]
        latents = gan.latents.numbered(piece, gan.generator.latent_dim, seed)
        classes = None if labels is None else labels[at : at + batch_size].to(gan.device)
        of_noise = [numbers[0]] * len(piece) if fixed_noise else piece
        with (
            streams.numbered(of_noise, seed, "sample", device=gan.device) as drawn,
            torch.autocast(gan.device.type, enabled=False),
        ):
            samples = generate(gan, network, latents, classes, truncation).float()
        if fixed_noise and not drawn.generators:
            raise UserError(
                f"Noise was to be fixed, but the generator of {type(gan).__name__} draws none beside its latents: "
                "leave that out."
            )
        yield samples


def generate(
    gan: GAN, network: nn.Module, latents: Tensor, labels: Tensor | None, truncation: Truncation | None
) -> Tensor:
    """What a generator makes of latents (N, d).

    Truncation is where the generator says, else of the latents: on the CPU, so that all devices see the same.
    """
    if truncation is not None and isinstance(network, TruncatesStyles):
        return network.truncated(latents.to(gan.device), labels, truncation.psi, truncation.cutoff)
    samples: Tensor = network(truncated(gan, latents, truncation).to(gan.device), labels)
    return samples


def truncated(gan: GAN, latents: Tensor, truncation: Truncation | None) -> Tensor:
    """The latents of a generator that has no styles to truncate.

    Raises:
        UserError: Those of some layers were meant.
    """
    if truncation is None:
        return latents
    if truncation.cutoff is not None:
        raise UserError(
            f"A truncation of the first {truncation.cutoff} layers was asked for, but {type(gan).__name__} has no "
            "styles that differ between layers: leave the cutoff out."
        )
    return gan.latents.truncated(latents, truncation.psi)


def choose_labels(
    num_classes: int, num: int, *, seed: int, labels: Labels, first: int, class_counts: Sequence[int] = ()
) -> Tensor | None:
    """Labels of numbered samples, int64 (num,); the one of sample i depends on (seed, i) alone. None without classes.

    Args:
        num_classes: Of the model; 0: it is unconditional.
        num: How many samples.
        seed: Of labels that are drawn.
        labels: A class for each sample; data: drawn in proportion to ``class_counts``; None: drawn uniformly.
        first: Number of the first sample.
        class_counts: How many images of each class the data have; empty: nobody knows.

    Raises:
        UserError: The labels do not fit the model or the number of samples, or the data's are not known.
    """
    if num_classes == 0:
        if labels is not None:
            raise UserError("Labels were given, but this model is unconditional: leave them out.")
        return None
    numbers = range(first, first + num)
    if labels is None:
        labels = [streams.key(seed, "label", i) % num_classes for i in numbers]
    elif labels == "data":
        labels = _as_in_the_data(class_counts, numbers, seed)
    elif isinstance(labels, str):
        raise UserError(f"labels was {labels!r}; give the class of each sample, or 'data' for classes as the data's.")
    if len(labels) != num or not all(0 <= label < num_classes for label in labels):
        raise UserError(
            f"The labels {list(labels)[:8]} were given for {num} samples; give each one from 0 to {num_classes - 1}."
        )
    return torch.tensor(list(labels))


def _as_in_the_data(class_counts: Sequence[int], numbers: range, seed: int) -> list[int]:
    """The inverse of the distribution function: of some image of the data, sorted by class, the class."""
    ends = list(accumulate(class_counts))
    if not ends or not ends[-1]:
        raise UserError(
            "Labels were to be drawn as the data have them, but how many images of each class there were is not known "
            "of this model, as its data did not say so or its checkpoint is from before that was kept: give the "
            "labels, or leave them out for uniform ones."
        )
    return [bisect_right(ends, streams.key(seed, "label", i) % ends[-1]) for i in numbers]
