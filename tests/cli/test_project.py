"""``ganzoo project``: what is written, how pictures are read, and what is refused."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ganzoo.analysis import projection
from ganzoo.analysis.distances import FeatureDistance, Pixels
from ganzoo.checkpoint import load_model
from ganzoo.cli import main
from ganzoo.data import Digits
from ganzoo.metrics.extractors import Domain
from tests.cli.common import refused

FEW = ["--steps", "12", "--candidates", "8"]


@pytest.fixture(autouse=True)
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three pictures in the current directory's folder photos: wide in colours, tall with transparency, 8x8 gray."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    folder.mkdir()
    levels = np.random.default_rng(0)
    Image.fromarray(levels.integers(0, 256, (10, 30, 3), np.uint8)).save(folder / "a.png")
    Image.fromarray(levels.integers(0, 256, (20, 12, 4), np.uint8)).save(folder / "b.png")
    Image.fromarray(levels.integers(0, 256, (8, 8), np.uint8)).save(folder / "c.png")
    return folder


def cells(path: str | Path, rows: int) -> np.ndarray:
    """Levels of a picture with two cells of 8x8 pixels a row, each pixel enlarged to 8x8: (rows, 2, 8, 8)."""
    with Image.open(path) as image:
        pixels = np.asarray(image)
    assert pixels.shape == (2 + rows * 66, 2 + 2 * 66)
    return np.stack([[pixels[2 + 66 * i :, 2 + 66 * j :][:64:8, :64:8] for j in (0, 1)] for i in range(rows)])


def framed(path: Path, **options: str) -> np.ndarray:
    """The pixels (8, 8) as the run's data make them."""
    return np.array(replace(Digits(image_size=8).framing, **options).file(path.read_bytes())[0])


def test_what_is_written(run: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A row for each picture; latents that make these images again; a record of distances, settings and hashes."""
    assert main(["project", str(run), "--image", "photos", *FEW, "--seed", "5"]) == 0
    found = projection.load("projection.pt")
    names = ["a.png", "b.png", "c.png"]
    targets = np.stack([framed(photos / name) for name in names])
    images = ((found.images.double() + 1) * 127.5).round().clamp(0, 255).numpy()[:, 0]
    np.testing.assert_array_equal(cells("projection.png", 3), np.stack([targets, images], axis=1))
    gan = load_model(run)
    assert torch.equal(projection.render(gan, found), found.images)
    scaled = torch.from_numpy(targets)[:, None].float() / 127.5 - 1
    record = json.loads(Path("projection.json").read_text())
    assert [one["name"] for one in record["images"]] == names
    assert [one["end"] for one in record["images"]] == Pixels()(scaled)(found.images).tolist()
    assert all(one["end"] < one["start"] for one in record["images"])
    assert [one["label"] for one in record["images"]] == found.labels.tolist()
    for one in record["images"]:
        assert one["sha256"] == hashlib.sha256((photos / one["name"]).read_bytes()).hexdigest()
    weights = (run / "checkpoints" / "last.ckpt").read_bytes()
    assert record["hashes"]["checkpoint"] == hashlib.sha256(weights).hexdigest()
    assert record["settings"] == {
        "space": "z", "distance": {"kind": "pixels", "scales": 4}, "seed": 5, "steps": 12, "lr": 0.1, "jitter": 0.05,
        "noise_weight": 1e5, "move_noise": True, "candidates": 8,
    }  # fmt: skip
    assert (record["model"], record["kimg"], record["weights"]) == ("DCGAN", 0.384, "averaged")
    assert capsys.readouterr().out == (
        f"3 images in the space z of DCGAN at 0.384 kimg, mean distance {found.start.mean():.4g} at the start, "
        f"{found.end.mean():.4g} at the end: projection.png, projection.pt, projection.json\n"
    )


def test_the_same_seed_writes_the_same_files(run: Path) -> None:
    for name in ("one", "two"):
        assert main(["project", str(run), "--image", "photos/a.png", *FEW, "--out", f"{name}.png"]) == 0
    for ending in ("png", "json"):
        assert Path(f"one.{ending}").read_bytes() == Path(f"two.{ending}").read_bytes()
    one, two = (projection.load(f"{name}.pt") for name in ("one", "two"))
    assert torch.equal(one.latents, two.latents)


def test_pictures_are_framed_as_the_data_of_the_run(run: Path, photos: Path) -> None:
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    options = {"fit": "pad", "background": "black", "resample": "nearest"}
    content["ganzoo"]["data"]["init_args"] |= options
    torch.save(content, "padded.ckpt")
    assert main(["project", "padded.ckpt", "--image", "photos", "--num", "2", *FEW]) == 0
    targets = np.stack([framed(photos / name, **options) for name in ("a.png", "b.png")])
    np.testing.assert_array_equal(cells("projection.png", 2)[:, 0], targets)
    assert not np.array_equal(targets[0], framed(photos / "a.png"))


def test_labels_weights_and_archives(run: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Labels are repeated in turn; --raw takes the last weights; a zip is read as a folder, and --num said."""
    import zipfile

    with zipfile.ZipFile("some.zip", "w") as archive:
        for path in sorted(photos.iterdir(), reverse=True):
            archive.write(path, path.name)
    words = ["--labels", "3,7", "--raw", "--overwrite", "--batch_size", "1"]
    assert main(["project", str(run), "--image", "some.zip", *FEW, *words]) == 0
    found = projection.load("projection.pt")
    assert found.labels.tolist() == [3, 7, 3]
    assert not found.averaged
    record = json.loads(Path("projection.json").read_text())
    assert [one["name"] for one in record["images"]] == ["a.png", "b.png", "c.png"]
    assert record["weights"] == "raw"
    assert main(["project", str(run), "--image", "some.zip", *FEW, *words, "--num", "2"]) == 0
    assert capsys.readouterr().err == "note: 2 of the 3 pictures are projected (--num)\n"
    assert len(projection.load("projection.pt").latents) == 2


def test_features_are_compared(run: Path, photos: Path) -> None:
    assert main(["project", str(run), "--image", "photos/c.png", *FEW, "--extractor", "digits-cnn"]) == 0
    found, extractor = projection.load("projection.pt"), Domain()
    target = torch.from_numpy(framed(photos / "c.png"))[None, None].float() / 127.5 - 1
    assert found.end.item() == pytest.approx(FeatureDistance(extractor)(target)(found.images).item(), rel=1e-4)
    settings = json.loads(Path("projection.json").read_text())["settings"]
    assert settings["distance"] == {"kind": "features", "extractor": "digits-cnn", "weights": extractor.weights_hash}


@pytest.fixture(scope="module")
def styled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """StyleGAN of 8x8 digits, whose noise is strong enough to be seen."""
    folder = tmp_path_factory.mktemp("runs") / "styled"
    small = "--model.channel_base 64 --model.channel_max 8 --model.style_dim 4 --model.latent_dim 4"
    options = f"--model StyleGAN {small} --model.mapping_layers 2 --data Digits --data.image_size 8"
    options += f" --data.batch_size 8 --trainer.max_steps 2 --trainer.accelerator cpu --run_dir {folder}"
    assert main(["fit", *options.split()]) == 0
    path = folder / "checkpoints" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    for name, value in content["state_dict"].items():
        if name.endswith("strength"):
            value.fill_(0.3)
    torch.save(content, path)
    return folder


def test_styles_and_noise_maps(styled: Path) -> None:
    for space, shape in (("w", (1, 4)), ("w+", (1, 4, 4)), ("z", (1, 4))):
        words = ["--space", space] if space != "w" else []
        assert main(["project", str(styled), "--image", "photos/c.png", "--out", f"{space}.png", *FEW, *words]) == 0
        found = projection.load(f"{space}.pt")
        assert (found.space, found.latents.shape, found.labels) == (space, shape, None)
        assert {name: value.shape[2] for name, value in found.noise.items()} == {
            "noise.0": 4, "noise.1.up": 8, "noise.1": 8,
        }  # fmt: skip
        assert torch.equal(projection.render(load_model(styled), found), found.images)
    moved = projection.load("w.pt").noise["noise.1"]
    assert main(["project", str(styled), "--image", "photos/c.png", "--out", "fixed.png", *FEW, "--fixed_noise"]) == 0
    fixed = projection.load("fixed.pt").noise["noise.1"]
    assert not torch.allclose(moved, fixed, atol=0.01)
    assert json.loads(Path("fixed.json").read_text())["settings"]["move_noise"] is False


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["RUN"], "the following arguments are required: --image; see ganzoo project --help."),
        (["RUN", "--image", "x"], "--image x does not exist: give a picture, or a folder or archive of some."),
        (
            ["RUN", "--image", "notes.txt"],
            "--image notes.txt is neither a picture nor a folder, zip or tar of some that is whole.",
        ),
        (
            ["RUN", "--image", "text.png"],
            "text.png cannot be read as a picture (UnidentifiedImageError): leave it out, or mend it.",
        ),
        (
            ["RUN", "--image", "empty"],
            "There are no pictures in empty: give a picture, or a folder or archive of some.",
        ),
        (["nowhere", "--image", "photos"], "nowhere does not exist: give a run directory or a .ckpt file."),
        (
            ["RUN", "--image", "photos", "--out", "x.gif"],
            "--out x.gif must be a file that ends in .png; the latents and the record lie beside it.",
        ),
        (
            ["RUN", "--image", "photos", "--out", "taken.png"],
            "taken.json exists already: give another --out, or add --overwrite.",
        ),
        (
            ["RUN", "--image", "photos", "--space", "w"],
            "The space w was to be searched, but DCGAN has no styles: search z.",
        ),
        (
            ["RUN", "--image", "photos", "--labels", "x"],
            "--labels was x, but must be numbers of classes, such as 0,1,2.",
        ),
        (
            ["RUN", "--image", "photos", "--labels", "10"],
            "The labels [10, 10, 10] were given for 3 samples; give each one from 0 to 9.",
        ),
        (["RUN", "--image", "photos", "--num", "0"], "--num was 0; give 1 or more."),
        (
            ["RUN", "--image", "photos", "--steps", "0"],
            "A projection was given steps 0, which must be 1 or more, and finite.",
        ),
        (
            ["RUN", "--image", "photos", "--extractor", "no.pt"],
            "There is no extractor no.pt: train one with ganzoo extractor, or name one that is shipped (digits-cnn).",
        ),
        (
            ["RUN", "--image", "photos", "--extractor.path", "x.pt"],
            "--extractor.path needs --extractor, the one that it is an option of.",
        ),
        (
            ["RUN", "--image", "photos", "--config", "dcgan.yaml"],
            "There is no option --config: the model says by itself what it was trained on.",
        ),
    ],
)
def test_mistakes(arguments: list[str], sentence: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("notes.txt").write_text("notes")
    Path("text.png").write_text("notes")
    Path("taken.json").write_text("precious")
    Path("empty").mkdir()
    assert refused(capsys, "project", *(str(run) if word == "RUN" else word for word in arguments)) == sentence
    assert Path("taken.json").read_text() == "precious"
    assert not Path("projection.png").exists()


def test_points_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model", "MLPGAN", "--data", "Ring", "--trainer.max_steps", "1", "--trainer.accelerator", "cpu"]
    assert main(["fit", *options]) == 0
    capsys.readouterr()
    sentence = "MLPGAN makes points of shape (2,), but what is projected is an image: give a model of images."
    assert refused(capsys, "project", "runs/mlpgan-1", "--image", "photos") == sentence
