"""Samples of a model as a protocol wants them: which weights, which statistics, which labels, which bytes."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from ganzoo import sampling, streams
from ganzoo.errors import UserError
from ganzoo.metrics.pixels import quantize
from ganzoo.metrics.protocol import Protocol, Quantization

if TYPE_CHECKING:
    from ganzoo.gan import GAN

_BATCH_NORM = nn.modules.batchnorm._BatchNorm


class Samples:
    """Numbered samples of a model as bytes. It draws from a copy of the generator, so that training sees no trace."""

    def __init__(
        self, gan: GAN, protocol: Protocol, *, class_counts: Sequence[int] | None = None, batch_size: int = 64
    ) -> None:
        """
        Args:
            gan: The model.
            protocol: Says how samples are drawn.
            class_counts: Images of each class in the reference, which labels follow where the protocol wants that.
            batch_size: How many at a time.

        Raises:
            UserError: The model cannot be sampled by this protocol.
        """
        if gan.num_classes and protocol.labels == "data" and (class_counts is None or not sum(class_counts)):
            raise UserError(
                "The protocol takes the labels of samples from the distribution of the data's, but the reference has "
                "none: give one with labels, or take labels=uniform."
            )
        self.gan, self.protocol, self.class_counts, self.batch_size = gan, protocol, class_counts, batch_size
        with torch.no_grad():
            self.network = self._prepared()
        self._extremes: tuple[float, float] | None = None

    def __call__(self, numbers: range) -> Iterator[Tensor]:
        """Samples with these numbers, uint8 (n, C, H, W), a batch at a time.

        Raises:
            UserError: They are no images, or not of the range [-1, 1].
        """
        if self.protocol.quantization == "min-max" and self._extremes is None:
            # A second pass instead of memory for all of them; each process looks at all, so none waits for another.
            extremes = [x.aminmax() for x in self._floats(range(self.protocol.num))]
            self._extremes = min(float(e.min) for e in extremes), max(float(e.max) for e in extremes)
        for samples in self._floats(numbers):
            yield quantize(samples, cast(Quantization, self.protocol.quantization), extremes=self._extremes)

    def _floats(self, numbers: range) -> Iterator[Tensor]:
        labels = self.labels(numbers)
        found = sampling.batches(
            self.gan,
            self.network,
            numbers,
            labels,
            seed=self.protocol.seed,
            batch_size=self.batch_size,
            truncation=self.truncation,
        )
        for samples in found:
            if samples.dim() != 4:
                raise UserError(
                    f"{type(self.gan).__name__} makes points of shape {tuple(samples.shape[1:])}, not images, which "
                    "these scores compare."
                )
            yield samples

    @property
    def truncation(self) -> sampling.Truncation | None:
        """How samples are truncated."""
        psi = self.protocol.truncation
        return None if psi is None else sampling.Truncation(psi)

    def labels(self, numbers: range) -> Tensor | None:
        """Classes of the samples with these numbers, int64; None for an unconditional model."""
        if not self.gan.num_classes or not len(numbers):
            return None
        return sampling.choose_labels(
            self.gan.num_classes,
            len(numbers),
            seed=self.protocol.seed,
            labels="data" if self.protocol.labels == "data" else None,
            first=numbers.start,
            class_counts=self.class_counts or (),
        )

    def _prepared(self) -> nn.Module:
        network = copy.deepcopy(sampling.network_of(self.gan, averaged=self.protocol.weights == "ema"))
        network.eval().requires_grad_(False)
        norms = [module for module in network.modules() if isinstance(module, _BATCH_NORM)]
        if self.protocol.batch_norm == "batch":
            for norm in norms:  # without statistics of its own it takes the batch's
                norm.running_mean = norm.running_var = None
        elif self.protocol.batch_norm == "standing" and norms:
            self._gather_statistics(network, norms)
        return network

    def _gather_statistics(self, network: nn.Module, norms: list[_BATCH_NORM]) -> None:
        """Standing statistics (Brock 2019, sec. 4): means over many batches, here of random sizes as in StudioGAN."""
        protocol, start = self.protocol, 0
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # all batches weigh the same
            norm.train()
        seed = streams.key(protocol.seed, "standing")
        for number in range(protocol.standing_batches):
            size = 2 + streams.key(seed, "size", number) % (protocol.standing_size - 1)  # one sample has no variance
            piece = range(start, start + size)
            labels = sampling.choose_labels(self.gan.num_classes, size, seed=seed, labels=None, first=start)
            for _ in sampling.batches(self.gan, network, piece, labels, seed=seed, batch_size=size):
                start += size
        network.eval()
