"""Scores while training, by a protocol that is kept with them."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as L
import torch

from ganzoo import files
from ganzoo.callbacks.base import as_gan, gather, run_directory, stamp
from ganzoo.callbacks.memory import is_out_of_memory
from ganzoo.callbacks.overtime import FilesOverTime, When
from ganzoo.callbacks.progress import progress_of
from ganzoo.config import build
from ganzoo.errors import TrainingError, UserError
from ganzoo.internals import callbacks_of
from ganzoo.metrics import presets, record, reference
from ganzoo.metrics.collecting import Collected, gathered
from ganzoo.metrics.evaluation import Evaluation
from ganzoo.metrics.extractors.base import Extractor

if TYPE_CHECKING:
    from ganzoo.gan import GAN


class Evaluate(FilesOverTime):
    """Scores of the averaged weights at every mark and at the end: ``eval/*`` in the log, with their protocol.

    Each is kept with its protocol as ``evaluations/EXTRACTOR-METRICS/kimg-*.json`` of the run directory. Samples are
    drawn from a copy of the generator, so that training sees no trace of it, and whatever fails here is said once and
    ends no run. Several processes share the samples, and their scores are those of one.
    """

    suffix = ".json"

    def __init__(
        self,
        every_kimg: float = 50.0,
        protocol: str = "quick",
        *,
        num: int | None = None,
        metrics: list[str] | None = None,
        extractor: Extractor | None = None,
        options: dict[str, Any] | None = None,
        batch_size: int = 64,
        max_seconds: float | None = None,
    ) -> None:
        """
        Args:
            every_kimg: Interval in thousands of images; 0: only at the end.
            protocol: Preset: torch-fidelity, studiogan, nvidia, clean-fid, mimicry, quick or digits.
            num: Samples; none: as many as the preset says.
            metrics: What to measure: fd (Frechet distance), kd (kernel distance), is (inception score), prdc
                (precision, recall, density, coverage), intra-fd (within classes), ppl (path length), or, of pixels
                alone, swd (sliced Wasserstein distance), ms-ssim (similarity of pairs); none: what the preset is for.
            extractor: The network whose features are compared; none: the preset's, unless pixels alone are.
            options: Other choices of the protocol, such as seed or kid_subset_size, in place of the preset's.
            batch_size: How many images at a time.
            max_seconds: Longest time of an evaluation; one that takes longer is given up, with no score. The statistics
                of the reference, which are computed once and kept, have no limit.
        """
        self.every_kimg, self.batch_size, self.max_seconds = every_kimg, batch_size, max_seconds
        preset = presets.preset(protocol)
        self.protocol = presets.changed(preset.protocol, {**(options or {}), "num": num})
        self.metrics = presets.chosen(metrics, preset)
        self.extractor: Extractor | None = None
        if presets.needs_extractor(self.metrics):
            self.extractor = build(extractor or preset.extractor)
        self._evaluation: Evaluation | None = None
        self._said, self._is_logged = set[str](), False

    @property
    def title(self) -> str:
        """Of its folder: what it measures, by which features."""
        return "-".join([*([self.extractor.name] if self.extractor else []), *self.metrics])

    @property
    def state_key(self) -> str:
        return f"Evaluate {self.title} {self.protocol.id}"

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._evaluation = None
        self._data: Any = getattr(trainer, "datamodule", None)
        if not hasattr(self._data, "content_hash"):
            raise UserError("Evaluate compares samples with real images: train on a data module such as ImageFolder.")
        reference.check(self._data)
        if sum(isinstance(other, Evaluate) and other.title == self.title for other in callbacks_of(trainer)) > 1:
            seen = f"in the features of {self.extractor.name}" if self.extractor else "of the pixels"
            raise UserError(
                f"Two of the callbacks Evaluate measure {', '.join(self.metrics)} {seen}, so their scores would have "
                "the same name in the log: leave one out."
            )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._prepare(trainer, as_gan(pl_module))  # now, so that what is missing is said before hours have passed

    def act(self, trainer: L.Trainer, gan: GAN, when: When) -> None:
        self._measure(trainer, gan, passing=when == "end")

    def folder(self, trainer: L.Trainer) -> Path:
        return run_directory(trainer) / "evaluations" / self.title

    def _prepare(self, trainer: L.Trainer, gan: GAN) -> Evaluation | None:
        """Load the extractor and the reference, unless that is done; None where it fails."""
        failure: str | None = None
        if self._evaluation is None:
            progress = progress_of(trainer)
            try:
                self._evaluation = Evaluation(
                    self.protocol,
                    self.extractor.to(gan.device) if self.extractor else None,
                    reference.with_split(self._data, self.protocol.split),
                    metrics=self.metrics,
                    batch_size=self.batch_size,
                    report=lambda text: progress.aside(f"evaluating: {text}") if progress else None,
                )
                self._evaluation.check(gan)
            except Exception as error:
                failure = _sentence(error)
        if self._failed(trainer, failure) or self._evaluation is None:
            return None
        for remark in self._evaluation.remarks(self.protocol.num):
            self._say(trainer, remark)
        return self._evaluation

    def _measure(self, trainer: L.Trainer, gan: GAN, *, passing: bool) -> None:
        """Measure and note the scores, on all ranks; what fails on one fails on all."""
        if (evaluation := self._prepare(trainer, gan)) is None:
            return
        failure, own = None, None
        devices = [gan.device] if gan.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            try:
                own = evaluation.collect(
                    gan, rank=trainer.global_rank, world=trainer.world_size, max_seconds=self.max_seconds
                )
                failure = self._too_late(trainer, own, evaluation.protocol.num)
            except Exception as error:
                failure = _sentence(error)
        if self._failed(trainer, failure) or own is None:
            return
        scores = self._scores(trainer, evaluation, gathered(own))
        if scores is None:
            return
        self._write(trainer, gan, evaluation, scores)
        for name, score in scores.items():
            gan.meter.score(f"eval/{name}", score.value, gan.clock, passing=passing)

    def _scores(
        self, trainer: L.Trainer, evaluation: Evaluation, joint: Collected | None
    ) -> dict[str, record.Score] | None:
        """The finite scores, which the first rank computes for all."""
        found, failure = dict[str, record.Score](), None
        if joint is not None:
            try:
                found = evaluation.scores(joint)
            except Exception as error:
                failure = _sentence(error)
        if self._failed(trainer, failure):
            return None
        found = gather(trainer, found)[0]
        for name in [name for name, score in found.items() if not math.isfinite(score.value)]:
            self._say(trainer, f"eval/{name} is not finite, so it is not in the log.")
            del found[name]
        return found

    def _write(self, trainer: L.Trainer, gan: GAN, evaluation: Evaluation, scores: dict[str, record.Score]) -> None:
        if not trainer.is_global_zero:
            return
        made = record.Record(
            run_directory(trainer).name, evaluation.protocol, scores, gan.clock.kimg, *record.describe(gan)
        )
        try:
            with files.explained("The record of the evaluation"):
                record.save([made], self.folder(trainer) / f"kimg-{stamp(gan.clock.images)}.json")
        except TrainingError as error:
            self._say(trainer, f"{error} Its scores are in the log, and the training goes on.")
        if not self._is_logged:
            for logger in trainer.loggers:
                _log_protocol(logger, list(scores), evaluation.protocol.label)
            self._is_logged = True

    def _too_late(self, trainer: L.Trainer, own: Collected, num: int) -> str | None:
        joint = own.num * trainer.world_size
        if joint > num - trainer.world_size:
            return None
        return (
            f"it had seen {joint:,} of {num:,} samples after {self.max_seconds:g} s, so it has no score; "
            f"set num to {joint:,} or less, or raise max_seconds"
        )

    def _failed(self, trainer: L.Trainer, failure: str | None) -> bool:
        """Whether any rank has failed; that is said. All ranks must call it."""
        failures = [sentence for sentence in gather(trainer, failure) if sentence]
        if failures:
            self._say(trainer, f"The evaluation was left out: {failures[0]}. The training goes on.")
        return bool(failures)

    def _say(self, trainer: L.Trainer, text: str) -> None:
        """Each thing once per run."""
        if text in self._said or not trainer.is_global_zero:
            return
        self._said.add(text)
        progress = progress_of(trainer)
        if progress is not None:
            progress.print(text)
        else:
            print(text, file=sys.stderr, flush=True)


def _log_protocol(logger: Any, names: list[str], label: str) -> None:
    """Hand the protocol of scores to Weights & Biases or TensorBoard; it is in the record for the others."""
    if hasattr(logger, "log_picture"):
        logger.log_hyperparams({f"protocol of eval/{name}": label for name in names})
    elif hasattr(getattr(logger, "experiment", None), "add_text"):
        logger.experiment.add_text("eval/protocol", f"{', '.join(names)}: {label}")


def _sentence(error: Exception) -> str:
    """What went wrong, without the end of the sentence."""
    if is_out_of_memory(error):
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return "the memory is too small for it, set a smaller batch_size of Evaluate"
    words = " ".join(str(error).split()).removesuffix(".")
    return words if isinstance(error, UserError) else f"{type(error).__name__}: {words[:300]}"
