"""``ganzoo extractor``: from a command line to a file that scores can use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ganzoo.cli import main
from ganzoo.metrics.extractors import Domain
from ganzoo.metrics.extractors.domain import SHIPPED
from tests.cli.common import ROOT, refused

DIGITS = ("extractor", "--data", "Digits", "--data.image_size", "8", "--width", "8")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def coloured(tmp_path: Path) -> Path:
    """Folders train and test, each with 40 red and 40 blue pictures of 10x10 pixels; test has other ones."""
    g = np.random.default_rng(0)
    for part in ("train", "test"):
        for place, name in ((0, "red"), (2, "blue")):
            folder = tmp_path / "pictures" / part / name
            folder.mkdir(parents=True)
            for number in range(40):
                pixels = g.integers(0, 80, (10, 10, 3), dtype=np.uint8)
                pixels[..., place] += 150
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "pictures"


def test_a_short_one_of_digits(capsys: pytest.CaptureFixture[str]) -> None:
    """The file holds what the command says, and the network that it makes knows digits already."""
    assert main([*DIGITS, "--epochs", "10", "--out", "tiny.pt", "--seed", "3"]) == 0
    out, err = capsys.readouterr()
    extractor = Domain("tiny.pt")
    extractor.load()
    facts = extractor.facts
    accuracy = facts["held_out"]["accuracy"]
    assert accuracy > 0.6  # of ten classes
    assert out == (
        f"tiny.pt: {100 * accuracy:.2f} % of 359 held-out images right (1438 to train on, 10 classes, 8 features)\n"
    )
    assert "images/s" in err
    assert (facts["recipe"]["seed"], facts["recipe"]["shift"], facts["recipe"]["kimg"]) == (3, 1, 17.97)
    assert extractor.score_name("fd") == "fd/tiny"
    held = torch.load("tiny.pt", weights_only=True)
    assert held["network"] == {"shape": [1, 8, 8], "num_classes": 10, "width": 8, "blocks": 1}


def test_a_recipe_and_another_set_held_out(coloured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Data come from the recipe and the options over it; the held-out set differs in one option."""
    Path("my.yaml").write_text(
        f"model: DCGAN\ndata:\n  class_path: ImageFolder\n  init_args:\n    path: {coloured}\n    split: train\n"
        "    image_size: 32\n    mirror: true\n"
    )
    options = ["--data.image_size", "10", "--held_out.split", "test", "--width", "4", "--kimg", "2"]
    assert main(["extractor", "--config", "my.yaml", *options, "--batch_size", "20", "--out", "c.pt"]) == 0
    assert "100.00 % of 80 held-out images right (80 to train on, 2 classes" in capsys.readouterr().out
    facts = Domain("c.pt")
    facts.load()
    assert facts.channels == 3 and facts.image_size == [10, 10]
    assert facts.facts["class_names"] == ["blue", "red"]
    assert facts.facts["recipe"]["mirror"] is True
    assert facts.facts["data"] == "pictures/train" and facts.facts["held_out"]["data"] == "pictures/test"
    assert facts.facts["content_hash"] != facts.facts["held_out"]["content_hash"]


def test_mistakes_are_answered_by_one_sentence(
    coloured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plain").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "plain" / "a.png")
    (tmp_path / "there.pt").write_text("")
    (tmp_path / "model.yaml").write_text("model: DCGAN\n")
    folder = ["--data", "ImageFolder", "--data.image_size", "8", "--data.path"]
    out = ["--out", "x.pt"]
    cases = [
        (["--data", "Digits"], "give --out NAME.pt"),
        (["--data", "Digits", "--out", "x.pth"], "must be a file that ends in .pt"),
        (["--data", "Digits", "--out", "there.pt"], "exists already"),
        (out, "ganzoo extractor needs data"),
        ([*out, "--data", "Digitz"], "There is no class Digitz (data): did you mean Digits?"),
        ([*out, "--data", "Digits", "--data.image_siz", "8"], "did you mean image_size?"),
        ([*out, "--data", "Digits", "--widht", "8"], "There is no option --widht: did you mean --width?"),
        ([*out, "--data", "Digits", "--width", "wide"], "--width: invalid int value"),
        ([*out, "--data", "Digits", "--kimg", "1", "--epochs", "1"], "give one of them"),
        ([*out, "--data", "Digits", "--held_out", "0.1", "--held_out.split", "test"], "give one of them"),
        ([*out, "--data", "Digits", "--held_out.spilt", "test"], "There is no setting data.spilt"),
        ([*out, "--data", "Digits", "--device", "abacus"], "--device was abacus"),
        ([*out, "--data", "Digits", "--data"], "--data needs a value"),
        ([*out, "--config", "model.yaml"], "has no section data"),
        ([*out, "--data", "Ring"], "Ring holds no images"),
        ([*out, *folder, str(tmp_path / "plain")], "plain has no classes"),
        ([*out, *folder, str(coloured)], "has the splits test, train"),
        ([*out, "--data", "Digits", "--import", "no_such_module"], "There is no module no_such_module"),
    ]
    for arguments, sentence in cases:
        assert sentence in refused(capsys, "extractor", *arguments), arguments
    same = ["--data.path", str(coloured / "train"), "--held_out.path", str(coloured / "train")]
    assert main(["extractor", *out, *folder[:-1], *same]) == 2
    assert "is the very set that is trained on" in capsys.readouterr().err
    assert not Path("x.pt").exists()


def test_a_config_cannot_name_foreign_classes(capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.yaml").write_text("data:\n  class_path: os.system\n  init_args: {command: touch proof}\n")
    assert "names the class os.system" in refused(capsys, "extractor", "--config", "bad.yaml", "--out", "x.pt")
    assert "os.system" in refused(capsys, "extractor", "--data", "os.system", "--out", "x.pt")
    assert not Path("proof").exists()


@pytest.mark.slow
def test_the_shipped_file_is_made_by_the_documented_command(tmp_path: Path) -> None:
    """The same seed gives the same accuracy on any machine to within one digit, on the same machine the same bytes."""
    command = "extractor --data Digits --width 10 --kimg 40 --out digits-cnn.pt".split()
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        subprocess.run([sys.executable, "-m", "ganzoo", *command], cwd=tmp_path / folder, env=env, check=True)
    assert (tmp_path / "a/digits-cnn.pt").read_bytes() == (tmp_path / "b/digits-cnn.pt").read_bytes()
    again, shipped = Domain(str(tmp_path / "a/digits-cnn.pt")), Domain(str(SHIPPED["digits-cnn"]))
    again.load()
    shipped.load()
    accuracies = [one.facts["held_out"]["accuracy"] for one in (again, shipped)]
    assert abs(accuracies[0] - accuracies[1]) <= 1.01 / 359
    same = ("data", "content_hash", "num", "class_names", "recipe")
    assert [again.facts[name] for name in same] == [shipped.facts[name] for name in same]
