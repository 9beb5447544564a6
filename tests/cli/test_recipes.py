"""Every shipped recipe parses and builds its model, from any directory."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from ganzoo.cli import arguments, main, recipes, trust
from ganzoo.cli.fit import HELP
from ganzoo.cli.parser import FitCLI
from ganzoo.plan import Plan

RECIPES = [recipes.name_of(path) for path in recipes.shipped() if not recipes.summary(path).startswith("overlay")]
OVERLAYS = [recipes.name_of(path) for path in recipes.shipped() if recipes.summary(path).startswith("overlay")]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures" / "train" / "cats").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "pictures" / "train" / "cats" / "1.png")


def parse(*names: str, options: list[str]) -> FitCLI:
    """What a command line means."""
    trust.restrict_parser([])
    cli = FitCLI(arguments.read([*(f"--config={name}" for name in names), *options]))
    cli.parse()
    return cli


def options_of(name: str) -> list[str]:
    """What the recipe's own comment says must be given."""
    content = recipes.load(recipes.find(name))
    is_folder = content.get("data", {}).get("class_path") == "ImageFolder"
    return ["--data.path", "pictures"] if is_folder else []


@pytest.mark.parametrize("name", RECIPES)
def test_builds_a_model_that_fits_its_data(name: str) -> None:
    cli = parse(name, options=options_of(name))
    with torch.device("meta"):
        cli.build()
    gan, data = cli.model.eval(), cli.datamodule  # in training, images may still be small
    num = 32  # a multiple of every group that a discriminator compares
    labels = torch.zeros(num, dtype=torch.int64, device="meta") if gan.num_classes else None
    samples = gan.generator(torch.zeros(num, gan.generator.latent_dim, device="meta"), labels)
    assert tuple(samples.shape) == (num, *data.shape)
    assert len(gan.discriminator(samples, labels)) == num
    assert gan.num_classes == (len(data.class_names) if data.labels else 0)
    Plan([], gan.plan.plays[-1]).check_ends(gan.total_kimg, cli.config["trainer"]["max_steps"], False)


@pytest.mark.parametrize("name", OVERLAYS)
def test_overlays_stack_on_a_recipe(name: str) -> None:
    base = f"{name.partition('-')[0]}.yaml" if "-" in name else "quickstart.yaml"  # a cure, or a size, of a recipe
    plain, stacked = settings_of(base), parse(base, name, options=options_of(name)).resolved()
    changed = recipes.load(recipes.find(name))
    assert changed
    assert plain != stacked
    for group in plain.keys() - changed.keys():
        assert plain[group] == stacked[group]


@functools.cache
def settings_of(name: str) -> dict[str, Any]:
    """What a recipe says, parsed once."""
    return parse(name, options=[]).resolved()


def test_later_configs_and_options_win() -> None:
    Path("a.yaml").write_text("model: {init_args: {width: 5, latent_dim: 7}}\nseed: 3\n")
    Path("b.yaml").write_text("model: {init_args: {width: 6}}\n")
    settings = parse("quickstart.yaml", "a.yaml", "b.yaml", options=["--seed", "4"]).resolved()
    found = settings["model"]["init_args"]
    assert (found["width"], found["latent_dim"], settings["seed"]) == (6, 7, 4)
    assert found["discriminator_norm"] == "layer"  # of the recipe


def test_a_file_here_comes_before_a_shipped_recipe() -> None:
    assert recipes.find("quickstart.yaml") == recipes.find("quickstart") == recipes.folder() / "quickstart.yaml"
    Path("quickstart.yaml").write_text("seed: 1\n")
    assert recipes.find("quickstart.yaml") == recipes.find("quickstart") == Path("quickstart.yaml")


@pytest.mark.parametrize("name", RECIPES)
def test_the_command_in_the_comment_is_the_recipe_s_own(name: str) -> None:
    text = recipes.find(name).read_text()
    assert text.startswith("# ")
    assert f"#   ganzoo fit --config {name}" in text


def test_what_a_recipe_needs_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", "emoji.yaml"]) == 2
    path = recipes.folder() / "emoji.yaml"
    assert capsys.readouterr().err == f"error: data in {path} needs a value for path: give --data.path.\n"


def test_other_data_replace_those_of_a_recipe() -> None:
    options = ["--data", "ImageFolder", "--data.path", "pictures", "--data.image_size", "64"]
    cli = parse("dcgan.yaml", options=options)
    cli.build()
    assert cli.datamodule.shape == (3, 64, 64)
    assert cli.datamodule.batch_size == 128  # of the recipe
    assert cli.resolved()["data"]["class_path"] == "ganzoo.data.ImageFolder"


def test_appending_to_a_list() -> None:
    options = ["--model.penalties+=R2", "--model.penalties.gamma", "7"]
    found = parse("quickstart.yaml", options=options).resolved()["model"]["init_args"]["penalties"]
    assert [(one["class_path"], one["init_args"]["gamma"]) for one in found] == [
        ("ganzoo.penalties.R1", 0.2),
        ("ganzoo.penalties.R2", 7.0),
    ]


def test_no_yaml_and_no_end() -> None:
    cli = parse(options=["--model", "DCGAN", "--data", "Digits"])
    assert cli.resolved()["model"]["init_args"]["total_kimg"] == 200
    assert cli.notes == ["No end was given, so it is --model.total_kimg 200."]
    for stop in ("--trainer.max_steps=5", "--trainer.max_time=00:01:00:00"):
        cli = parse(options=["--model", "DCGAN", "--data", "Digits", stop])
        assert (cli.resolved()["model"]["init_args"]["total_kimg"], cli.notes) == (None, [])


def test_options_of_the_short_help_exist() -> None:
    """What the help page names is accepted."""
    options = (
        "--model DCGAN --data Digits --seed 1 --model.total_kimg 1 --trainer.max_steps 1 --model.loss Hinge "
        "--model.loss.margin 1 --model.penalties+=R1 --model.penalties.gamma 1 --model.generator_optimizer.lr 1e-4 "
        "--model.ema.half_life_kimg 10 --data.batch_size 8 --data.labels true --samples.every_kimg 1 "
        "--checkpoint.every_kimg 1 --log.every_kimg 1 --trainer.devices 1 --trainer.accelerator gpu "
        "--trainer.precision bf16-mixed"
    ).split()
    named = [option.partition("=")[0] for option in options if option.startswith("--")]
    for option in named:
        assert option in HELP or option.replace("every_kimg", "") in HELP
    assert parse(options=options).config["seed"] == 1
