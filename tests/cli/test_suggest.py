"""``ganzoo suggest``: the published rule by hand, and an overlay that ``ganzoo fit`` takes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ganzoo.cli import arguments, main, suggest, trust
from ganzoo.cli.parser import FitCLI
from tests.cli.common import refused
from tests.mutants import kills


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


#: By size and devices: batch, gamma, half-life in kimg, channel base, learning rate before its correction.
BY_HAND = {
    (32, 1): (32, 0.0064, 10, 16384, 0.0025),  # 4096/32 is 128, but 32 at most; 0.0002 x 1024 / 32
    (64, 1): (32, 0.0256, 10, 16384, 0.0025),
    (64, 2): (64, 0.0128, 20, 16384, 0.0025),
    (64, 3): (60, 0.8192 / 60, 18.75, 16384, 0.0025),  # 64 at most, and whole groups of 4 on each of three
    (256, 1): (16, 0.8192, 5, 16384, 0.0025),  # 0.0002 x 65536 / 16
    (256, 8): (64, 0.2048, 20, 16384, 0.0025),
    (512, 1): (8, 6.5536, 2.5, 32768, 0.0025),
    (1024, 1): (4, 52.4288, 1.25, 32768, 0.002),
    (1024, 8): (32, 6.5536, 10, 32768, 0.002),
    (2048, 1): (4, 209.7152, 1.25, 32768, 0.002),  # 2 by the rule, but a group of 4
    (1024, 32): (128, 1.6384, 40, 32768, 0.002),  # 64 by the rule, but a group of 4 on each device
}


def check(rule) -> None:
    for (size, devices), (batch, gamma, half_life, base, lr) in BY_HAND.items():
        found: dict[str, Any] = yaml.safe_load(rule(size, devices))
        data, model = found["data"]["init_args"], found["model"]["init_args"]
        assert data == {"image_size": size, "batch_size": batch}
        r1, path_length = model["penalties"]
        assert r1["class_path"] == "R1" and r1["init_args"]["every"] == 16
        assert r1["init_args"]["gamma"] == pytest.approx(gamma, rel=1e-4)
        assert path_length == {"class_path": "PathLength", "init_args": {"weight": 2, "every": 4}}
        assert model["ema"]["init_args"] == {"half_life_kimg": half_life, "rampup": 0.05}
        assert (model["mapping_layers"], model["channel_base"], model["group"]) == (2, base, 4)
        assert {model[name] for name in ("latent_dim", "style_dim", "channel_max")} == {512}
        assert model["total_kimg"] == 25_000
        for player, share in (("generator", 4 / 5), ("discriminator", 16 / 17)):
            options = model[f"{player}_optimizer"]["init_args"]
            assert options["lr"] == pytest.approx(lr * math.sqrt(share), rel=1e-3)
            assert options["betas"] == [0.0, 0.99]
        assert found.get("trainer") == (None if devices == 1 else {"devices": devices})
        assert batch % (4 * devices) == 0


def test_the_rule_by_hand() -> None:
    check(suggest.stylegan)
    kills(check, lambda size, devices: suggest.stylegan(size, devices).replace("every: 16", "every: 17"))
    kills(check, lambda size, devices: suggest.stylegan(size, 1))
    kills(check, lambda size, devices: suggest.stylegan(min(size, 960), devices))


def test_it_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["suggest", "StyleGAN", "--image_size", "64"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "# overlay: StyleGAN2's 'auto' setting (Karras 2020b) for images of 64x64 on 1 device"
    command = "ganzoo fit --config stylegan.yaml --config auto.yaml --data ImageFolder --data.path FOLDER_OR_ARCHIVE"
    assert lines[2] == f"#   {command}"
    for choice in (
        "batch_size: 32  # 1 x 4096/64, at most 32 per device and 64 in all",
        "gamma: 0.0256  # 0.0002 x 64^2 / 32; a start: try a quarter of it, and four times as much",
        "half_life_kimg: 10  # 32 x 10 / 32",
    ):
        assert choice in map(str.strip, lines)
    assert not list(Path().iterdir())
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize(("size", "devices"), [(64, 1), (1024, 8)])
def test_the_overlay_stacks_on_a_recipe(size: int, devices: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Its options are those of the model, which is built with them."""
    written = ["--image_size", str(size), "--devices", str(devices), "--out", "mine.yaml"]
    assert main(["suggest", "StyleGAN", *written]) == 0
    text = capsys.readouterr().out
    assert Path("mine.yaml").read_text() == text
    assert "ganzoo fit --config stylegan.yaml --config mine.yaml" in text
    base = "model: {class_path: StyleGAN, init_args: {mixing: 0.5, channel_max: 64}}\ndata: {class_path: Digits}\n"
    Path("base.yaml").write_text(base)
    trust.restrict_parser([])
    cli = FitCLI(arguments.read(["--config", "base.yaml", "--config", "mine.yaml"]))
    cli.parse()
    with torch.device("meta"):
        cli.build()
    options = cli.model.config()["init_args"]
    overlay = yaml.safe_load(text)["model"]["init_args"]
    for name in ("latent_dim", "style_dim", "mapping_layers", "channel_base", "channel_max", "group", "total_kimg"):
        assert options[name] == overlay[name]
    assert [type(part).__name__ for part in cli.model.tricks if type(part).__module__.startswith("ganzoo.pen")] == [
        "R1",
        "PathLength",
    ]
    assert cli.model.tricks[0].weight == overlay["penalties"][0]["init_args"]["gamma"]
    assert options["mixing"] == 0.5  # of the recipe
    assert cli.datamodule.shape[1:] == (size, size)
    assert cli.model.ema.half_life_kimg == overlay["ema"]["init_args"]["half_life_kimg"]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["DCGAN", "--image_size", "64"], "There is no published rule for DCGAN: there is one for StyleGAN."),
        (["stylegan", "--image_size", "64"], "There is no published rule for stylegan: did you mean StyleGAN?"),
        (["StyleGAN"], "the following arguments are required: --image_size; see ganzoo suggest --help."),
        (["StyleGAN", "--image_size", "4"], "--image_size was 4, but StyleGAN makes images from 8x8 up."),
        (
            ["StyleGAN", "--image_size", "100"],
            "--image_size was 100, but StyleGAN makes images of 4 to 15 times a power of two.",
        ),
        (["StyleGAN", "--image_size", "64", "--devices", "0"], "--devices was 0, but must be 1 or more."),
        (
            ["StyleGAN", "--image_size", "64", "--out", "auto.txt"],
            "--out auto.txt must be a file that ends in .yaml, so that --config can name it.",
        ),
    ],
)
def test_mistakes(given: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "suggest", *given) == sentence


def test_nothing_is_overwritten_unasked(capsys: pytest.CaptureFixture[str]) -> None:
    Path("auto.yaml").write_text("precious")
    given = ["suggest", "StyleGAN", "--image_size", "64", "--out", "auto.yaml"]
    assert refused(capsys, *given) == "auto.yaml exists already: give another --out, or add --overwrite."
    assert Path("auto.yaml").read_text() == "precious"
    assert main([*given, "--overwrite"]) == 0
    assert Path("auto.yaml").read_text().startswith("# overlay")
