"""``ganzoo sample``: the same seed gives the same images, whatever else is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from ganzoo import streams
from ganzoo.checkpoint import load_model
from ganzoo.cli import main
from tests.cli.common import refused


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def levels(path: str | Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def expected(run: Path, num: int, **options: object) -> np.ndarray:
    """Levels of the model's samples, computed here."""
    samples = load_model(run).sample(num, **options)
    return ((samples.double() + 1) * 127.5).round().clamp(0, 255).numpy().astype(np.uint8)[:, 0]


def test_single_files_are_the_model_s_samples(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", str(run), "--num", "3", "--seed", "5", "--out", "folder"]) == 0
    assert capsys.readouterr().out == "3 samples of DCGAN at 0.384 kimg: folder\n"
    found = [levels(path) for path in sorted(Path("folder").iterdir())]
    assert [path.name for path in sorted(Path("folder").iterdir())] == ["0000.png", "0001.png", "0002.png"]
    np.testing.assert_array_equal(found, expected(run, 3, seed=5))


def test_a_grid_holds_them_in_rows(run: Path) -> None:
    assert main(["sample", str(run), "--num", "6", "--columns", "3", "--out", "grid.png"]) == 0
    pixels, samples = levels("grid.png"), expected(run, 6, seed=0)
    size = (pixels.shape[1] - 2) // 3  # cell and padding
    assert pixels.shape == (2 + 2 * size, 2 + 3 * size)
    factor = (size - 2) // 8
    cell = pixels[2 + size : 2 * size, 2:size]  # the fourth: second row, first column
    np.testing.assert_array_equal(cell[::factor, ::factor], samples[3])


def test_labels_are_repeated_in_turn(run: Path) -> None:
    assert main(["sample", str(run), "--num", "5", "--labels", "3,7", "--out", "a"]) == 0
    found = [levels(path) for path in sorted(Path("a").iterdir())]
    np.testing.assert_array_equal(found, expected(run, 5, seed=0, labels=[3, 7, 3, 7, 3]))


def test_labels_are_drawn_as_in_the_data_of_the_run(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sample i has the label of one of the 1,797 digits, sorted; nobody needs them again to say so."""
    monkeypatch.setenv("GANZOO_CACHE", "empty")
    listed = sorted(load_digits().target.tolist())
    labels = [listed[streams.key(5, "label", i) % 1797] for i in range(12)]
    assert main(["sample", str(run), "--num", "12", "--seed", "5", "--labels", "data", "--out", "a"]) == 0
    found = [levels(path) for path in sorted(Path("a").iterdir())]
    np.testing.assert_array_equal(found, expected(run, 12, seed=5, labels=labels))
    options = ["--num", "2", "--interpolate", "1", "--seed", "5", "--labels", "data", "--out", "ways.npy"]
    assert main(["sample", str(run), *options]) == 0
    ways = np.load("ways.npy")
    ends = load_model(run).sample(2, seed=5, labels=labels[:1] * 2).numpy()
    assert np.abs(ways[[0, 2]] - ends).max() < 1e-5
    assert not Path("empty").exists()
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    del content["ganzoo"]["class_counts"]  # as before they were kept
    torch.save(content, "old.ckpt")
    capsys.readouterr()
    sentence = refused(capsys, "sample", "old.ckpt", "--num", "2", "--labels", "data", "--out", "b")
    assert sentence.startswith("Labels were to be drawn as the data have them, but")


def test_raw_weights_are_not_the_average(run: Path) -> None:
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    for name, tensor in content["state_dict"].items():
        if name.startswith("generator_ema."):
            tensor.zero_()  # so that the average draws tanh(0), which is level 128
    torch.save(content, "changed.ckpt")
    assert main(["sample", "changed.ckpt", "--num", "2", "--out", "averaged"]) == 0
    assert main(["sample", "changed.ckpt", "--num", "2", "--raw", "--out", "raw"]) == 0
    assert all((levels(path) == 128).all() for path in Path("averaged").iterdir())
    found = [levels(path) for path in sorted(Path("raw").iterdir())]
    np.testing.assert_array_equal(found, expected(run, 2, seed=0, averaged=False))
    assert (np.stack(found) != 128).any()


def test_nothing_is_overwritten_unasked(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("grid.png").write_text("precious")
    sentence = "grid.png exists already: give another --out, or add --overwrite."
    assert refused(capsys, "sample", str(run), "--out", "grid.png") == sentence
    assert Path("grid.png").read_text() == "precious"
    assert main(["sample", str(run), "--num", "1", "--out", "grid.png", "--overwrite"]) == 0
    assert levels("grid.png").ndim == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "nowhere does not exist: give a run directory or a .ckpt file."),
        (["RUN", "--nmu", "3"], "There is no option --nmu: did you mean --num?"),
        (["RUN", "--num", "x"], "--num: invalid int value: 'x'; see ganzoo sample --help."),
        (["RUN", "--labels", "a"], "--labels was a, but must be numbers of classes, such as 0,1,2, or data."),
        (
            ["RUN", "--num", "1", "--labels", "10"],
            "The labels [10] were given for 1 samples; give each one from 0 to 9.",
        ),
        (
            ["RUN", "--out", "grid.jpg"],
            "--out grid.jpg is neither a .png, nor a .npy, nor a directory; pictures are written as PNG.",
        ),
        (["RUN", "--cutoff", "1"], "--cutoff was 1, which says where --truncation acts: give that as well."),
        (
            ["RUN", "--truncation", "0.7", "--cutoff", "0"],
            "--cutoff was 0, but must be 1 or more: the number of layers.",
        ),
        ([], "the following arguments are required: RUN_OR_CHECKPOINT; see ganzoo sample --help."),
    ],
)
def test_mistakes(arguments: list[str], sentence: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "sample", *(str(run) if word == "RUN" else word for word in arguments)) == sentence


def test_numbers_are_those_of_the_model(run: Path, tmp_path: Path) -> None:
    assert main(["sample", str(run), "--num", "5", "--seed", "3", "--out", "samples.npy"]) == 0
    assert np.array_equal(np.load("samples.npy"), load_model(run).sample(5, seed=3).numpy())
    assert np.load("samples.npy").dtype == np.float32


def test_points_are_numbers_or_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model", "MLPGAN", "--data", "Ring", "--trainer.max_steps", "1", "--trainer.accelerator", "cpu"]
    assert main(["fit", *options]) == 0
    assert main(["sample", "runs/mlpgan-1", "--num", "200", "--out", "points.npy"]) == 0
    points = load_model("runs/mlpgan-1").sample(200, seed=0)
    assert np.array_equal(np.load("points.npy"), points.numpy())
    assert main(["sample", "runs/mlpgan-1", "--num", "200"]) == 0
    with Image.open("samples.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    orange = (pixels[..., 0] - pixels[..., 2] > 60).nonzero()
    # The frame is centred on the points, so the extremes of both are on opposite sides of the panel.
    assert len(orange[0]) > 200 and np.ptp(orange[0]) + np.ptp(orange[1]) > 200
    capsys.readouterr()
    sentence = "Labels were given, but this model is unconditional: leave them out."
    assert refused(capsys, "sample", "runs/mlpgan-1", "--labels", "data", "--out", "b.npy") == sentence
    sentence = "MLPGAN makes points of shape (2,), not images: give an --out that ends in .png or .npy."
    assert refused(capsys, "sample", "runs/mlpgan-1", "--out", "folder") == sentence


# ------------------------------------------------------------------ ways between samples, and mixed ones


def cells(path: str, columns: int, rows: int) -> np.ndarray:
    """The pixels of a grid of gray 8x8 images, enlarged 8 times with a border of 2: (rows, columns, 8, 8)."""
    pixels = levels(path)
    assert pixels.shape == (2 + rows * 66, 2 + columns * 66)
    inside = [
        [pixels[2 + r * 66 : 66 + r * 66 : 8, 2 + c * 66 : 66 + c * 66 : 8] for c in range(columns)]
        for r in range(rows)
    ]
    return np.array(inside)


def test_ways_are_rows_from_one_sample_to_the_next(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Latents of DCGAN are uniform, so the middle of a way is the image of the mean of two latents."""
    options = ["--num", "3", "--interpolate", "3", "--labels", "4", "--seed", "5", "--out", "ways.png"]
    assert main(["sample", str(run), *options]) == 0
    assert capsys.readouterr().out == "2 ways between samples of DCGAN at 0.384 kimg: ways.png\n"
    found, samples = cells("ways.png", 5, 2), expected(run, 3, seed=5, labels=[4, 4, 4])
    np.testing.assert_array_equal(found[:, 0], samples[:2])
    np.testing.assert_array_equal(found[:, 4], samples[1:])
    gan = load_model(run)
    latents = gan.latents.numbered(range(3), gan.generator.latent_dim, 5)
    with torch.no_grad():
        middle = gan.generator_ema(latents[:2].lerp(latents[1:], 0.5), torch.tensor([4, 4]))
    exact = ((middle.double() + 1) * 127.5).clamp(0, 255).numpy()[:, 0]
    assert np.abs(found[:, 2] - exact).max() <= 0.51


def test_an_animation_goes_round(run: Path) -> None:
    assert main(["sample", str(run), "--num", "3", "--interpolate", "4", "--seed", "5", "--out", "round.gif"]) == 0
    with Image.open("round.gif") as picture:
        assert (picture.n_frames, picture.size, picture.info["loop"]) == (3 * 5, (64, 64), 0)
        frames = []
        for i in range(picture.n_frames):
            picture.seek(i)
            frames.append(np.asarray(picture.convert("L"), dtype=int)[::8, ::8])
            assert picture.info["duration"] == 60
    assert main(["sample", str(run), "--num", "3", "--interpolate", "4", "--seed", "5", "--out", "round.npy"]) == 0
    ways = np.load("round.npy").reshape(2, 6, 8, 8)
    for i, frame in enumerate(frames[:10]):
        exact = (ways[i // 5, i % 5] + 1) * 127.5
        assert np.abs(frame - exact).max() <= 1.01  # a palette of gray levels


def test_single_files_of_ways(run: Path) -> None:
    assert main(["sample", str(run), "--num", "2", "--interpolate", "2", "--out", "frames"]) == 0
    assert [path.name for path in sorted(Path("frames").iterdir())] == ["0000.png", "0001.png", "0002.png", "0003.png"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--interpolate", "3", "--mix", "2"], "--interpolate and --mix make different pictures: give one of them."),
        (
            ["--out", "a.gif"],
            "--out a.gif is an animation, which is made of ways: give --interpolate FRAMES as well.",
        ),
        (
            ["--interpolate", "3", "--columns", "3"],
            "--columns cannot be given with --interpolate, which says itself what is in a row.",
        ),
        (
            ["--mix", "3", "--fixed_noise"],
            "--fixed_noise is of no use with --mix, whose images share their noise: leave it out.",
        ),
        (
            ["--mix", "3", "--out", "a.npy"],
            "--out a.npy was given, but --mix makes one picture: give an --out that ends in .png.",
        ),
        (
            ["--mix", "3"],
            "Styles were to be mixed, but DCGAN has none that differ between layers: use a style-based model, or "
            "interpolate between its samples.",
        ),
        (
            ["--interpolate", "0"],
            "0 images on the ways between 6 samples were asked for; give 1 and 2 or more.",
        ),
        (
            ["--fixed_noise"],
            "Noise was to be fixed, but the generator of DCGAN draws none beside its latents: leave that out.",
        ),
        (
            ["--interpolate", "3", "--labels", "1,2"],
            "The labels [1, 2] were given, but DCGAN has no space of styles in which one class leads to another: give "
            "one label.",
        ),
    ],
)
def test_mistakes_about_ways(
    arguments: list[str], sentence: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(capsys, "sample", str(run), *arguments) == sentence
    assert not list(Path().iterdir())


# ------------------------------------------------------------------ a style-based model


@pytest.fixture(scope="module")
def styled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """StyleGAN of 8x8 digits, with four styles of four numbers, whose noise is strong enough to be seen."""
    folder = tmp_path_factory.mktemp("runs") / "styled"
    small = "--model.channel_base 64 --model.channel_max 8 --model.style_dim 4 --model.latent_dim 4"
    options = f"--model StyleGAN {small} --model.mapping_layers 2 --data Digits --data.image_size 8"
    options += f" --data.batch_size 8 --trainer.max_steps 2 --trainer.accelerator cpu --run_dir {folder}"
    assert main(["fit", *options.split()]) == 0
    path = folder / "checkpoints" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    strengths = [name for name in content["state_dict"] if name.startswith("generator_ema.") and "noise" in name]
    for name in strengths:
        if content["state_dict"][name].numel() == 1:
            content["state_dict"][name].fill_(0.3)
    torch.save(content, path)
    return folder


def test_mixed_styles_in_a_picture(styled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Sources at the top and at the left; in the middle, what the networks make of both, called here."""
    assert main(["sample", str(styled), "--num", "2", "--mix", "1", "--seed", "3", "--out", "mix.png"]) == 0
    assert capsys.readouterr().out == "2 x 2 mixed samples of StyleGAN at 0.016 kimg: mix.png\n"
    found = cells("mix.png", 3, 3)
    gan = load_model(styled)
    network = gan.generator_ema
    with torch.no_grad():
        w = network.mapping(gan.latents.numbered(range(4), 4, 3))
        points = [w[2], w[3]]  # the fine sources
        for i in range(2):
            points += [w[i], *(torch.cat([w[i, :1], w[2 + j, 1:]]) for j in range(2))]
        images = []
        for point in points:
            with streams.numbered(range(1), 3, "sample", device=gan.device):
                images.append(network.synthesis(point[None])[0, 0])
    exact = ((torch.stack(images).double() + 1) * 127.5).clamp(0, 255).numpy()
    assert (found[0, 0] == 255).all()
    assert np.abs(found.reshape(9, 8, 8)[1:] - exact).max() <= 0.51
    assert len(np.unique(found.reshape(9, -1), axis=0)) == 9


def test_a_cutoff_is_one_of_the_layers(styled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At the last layer it is no cutoff, before it another picture, behind it a mistake."""
    cut = ["sample", str(styled), "--num", "2", "--fixed_noise", "--truncation", "0.5"]
    for layers in (3, 4):
        assert main([*cut, "--cutoff", str(layers), "--out", f"{layers}.npy"]) == 0
    assert main([*cut, "--out", "all.npy"]) == 0
    capsys.readouterr()
    assert np.array_equal(np.load("4.npy"), np.load("all.npy"))
    assert not np.array_equal(np.load("3.npy"), np.load("all.npy"))
    sentence = "--cutoff was 5, but StyleGAN has 4 layers with styles: give 1 to 4."
    assert refused(capsys, *cut, "--cutoff", "5", "--out", "5.npy") == sentence
    assert not Path("5.npy").exists()


def test_fixed_noise_and_ways_through_styles(styled: Path) -> None:
    """With the noise of sample 0, sample 0 is itself and the others are not; both are ends of a way."""
    for name, more in (("own", []), ("fixed", ["--fixed_noise"]), ("ways", ["--interpolate", "3"])):
        assert main(["sample", str(styled), "--num", "2", "--seed", "3", "--out", f"{name}.npy", *more]) == 0
    own, fixed, ways = (np.load(f"{name}.npy") for name in ("own", "fixed", "ways"))
    assert np.abs(own[0] - fixed[0]).max() < 1e-5
    assert np.abs(own[1] - fixed[1]).max() > 0.01
    assert ways.shape == (5, 1, 8, 8)
    assert np.abs(ways[[0, 4]] - fixed).max() < 1e-5
