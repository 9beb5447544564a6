"""Weights & Biases: an offline run, read back."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ganzoo.callbacks import Checkpoint, Log, Samples
from ganzoo.config import build
from ganzoo.loggers import WandbLogger
from tests.callbacks.common import run, tiny


@cache
def records(folder: Path) -> list[dict[str, Any]]:
    """What wandb's own reader finds in one run."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [json.loads(line) for line in lines]


def pixels(path: Path) -> bytes:
    with Image.open(path) as image:
        return np.asarray(image).tobytes()


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 0.4 kimg whose end is then moved to 0.6 kimg, in two runs of wandb."""
    folder = tmp_path_factory.mktemp("run")
    for total, resume in ((0.4, None), (0.6, folder / "checkpoints" / "last.ckpt")):
        logger = WandbLogger(offline=True, tags=["test"])
        logger.use_directory(folder)
        callbacks = [Log(0.1), Samples(0.2, 4), Checkpoint(0)]
        run(tiny(total), folder, callbacks, resume=resume, logger=logger)
    return folder


def test_rows_and_grids_are_on_the_clock_of_images(offline: Path) -> None:
    runs = sorted((offline / "wandb").glob("offline-run-*"))
    assert len(runs) == 2
    with open(offline / "metrics.csv", newline="") as file:
        table = {float(row["progress/kimg"]): row for row in csv.DictReader(file)}
    expected = {runs[0]: ([0.1, 0.2, 0.3, 0.4], [0.0, 0.2, 0.4]), runs[1]: ([0.5, 0.6], [0.6])}
    for folder, (kimg_of_rows, kimg_of_grids) in expected.items():
        history = [record["history"]["item"] for record in records(folder) if record["type"] == "history"]
        rows = [item for item in history if "loss/d" in item]
        assert [row["progress/kimg"] for row in rows] == kimg_of_rows
        for row in rows:
            written = table[row["progress/kimg"]]
            assert all(float(written[name]) == row[name] for name in written)
        grids = [item for item in history if any(name.startswith("samples/grid") for name in item)]
        assert [item["progress/kimg"] for item in grids] == kimg_of_grids


def test_kimg_is_the_axis_of_everything(offline: Path) -> None:
    for folder in (offline / "wandb").glob("offline-run-*"):
        metrics = [record["metric"] for record in records(folder) if record["type"] == "metric"]
        assert [m["step_metric"] for m in metrics if m.get("glob_name") == "*"][-1] == "progress/kimg"


def test_a_resumed_run_goes_on_under_the_same_id(offline: Path) -> None:
    ids = {path.name.rpartition("-")[2] for path in (offline / "wandb").glob("offline-run-*")}
    assert ids == {(offline / "wandb-id.txt").read_text().strip()}


def test_the_pictures_are_the_grids(offline: Path) -> None:
    drawn = {pixels(path) for path in (offline / "samples").glob("*.png")}
    logged = [pixels(path) for path in (offline / "wandb").glob("offline-run-*/files/media/images/samples/grid_*.png")]
    assert len(drawn) == len(logged) == 4 and set(logged) == drawn


def test_it_can_be_named_in_a_config() -> None:
    config = WandbLogger("zoo", offline=True, tags=["a"]).config()
    json.dumps(config)
    assert build(config).config() == config
