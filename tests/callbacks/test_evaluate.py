"""Scores while training: in the row of their mark, without a trace in the weights, and never the end of a run."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ganzoo import checkpoint
from ganzoo.callbacks import Checkpoint, Evaluate, Log, Samples
from ganzoo.data import Ring
from ganzoo.data.batch import Batch
from ganzoo.errors import UserError
from ganzoo.metrics import record
from ganzoo.metrics.extractors.base import Features
from ganzoo.metrics.presets import preset
from tests.callbacks.common import Noise, run, same_state, tiny
from tests.metrics.fakes import Corner
from tests.mutants import kills

KEY = "eval/fd/corner-3"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANZOO_CACHE", str(tmp_path / "cache"))


class NoiseImages(Noise):
    """The noise, with a set of 80 images to compare with."""

    num = 80

    def __init__(self, shape: tuple[int, ...] = (1, 8, 8)) -> None:
        super().__init__(shape)
        self.images = torch.randint(256, (80, *shape), generator=torch.Generator().manual_seed(9), dtype=torch.uint8)
        self.content_hash = hashlib.sha256(self.images.numpy().tobytes()).hexdigest()
        self.dataset = self

    def __getitem__(self, indices: Any) -> Batch:
        return Batch(self.images[torch.from_numpy(np.asarray(indices))], None)


def evaluate(every_kimg: float = 0.2, **options: Any) -> Evaluate:
    return Evaluate(every_kimg, "digits", **{"num": 40, "extractor": Corner(), "batch_size": 16, **options})


def fit(folder: Path, callbacks: list[Any], *, total_kimg: float = 0.8, **options: Any) -> Any:
    gan = tiny(total_kimg)
    run(gan, folder, callbacks, data=NoiseImages(), **options)
    return gan


def rows(folder: Path) -> dict[int, dict[str, str]]:
    with open(folder / "metrics.csv", newline="") as file:
        return {int(row["progress/images"]): row for row in csv.DictReader(file)}


def scores(folder: Path, key: str = KEY) -> dict[int, float]:
    return {images: float(row[key]) for images, row in rows(folder).items() if row.get(key)}


def expected(gan: Any) -> float:
    """The distance by another program: numpy's covariances and scipy's root."""
    from tests.metrics.test_evaluation import frechet

    fake = ((gan.sample(40) + 1) * 127.5).round().clamp(0, 255)
    return frechet(*(x.flatten(1)[:, :3].double().numpy() for x in (fake, NoiseImages().images)))


def test_a_score_is_in_the_row_of_its_mark(tmp_path: Path) -> None:
    fit(tmp_path, [evaluate(), Log(0.1), Checkpoint(0.2)])
    found = scores(tmp_path)
    assert list(found) == [200, 400, 600, 800] and len(rows(tmp_path)) == 8
    for images, score in found.items():
        gan = checkpoint.load_model(tmp_path / "checkpoints" / f"kimg-000000.{images}.ckpt")
        assert score == pytest.approx(expected(gan), rel=1e-6)
        (kept,) = record.load(tmp_path / "evaluations" / "corner-3-fd" / f"kimg-000000.{images}.json")
        assert kept.scores["fd/corner-3"].value == score and kept.kimg == images / 1000
        assert (kept.protocol.num, kept.protocol.reference_num, kept.protocol.extractor) == (40, 80, "corner-3")


def leaves_no_trace(make: Callable[[], Evaluate]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        with_, without = fit(Path(first), [make(), Log(0.1)]), fit(Path(second), [Log(0.1)])
        assert same_state(with_, without)
        own = [
            {k: v for k, v in row.items() if not k.startswith(("time/", "eval/"))} for row in rows(Path(first)).values()
        ]
        other = [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows(Path(second)).values()]
        assert own == other


class Spoiling(Evaluate):
    """Wrong: it moves the trained weights a little, as an evaluation in training mode would move statistics."""

    def _measure(self, trainer: Any, gan: Any, *, passing: bool) -> None:
        super()._measure(trainer, gan, passing=passing)
        next(gan.generator.parameters()).data.mul_(1 + 1e-6)


def test_training_is_bitwise_the_same_with_it() -> None:
    leaves_no_trace(evaluate)
    kills(leaves_no_trace, lambda: Spoiling(0.2, "digits", num=40, extractor=Corner()))


def test_the_end_between_two_marks_is_measured_and_forgotten_by_a_resume(tmp_path: Path) -> None:
    callbacks = lambda: [evaluate(), Log(0.1), Checkpoint(0.2)]  # noqa: E731
    fit(tmp_path / "whole", callbacks())
    fit(tmp_path / "short", callbacks(), total_kimg=0.5)
    assert list(scores(tmp_path / "short")) == [200, 400, 500]
    last = tmp_path / "short" / "checkpoints" / "last.ckpt"
    gan = tiny(0.8)
    run(gan, tmp_path / "short", callbacks(), data=NoiseImages(), resume=last)
    assert scores(tmp_path / "short") == scores(tmp_path / "whole")
    names = [
        sorted(path.name for path in (tmp_path / k / "evaluations" / "corner-3-fd").iterdir())
        for k in ("whole", "short")
    ]
    assert names[0] == names[1]


class Killed(BaseException):
    """Stands for a kill in the middle of an evaluation."""


class Deadly(Corner):
    """Dies when it has seen so many images."""

    def __init__(self, limit: int) -> None:
        """
        Args:
            limit: Images after which it dies.
        """
        super().__init__()
        self.limit = limit

    def extract(self, images: torch.Tensor) -> Features:
        if self.seen >= self.limit:
            raise Killed
        return super().extract(images)


def test_kill_during_an_evaluation_then_resume_gives_the_same_numbers(tmp_path: Path) -> None:
    callbacks = lambda extractor: [evaluate(extractor=extractor), Log(0.1), Checkpoint(0.1, monitor=KEY)]  # noqa: E731
    whole = fit(tmp_path / "whole", callbacks(Corner()))
    with pytest.raises(Killed):  # in the third evaluation: 80 real images, and 40 twice
        fit(tmp_path / "killed", callbacks(Deadly(80 + 2 * 40 + 16)))
    assert list(scores(tmp_path / "killed")) == [200, 400]
    last = tmp_path / "killed" / "checkpoints" / "last.ckpt"
    resumed = tiny(0.8)
    run(resumed, tmp_path / "killed", callbacks(Corner()), data=NoiseImages(), resume=last)
    assert same_state(resumed, whole)
    assert scores(tmp_path / "killed") == scores(tmp_path / "whole")
    best = [checkpoint.read(tmp_path / k / "checkpoints" / "best.ckpt")["ganzoo"]["clock"] for k in ("whole", "killed")]
    assert best[0] == best[1]


# ------------------------------------------------------------------ what fails


class Failing(Corner):
    """Raises something when it is to look at samples, or when it is loaded."""

    def __init__(self, error: str, *, at_once: bool = False) -> None:
        """
        Args:
            error: Kind of error.
            at_once: Whether loading fails already.
        """
        super().__init__()
        self.error, self.at_once = error, at_once

    def load(self) -> None:
        if self.at_once:
            self._raise()

    def extract(self, images: torch.Tensor) -> Features:
        if self.seen >= 80:  # the reference
            self._raise()
        return super().extract(images)

    def _raise(self) -> None:
        if self.error == "memory":
            raise torch.OutOfMemoryError("out of memory")
        if self.error == "missing":
            raise UserError("The weights of Corner are nowhere.")
        raise RuntimeError("something odd")


SENTENCES = {
    "memory": "The evaluation was left out: the memory is too small for it, set a smaller batch_size of Evaluate. The "
    "training goes on.",
    "missing": "The evaluation was left out: The weights of Corner are nowhere. The training goes on.",
    "odd": "The evaluation was left out: RuntimeError: something odd. The training goes on.",
}


@pytest.mark.parametrize("error", SENTENCES)
@pytest.mark.parametrize("at_once", [True, False])
def test_what_fails_is_said_once_and_the_training_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], error: str, at_once: bool
) -> None:
    gan = fit(tmp_path / "a", [evaluate(extractor=Failing(error, at_once=at_once)), Log(0.1), Checkpoint(0.4)])
    said = [line for line in capsys.readouterr().err.splitlines() if "features of" not in line]
    assert said == [SENTENCES[error]]
    assert same_state(gan, fit(tmp_path / "b", [Log(0.1)]))
    assert len(rows(tmp_path / "a")) == 8 and scores(tmp_path / "a") == {}


def test_one_that_takes_too_long_has_no_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(tmp_path, [evaluate(max_seconds=0.0), Log(0.1)])
    assert scores(tmp_path) == {}
    assert "it had seen 16 of 40 samples after 0 s, so it has no score; set num to 16" in capsys.readouterr().err


def test_a_score_that_is_not_finite_does_not_end_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class NoNumber(Evaluate):
        def _scores(self, trainer: Any, evaluation: Any, joint: Any) -> Any:
            evaluation.scores = lambda fake: {"fd/corner-3": record.Score(float("nan"))}
            return super()._scores(trainer, evaluation, joint)

    fit(tmp_path, [NoNumber(0.2, "digits", num=40, extractor=Corner()), Log(0.1)])
    assert scores(tmp_path) == {} and len(rows(tmp_path)) == 8
    assert "eval/fd/corner-3 is not finite, so it is not in the log." in capsys.readouterr().err


def test_a_record_that_finds_no_room_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(records: object, path: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(record, "save", full)
    gan = fit(tmp_path / "a", [evaluate(), Log(0.1)])
    said = capsys.readouterr().err
    assert said.count("The record of the evaluation could not be written (No space left on device)") == 1
    assert said.count("Its scores are in the log, and the training goes on.") == 1
    monkeypatch.undo()
    monkeypatch.setenv("GANZOO_CACHE", str(tmp_path / "cache"))
    assert same_state(gan, fit(tmp_path / "b", [evaluate(), Log(0.1)]))
    assert len(scores(tmp_path / "a")) == 4 and scores(tmp_path / "a") == scores(tmp_path / "b")


def test_too_few_samples_are_remarked_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(tmp_path, [evaluate(extractor=Corner(50)), Log(0.1)])
    assert capsys.readouterr().err.count("50 features from 40 samples has rank 39") == 1


def test_what_is_wrong_from_the_beginning_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no protocol 'fid'"):
        Evaluate(protocol="fid")
    with pytest.raises(UserError, match="no metric 'fid'"):
        Evaluate(metrics=["fid"])
    with pytest.raises(UserError, match="there is no choice sede"):
        Evaluate(options={"sede": 1})
    with pytest.raises(UserError, match="Evaluate compares samples with real images"):
        run(tiny(0.1), tmp_path, [evaluate()])
    with pytest.raises(UserError, match="Ring holds points, not images"):
        run(tiny(0.1, shape=(2,)), tmp_path, [evaluate()], data=Ring(batch_size=50))


def test_two_of_them_measure_side_by_side(tmp_path: Path) -> None:
    second = Evaluate(0.4, "digits", num=30, extractor=Corner(2), metrics=["prdc"], options={"seed": 1})
    fit(tmp_path, [evaluate(), second, Log(0.1), Checkpoint(0.4)])
    assert list(scores(tmp_path)) == [200, 400, 600, 800]
    assert list(scores(tmp_path, "eval/precision/corner-2")) == [400, 800]
    found = {path.name: len(list(path.iterdir())) for path in (tmp_path / "evaluations").iterdir()}
    assert found == {"corner-3-fd": 4, "corner-2-prdc": 2}
    with pytest.raises(UserError, match="Two of the callbacks Evaluate measure fd in the features of corner-3"):
        fit(tmp_path / "twice", [evaluate(), evaluate(0.4, num=20)])


def test_its_arguments_are_plain_data() -> None:
    config = evaluate().config()
    assert json.loads(json.dumps(config)) == config
    assert config["init_args"]["extractor"]["class_path"] == "tests.metrics.fakes.Corner"
    assert Evaluate().protocol == preset("quick").protocol


# ------------------------------------------------------------------ the best checkpoint


class Scores(Log):
    """Gives the scores of a list, one per 0.1 kimg."""

    def __init__(self, values: list[float], every: int = 1) -> None:
        """
        Args:
            values: By mark.
            every: Marks from one score to the next.
        """
        super().__init__(0.1)
        self.values, self.every = values, every

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if pl_module.clock.crossed(0.1):
            mark = pl_module.clock.images // 100 - 1
            if mark % self.every == 0:
                pl_module.meter.score("eval/x", self.values[mark], pl_module.clock)
        super().on_train_batch_end(trainer, pl_module)


def best_images(folder: Path) -> int:
    return int(checkpoint.read(folder / "checkpoints" / "best.ckpt")["ganzoo"]["clock"]["images"])


VALUES = [5.0, 3.0, 4.0, 2.9, 2.5, 9.0]


def keeps_the_best(make: Callable[..., Checkpoint]) -> None:
    import tempfile

    for mode, best, intervals in (("min", 500, (0.1, 0.4, 0)), ("max", 600, (0.2,))):
        for every in intervals:  # also between two marks of the checkpoint
            with tempfile.TemporaryDirectory() as folder:
                run(tiny(0.6), Path(folder), [Scores(VALUES), make(every, keep=1, monitor="eval/x", mode=mode)])
                assert best_images(Path(folder)) == best
                last = checkpoint.read(Path(folder) / "checkpoints" / "last.ckpt")
                assert last["ganzoo"]["clock"]["images"] == 600
                (state,) = [state for name, state in last["callbacks"].items() if name != "Scores"]
                assert state == {"images": best, "score": VALUES[best // 100 - 1]}


class KeepsTheLast(Checkpoint):
    """Wrong: every score is better."""

    def _note_score(self, gan: Any) -> bool:
        self.best = None
        return super()._note_score(gan)


class OnlyAtMarks(Checkpoint):
    """Wrong: a best score between two checkpoints is lost."""

    def _note_score(self, gan: Any) -> bool:
        return super()._note_score(gan) and gan.clock.crossed(self.every_kimg)


def test_best_and_last_are_kept() -> None:
    keeps_the_best(Checkpoint)
    kills(keeps_the_best, KeepsTheLast)
    kills(keeps_the_best, OnlyAtMarks)
    kills(keeps_the_best, lambda every, mode, **options: Checkpoint(every, mode="min", **options))


def test_the_first_of_equal_scores_stays(tmp_path: Path) -> None:
    run(tiny(0.4), tmp_path, [Scores([5.0, 3.0, 4.0, 3.0]), Checkpoint(0.1, monitor="eval/x")])
    assert best_images(tmp_path) == 200


@pytest.mark.parametrize("stop", [0.3, 0.5])
def test_a_resume_remembers_the_best(tmp_path: Path, stop: float) -> None:
    values = [5.0, 1.0, 4.0, 3.0, 2.5, 2.0]
    make = lambda: [Scores(values, 1), Checkpoint(0.1, monitor="eval/x")]  # noqa: E731
    run(tiny(stop), tmp_path, make())
    run(tiny(0.6), tmp_path, make(), resume=tmp_path / "checkpoints" / "last.ckpt")
    assert best_images(tmp_path) == 200


def test_an_old_score_does_not_make_later_weights_the_best(tmp_path: Path) -> None:
    run(tiny(0.6), tmp_path, [Scores(VALUES, 3), Checkpoint(0.1, monitor="eval/x", keep=0)])  # measured at 100 and 400
    assert best_images(tmp_path) == 400


def test_a_score_that_nobody_measures_is_told(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="monitor is eval/fdi, which nobody measures; there are eval/x"):
        run(tiny(0.3), tmp_path, [Scores(VALUES), Checkpoint(0.1, monitor="eval/fdi")])
    assert not (tmp_path / "checkpoints" / "best.ckpt").exists()


def test_with_grids_and_without_a_monitor_nothing_is_the_best(tmp_path: Path) -> None:
    fit(tmp_path, [evaluate(), Samples(0.4, 4), Log(0.1), Checkpoint(0.4)])
    assert not (tmp_path / "checkpoints" / "best.ckpt").exists()
    with pytest.raises(UserError, match="mode was 'low'"):
        Checkpoint(mode="low")  # type: ignore[arg-type]
