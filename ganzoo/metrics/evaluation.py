"""Scores of a model or of images by a protocol: one pass through the extractor serves all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ganzoo.errors import UserError
from ganzoo.metrics import frechet, inception_score, kernel, manifold, presets, reference
from ganzoo.metrics.collecting import Collected, collect
from ganzoo.metrics.extractors.base import Extractor
from ganzoo.metrics.generation import Samples
from ganzoo.metrics.protocol import Protocol
from ganzoo.metrics.record import Score
from ganzoo.metrics.reference import Images, Reference

if TYPE_CHECKING:
    from ganzoo.gan import GAN

Report = Callable[[str], None]


class Evaluation:
    """A protocol with its extractor and its reference, which are prepared once and serve any number of models."""

    def __init__(
        self,
        protocol: Protocol,
        extractor: Extractor,
        data: Images,
        *,
        metrics: Sequence[str] = presets.METRICS,
        batch_size: int = 64,
        report: Report = lambda text: None,
    ) -> None:
        """
        Args:
            protocol: How to measure; what it says of extractor and reference is filled in.
            extractor: The network whose features are compared, on the device where it is to compute.
            data: The real images.
            metrics: What to measure, of :data:`ganzoo.metrics.presets.METRICS`.
            batch_size: How many images at a time; scores do not depend on it.
            report: Is told now and then how far it is.

        Raises:
            UserError: The weights are missing, the data are no images, or there are too few of them.
        """
        self.extractor, self.metrics, self.batch_size, self.report = extractor, tuple(metrics), batch_size, report
        reference.check(data)
        extractor.load()
        if "is" in metrics and extractor.num_logits is None:
            raise UserError(
                f"The extractor {extractor.name} has no classes, so it gives no inception score: leave is out."
            )
        self.keep_rows = bool({"kd", "prdc"} & set(metrics))
        num = data.num or 0
        progress = self._telling("reference", num)
        self.reference: Reference = reference.open_or_build(
            data, extractor, rows=self.keep_rows, batch_size=batch_size, progress=progress
        )
        self.protocol = replace(
            protocol,
            extractor=extractor.name,
            extractor_hash=extractor.weights_hash,
            extractor_options=presets.extractor_options(extractor.config()),
            resize=extractor.resize,
            reference=self.reference.title,
            split=self.reference.split,
            reference_hash=self.reference.content_hash,
            reference_num=self.reference.collected.num,
        )
        self._check(self.protocol)

    def collect(self, gan: GAN, *, rank: int = 0, world: int = 1, max_seconds: float | None = None) -> Collected:
        """What the extractor sees in this process's share of a model's samples; processes do not wait for each other.

        Args:
            gan: The model.
            rank: Of this process.
            world: Number of processes.
            max_seconds: Time behind which no further batch is begun; the samples are the first ones then.
        """
        begun = time.monotonic()
        samples = Samples(gan, self.protocol, class_counts=self.reference.class_counts, batch_size=self.batch_size)
        numbers = share(self.protocol.num, rank, world)
        deadline = None if max_seconds is None else begun + max_seconds
        return self._collect(samples(numbers), len(numbers), deadline)

    def collect_images(self, data: Images) -> Collected:
        """What the extractor sees in given images, such as those of another program."""
        reference.check(data)
        return self._collect(reference.batches(data, self.batch_size), data.num or 0, None)

    def of_images(self, num: int) -> Protocol:
        """The protocol for so many given images, of which nobody knows here how they were drawn."""
        return replace(
            self.protocol,
            num=num,
            weights="files",
            batch_norm="files",
            labels="files",
            quantization="files",
            standing_batches=0,
            standing_size=0,
        )

    def scores(self, fake: Collected) -> dict[str, Score]:
        """The scores of what was collected of all samples, by names that say the extractor."""
        protocol = replace(self.protocol, num=fake.num)
        self._check(protocol)
        real, found = self.reference.collected.to(self.extractor.device), dict[str, Score]()
        fake = fake.to(self.extractor.device)
        for metric in self.metrics:
            found |= _MEASURES[metric](real, fake, protocol)
        return {self.extractor.score_name(kind): score for kind, score in found.items()}

    def remarks(self, num: int) -> list[str]:
        """What should be known about scores of so many samples."""
        real = self.reference.collected
        note = frechet.rank_note(real.moments.dim, num, real.num) if "fd" in self.metrics else None
        return [note] if note else []

    def _collect(self, batches: Iterable[Tensor], num: int, deadline: float | None) -> Collected:
        with torch.no_grad():
            return collect(
                batches,
                self.extractor,
                limit=num,
                rows=self.keep_rows,
                logits="is" in self.metrics,
                deadline=deadline,
                progress=self._telling("samples", num),
            )

    def _telling(self, what: str, num: int) -> Callable[[int], None]:
        return lambda done: self.report(f"{what} {done:,}/{num:,}")

    def _check(self, protocol: Protocol) -> None:
        """Refuse what is too small for the chosen scores."""
        smallest = min(protocol.num, protocol.reference_num)
        if "kd" in self.metrics and protocol.kid_subset_size > smallest:
            raise UserError(
                f"The kernel distance compares subsets of {protocol.kid_subset_size} images, but there are {smallest}: "
                "set kid_subset_size to that or less, or give more images."
            )
        if "prdc" in self.metrics and protocol.prdc_k >= smallest:
            raise UserError(
                f"Precision and recall look at {protocol.prdc_k} neighbours, but there are {smallest}: give more."
            )
        if "is" in self.metrics and protocol.is_splits > protocol.num:
            raise UserError(
                f"The inception score has {protocol.is_splits} splits of {protocol.num} samples: give more."
            )


def share(num: int, rank: int, world: int) -> range:
    """The numbers of the samples of one process: shares are contiguous, in the order of ranks, and equal up to one."""
    return range(num * rank // world, num * (rank + 1) // world)


def _frechet(real: Collected, fake: Collected, protocol: Protocol) -> dict[str, Score]:
    unbiased = protocol.covariance == "unbiased"
    a, b = fake.moments, real.moments
    value = frechet.frechet_distance(a.mean, a.covariance(unbiased), b.mean, b.covariance(unbiased))
    return {"fd": Score(value)}


def _kernel(real: Collected, fake: Collected, protocol: Protocol) -> dict[str, Score]:
    assert real.rows is not None and fake.rows is not None
    mean, std, interval = kernel.kernel_distance(
        fake.rows,
        real.rows,
        subsets=protocol.kid_subsets,
        subset_size=protocol.kid_subset_size,
    )
    return {"kd": Score(mean, std, interval)}


def _inception(real: Collected, fake: Collected, protocol: Protocol) -> dict[str, Score]:
    assert fake.logits is not None
    mean, std = inception_score.inception_score(fake.logits, splits=protocol.is_splits, shuffle=protocol.is_shuffle)
    return {"is": Score(mean, std)}


def _manifold(real: Collected, fake: Collected, protocol: Protocol) -> dict[str, Score]:
    assert real.rows is not None and fake.rows is not None
    return {name: Score(value) for name, value in manifold.prdc(real.rows, fake.rows, k=protocol.prdc_k).items()}


_MEASURES: dict[str, Callable[[Collected, Collected, Protocol], dict[str, Score]]] = {
    "fd": _frechet,
    "kd": _kernel,
    "is": _inception,
    "prdc": _manifold,
}
