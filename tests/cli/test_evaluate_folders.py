"""``ganzoo evaluate`` of pictures that are not as the others: what is said of them, and which are the reference."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ganzoo.cli import main
from ganzoo.metrics import record
from ganzoo.metrics.evaluation import Evaluation
from tests.cli.common import refused

FEW = ["--metrics", "swd", "--set", "swd_directions=4", "--device", "cpu"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GANZOO_CACHE", str(tmp_path / "cache"))


def pictures(folder: str, num: int, height: int = 8, width: int = 8, channels: int = 3, *, seed: int = 0) -> None:
    Path(folder).mkdir(parents=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (num, height, width, channels)).astype(np.uint8)
    for i, one in enumerate(pixels):
        Image.fromarray(one.squeeze(-1) if channels == 1 else one).save(f"{folder}/{i}.png")


def evaluate(*arguments: str) -> record.Record:
    assert main(["evaluate", *arguments, *FEW, "--json", "out.json", "--overwrite"]) == 0
    (found,) = record.load("out.json")
    return found


@pytest.mark.parametrize(
    ("shape", "note"),
    [
        ((8, 8, 3), ""),
        ((16, 16, 3), "note: pictures of real are read as 8x8 in colours; those that are not so are cropped, resized"),
        ((8, 8, 1), "note: pictures of real are read as 8x8 in colours; those that are not so are cropped, resized"),
        ((8, 8, 4), "note: transparent pictures of real are put on white; programs that drop transparency score"),
    ],
)
def test_a_reference_of_another_kind_is_noted(
    shape: tuple[int, int, int], note: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures("made", 3)
    pictures("real", 3, *shape, seed=1)
    found = evaluate("made", "--against", "real")
    assert found.protocol.reference == "real, 8x8"
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note")]
    assert len(said) == bool(note) and all(line.startswith(note) for line in said)


def test_the_split_of_a_folder_is_chosen_and_never_mixed(capsys: pytest.CaptureFixture[str]) -> None:
    pictures("made", 3)
    pictures("set/train", 5, seed=1)
    pictures("set/test", 4, seed=2)
    evaluate("made", "--against", "made")  # the first look at pictures says where they are kept
    capsys.readouterr()
    assert "has the splits test, train; choose one" in refused(capsys, "evaluate", "made", "--against", "set", *FEW)
    for split, num in (("train", 5), ("test", 4)):
        found = evaluate("made", "--against", "set", "--against.split", split)
        assert (found.protocol.split, found.protocol.reference_num) == (split, num)
        assert found.protocol.reference_hash == evaluate("made", "--against", f"set/{split}").protocol.reference_hash
    assert evaluate("made", "--against", "set", "--against.split", ".").protocol.split == "all"


def test_a_set_with_splits_gives_the_one_of_the_protocol() -> None:
    """As a run's own data do; unless another is named."""
    pictures("made", 3)
    pictures("set/train", 5, seed=1)
    pictures("set/test", 4, seed=2)
    data = {"class_path": "ImageFolder", "init_args": {"path": "set", "split": "train", "image_size": 8}}
    Path("mine.yaml").write_text(json.dumps({"data": data}))
    assert evaluate("made", "--config", "mine.yaml").protocol.split == "train"
    found = evaluate("made", "--config", "mine.yaml", "--set", "split=test")
    assert (found.protocol.split, found.protocol.reference_num) == ("test", 4)
    found = evaluate("made", "--config", "mine.yaml", "--against.split", "train", "--set", "split=test")
    assert (found.protocol.split, found.protocol.reference_num) == ("train", 5)


def test_all_images_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    pictures("made", 3)
    sentence = "--num was 2, but made holds 3 images, which are all measured: leave it out."
    evaluate("made", "--against", "made")
    capsys.readouterr()
    assert refused(capsys, "evaluate", "made", "--against", "made", "--num", "2", *FEW) == sentence
    assert evaluate("made", "--against", "made", "--num", "3").protocol.num == 3


def test_scores_are_shown_where_their_file_cannot_be_written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    pictures("made", 3)
    monkeypatch.setattr(record, "save", full)
    assert main(["evaluate", "made", "--against", "made", *FEW, "--json", "out.json"]) == 1
    said = capsys.readouterr()
    assert "| made |  | 0 |" in said.out and "The file of the records" in said.err


def test_a_full_memory_is_a_sentence(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    pictures("made", 3)
    monkeypatch.setattr(Evaluation, "collect_images", full)
    assert main(["evaluate", "made", "--against", "made", *FEW]) == 1
    assert (
        "error: The memory is too small for this evaluation: make batch_size smaller than 64" in capsys.readouterr().err
    )
