"""A run that is killed while it evaluates, by SIGKILL and in a process of its own, goes on as if it never had been."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.cli.common import ROOT
from tests.test_resume import same

pytestmark = pytest.mark.slow

RECIPE = """
model: {class_path: DCGAN, init_args: {width: 4, latent_dim: 8, total_kimg: 0.384}}
data: {class_path: Digits, init_args: {image_size: 8, batch_size: 32, labels: true}}
trainer:
  accelerator: cpu
  callbacks:
    - class_path: Evaluate
      init_args:
        every_kimg: 0.128
        protocol: digits
        num: 60
        batch_size: 30
        metrics: [fd, kd, prdc]
        options: {kid_subset_size: 50}
        extractor: {class_path: mortal.Mortal}
checkpoint: {every_kimg: 0.064, monitor: eval/fd/digits-cnn}
log: {every_kimg: 0.064}
"""

#: The digits' extractor that kills its process: at a number of passes, or when half of a file of the cache is written.
MORTAL = """
import os, signal
from pathlib import Path

import torch

from ganzoo.metrics.extractors import Domain

passes, save = 0, torch.save


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def half(content, place, *further):
    if os.environ.get("KILL_AT") == "cache" and "references" in str(place):
        Path(place).write_bytes(b"half")
        die()
    save(content, place, *further)


torch.save = half


class Mortal(Domain):
    '''May kill its process.'''

    def extract(self, images):
        global passes
        passes += 1
        if os.environ.get("KILL_AT") == str(passes):
            die()
        return super().extract(images)
"""

REFERENCE = -(-1797 // 30)  #: passes
EVALUATION = 2


def fit(folder: Path, *arguments: str, cache: str, kill_at: object = "") -> None:
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}", "GANZOO_CACHE": str(folder / cache)}
    env |= {"OMP_NUM_THREADS": "1", "KILL_AT": str(kill_at)}
    command = [sys.executable, "-m", "ganzoo", "fit", *arguments, "--import", "mortal"]
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == (-signal.SIGKILL if kill_at else 0), done.stdout[-2000:] + done.stderr[-3000:]


def rows(run: Path) -> list[dict[str, str]]:
    with open(run / "metrics.csv", newline="") as file:
        return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in csv.DictReader(file)]


def records(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run / "evaluations" / "digits-cnn-fd-kd-prdc").iterdir()}


def references(cache: Path) -> set[str]:
    return {path.name for path in (cache / "references").iterdir() if path.is_dir()}


def test_killed_while_it_evaluates_and_resumed(tmp_path: Path) -> None:
    """While statistics of the reference are written, and in the middle of the second evaluation."""
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "mortal.py").write_text(MORTAL)
    new = ("--config", "recipe.yaml", "--run_dir")
    fit(tmp_path, *new, "whole", cache="one")
    built = references(tmp_path / "one")
    fit(tmp_path, *new, "first", cache="two", kill_at="cache")
    assert references(tmp_path / "two") == {f"{name}.partial" for name in built}
    fit(tmp_path, *new, "parts", cache="two", kill_at=REFERENCE + EVALUATION + 2)
    assert references(tmp_path / "two") == built
    parts, whole = tmp_path / "parts", tmp_path / "whole"
    assert list(records(parts)) == ["kimg-000000.128.json"]
    fit(tmp_path, "--resume", "parts", cache="two")
    assert len(rows(whole)) == 6 and rows(parts) == rows(whole)
    scores = [row["eval/fd/digits-cnn"] for row in rows(whole)]
    assert [bool(score) for score in scores] == [False, True, False, True, False, True]
    assert sorted(records(whole)) == [f"kimg-000000.{images}.json" for images in (128, 256, 384)]
    assert {name: text.replace(b'"parts"', b'"whole"') for name, text in records(parts).items()} == records(whole)
    a, b = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (whole, parts))
    for key in ("state_dict", "optimizer_states", "ganzoo", "callbacks"):
        same(a[key], b[key], key)
