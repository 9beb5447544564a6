"""Images that are not square, gray, RGB and RGBA: from a folder through training to every command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ganzoo.cli import main

NARROW = "--model.channel_base 32 --model.latent_dim 8 --model.style_dim 8 --data.batch_size 8 --model.total_kimg 0.016"


def scores(*arguments: str) -> dict[str, float]:
    assert main(["evaluate", *arguments, "--metrics", "swd", "--set", "swd_images=12", "--json", "scores.json"]) == 0
    (found,) = json.loads(Path("scores.json").read_text())
    Path("scores.json").unlink()
    return {name: score["value"] for name, score in found["scores"].items()}


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_a_style_based_model_of_them(channels: int, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    Path("pictures").mkdir()
    for i in range(16):
        pixels = generator.integers(0, 256, (8, 16, channels)).astype(np.uint8).squeeze()
        Image.fromarray(pixels).save(f"pictures/{i:02d}.png")
    data = ["--data", "ImageFolder", "--data.path", "pictures", "--data.image_size", "[8, 16]"]
    of_data = [*data, "--data.channels", str(channels)]
    assert main(["fit", "--config", "stylegan.yaml", *of_data, *NARROW.split(), "--run_dir", "run"]) == 0

    assert main(["sample", "run", "--num", "12", "--truncation", "0.9", "--out", "drawn.npy"]) == 0
    assert main(["sample", "run", "--num", "12", "--truncation", "0.9", "--out", "drawn"]) == 0
    drawn = np.load("drawn.npy")
    assert drawn.shape == (12, channels, 8, 16)
    for i, numbers in enumerate(drawn):
        with Image.open(f"drawn/{i:04d}.png") as picture:
            assert picture.size == (16, 8) and picture.mode == mode
            pixels = np.asarray(picture).reshape(8, 16, channels).transpose(2, 0, 1).astype(float)
        assert np.abs(pixels - (numbers.clip(-1, 1) + 1) * 127.5).max() <= 0.5 + 1e-3

    assert main(["project", "run", "--image", "drawn", "--num", "2", "--steps", "2", "--out", "found.png"]) == 0
    assert torch.load("found.pt", weights_only=True)["images"].shape == (2, channels, 8, 16)

    assert scores("run").keys() == {"swd", "swd/8"}
    Path("turned").mkdir()
    for path in Path("drawn").iterdir():
        with Image.open(path) as picture:
            picture.transpose(Image.Transpose.ROTATE_180).save(Path("turned") / path.name)
    assert scores("drawn", "--against", "drawn")["swd"] == 0 < scores("turned", "--against", "drawn")["swd"]
