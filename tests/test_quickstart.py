"""The main job: three seeds of quickstart.yaml, judged by a classifier that never saw a generated digit."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ganzoo.checkpoint import load_model
from tests.judge import Judge, train_judge

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def judge() -> Judge:
    judge = train_judge()
    assert judge.accuracy >= 0.97
    return judge


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_digits_are_recognised(tmp_path, judge, seed) -> None:
    command = [sys.executable, "-m", "ganzoo", "fit", "--config", "quickstart.yaml", "--seed", str(seed)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, "--run_dir", "run"], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    run = tmp_path / "run"
    checkpoints = ("checkpoints/last.ckpt", "checkpoints/kimg-000020.000.ckpt")
    for name in ("config.yaml", "metrics.csv", "samples.gif", *checkpoints):
        assert (run / name).is_file(), sorted(str(p.relative_to(run)) for p in run.rglob("*"))
    assert len(list((run / "samples").glob("*.png"))) == 21
    with open(run / "metrics.csv", newline="") as file:
        curve = [float(row["eval/fd/digits-cnn"]) for row in csv.DictReader(file) if row["eval/fd/digits-cnn"]]
    print(f"seed {seed}: fd/digits-cnn {curve}")
    assert len(curve) == 10
    assert max(curve[5:]) < min(curve[:2])
    assert curve[-1] < curve[0] / 4
    samples = load_model(run).sample(1000, seed=1)
    sure, classes = judge(samples)
    print(f"seed {seed}: sure of {sure:.3f} (of real ones {judge.sure:.3f}), rarest class {classes.min():.3f}")
    assert sure >= 0.9 * judge.sure
    assert classes.min() >= 0.03
    assert torch.unique(samples.flatten(1), dim=0).shape[0] == 1000
