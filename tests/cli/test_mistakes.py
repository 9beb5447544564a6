"""Each mistake on the command line or in a config is answered by one sentence."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from ganzoo.cli import main, recipes
from tests.cli.common import refused

M = ["--model", "DCGAN", "--data", "Digits"]
S = ["--config", "stylegan.yaml"]
NEEDS = (
    "give --config with a recipe, such as quickstart.yaml, or for example --model DCGAN --data Digits (ganzoo list "
    "shows all)."
)
FACT = "cannot be set, as the model's"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], f"A run needs a model and data: {NEEDS}"),
        (["--model", "DCGAN"], f"A run needs data: {NEEDS}"),
        (["--data", "Digits"], f"A run needs a model: {NEEDS}"),
        (["--model", "DCGN", "--data", "Digits"], "There is no class DCGN (model): did you mean DCGAN?"),
        ([*M, "--modl", "3"], "There is no option --modl: did you mean --model?"),
        ([*M, "--modle.width", "3"], "There is no option --modle.width: did you mean --model.width?"),
        ([*M, "--model.witdh", "3"], "There is no setting model.witdh: did you mean width?"),
        ([*M, "--trainer.max_step", "3"], "There is no option --trainer.max_step: did you mean --trainer.max_steps?"),
        ([*M, "--model.width", "abc"], "model.width was abc, but must be a whole number."),
        ([*M, "--model.total_kimg", "abc"], "model.total_kimg was abc, but must be a number, or null."),
        ([*M, "--data.mirror", "maybe"], "data.mirror was maybe, but must be true or false."),
        (  # two settings have this name: the one that has the value is meant
            ["--config", "progressive.yaml", "--model.growth.batch_size", "{4: a}", "--data.batch_size=8"],
            "model.growth.batch_size was {4: 'a'}, but must be a table such as '{4: 32, 8: 16}', or null.",
        ),
        ([*M, "--model.loss", "Hing"], "There is no class Hing (model.loss): did you mean Hinge?"),
        (
            [*M, "--model.loss", "Hinge", "--model.loss.margn", "2"],
            "There is no setting model.loss.margn: did you mean margin?",
        ),
        (
            [*M, "--model.loss.margin", "2"],
            "There is no setting model.loss.margin: NonSaturating takes real_target, fake_target.",
        ),
        ([*M, "--model.penalties+=R3"], "There is no class R3 (model.penalties): did you mean R2?"),
        (
            [*M, "--model.penalties+=R1", "--model.penalties.gama", "2"],
            "There is no setting model.penalties.gama: did you mean gamma?",
        ),
        (
            [*S, "--model.penalties.gamma", "5"],
            "model.penalties is a list, so --model.penalties.gamma does not say of which member: give "
            "--model.penalties.R1.gamma.",
        ),
        (
            [*S, "--model.penalties.R1.gama", "2"],
            "There is no setting model.penalties.R1.gama: did you mean gamma?",
        ),
        (
            [*S, "--model.penalties.R2.gamma=2"],
            "--model.penalties.R2.gamma was given, but model.penalties has R1, PathLength: append a member by "
            "--model.penalties+=R2, and then give its options as --model.penalties.gamma.",
        ),
        (
            [*S, "--model.penalties+=R1", "--model.penalties.R1.gamma", "2"],
            "--model.penalties.R1.gamma was given, but model.penalties has 2 of them: write the list in YAML.",
        ),
        (
            [*M, "--model.penalties.R1.gamma", "2"],
            "--model.penalties.R1.gamma was given, but model.penalties is empty: append a member by "
            "--model.penalties+=R1, and then give its options as --model.penalties.gamma.",
        ),
        (
            [*S, "--model.loss.R1.gamma", "2"],
            "There is no option --model.loss.R1.gamma: model.loss is no list of this run.",
        ),
        ([*S, "--model.penalties.R1.gamma"], "--model.penalties.R1.gamma needs a value."),
        ([*M, "--model.generator_lr", "Liner"], "There is no class Liner (model.generator_lr): did you mean Linear?"),
        (
            [*M, "--model.generator_lr", "Linear"],
            "model.generator_lr needs a value for to_kimg: give --model.generator_lr.to_kimg.",
        ),
        (
            [*M, "--model.discriminator_norm", "bach"],
            "model.discriminator_norm was bach, but must be one of batch, none, instance, layer, spectral: did you "
            "mean batch?",
        ),
        ([*M, "--data.batch_sze", "2"], "There is no setting data.batch_sze: did you mean batch_size?"),
        (
            ["--model", "MLPGAN", "--data", "Ring", "--model.wings", "2"],
            "There is no setting model.wings: see ganzoo fit --model.help MLPGAN.",
        ),
        (
            [*M, "--samples.evry_kimg", "3"],
            "There is no option --samples.evry_kimg: did you mean --samples.every_kimg?",
        ),
        ([*M, "--seed", "x"], "seed was x, but must be a whole number."),
        ([*M, "--model.generator_optimizer.lr"], "--model.generator_optimizer.lr needs a value."),
        ([*M, "extra"], "'extra' was not expected: options are written as --name value."),
        ([*M, "--run_dir"], "--run_dir needs a value: the directory of the new run."),
        (
            [*M, "--trainer.devices", "0"],
            "Lightning refuses these settings of trainer: `Trainer(devices=0)` value is not a valid input using cpu "
            "accelerator.",
        ),
        (
            [*M, "--trainer.accelerator", "cpu", "--trainer.default_root_dir", "x"],
            "trainer.default_root_dir was given, but a run has its own directory: use --run_dir.",
        ),
        (
            ["--model", "DCGAN", "--data", "Ring"],
            "The model DCGAN needs to know the image_size of its data, and Ring has none: choose another model, such "
            "as MLPGAN, or images.",
        ),
    ],
)
def test_on_the_command_line(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    if "--trainer.devices" in arguments:
        arguments = [*arguments, "--trainer.accelerator", "cpu"]
    assert refused(capsys, "fit", *arguments) == sentence
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ("modle: {class_path: DCGAN}", "There is no setting modle in c.yaml: did you mean model?"),
        (
            "model: {class_path: DCGAN, init_args: {witdh: 3}}",
            "There is no setting model.witdh in c.yaml: did you mean width?",
        ),
        ("model: {class_path: DCGN}", "There is no class DCGN (model in c.yaml): did you mean DCGAN?"),
        (
            "model: {class_path: DCGAN, init_args: {loss: {class_path: Hinge, init_args: {margn: 2}}}}",
            "There is no setting model.loss.margn in c.yaml: did you mean margin?",
        ),
        (
            "model: {class_path: DCGAN, init_args: {penalties: [{class_path: R1, init_args: {gama: 2}}]}}",
            "There is no setting model.penalties.gama in c.yaml: did you mean gamma?",
        ),
        (
            "model: {class_path: DCGAN, init_arg: {width: 4}}",
            "There is no setting model.init_arg in c.yaml: did you mean init_args?",
        ),
        (
            "model: {class_path: DCGAN, width: 4}",
            "model.width in c.yaml is beside class_path: options of a class belong into its init_args.",
        ),
        ("trainer: {max_step: 3}", "There is no setting trainer.max_step in c.yaml: did you mean max_steps?"),
        (
            "model: {class_path: DCGAN, init_args: {width: x}}",
            "model.width in c.yaml was x, but must be a whole number.",
        ),
        ("trainer: {max_steps: x}", "trainer.max_steps in c.yaml was x, but must be a whole number."),
        ("log: 5", "log was 5, but it is a group of settings: see ganzoo fit --help=all."),
        ("- 1", "c.yaml holds no settings; a config is made of names with values, such as model: and data:."),
        (
            "model:\n  class_path: DCGAN\n init_args: 3\n",
            "c.yaml, line 3 is no valid YAML (expected <block end>, but found '<block mapping start>'); mend the line, "
            "or the one before it.",
        ),
    ],
)
def test_in_a_config(config: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("c.yaml").write_text(config)
    assert refused(capsys, "fit", *M, "--config", "c.yaml") == sentence


def test_a_config_that_does_not_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = f"neither as {tmp_path / 'quikstart.yaml'} nor among ganzoo's recipes"
    expected = f"There is no config quikstart.yaml, {place}: did you mean quickstart.yaml?"
    assert refused(capsys, "fit", "--config", "quikstart.yaml") == expected
    place = f"neither as {tmp_path / 'a' / 'b.yaml'} nor among ganzoo's recipes"
    expected = f"There is no config a/b.yaml, {place}: see ganzoo list."
    assert refused(capsys, "fit", "--config", "a/b.yaml") == expected


@pytest.mark.parametrize("name", ["image_size", "channels", "num_classes"])
def test_facts_of_the_data_cannot_be_given_to_the_model(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Beside a link, a value of 64 would be replaced by the data's without a word."""
    for arguments in ([f"--model.{name}", "64"], [f"--model.init_args.{name}=64"]):
        sentence = refused(capsys, "fit", *M, *arguments)
        assert sentence.startswith(
            f"{arguments[0].partition('=')[0]} {FACT} {name} comes from data: leave it out, and set"
        )
    Path("c.yaml").write_text(f"model: {{class_path: DCGAN, init_args: {{{name}: 64}}}}")
    assert refused(capsys, "fit", "--data", "Digits", "--config", "c.yaml").startswith(f"model.{name} in c.yaml {FACT}")


def test_abbreviations_are_no_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean --trainer.max_steps?" in refused(capsys, "fit", *M, "--trainer.max_ste", "3")
    assert refused(capsys, "sample", "x", "--see", "3") == "There is no option --see: did you mean --seed?"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--total_kimg", "3"], "There is no option --total_kimg: did you mean --model.total_kimg?"),
        (["--batch_size", "3"], "There is no option --batch_size: did you mean --data.batch_size?"),
        (["--max_steps", "3"], "There is no option --max_steps: did you mean --trainer.max_steps?"),
        (["quickstart.yaml"], "'quickstart.yaml' was not expected: a recipe is given as --config quickstart.yaml."),
        (
            ["--model.penalties", "R2"],
            "model.penalties was R2, but must be a list: append to it by --model.penalties+=R2, or write a list in "
            "YAML.",
        ),
        (
            ["--progress.refresh_seconds=-1"],
            "The progress has refresh_seconds -1.0 and line_seconds 10.0; both are 0 or more.",
        ),
        (["--trainer.precision", "64"], "The precision was 64-true, but must be one of 32-true, bf16-mixed, 16-mixed."),
        (
            ["--data.batch_size", "31", "--trainer.devices", "2", "--trainer.accelerator", "cpu"],
            "A batch_size of 31 cannot be divided among 2 processes with 1 micro-batches each; make it a "
            "multiple of 2.",
        ),
        (["--seed", "-1"], "seed was -1, but must be from 0 to 4294967295."),
        (["--data.num_workers", "-1"], "num_workers is -1; give 0 to load in this process, or how many others."),
        (["--model.width", "0"], "DCGAN was given width 0 and max_width 1024; both are 1 or more."),
        (
            ["--trainer.gradient_clip_val", "1"],
            "trainer.gradient_clip_val is not for GANs, which have two optimizers: set model.generator_clip and "
            "model.discriminator_clip.",
        ),
        (
            ["--trainer.accumulate_grad_batches", "2"],
            "trainer.accumulate_grad_batches is not for GANs, which have two optimizers: set model.accumulate.",
        ),
        (
            ["--trainer.strategy", "fsdp"],
            "The strategy fsdp cannot train a GAN (no second derivatives, or one optimizer only): leave "
            "trainer.strategy at auto.",
        ),
    ],
)
def test_mistakes_that_a_first_reader_made(capsys, arguments, sentence) -> None:
    assert refused(capsys, "fit", *M, *arguments) == sentence


def test_a_place_that_cannot_be_written_is_named(capsys) -> None:
    Path("file").touch()
    sentence = refused(capsys, "fit", *M, "--run_dir", "file/run")
    assert sentence.startswith("file/run cannot be used (not a directory)")


def test_a_warning_is_a_sentence_without_its_place_in_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # put back afterwards
    budget = [
        "--model.width",
        "4",
        "--data.image_size",
        "8",
        "--trainer.max_steps",
        "1",
        "--run_dir",
        str(tmp_path / "run"),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["fit", *M, *budget, "--model.parts+=WeightClipping", "--trainer.accelerator", "cpu"]) == 0
        text = warnings.formatwarning(UserWarning("Mind this."), UserWarning, "gan.py", 3)
    assert text == "warning: Mind this.\n"


@pytest.mark.parametrize(
    ("given", "instead"),
    [
        (["stylegan-emoji.yaml"], "stylegan.yaml"),
        (["sngan-cpu.yaml", "sngan.yaml"], str(recipes.folder() / "sngan.yaml")),
        (["ddp.yaml"], "RECIPE.yaml"),
    ],
)
def test_an_overlay_in_the_place_of_its_recipe(
    given: list[str], instead: str, capsys: pytest.CaptureFixture[str]
) -> None:
    overlay = recipes.folder() / given[0]
    assert refused(capsys, "fit", *(f"--config={name}" for name in given)) == (
        f"{overlay} is an overlay, which changes a recipe: give that before it, as in --config {instead} --config "
        f"{overlay}."
    )
