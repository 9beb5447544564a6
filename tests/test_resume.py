"""A run that was stopped and resumed ends bitwise as the run that was never stopped."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ganzoo.data import Digits
from ganzoo.gan import GAN
from ganzoo.models import MLPGAN
from ganzoo.plan import Play
from ganzoo.schedules import Linear
from tests.common import quiet_trainer

RECIPE = """
model:
  class_path: MLPGAN
  init_args:
    latent_dim: 8
    hidden: 16
    num_layers: 2
    pieces: 2
    dropout: 0.3
    accumulate: 2
    total_kimg: 3.7
    play: {class_path: Play, init_args: {d: 2, g: 1}}
    stages: [{class_path: Play, init_args: {d: 1, g: 0, kimg: 0.6}}]
    generator_lr: {class_path: Linear, init_args: {start: 1.0, end: 0.2, to_kimg: 3.0}}
    ema: {class_path: EMA, init_args: {half_life_kimg: 0.5}}
    parts: [{class_path: stopping.StopAt}]
data: {class_path: Digits, init_args: {image_size: 8, batch_size: 32, num_workers: 2}}
log: {every_kimg: 0.1}
samples: {every_kimg: 1.0, num: 16}
checkpoint: {every_kimg: 0.8}
"""

STOPPING = """
import os, signal
from ganzoo.parts import Part

class StopAt(Part):
    '''Sends a signal to its own process at a given turn.'''

    def __init__(self) -> None:
        super().__init__()

    def after_step(self, turn):
        player, number, name = os.environ.get("STOP_AT", "nobody 0 SIGTERM").split()
        if (turn.player, turn.number) == (player, int(number)):
            os.kill(os.getpid(), getattr(signal, name))
"""


def ganzoo(folder: Path, *arguments: str, stop_at: str = "", expect: int | None = 0) -> str:
    root = Path(__file__).resolve().parent.parent
    env = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{folder}", "GANZOO_CACHE": str(folder / "cache")}
    env |= {"OMP_NUM_THREADS": "1"} | ({"STOP_AT": stop_at} if stop_at else {})
    command = [sys.executable, "-m", "ganzoo", *arguments, "--import", "stopping"]
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=300)
    assert expect is None or done.returncode == expect, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def rows(run: Path) -> list[dict[str, str]]:
    with open(run / "metrics.csv", newline="") as file:
        return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in csv.DictReader(file)]


def same(a, b, path: str = "") -> None:
    """Bitwise equality of nested plain data and tensors."""
    assert type(a) is type(b), path
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            same(a[key], b[key], f"{path}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), path
        for number, (x, y) in enumerate(zip(a, b, strict=True)):
            same(x, y, f"{path}/{number}")
    else:
        assert a == b or (a != a and b != b), path


@pytest.mark.slow
def test_stopped_four_times_and_resumed_in_new_processes(tmp_path) -> None:
    """Inside the first stage (SIGTERM), right after a grid was drawn (kill), before the end of an epoch (SIGTERM), and
    a resume of a resume; with two D turns, EMA, a schedule, dropout, accumulation and two loader processes."""
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "stopping.py").write_text(STOPPING)
    fit = ("fit", "--config", "recipe.yaml", "--run_dir")
    ganzoo(tmp_path, *fit, "whole")
    # 19 turns of 32 images in the stage, then two turns per cycle: the second grid (2.0 kimg) is drawn after 22 cycles,
    # at 608 + 22 * 64 = 2016 images; turn 64 is in the cycle after it, when the last checkpoint is that of 1.6 kimg.
    stops = [
        ("discriminator 5 SIGTERM", 6 * 32),
        ("discriminator 64 SIGKILL", 608 + 16 * 64),
        ("discriminator 54 SIGTERM", 608 + 18 * 64),
        ("discriminator 100 SIGTERM", 608 + 41 * 64),
    ]
    for number, (stop, images) in enumerate(stops):
        arguments = ("fit", "--resume", "parts") if number else (*fit, "parts")
        killed = stop.endswith("KILL")
        said = ganzoo(tmp_path, *arguments, stop_at=stop, expect=-signal.SIGKILL if killed else 128 + signal.SIGTERM)
        assert killed or f"stopped at {images / 1000:g} kimg" in said
        content = torch.load(tmp_path / "parts" / "checkpoints" / "last.ckpt", weights_only=True)
        assert content["ganzoo"]["clock"]["images"] == images
    assert "Done at 3.744 kimg" in ganzoo(tmp_path, "fit", "--resume", "parts")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    a, b = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (whole, parts))
    assert a["ganzoo"]["clock"]["images"] >= 3700
    for key in ("state_dict", "optimizer_states", "ganzoo"):
        same(a[key], b[key], key)
    assert rows(whole) == rows(parts)
    assert len(rows(whole)) >= 36
    grids = {run.name: {p.name: p.read_bytes() for p in (run / "samples").glob("*.png")} for run in (whole, parts)}
    assert len(grids["whole"]) == 5
    assert grids["whole"] == grids["parts"]
    gifs = [next(run.rglob("*.gif")).read_bytes() for run in (whole, parts)]
    assert gifs[0] == gifs[1]


def train(folder: Path, steps: int, *, start: Path | None = None, shared: bool = False) -> tuple[GAN, Path]:
    torch.manual_seed(4)
    gan = MLPGAN(
        (1, 8, 8),
        hidden=8,
        dropout=0.3,
        accumulate=2,
        play=Play(2, 1, shared=shared),
        stages=[Play(1, 0, kimg=0.1)],
        generator_lr=Linear(1.0, 0.2, to_kimg=1.0),
    )
    trainer = quiet_trainer(max_steps=steps)
    trainer.fit(gan, Digits(image_size=8, batch_size=16), ckpt_path=start, weights_only=True)
    trainer.save_checkpoint(folder / f"{steps}.ckpt")
    return gan, folder / f"{steps}.ckpt"


@pytest.mark.parametrize(("stop", "shared"), [(1, False), (57, False), (58, False), (57, True)])
def test_resume_in_one_process_is_bitwise(tmp_path, monkeypatch, stop, shared) -> None:
    """Near the start and on both sides of the end of the data's first epoch (1,797 images)."""
    monkeypatch.setenv("GANZOO_CACHE", str(tmp_path / "cache"))
    _, whole = train(tmp_path, 60, shared=shared)
    whole = whole.rename(tmp_path / "whole.ckpt")
    _, first = train(tmp_path, stop, shared=shared)
    torch.manual_seed(99)  # another state of the global generator must not matter
    torch.randn(5)
    _, second = train(tmp_path, 60, start=first, shared=shared)
    a, b = (torch.load(path, weights_only=True) for path in (whole, second))
    for key in ("state_dict", "optimizer_states", "ganzoo"):
        same(a[key], b[key], key)
    assert a["ganzoo"]["clock"]["drawn"] == 112 + 60 * 32  # the stage takes seven turns of 16
