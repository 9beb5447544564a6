"""``ganzoo fit`` as a user runs it: in processes of its own, two at once."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from ganzoo.checkpoint import load_model
from ganzoo.cli import main
from tests.cli.common import TINY, refused, start


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder where two runs were started together, and what each wrote to the terminal."""
    folder = tmp_path_factory.mktemp("folder")
    both = [start(folder, "fit", *TINY, "--trainer.accelerator", "cpu", "--seed", str(seed)) for seed in (1, 2)]
    written = []
    for process in both:
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
        assert out == ""
        written.append(err)
    return folder, written


def settings(run: Path) -> dict[str, object]:
    content: dict[str, object] = yaml.safe_load((run / "config.yaml").read_text())
    return content


def test_two_runs_started_together_get_two_directories(runs: tuple[Path, list[str]]) -> None:
    folder, _ = runs
    found = sorted((folder / "runs").iterdir())
    assert [path.name for path in found] == ["dcgan-1", "dcgan-2"]
    assert {settings(path)["seed"] for path in found} == {1, 2}
    assert {load_model(path).seed for path in found} == {1, 2}


def test_a_run_leaves_everything(runs: tuple[Path, list[str]]) -> None:
    run = runs[0] / "runs" / "dcgan-1"
    names = {path.name for path in run.iterdir()} - {"tensorboard"}
    assert names == {"config.yaml", "metrics.csv", "samples", "samples.gif", "checkpoints", ".lock"}
    assert (run / "checkpoints" / "last.ckpt").is_file()
    with open(run / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert (rows[-1]["progress/images"], rows[-1]["progress/g_turns"]) == ("384", "6")


def test_the_first_lines_say_what_is_trained_and_nothing_else_is_said(runs: tuple[Path, list[str]]) -> None:
    lines = runs[1][0].splitlines()
    begin = next(i for i, line in enumerate(lines) if line.startswith("Model:"))
    name = lines[begin + 2].split()[1]
    generator = load_model(runs[0] / name).generator
    count = sum(p.numel() for p in generator.parameters())
    assert lines[begin].startswith(f"Model: DCGAN, generator {count / 1000:.3g}k, discriminator ")
    assert lines[begin + 1] == "Data:  Digits, 1,797 images of 8x8, 1 channel, 10 classes, batches of 64"
    assert lines[begin + 2] == f"Run:   {name} (Ctrl-C saves and stops; then: ganzoo fit --resume {name})"
    assert lines[-1] == f"Done at 0.384 kimg: see {name}, and draw samples with: ganzoo sample {name}"
    others = [line for line in lines[:begin] + lines[begin + 3 : -1] if " kimg | " not in line]
    assert [line for line in others if not line.startswith("Digits: 1797 pictures, a cache of")] == []


def test_null_reaches_the_options_of_a_part(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jsonargparse hands them on as text, in which null has become None."""
    monkeypatch.chdir(tmp_path)
    parts = ["--model.parts+=APA", "--model.parts.target", "null", "--model.parts+=MinibatchStdDev"]
    more = ["--model.parts.group", "null", "--model.penalties+=FeatureMatching", "--model.penalties.layer=null"]
    with pytest.raises(SystemExit) as end:
        main(["fit", *TINY, *parts, *more, "--print_config"])
    assert end.value.code == 0
    model = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]
    apa, stddev = (part["init_args"] for part in model["parts"])
    assert (apa["target"], stddev["group"], model["penalties"][0]["init_args"]["layer"]) == (None, None, None)


def test_config_yaml_is_complete_and_can_be_fed_back(
    runs: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = runs[0] / "runs" / "dcgan-1" / "config.yaml"
    with pytest.raises(SystemExit) as end:
        main(["fit", "--config", str(config), "--print_config"])
    assert end.value.code == 0
    assert yaml.safe_load(capsys.readouterr().out) == yaml.safe_load(config.read_text())
    found = yaml.safe_load(config.read_text())
    assert found["model"]["init_args"]["width"] == 4
    assert found["model"]["init_args"]["loss"] == {
        "class_path": "ganzoo.losses.NonSaturating",
        "init_args": {"real_target": 1.0, "fake_target": 0.0},
    }
    assert "image_size" not in found["model"]["init_args"]  # it comes from data


@pytest.fixture
def run(runs: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a complete run, to be changed."""
    shutil.copytree(runs[0] / "runs" / "dcgan-1", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    return Path("run")


def test_a_complete_run_says_so(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert main(["fit", "--resume", "run"]) == 0
    assert capsys.readouterr().out == "The run run is complete, with 0.384 kimg; to go on, raise --model.total_kimg.\n"
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_files_that_a_kill_at_the_very_end_left_out_are_written_by_a_resume(run: Path) -> None:
    animation = (run / "samples.gif").read_bytes()
    (run / "samples.gif").unlink()
    table = (run / "metrics.csv").read_text()
    assert main(["fit", "--resume", "run"]) == 0
    assert (run / "samples.gif").read_bytes() == animation
    assert (run / "metrics.csv").read_text().splitlines()[:-1] == table.splitlines()[:-1]
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["ganzoo"]["clock"]["images"] == 384


def test_two_processes_do_not_train_in_one_directory(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ganzoo.cli import rundir

    with rundir.hold(run):
        before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
        sentence = refused(capsys, "fit", "--resume", "run", "--model.total_kimg", "0.64")
        assert sentence == "The run run is in progress in another process: wait for it, or stop it."
        assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_later_stop_goes_on_in_the_same_directory(run: Path) -> None:
    options = ["--model.total_kimg", "0.64", "--log.every_kimg", "0.128", "--data.num_workers", "1"]
    assert main(["fit", "--resume", "run", *options]) == 0
    assert not Path("runs").exists()
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["ganzoo"]["clock"]["images"] == 640
    assert content["ganzoo"]["clock"]["g_turns"] == 10
    assert settings(run)["model"]["init_args"]["total_kimg"] == 0.64
    former = yaml.safe_load((run / "config-1.yaml").read_text())
    assert former["model"]["init_args"]["total_kimg"] == 0.384


def test_other_changes_are_named_and_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model.total_kimg", "0.64", "--model.width", "8", "--seed", "7", "--model.loss", "Hinge"]
    sentence = refused(capsys, "fit", "--resume", "run", *options)
    for change in (
        "model.width: 4 -> 8",
        f"seed: {settings(run)['seed']} -> 7",
        "model.loss.class_path: ganzoo.losses.NonSaturating -> ganzoo.losses.Hinge",
    ):
        assert change in sentence
    assert "total_kimg" not in sentence
    assert sentence.startswith("A resumed run keeps its settings, but these were changed (")
    assert sentence.endswith("): leave them out, start a new run, or add --allow_changes.")


def test_changes_can_be_allowed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model.total_kimg", "0.448", "--model.generator_optimizer.lr", "0.5", "--allow_changes"]
    assert main(["fit", "--resume", "run", *options]) == 0
    assert "Changed: model.generator_optimizer.lr\n" in capsys.readouterr().err
    assert settings(run)["model"]["init_args"]["generator_optimizer"]["init_args"]["lr"] == 0.5


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (["--model.width", "8"], "size mismatch for generator.layers.0.weight: "),
        (["--model.parts+=SpectralNorm"], "Missing key"),
        (["--model.ema", "null"], "Unexpected key"),
    ],
)
def test_other_networks_are_refused_before_the_run_is_touched(
    run: Path, change: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert main(["fit", "--resume", "run", "--model.total_kimg", "0.448", *change, "--allow_changes"]) == 2
    changed, sentence = capsys.readouterr().err.rstrip().splitlines()
    assert changed.startswith("Changed: ")
    assert sentence.startswith(f"error: The weights of the run run are not those of the changed model ({reason}")
    assert sentence.endswith("or begin a new run with its weights by --init-from run.")
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


@pytest.mark.parametrize("more", [[], ["--allow_changes"]])
def test_the_seed_of_a_run_cannot_be_changed(run: Path, more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    seed = settings(run)["seed"]
    assert refused(capsys, "fit", "--resume", "run", "--seed", "7", *more) == (
        f"The seed of the run run is {seed}, which is part of its state, so a resume cannot change it to 7: leave "
        "--seed out, or start a new run."
    )


def test_resuming_what_cannot_be_resumed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sentence = "There is no run nowhere: --resume takes the directory of a run, such as runs/quickstart-1."
    assert refused(capsys, "fit", "--resume", "nowhere") == sentence
    sentence = "--resume goes on in the run's own directory, so --run_dir cannot be given as well."
    assert refused(capsys, "fit", "--resume", "run", "--run_dir", "x") == sentence
    shutil.rmtree(run / "checkpoints")
    sentence = "The run run ended before its first checkpoint; start it anew with --config run/config.yaml."
    assert refused(capsys, "fit", "--resume", "run") == sentence
    (run / "config.yaml").unlink()
    sentence = "The directory run holds no config.yaml, so it is no run that can be resumed."
    assert refused(capsys, "fit", "--resume", "run") == sentence


def test_a_new_run_never_writes_into_an_existing_one(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = (
        "The directory run is not empty, and a new run never writes into another's: give another --run_dir, or go on "
        "with that run by --resume run."
    )
    assert refused(capsys, "fit", *TINY, "--run_dir", "run") == expected


def test_a_run_that_could_not_begin_leaves_no_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fit", *TINY, "--model.play.d", "0", "--trainer.accelerator", "cpu"]) == 2
    assert "error: This run would never end" in capsys.readouterr().err
    assert list((tmp_path / "runs").iterdir()) == []


def test_missing_memory_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ganzoo.gan.GAN.cycle", fail)
    assert main(["fit", *TINY, "--trainer.accelerator", "cpu"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: The memory of cpu is too small for batches of 64 images; 32 fit: ")


@pytest.mark.slow
def test_two_processes_share_one_directory(tmp_path: Path) -> None:
    two = ["--trainer.accelerator", "cpu", "--trainer.devices", "2"]
    for where, given in (("runs/dcgan-1", []), ("mine/here", ["--run_dir", "mine/here"])):
        process = start(tmp_path, "fit", *TINY, *two, *given)
        _, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
        assert [str(path.parent) for path in tmp_path.rglob("config.yaml")] == [str(tmp_path / where)]
        shutil.rmtree(tmp_path / Path(where).parts[0])
    assert os.listdir(tmp_path) == []
    assert err.count("Model: DCGAN") == 1
    assert "on cpu x 2\n" in err
