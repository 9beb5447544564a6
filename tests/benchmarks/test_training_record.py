"""The record of a training says what decided it and what came out, and nothing about the machine's folders."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.scores import training
from ganzoo import files
from ganzoo.cli import main
from ganzoo.data import Digits
from ganzoo.metrics import record
from ganzoo.metrics.protocol import Protocol
from ganzoo.metrics.record import Record, Score
from tests.cli.common import TINY

PROTOCOL = Protocol(num=100)


def test_the_record_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, out = tmp_path / "run", tmp_path / "out.json"
    assert main(["fit", *TINY, "--run_dir", str(run), "--trainer.accelerator", "cpu", "--seed", "3"]) == 0
    for kimg, protocol in ((0.3, PROTOCOL), (0.1, PROTOCOL), (0.2, replace(PROTOCOL, seed=1))):
        one = Record("run", protocol, {"swd": Score(kimg * 10)}, kimg)
        record.save([one], run / "evaluations" / f"{kimg}.json")
    command = "ganzoo fit --config tiny.yaml"
    monkeypatch.setattr(sys, "argv", ["training", str(run), "--command", command, "--out", str(out)])
    training.main()
    found = json.loads(out.read_text())
    assert (found["kimg"], found["generator_updates"], found["seed"], found["command"]) == (0.384, 6, 3, command)
    assert found["model"]["init_args"]["width"] == 4 and found["data"]["init_args"]["image_size"] == 8
    assert found["data_hash"] == Digits(image_size=8, labels=True).content_hash
    assert found["checkpoint_sha256"] == files.sha256(run / "checkpoints" / "last.ckpt")
    assert found["last_row"]["progress/kimg"] == 0.384
    first, second = found["evaluations"]
    assert first["scores"] == [{"kimg": 0.1, "swd": 1.0}, {"kimg": 0.3, "swd": 3.0}]
    assert second["protocol"]["seed"] == 1 and second["scores"] == [{"kimg": 0.2, "swd": 2.0}]
    assert str(tmp_path) not in out.read_text()


def test_a_path_is_its_last_name() -> None:
    settings = {"path": "/some/where/pictures.tar.xz", "init_args": {"split": "train", "labels": True}}
    assert training._without_places(settings) == {**settings, "path": "pictures.tar.xz"}
