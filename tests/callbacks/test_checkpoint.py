"""Checkpoints: whole whenever the process dies, never of a broken model, and enough to go on bit by bit."""

from __future__ import annotations

import math
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ganzoo import checkpoint
from ganzoo.callbacks import Checkpoint, GracefulStop, Log, Progress, Samples
from ganzoo.errors import TrainingError, UserError
from ganzoo.parts import Part, Turn
from tests.callbacks.common import At, Dies, die, run, same_state, tiny


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder / "checkpoints"))


def images_in(path: Path) -> int:
    return int(checkpoint.read(path)["ganzoo"]["clock"]["images"])


def test_a_checkpoint_at_every_mark_and_last_at_the_end(tmp_path: Path) -> None:
    run(tiny(0.55), tmp_path, [Checkpoint(0.2)])
    assert names(tmp_path) == ["kimg-000000.200.ckpt", "kimg-000000.400.ckpt", "last.ckpt"]
    assert [images_in(tmp_path / "checkpoints" / name) for name in names(tmp_path)] == [200, 400, 550]


def test_last_is_the_same_file_as_the_newest_mark(tmp_path: Path) -> None:
    run(tiny(0.4), tmp_path, [Checkpoint(0.2)])
    newest, last = (tmp_path / "checkpoints" / name for name in names(tmp_path)[1:])
    assert newest.name == "kimg-000000.400.ckpt" and os.path.samefile(newest, last)


@pytest.mark.parametrize(("keep", "kept"), [("all", [2, 4, 6, 8]), (2, [6, 8]), (1, [8]), (0, [])])
def test_keep_leaves_the_newest_ones(tmp_path: Path, keep: Any, kept: list[int]) -> None:
    run(tiny(0.8), tmp_path, [Checkpoint(0.2, keep=keep)])
    assert names(tmp_path) == [*(f"kimg-000000.{k}00.ckpt" for k in kept), "last.ckpt"]
    assert images_in(tmp_path / "checkpoints" / "last.ckpt") == 800


@pytest.mark.parametrize("keep", [-1, "some"])
def test_what_cannot_be_kept_is_refused(keep: Any) -> None:
    with pytest.raises(UserError, match="keep was"):
        Checkpoint(keep=keep)


def test_everything_in_it_is_plain_data(tmp_path: Path) -> None:
    callbacks = [Log(0.1), Samples(0.1, 4), Checkpoint(0.15), GracefulStop(), Progress()]
    run(tiny(0.2), tmp_path, callbacks)
    for name in names(tmp_path):
        content = torch.load(tmp_path / "checkpoints" / name, weights_only=True)
        assert set(content["callbacks"]) == {"Log", "Samples"}


def test_it_acts_after_all_others_at_the_same_mark(tmp_path: Path) -> None:
    """So a resume repeats neither the row nor the grid of the mark."""
    trainer = run(tiny(0.2), tmp_path, [Checkpoint(0.1), Log(0.1), Samples(0.1, 4), GracefulStop()])
    assert [type(c).__name__ for c in trainer.callbacks] == ["Samples", "GracefulStop", "Log", "Checkpoint"]
    content = checkpoint.read(tmp_path / "checkpoints" / "kimg-000000.100.ckpt")
    assert content["callbacks"] == {"Log": {"images": 100}, "Samples": {"images": 100}}
    assert content["ganzoo"]["meter"] == tiny().meter.state()


@pytest.mark.parametrize("stop", [0.25, 0.3, 0.8])
def test_a_resume_from_a_kill_or_from_an_earlier_end_is_exact(tmp_path: Path, stop: float) -> None:
    whole = tiny(1.0)
    run(whole, tmp_path / "whole", [Checkpoint(0.2)])
    run(tiny(stop), tmp_path / "short", [Checkpoint(0.2)])
    resumed = tiny(1.0)
    last = tmp_path / "short" / "checkpoints" / "last.ckpt"
    trainer = run(resumed, tmp_path / "short", [Checkpoint(0.2)], resume=last)
    assert resumed.clock == whole.clock and same_state(resumed, whole)
    assert trainer.global_step == 20
    ends = [tmp_path / k / "checkpoints" / "last.ckpt" for k in ("whole", "short")]
    first, second = (checkpoint.read(end) for end in ends)
    for a, b in zip(first["optimizer_states"], second["optimizer_states"], strict=True):
        assert all(torch.equal(a["state"][i][k], b["state"][i][k]) for i in a["state"] for k in a["state"][i])


CHILD = """
import os, sys, signal
from pathlib import Path
import torch
from ganzoo.callbacks import Checkpoint
from tests.callbacks.common import run, tiny
save, count = torch.save, 0
def half(content, file):
    global count
    count += 1
    if count < 3:
        return save(content, file)
    file.write(b"half of a checkpoint" * 1000)
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
torch.save = half
run(tiny(1.0), Path(sys.argv[1]), [Checkpoint(0.1)])
"""


def test_kill_in_the_middle_of_writing_loses_nothing(tmp_path: Path) -> None:
    child = subprocess.run([sys.executable, "-c", CHILD, str(tmp_path)], capture_output=True)
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()
    whole = ["kimg-000000.100.ckpt", "kimg-000000.200.ckpt", "last.ckpt"]
    assert names(tmp_path) == [".kimg-000000.300.ckpt.tmp", *whole]
    assert images_in(tmp_path / "checkpoints" / "last.ckpt") == 200
    resumed = tiny(1.0)
    run(resumed, tmp_path, [Checkpoint(0)], resume=tmp_path / "checkpoints" / "last.ckpt")
    assert names(tmp_path) == whole
    uninterrupted = tiny(1.0)
    run(uninterrupted, tmp_path / "whole", [])
    assert same_state(resumed, uninterrupted)


def limited_files() -> None:
    """From now on this process cannot write files over 4 kB, as if the disk were full. (The limit is soft.)"""
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def test_a_disk_that_is_full_leaves_the_last_good_checkpoint(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    gan = tiny(1.0, parts=[At("generator", 7, limited_files)])
    try:
        with pytest.raises(TrainingError) as error:
            run(gan, tmp_path, [Checkpoint(0.3)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    last = tmp_path / "checkpoints" / "last.ckpt"
    assert str(error.value) == (
        "The checkpoint at 0.6 kimg could not be written (File too large): see that the disk has room and that the "
        "run's folder can be written to. "
        f"The last good checkpoint, of 0.3 kimg, is kept: {last}."
    )
    assert names(tmp_path) == ["kimg-000000.300.ckpt", "last.ckpt"] and images_in(last) == 300


def test_no_room_for_the_file_to_be_synced_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    gan = tiny(1.0, parts=[At("generator", 7, lambda: monkeypatch.setattr(os, "fsync", full))])
    with pytest.raises(TrainingError, match=r"0.6 kimg could not be written \(No space left on device\).* of 0.3 kimg"):
        run(gan, tmp_path, [Checkpoint(0.3)])
    assert names(tmp_path) == ["kimg-000000.300.ckpt", "last.ckpt"]


class Spoil(Part):
    """The loss of one turn of the discriminator is not a number."""

    players = ("discriminator",)

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def forward(self, turn: Turn) -> Tensor | None:
        return torch.tensor(math.nan) if turn.number == self.number else None


@pytest.mark.parametrize("with_log", [True, False])
def test_a_loss_that_is_not_finite_never_replaces_a_good_checkpoint(tmp_path: Path, with_log: bool) -> None:
    callbacks: list[Any] = [Log(0.1)] if with_log else []
    with pytest.raises(TrainingError) as error:
        run(tiny(1.0, parts=[Spoil(7)]), tmp_path, [*callbacks, Checkpoint(0.2)])
    sentence = str(error.value)
    assert "total/d is not finite since turn 7 of its player" in sentence
    assert "The last good checkpoint, of 0.2 kimg, is kept" in sentence
    assert names(tmp_path) == ["kimg-000000.200.ckpt", "last.ckpt"]
    state = checkpoint.read(tmp_path / "checkpoints" / "last.ckpt")["state_dict"]
    assert all(torch.isfinite(value).all() for value in state.values())


def test_without_a_checkpoint_the_sentence_says_so(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"turn 1 of its player.*No checkpoint had been written yet"):
        run(tiny(1.0, parts=[Spoil(1)]), tmp_path, [Checkpoint(0.2)])


def test_weights_that_are_not_finite_are_not_saved_even_if_every_loss_was(tmp_path: Path) -> None:
    gan = tiny(1.0)

    def spoil() -> None:
        gan.generator.layers[0].weight.data[2, 1] = math.inf

    gan.tricks.append(At("generator", 7, spoil))
    with pytest.raises(
        TrainingError, match=r"generator.layers.0.weight is not finite at 0.4 kimg .*of 0.2 kimg, is kept"
    ):
        run(gan, tmp_path, [Log(0.4), Checkpoint(0.2)])
    assert names(tmp_path) == ["kimg-000000.200.ckpt", "last.ckpt"]


def test_other_errors_keep_their_words(tmp_path: Path) -> None:
    with pytest.raises(Dies) as error:
        run(tiny(1.0, parts=[At("generator", 7, die)]), tmp_path, [Checkpoint(0.2)])
    assert error.value.args == ()
