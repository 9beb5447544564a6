"""Grids of the same latents over time: right pictures, at the right times, without a trace in the training."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from torch import Tensor, nn

from ganzoo.callbacks import Checkpoint, GracefulStop, Samples
from ganzoo.callbacks.samples import layout
from ganzoo.errors import UserError
from ganzoo.gan import GAN
from ganzoo.generator import Generator
from ganzoo.images import grid
from tests.callbacks.common import At, Dies, Noise, die, run, same_state, tiny
from tests.common import Critic


def grids(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "samples").iterdir())}


def pixels(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as image:
        return np.asarray(image)


def test_grids_are_drawn_at_the_start_at_marks_and_at_the_end(tmp_path: Path) -> None:
    before = np.asarray(grid(tiny().sample(9, seed=3)))
    gan = tiny(0.55)
    run(gan, tmp_path, [Samples(0.2, 9, seed=3)])
    assert list(grids(tmp_path)) == [f"kimg-000000.{k}.png" for k in ("000", "200", "400", "550")]
    assert (pixels(tmp_path / "samples" / "kimg-000000.000.png") == before).all()
    after = np.asarray(grid(gan.sample(9, seed=3)))
    assert (pixels(tmp_path / "samples" / "kimg-000000.550.png") == after).all()
    assert (before != after).any()


def test_an_end_on_a_mark_is_drawn_once(tmp_path: Path) -> None:
    run(tiny(0.4), tmp_path, [Samples(0.2, 4)])
    assert list(grids(tmp_path)) == [f"kimg-000000.{k}.png" for k in ("000", "200", "400")]


def test_the_animation_holds_every_grid(tmp_path: Path) -> None:
    run(tiny(0.4), tmp_path, [Samples(0.1, 4)])
    with Image.open(tmp_path / "samples.gif") as animation:
        assert animation.n_frames == 5
        for k, path in enumerate(sorted((tmp_path / "samples").iterdir())):
            animation.seek(k)
            assert (np.asarray(animation.convert("L")) == pixels(path)).all()  # gray needs no palette of its own
    run(tiny(0.4), tmp_path / "without", [Samples(0.1, 4, gif=False)])
    assert not (tmp_path / "without" / "samples.gif").exists()


class NoisyGenerator(Generator):
    """Batch statistics, dropout and noise of its own: whatever sampling could disturb."""

    latent_dim = 3

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 16), nn.BatchNorm1d(16), nn.Dropout(0.3), nn.Linear(16, 64))

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        latents = latents + 0.1 * torch.randn_like(latents)
        return self.layers(latents).tanh().unflatten(1, (1, 8, 8))  # type: ignore[no-any-return]


@pytest.mark.parametrize("ema", [{}, {"ema": None}])
def test_sampling_leaves_the_training_as_it_was_bit_by_bit(tmp_path: Path, ema: dict[str, Any]) -> None:
    results = []
    for callbacks in ([], [Samples(0.05, 8, averaged=not ema)]):
        torch.manual_seed(1)
        gan = GAN(NoisyGenerator(), Critic(64), total_kimg=0.5, **ema)
        run(gan, tmp_path / str(len(callbacks)), callbacks)
        assert gan.generator.training and all(module.training for module in gan.generator.modules())
        results.append((gan, torch.random.get_rng_state()))
    (alone, state), (sampled, state_after) = results
    assert same_state(alone, sampled)
    assert torch.equal(state, state_after)
    assert len(grids(tmp_path / "1")) == 11


class LabelGenerator(Generator):
    """A flat image whose shade says the class."""

    latent_dim = 2

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        assert labels is not None
        return (self.scale * (labels / 10 - 0.5))[:, None, None, None].expand(-1, 1, 8, 8)


@pytest.mark.parametrize(("classes", "expected"), [(None, [0, 1, 2]), ([2, 0], [2, 0])])
def test_conditional_models_show_a_class_per_column(
    tmp_path: Path, classes: list[int] | None, expected: list[int]
) -> None:
    gan = GAN(LabelGenerator(), Critic(64), num_classes=3, total_kimg=0.05)
    run(gan, tmp_path, [Samples(0, 8, classes=classes)], data=Noise(num_classes=3))
    shown = pixels(tmp_path / "samples" / "kimg-000000.000.png")
    rows = 8 // len(expected)
    assert shown.shape == (2 + rows * 66, 2 + len(expected) * 66)
    for column, label in enumerate(expected):
        cells = [shown[2 + row * 66 : 66 + row * 66, 2 + column * 66 : 66 + column * 66] for row in range(rows)]
        assert all((cell == round((label / 10 + 0.5) * 127.5)).all() for cell in cells)


def test_layouts_are_square_or_have_a_column_per_class() -> None:
    assert layout(64, 0, None) == (8, None)
    assert layout(64, 10, None) == (10, list(range(10)) * 6)
    assert layout(64, 1000, None) == (8, list(range(8)) * 8)
    assert layout(2, 3, None) == (3, [0, 1, 2])
    assert layout(64, 1000, [7, 900]) == (2, [7, 900] * 32)


def test_points_are_not_drawn(tmp_path: Path) -> None:
    run(tiny(0.1, shape=(2,)), tmp_path, [Samples(0.05)], data=Noise((2,)))
    assert not (tmp_path / "samples").exists() and not (tmp_path / "samples.gif").exists()


def test_after_a_kill_and_a_resume_the_grids_are_those_of_the_run_that_never_stopped(tmp_path: Path) -> None:
    def callbacks() -> list[Any]:
        return [Samples(0.1, 4), Checkpoint(0.25)]

    run(tiny(0.95), tmp_path / "whole", callbacks())
    folder = tmp_path / "killed"
    with pytest.raises(Dies):
        run(tiny(0.95, parts=[At("generator", 13, die)]), folder, callbacks())
    (folder / "samples" / ".kimg-000000.650.png.tmp").write_bytes(b"half of a picture")
    assert "kimg-000000.600.png" in grids(folder)
    drawn = (folder / "samples" / "kimg-000000.500.png").stat().st_mtime_ns
    run(tiny(0.95), folder, callbacks(), resume=folder / "checkpoints" / "last.ckpt")
    assert (folder / "samples" / "kimg-000000.500.png").stat().st_mtime_ns == drawn  # right before the checkpoint
    assert grids(folder) == grids(tmp_path / "whole")
    assert (folder / "samples.gif").read_bytes() == (tmp_path / "whole" / "samples.gif").read_bytes()


def test_grids_beyond_the_checkpoint_are_gone_before_anything_else_happens(tmp_path: Path) -> None:
    with pytest.raises(Dies):
        run(tiny(1.0, parts=[At("generator", 13, die)]), tmp_path, [Samples(0.1, 4), Checkpoint(0.25)])
    with pytest.raises(Dies):
        last = tmp_path / "checkpoints" / "last.ckpt"
        run(tiny(1.0, parts=[At("discriminator", 10, die)]), tmp_path, [Samples(0.1, 4), Checkpoint(0.25)], resume=last)
    assert list(grids(tmp_path))[-1] == "kimg-000000.500.png"


def test_a_run_whose_end_is_moved_has_no_trace_of_the_first_end(tmp_path: Path) -> None:
    run(tiny(0.6), tmp_path / "whole", [Samples(0.2, 4), Checkpoint(0)])
    folder = tmp_path / "moved"
    run(tiny(0.3), folder, [Samples(0.2, 4), Checkpoint(0)])
    assert "kimg-000000.300.png" in grids(folder)
    run(tiny(0.6), folder, [Samples(0.2, 4), Checkpoint(0)], resume=folder / "checkpoints" / "last.ckpt")
    assert grids(folder) == grids(tmp_path / "whole")


def test_a_run_that_a_signal_stopped_draws_no_grid_of_its_own_but_the_animation(tmp_path: Path) -> None:
    stop = GracefulStop()
    gan = tiny(1.0, parts=[At("generator", 4, lambda: stop._receive(15, None))])
    run(gan, tmp_path, [Samples(0.1, 4), stop])
    assert list(grids(tmp_path)) == [f"kimg-000000.{k}.png" for k in ("000", "100", "200")]
    with Image.open(tmp_path / "samples.gif") as animation:
        assert animation.n_frames == 3


def test_tensorboard_gets_the_grids_at_the_number_of_images(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tiny(0.2), tmp_path, [Samples(0.1, 4)], logger=TensorBoardLogger(tmp_path, "tensorboard", ""))
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Images("samples/grid")
    assert [event.step for event in events] == [0, 100, 200]
    assert (events[0].width, events[0].height) == pixels(tmp_path / "samples" / "kimg-000000.000.png").shape


def test_a_grid_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="Grids of 0 samples"):
        Samples(num=0)


def test_a_full_disk_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ganzoo.errors import TrainingError

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TrainingError, match="The grid of samples could not be written"):
        run(tiny(0.1), tmp_path, [Samples(0, 4)])
    assert list((tmp_path / "samples").iterdir()) == []
