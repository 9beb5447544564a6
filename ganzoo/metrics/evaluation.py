"""Scores of a model or of images by a protocol: one pass through the extractor serves all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ganzoo.errors import UserError
from ganzoo.metrics import frechet, measures, path, presets, reference, walks
from ganzoo.metrics.collecting import Collected, Needs, collect
from ganzoo.metrics.extractors.base import Extractor
from ganzoo.metrics.generation import Samples
from ganzoo.metrics.protocol import Protocol
from ganzoo.metrics.record import Score
from ganzoo.metrics.reference import Images, Reference
from ganzoo.metrics.walks import Walks

if TYPE_CHECKING:
    from ganzoo.gan import GAN

Report = Callable[[str], None]


class Evaluation:
    """A protocol with its extractor and its reference, which are prepared once and serve any number of models."""

    def __init__(
        self,
        protocol: Protocol,
        extractor: Extractor | None,
        data: Images,
        *,
        metrics: Sequence[str],
        batch_size: int = 64,
        report: Report = lambda text: None,
    ) -> None:
        """
        Args:
            protocol: How to measure; what it says of extractor and reference is filled in.
            extractor: The network whose features are compared, on the device where it is to compute; none where no
                metric needs one.
            data: The real images.
            metrics: What to measure, of :data:`ganzoo.metrics.presets.METRICS`.
            batch_size: How many images at a time; scores do not depend on it.
            report: Is told now and then how far it is.

        Raises:
            UserError: The weights are missing, the data are no images, or there are too few of them.
        """
        self.metrics, self.batch_size, self.report = tuple(metrics), batch_size, report
        self.data, self.extractor = data, extractor if presets.needs_extractor(metrics) else None
        self.needs = measures.needs(metrics, protocol)
        reference.check(data)
        if "intra-fd" in metrics and not data.num_classes:
            raise UserError(
                f"intra-fd compares class by class, but {type(data).__name__} has no labels: give a reference with "
                "labels (labels: true), or leave intra-fd out."
            )
        assert data.num is not None
        measures.check(self.metrics, replace(protocol, reference_num=data.num), data.shape)  # before a long pass
        self._load(protocol)
        self.protocol = self._filled(protocol)

    def check(self, gan: GAN) -> None:
        """Refuse a model that some of the scores are not for.

        Raises:
            UserError: The sentence names the score.
        """
        if "ppl" in self.metrics:
            walks.check(gan, self.protocol)
        if "intra-fd" in self.metrics and gan.num_classes != self.data.num_classes:
            kind = f"has {gan.num_classes}" if gan.num_classes else "is unconditional: it has none"
            raise UserError(
                f"intra-fd compares class by class: the reference has {self.data.num_classes} classes, but "
                f"{type(gan).__name__} {kind}. Leave intra-fd out, or give the model's own data."
            )

    def collect(self, gan: GAN, *, rank: int = 0, world: int = 1, max_seconds: float | None = None) -> Collected:
        """What the extractor sees in this process's share of a model's samples; processes do not wait for each other.

        Args:
            gan: The model.
            rank: Of this process.
            world: Number of processes.
            max_seconds: Time behind which no further batch is begun; the samples are the first ones then.
        """
        begun = time.monotonic()
        self.check(gan)
        samples = Samples(gan, self.protocol, class_counts=self.reference.class_counts, batch_size=self.batch_size)
        numbers = share(self.protocol.num, rank, world)
        deadline = None if max_seconds is None else begun + max_seconds
        own = self.needs
        if own.pixels is not None:  # of the first ones over all processes
            own = replace(own, pixels=max(0, own.pixels - numbers.start))
        steps = self._lengths(Walks(samples), numbers) if self.needs.steps else None
        found = self._collect(samples(numbers), len(numbers), own, deadline, steps)
        if self.needs.labels:
            found.labels = samples.labels(numbers[: found.num])
        return found

    def collect_images(self, data: Images) -> Collected:
        """What the extractor sees in given images, such as those of another program.

        Raises:
            UserError: They cannot have one of the scores.
        """
        reference.check(data)
        if self.needs.steps:
            raise UserError("The perceptual path length is of a model, and these are images: leave ppl out.")
        if self.needs.labels and data.class_names != self.data.class_names:
            raise UserError(
                f"intra-fd compares class by class, but the images have the classes {_listed(data.class_names)} and "
                f"the reference {_listed(self.data.class_names)}: sort both into folders with the same names, or leave "
                "intra-fd out."
            )
        assert data.num is not None
        measures.check(self.metrics, self.of_images(data.num), data.shape)
        batches = reference.batches(data, self.batch_size) if self.needs.features else ()
        found = self._collect(batches, data.num, replace(self.needs, pixels=None), None)
        found.num = data.num
        found.labels = reference.labels_of(data) if self.needs.labels else None
        found.pixels = self._pixels(data)
        return found

    def of_images(self, num: int) -> Protocol:
        """The protocol for so many given images, of which nobody knows here how they were drawn."""
        return replace(
            self.protocol,
            num=num,
            weights="files",
            batch_norm="files",
            labels="files",
            quantization="files",
            truncation=None,
            standing_batches=0,
            standing_size=0,
        )

    def scores(self, fake: Collected) -> dict[str, Score]:
        """The scores of what was collected of all samples, by names that say the extractor."""
        protocol = replace(self.protocol, num=fake.num)
        measures.check(self.metrics, protocol, self.data.shape)
        real, found = replace(self.reference.collected, pixels=self._pixels(self.data)), dict[str, Score]()
        if self.extractor is not None:
            real, fake = (side.to(self.extractor.device) for side in (real, fake))
        for metric in self.metrics:
            for kind, score in measures.MEASURES[metric](real, fake, protocol).items():
                found[kind if metric in presets.PIXELS else self._name(kind)] = score
        return found

    def remarks(self, num: int) -> list[str]:
        """What should be known about scores of so many samples."""
        real, notes = self.reference.collected, list[str | None]()
        if real.moments is not None and "fd" in self.metrics:
            notes.append(frechet.rank_note(real.moments.dim, num, real.num))
        if real.moments is not None and self.needs.labels:
            each = frechet.rank_note(real.moments.dim, num // self.data.num_classes, *self.reference.class_counts)
            notes.append(each and f"Of each class: {each}")
        return [note for note in notes if note]

    def _name(self, kind: str) -> str:
        assert self.extractor is not None
        return self.extractor.score_name(kind)

    def _load(self, protocol: Protocol) -> None:
        """The extractor and the reference."""
        extractor, data = self.extractor, self.data
        if extractor is not None:
            extractor.load()
            if self.needs.logits and extractor.num_logits is None:
                raise UserError(
                    f"The extractor {extractor.name} has no classes, so it gives no inception score: leave is out."
                )
        if extractor is not None and (self.needs.moments or self.needs.rows):
            self.reference: Reference = reference.open_or_build(
                data,
                extractor,
                rows=self.needs.rows,
                batch_size=self.batch_size,
                progress=self._telling("reference", data.num or 0),
            )
        else:
            self.reference = reference.unseen(data, labels=protocol.labels == "data")

    def _filled(self, protocol: Protocol) -> Protocol:
        """With what is known of extractor and reference; of fewer samples, where no score needs more."""
        known: dict[str, Any] = {
            "reference": self.reference.title,
            "split": self.reference.split,
            "reference_hash": self.reference.content_hash,
            "reference_num": self.reference.collected.num,
        }
        if self.extractor is not None:
            known |= {
                "extractor": self.extractor.name,
                "extractor_hash": self.extractor.weights_hash,
                "extractor_options": presets.extractor_options(self.extractor.config()),
                "resize": self.extractor.resize,
            }
        if protocol.batch_norm == "batch":  # samples depend on how many are drawn together
            known["standing_size"] = self.batch_size
        if self.extractor is None and self.needs.pixels:
            known["num"] = min(protocol.num, self.needs.pixels)
        return replace(protocol, **known)

    def _collect(
        self,
        batches: Iterable[Tensor],
        num: int,
        needs: Needs,
        deadline: float | None,
        steps: Iterable[Tensor] | None = None,
    ) -> Collected:
        with torch.no_grad():
            return collect(
                batches,
                self.extractor,
                needs,
                limit=num,
                steps=steps,
                deadline=deadline,
                progress=self._telling("samples", num),
            )

    def _lengths(self, walks: Walks, numbers: range) -> Iterator[Tensor]:
        """Of steps on paths, as the extractor sees them."""
        assert self.extractor is not None
        for ends in walks(numbers):
            first, second = (self.extractor.unrounded(images).features for images in ends)
            yield path.lengths(first, second, self.protocol.ppl_epsilon).cpu()

    def _pixels(self, data: Images) -> Tensor | None:
        return reference.drawn(data, self.needs.pixels, seed=self.protocol.seed) if self.needs.pixels else None

    def _telling(self, what: str, num: int) -> Callable[[int], None]:
        return lambda done: self.report(f"{what} {done:,}/{num:,}")


def share(num: int, rank: int, world: int) -> range:
    """The numbers of the samples of one process: shares are contiguous, in the order of ranks, and equal up to one."""
    return range(num * rank // world, num * (rank + 1) // world)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + ", ..." * (len(names) > 3) if names else "none"
