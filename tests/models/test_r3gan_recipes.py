"""R3GAN's recipe and its overlay for a CPU, narrow: three cycles of the command on handwritten digits."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from ganzoo.checkpoint import load_model
from ganzoo.cli import main
from tests.common import max_difference
from tests.models.test_resnet_recipes import KEEP, ROOT, content
from tests.models.test_sngan import built, num
from tests.test_resume import same

#: The recipe, and with its overlay.
RECIPES = ["r3gan", "r3gan r3gan-cpu"]


def arguments(name: str, *more: str) -> list[str]:
    """At batch 4 on digits with their labels, 16 channels; p of the augmentation rises from the first cycle on."""
    options = "--data Digits --data.channels 1 --data.image_size 16 --data.batch_size 4 --samples.num 4 "
    options += "--model.width 16 --model.max_width 16 --trainer.max_steps 3 --trainer.accelerator cpu"
    return ["fit", *(f"--config={one}.yaml" for one in name.split()), *options.split(), *more]


@pytest.mark.parametrize("name", [RECIPES[0], pytest.param(RECIPES[1], marks=pytest.mark.slow)])
def test_a_resumed_run_is_bitwise_the_uninterrupted_one(name, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*arguments(name), "--run_dir", "whole"]) == 0
    assert main([*arguments(name), "--run_dir", "parts", "--trainer.max_steps", "1"]) == 0
    first = content("parts")["state_dict"]
    assert main(["fit", "--resume", "parts", "--trainer.max_steps", "3"]) == 0
    whole, parts = content("whole"), content("parts")
    assert whole["ganzoo"]["clock"]["g_turns"] == whole["ganzoo"]["clock"]["d_turns"] == 3
    for key in ("state_dict", "optimizer_states", "ganzoo"):
        same({k: v for k, v in whole[key].items() if k != "config"} if key == "ganzoo" else whole[key], parts[key])
    moved = {k for k, v in whole["state_dict"].items() if v.is_floating_point() and not torch.equal(v, first[k])}
    assert {k.partition(".")[0] for k in moved} >= {"generator", "discriminator", "generator_ema"}
    assert load_model("whole").sample(2, labels=[3, 7]).shape == (2, 1, 16, 16)


@pytest.mark.slow
def test_mixed_precision(tmp_path, monkeypatch) -> None:
    """It trains in bfloat16, keeps weights in single precision, and is not the run in single precision."""
    monkeypatch.chdir(tmp_path)
    states = []
    for precision in ("32-true", "bf16-mixed"):
        assert main([*arguments("r3gan"), "--trainer.precision", precision, "--run_dir", precision]) == 0
        states.append(content(precision)["state_dict"])
    for network in ("generator", "discriminator"):
        single, half = (
            torch.cat([v.flatten() for k, v in state.items() if k.startswith(f"{network}.")]) for state in states
        )
        assert half.dtype == torch.float32
        assert half.isfinite().all()
        assert 0 < (single - half).norm() < 0.1 * single.norm()


@pytest.mark.slow
def test_two_processes_are_one(tmp_path, monkeypatch) -> None:
    """Both have the same in the end, and what one process has on the joint batch: nothing is of one device alone."""
    (tmp_path / "keep.py").write_text(KEEP)
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}", "OMP_NUM_THREADS": "1"}
    fit = [sys.executable, "-m", "ganzoo", *arguments("r3gan"), "--model.parts+=keep.Keep", "--import", "keep"]
    two = ["--config", "ddp.yaml", "--trainer.devices", "2", "--trainer.accelerator", "cpu"]
    for run, more in (("one", []), ("two", two)):
        command = [*fit, *more, "--run_dir", run]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"rank-{rank}.pt", weights_only=True) for rank in (0, 1))
    same(first, second)
    states = [content(str(tmp_path / run))["state_dict"] for run in ("one", "two")]
    one, joint = (
        {k: v for k, v in state.items() if not k.startswith("parts.")} for state in states
    )  # counts are each's
    assert max_difference(one, joint) < 1e-4
    monkeypatch.syspath_prepend(tmp_path)
    assert load_model(tmp_path / "two", ["keep"]).sample(2).isfinite().all()


def test_the_overlay() -> None:
    """A block in each stage, of 64 channels and of 32 at the size of the images; schedules a hundredth as long."""
    plain, narrow = built("r3gan.yaml"), built("r3gan.yaml", "r3gan-cpu.yaml")
    assert [stage.width for stage in narrow.generator.stages] == [64, 64, 64, 32]
    assert all(len(stage) == 1 for stage in [*narrow.generator.stages, *narrow.discriminator.stages])
    assert num(narrow.generator) < num(plain.generator) / 100
    schedules = [(penalty.weight, other.weight) for penalty, other in zip(plain.tricks[1:], narrow.tricks, strict=True)]
    schedules += [
        (plain.players[name].lr_schedule, narrow.players[name].lr_schedule) for name in ("generator", "discriminator")
    ]
    assert len(schedules) == 4
    for long, short in schedules:
        assert [long(kimg) for kimg in (0, 5e3, 2e4)] == [short(kimg) for kimg in (0, 50, 200)]
