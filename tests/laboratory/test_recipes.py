"""The toys from the command line: fit, resume, sample, and the scores that the ring's recipe ends with."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import yaml

from ganzoo.cli import main
from ganzoo.cli.recipes import folder

TOYS = ["ring", "grid", "mixture"]
SMALL = ["--trainer.accelerator", "cpu", "--log.every_kimg", "1", "--trainer.enable_progress_bar", "false"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def rows(run: str) -> list[dict[str, str]]:
    with open(Path(run) / "metrics.csv", newline="") as file:
        return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in csv.DictReader(file)]


def test_a_run_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    """It draws, it goes on as if it had not stopped, and its points can be sampled."""
    fit = ["fit", "--config", "ring.yaml", *SMALL]
    assert main([*fit, "--model.total_kimg", "3", "--run_dir", "stopped"]) == 0
    assert sorted(path.name for path in Path("stopped/laboratory").iterdir()) == [
        "kimg-000000.000.png",
        "kimg-000003.072.png",
    ]
    Path("stopped/laboratory.gif").unlink()  # as if it had been killed right before its end
    capsys.readouterr()
    assert main(["fit", "--resume", "stopped"]) == 0
    assert Path("stopped/laboratory.gif").is_file()
    assert main(["fit", "--resume", "stopped"]) == 0
    assert "is complete, with 3.072 kimg" in capsys.readouterr().out
    assert main(["fit", "--resume", "stopped", "--model.total_kimg", "5"]) == 0
    assert main([*fit, "--model.total_kimg", "5", "--run_dir", "whole"]) == 0
    assert rows("stopped") == rows("whole")
    assert rows("whole")[-1]["toy/modes"] and "toy/sliced_wasserstein" in rows("whole")[-1]
    drawn = [
        {path.name: path.read_bytes() for path in Path(run, "laboratory").iterdir()} for run in ("stopped", "whole")
    ]
    assert drawn[0] == drawn[1]
    assert main(["sample", "whole", "--num", "300", "--out", "points.npy"]) == 0
    assert np.load("points.npy").shape == (300, 2)


@pytest.mark.parametrize("name", TOYS)
def test_schedules_end_with_the_run(name: str) -> None:
    settings = yaml.safe_load((folder() / f"{name}.yaml").read_text())
    model, callbacks = settings["model"]["init_args"], settings["trainer"]["callbacks"]
    for player in ("generator_lr", "discriminator_lr"):
        assert model[player]["init_args"]["to_kimg"] == model["total_kimg"]
    marks = [
        callbacks[0]["init_args"]["every_kimg"],
        settings["log"]["every_kimg"],
        settings["checkpoint"]["every_kimg"],
    ]
    assert all(model["total_kimg"] % mark == 0 for mark in marks)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "num_modes", "high_quality"), [("ring", 8, 0.85), ("grid", 25, 0.8), ("mixture", 3, 0.98)]
)
def test_what_a_recipe_ends_with(name: str, num_modes: int, high_quality: float) -> None:
    assert main(["fit", "--config", f"{name}.yaml", "--trainer.accelerator", "cpu", "--run_dir", name]) == 0
    last = [row for row in rows(name) if row["toy/modes"]][-1]
    assert float(last["toy/modes"]) == num_modes
    assert float(last["toy/high_quality"]) > high_quality
    assert float(last["toy/reverse_kl"]) < 0.1
