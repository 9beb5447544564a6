"""``ganzoo fit --init-from``: a new run with another one's weights, which needs them once."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ganzoo.checkpoint import load_model
from ganzoo.cli import main
from tests.cli.common import TINY, refused, start
from tests.common import max_difference

CPU = ["--trainer.accelerator", "cpu"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the recipe TINY."""
    folder = tmp_path_factory.mktemp("runs") / "source"
    assert main(["fit", *TINY, *CPU, "--run_dir", str(folder)]) == 0
    return folder


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def copied(source: Path) -> Path:
    """A copy of the run in the current directory."""
    shutil.copytree(source, "source")
    return Path("source")


def content(run: Path | str) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(Path(run) / "checkpoints" / "last.ckpt", weights_only=True)
    return found


def settings(run: Path | str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((Path(run) / "config.yaml").read_text())
    return found


def test_a_run_begins_with_the_weights_and_a_fresh_clock(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With learning rates of 0 and no average but the loaded one, the weights stay what they were."""
    still = ["--model.generator_lr", "0", "--model.discriminator_lr", "0", "--model.total_kimg", "0.128"]
    assert main(["fit", *TINY, *CPU, *still, "--init-from", str(source), "--run_dir", "fine", "--seed", "9"]) == 0
    lines = capsys.readouterr().err.splitlines()
    told = [line for line in lines if line.startswith("Start: ")]
    file = source / "checkpoints" / "last.ckpt"
    assert told == [f"Start: 23 of 23 tensors from {file} (DCGAN at 0.384 kimg)"]
    advice = [line for line in lines if "model.ema.rampup" in line]
    assert advice and "--model.ema.rampup null" in advice[0]
    old, new = content(source), content("fine")
    for key, tensor in new["state_dict"].items():
        if key.startswith(("generator.", "discriminator.")) and "running" not in key and "num_batches" not in key:
            assert torch.equal(tensor, old["state_dict"][key]), key
    assert (new["ganzoo"]["clock"]["images"], new["ganzoo"]["clock"]["g_turns"], new["ganzoo"]["seed"]) == (128, 2, 9)
    steps = [state["step"].item() for one in new["optimizer_states"] for state in one["state"].values()]
    assert set(steps) == {2.0}


def test_the_loaded_average_lasts_without_a_ramp(source: Path) -> None:
    """decay = 0.5^(64 / 10000) in each of two cycles, of which neither moves the weights."""
    still = ["--model.generator_lr", "0", "--model.total_kimg", "0.128", "--model.ema.rampup", "null"]
    assert main(["fit", *TINY, *CPU, *still, "--init-from", str(source), "--run_dir", "fine"]) == 0
    old, new = content(source)["state_dict"], content("fine")["state_dict"]
    kept = 0.5 ** (2 * 64 / 10_000)
    name = "layers.0.weight"
    expected = torch.lerp(old[f"generator.{name}"], old[f"generator_ema.{name}"], kept)
    assert torch.allclose(new[f"generator_ema.{name}"], expected, atol=1e-7)
    assert not torch.allclose(expected, old[f"generator.{name}"], atol=1e-5)


def test_the_file_is_recorded_and_a_resume_does_without_it(
    copied: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The stopped run ends as the one that was never stopped, after what both began with is gone."""
    options = [*TINY, *CPU, "--init-from", "source", "--model.parts+=FreezeD"]
    assert main(["fit", *options, "--run_dir", "whole", "--model.total_kimg", "0.256"]) == 0
    assert main(["fit", *options, "--run_dir", "stopped", "--model.total_kimg", "0.128"]) == 0
    file = copied / "checkpoints" / "last.ckpt"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert settings("stopped")["init_from"] == {"path": str(file.absolute()), "sha256": digest}
    shutil.rmtree(copied)
    capsys.readouterr()
    assert main(["fit", "--resume", "stopped", "--model.total_kimg", "0.256"]) == 0
    assert "Start:" not in capsys.readouterr().err
    assert max_difference(content("whole")["state_dict"], content("stopped")["state_dict"]) == 0.0
    first = "discriminator.layers.0.weight"
    assert torch.equal(content("stopped")["state_dict"][first], content(source)["state_dict"][first])
    assert settings("stopped")["init_from"]["sha256"] == digest
    assert load_model("stopped").clock.images == 256


def test_a_config_begins_with_the_same_file_again(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--init-from", "source/checkpoints/last.ckpt", "--model.total_kimg", "0.064"]
    assert main(["fit", *TINY, *CPU, *options, "--run_dir", "one"]) == 0
    assert main(["fit", "--config", "one/config.yaml", "--run_dir", "two"]) == 0
    assert max_difference(content("one")["state_dict"], content("two")["state_dict"]) == 0.0
    file = copied / "checkpoints" / "last.ckpt"
    changed = content(copied)
    changed["state_dict"]["generator.layers.0.weight"] += 1
    torch.save(changed, file)
    capsys.readouterr()
    sentence = refused(capsys, "fit", "--config", "one/config.yaml", "--run_dir", "three")
    assert sentence.startswith(f"{file.absolute()} is not the file that init_from was written for, ")
    assert sentence.endswith(f": give --init-from {file.absolute()} to begin with it as it is.")
    assert not Path("three").exists()
    Path("plain.yaml").write_text("init_from: source\n")  # as a recipe would say it
    options = ["--config", "plain.yaml", *CPU, "--model.total_kimg", "0.064"]
    assert main(["fit", *TINY, *options, "--run_dir", "four"]) == 0
    assert settings("four")["init_from"]["path"] == str(file.absolute())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--init-from", "nowhere"],
            "--init-from nowhere does not exist: give a run directory or a .ckpt file.",
        ),
        (["--init-from"], "--init-from needs a value: the directory of a run, or a .ckpt file."),
        (
            ["--init-from", "."],
            "{here} holds no checkpoints/last.ckpt: give a run directory or a .ckpt file.",
        ),
        (
            ["--ckpt_path", "x"],
            "--ckpt_path is no option of ganzoo fit: to go on with a run give --resume RUN, and to begin a new one "
            "with its weights --init-from RUN.",
        ),
    ],
)
def test_mistakes(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "fit", *TINY, *arguments) == sentence.format(here=".")
    assert not Path("runs").exists()


def test_a_resume_has_its_own_weights(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "fit", "--resume", "source", "--init-from", "source") == (
        "--resume goes on with the run's own weights, so --init-from cannot be given as well: leave one out."
    )
    Path("other.yaml").write_text("init_from: source\n")
    for more in ([], ["--allow_changes"]):
        assert refused(capsys, "fit", "--resume", "source", "--config", "other.yaml", *more) == (
            "The run source has begun already, so that the weights it began with (init_from) cannot be changed: leave "
            "that out, or start a new run."
        )


def test_another_model_leaves_no_directory(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model", "MLPGAN", "--data", "Ring", *CPU, "--init-from", str(source), "--run_dir", "new"]
    assert refused(capsys, "fit", *options).startswith("Nothing was loaded from ")
    assert not Path("new").exists()


def test_frozen_layers_without_a_start_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", *TINY, *CPU, "--model.parts+=FreezeD", "--model.total_kimg", "0.064"]) == 0
    sentence = "Layers of the discriminator are frozen with random weights: give --init-from RUN."
    assert sentence in capsys.readouterr().err.splitlines()


@pytest.mark.slow
def test_two_processes_begin_with_it(source: Path, tmp_path: Path) -> None:
    """Each of them loads the weights, which then are those of one process after the same cycles."""
    options = [*TINY, *CPU, "--init-from", str(source), "--model.total_kimg", "0.128", "--model.parts+=FreezeD"]
    options += ["--model.generator_lr", "0", "--model.discriminator_lr", "0"]
    process = start(tmp_path, "fit", *options, "--trainer.devices", "2", "--run_dir", "two")
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert err.count("Start: 23 of 23 tensors") == 1
    old, new = content(source)["state_dict"], content("two")["state_dict"]
    for key in ("generator.layers.0.weight", "discriminator.layers.0.weight", "discriminator.embed.weight"):
        assert torch.equal(old[key], new[key])
