"""``ganzoo ablate``: what it accepts, what it checks before anything runs, and whole ablations."""

from __future__ import annotations

import csv
import json
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from ganzoo.ablation.plan import Run
from ganzoo.cli import ablate, main
from tests.ablation.test_runner import FAKE
from tests.cli.common import refused, start

R1 = "R1=--model.penalties+=R1"
BASE = ["ablate", "mlp.yaml", "--seeds", "2", "--no-timing"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, ...]]:
    """Trainings become processes that only write a table: how each of them ends and its score, by name of the run."""
    hows: dict[str, tuple[str, ...]] = {}

    def command(run: Run, config: Path, imports: Sequence[str]) -> list[str]:
        assert yaml.safe_load(config.read_text())["data"]["class_path"] == "ganzoo.data.Ring"
        return [sys.executable, "-S", str(FAKE), str(run.folder), *hows.get(run.name, ("finish", "8"))]

    monkeypatch.setattr("ganzoo.ablation.runner.fit_command", command)
    return hows


def test_what_belongs_to_the_runs() -> None:
    request = ablate.read(
        shlex.split(
            "--seeds 3,7 --model.total_kimg 5 mlp.yaml --vary 'R1=--model.penalties+=R1 --model.penalties.gamma=2' "
            "--trainer.logger=false --vary=fast.yaml --vary 'both=a.yaml b.yaml --x 1' --jobs=3 --score a:max "
            "--model.generator_clip.norm -1 -- --out 3"
        )
    )
    assert request.base == "mlp.yaml"
    assert request.seeds == [3, 7]
    assert request.variations == [
        ablate.Asked("R1", (), ("--model.penalties+=R1", "--model.penalties.gamma=2")),
        ablate.Asked("fast", ("fast.yaml",)),
        ablate.Asked("both", ("a.yaml", "b.yaml"), ("--x", "1")),
    ]
    assert [v.given for v in request.variations][2] == "a.yaml b.yaml --x 1"
    assert request.options == [
        *("--model.total_kimg", "5", "--trainer.logger=false", "--model.generator_clip.norm", "-1", "--out", "3")
    ]
    assert (request.jobs, request.scores, request.out) == (3, ["a:max"], None)
    assert ablate.read(["mlp.yaml", "--seeds", "3,"]).seeds == [3]
    assert ablate.read(["mlp.yaml"]).seeds == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "ganzoo ablate needs a base: a recipe, such as ganzoo ablate ring.yaml; see --help."),
        (
            ["mlp.yaml", "--vary", "--model.penalties+=R1"],
            "--vary needs a value: a name with options, such as 'R1=--model.penalties+=R1', or an overlay file; see "
            "ganzoo ablate --help.",
        ),
        (
            ["mlp.yaml", "--vary=--model.penalties+=R1"],
            "--vary '--model.penalties+=R1' has no name: write, for example, 'NAME=--model.penalties+=R1'.",
        ),
        (["mlp.yaml", "--vary", "R1="], "The variation R1 changes nothing: write options after the equals sign."),
        (
            ["mlp.yaml", "--vary", "a/b=--x 1"],
            "'a/b' in --vary 'a/b=--x 1' cannot be a name: it may hold letters, digits and any of _ . + - after the "
            "first one.",
        ),
        (
            ["mlp.yaml", "--vary", "base=--x 1"],
            "A variation cannot be named base, which the runs without a variation are: choose another name.",
        ),
        (
            ["mlp.yaml", "--vary", "fast.yaml", "--vary", "fast=--x 1"],
            "Two variations are named fast: give one another name, as in NAME=fast.yaml.",
        ),
        (
            ["mlp.yaml", "--vary", "a='--x"],
            '--vary "a=\'--x" cannot be split into options (no closing quotation).',
        ),
        (["mlp.yaml", "--seed", "3"], "--seed cannot be given, as ablate sets it for each run: use --seeds."),
        (
            ["mlp.yaml", "--vary", "a=--run_dir x"],
            "--run_dir cannot be given, as ablate sets it for each run: use --out.",
        ),
        (["mlp.yaml", "--seeds", "many"], "--seeds was many, but must be how many, such as 5, or a list, such as 3,7."),
        (["mlp.yaml", "--seeds", "0"], "--seeds was 0, but must be 1 or more different numbers from 0 to 4294967295."),
        (
            ["mlp.yaml", "--seeds", "3,3"],
            "--seeds was 3,3, but must be 1 or more different numbers from 0 to 4294967295.",
        ),
        (["mlp.yaml", "--jobs", "0"], "--jobs was 0, but must be 1 or more."),
        (["mlp.yaml", "--jobs", "x"], "--jobs: invalid int value: 'x'; see ganzoo ablate --help."),
        (["mlp.yaml", "other.yaml"], "'other.yaml' was not expected; see ganzoo ablate --help."),
        (
            ["mlp.yaml", "--score", "loss/d"],
            "--score loss/d does not say which way is better: write loss/d:min or loss/d:max.",
        ),
    ],
)
def test_mistakes_in_the_command(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "ablate", *arguments) == sentence
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--vary", R1, "--vary", "R2=--model.penalties+=R22"],
            "In the variation R2: There is no class R22 (model.penalties): did you mean R2?",
        ),
        (
            ["--vary", "wide=--model.hiden 8"],
            "In the variation wide: There is no setting model.hiden: did you mean hidden?",
        ),
        (["--model.total_kimg", "-1"], "total_kimg was -1.0; a run lasts more than 0 thousand images."),
        (["--sedes", "5"], "There is no option --sedes: did you mean --seed?"),
        (
            ["--vary", "same=--model.hidden 128"],
            "same has exactly the settings of base: leave it out, or mend its options.",
        ),
        (
            ["--vary", R1, "--vary", "again=--model.penalties+=R1 --model.hidden 128"],
            "again has exactly the settings of R1: leave it out, or mend its options.",
        ),
    ],
)
def test_every_variation_is_checked_before_anything_runs(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(capsys, *BASE, *arguments) == sentence
    assert list(Path().iterdir()) == []


def test_a_file_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, *BASE, "--vary", "quikstart.yaml").endswith(": did you mean quickstart.yaml?")
    assert "There is no config nothing.yaml" in refused(capsys, "ablate", "nothing.yaml")


def test_a_directory_that_holds_something_else(capsys: pytest.CaptureFixture[str]) -> None:
    Path("here").mkdir()
    Path("here/file").write_text("")
    sentence = "The directory here is not empty and holds no ablation: give another --out."
    assert refused(capsys, *BASE, "--out", "here") == sentence


def test_a_whole_ablation(fakes: dict[str, tuple[str, ...]], capsys: pytest.CaptureFixture[str]) -> None:
    """Runs, lines and report; the same command has nothing left to do; what failed is tried again on demand."""
    fakes |= {"base seed 1": ("finish", "5"), "R1 seed 0": ("diverge", "1"), "R1 seed 1": ("fail", "1")}
    assert main([*BASE, "--vary", R1]) == 1
    out, err = capsys.readouterr()
    assert err.startswith("base, R1, 2 seeds each: 4 runs")
    lines = [line.partition(" ")[2].partition(" (")[0] for line in err.splitlines()[1:5]]
    assert sorted(lines) == [
        "R1 seed 0: diverged, loss/d is not finite since turn 7 of its player, before 1 kimg",
        "R1 seed 1: failed, the disk is full.",
        "base seed 0: toy/modes 8",
        "base seed 1: toy/modes 5",
    ]
    assert [line.split(" ")[0] for line in err.splitlines()[1:5]] == ["1/4", "2/4", "3/4", "4/4"]
    assert err.splitlines()[5] == (
        "error: 1 of 4 runs did not end by themselves: see why in ablations/mlp-1/R1/seed-1.log, then give the same "
        "command with --retry."
    )
    assert "base  6.5 ± 2.1" in out
    state = json.loads(Path("ablations/mlp-1/ablation.json").read_text())
    assert [v["states"]["diverged"] for v in state["variations"]] == [0, 1]

    fakes["R1 seed 1"] = ("finish", "7")
    assert main([*BASE, "--vary", R1]) == 1
    assert "4 of them ended before" in capsys.readouterr().err
    assert main([*BASE, "--vary", R1, "--retry"]) == 0
    out, err = capsys.readouterr()
    assert [line for line in err.splitlines() if "R1 seed 0" in line or "base seed" in line] == []
    assert "4/4 R1 seed 1: toy/modes 7" in err
    assert "+2 (pairs: +2)" in out
    assert [path.name for path in Path("ablations").iterdir()] == ["mlp-1"]


def test_more_of_the_same_and_another_plan(
    fakes: dict[str, tuple[str, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*BASE, "--vary", R1, "--out", "x"]) == 0
    capsys.readouterr()
    assert (
        main(["ablate", "mlp.yaml", "--seeds", "3", "--vary", "slow=--model.hidden 64", "--out", "x", "--no-timing"])
        == 0
    )
    _, err = capsys.readouterr()
    assert "base, R1, slow, 3 seeds each: 9 runs" in err
    assert "4 of them ended before" in err
    assert sorted(line.split()[1] for line in err.splitlines() if "/9 " in line) == ["R1", "base", *["slow"] * 3]
    sentence = refused(capsys, *BASE, "--out", "x", "--model.hidden", "32")
    assert sentence == (
        "x holds another plan, in which base differs (model.hidden: 128 -> 32): give another --out, or the options "
        "that it was begun with."
    )


def test_scores_that_the_runs_do_not_log(fakes: dict[str, tuple[str, ...]], capsys: pytest.CaptureFixture[str]) -> None:
    """It is said once when the first run has ended; the runs go on, and another score needs no new ones."""
    assert main([*BASE, "--score", "toy/mode:max"]) == 2
    err = capsys.readouterr().err
    assert err.count("The runs log no column toy/mode: --score takes one of toy/modes.") == 2  # a note, and the end
    assert "2/2 base seed 1: finished" in err
    assert main([*BASE, "--score", "toy/modes:max"]) == 0
    assert "2 of them ended before" in capsys.readouterr().err


def test_an_ablation_belongs_to_one_process(
    fakes: dict[str, tuple[str, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    from filelock import FileLock

    Path("x").mkdir()
    with FileLock("x/.lock"):
        sentence = refused(capsys, *BASE, "--out", "x")
    assert sentence == "The ablation x is in progress in another process: wait for it, or stop it."


def table(run: Path) -> list[dict[str, str]]:
    """metrics.csv without the columns that depend on the machine's speed."""
    with open(run / "metrics.csv") as file:
        return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in csv.DictReader(file)]


@pytest.mark.slow
def test_real_runs_are_interrupted_and_gone_on_with(tmp_path: Path) -> None:
    """Two seeds of a small GAN and a variation, with a Ctrl-C in the middle: the tables equal those of plain runs."""
    options = (
        "--model.total_kimg 40 --model.hidden 16 --log.every_kimg 4 --trainer.logger false --trainer.accelerator cpu"
    )
    more = "more=--model.penalties+=R1 --model.play.d 4"
    command = ["ablate", "mlp.yaml", "--vary", more, "--seeds", "2", "--score", "loss/d:max", *options.split()]
    process = start(tmp_path, *command, "--checkpoint.every_kimg", "4")
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("1/4"):
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert "Go on later with: ganzoo ablate mlp.yaml" in err
    assert not (tmp_path / "ablations/mlp-1/ablation.json").exists()

    process = start(tmp_path, *command, "--checkpoint.every_kimg", "4")
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert "Report: ablations/mlp-1/ablation.html" in out
    state = json.loads((tmp_path / "ablations/mlp-1/ablation.json").read_text())
    assert [v["states"]["finished"] for v in state["variations"]] == [2, 2]
    assert all(v["cost"]["num_pairs"] >= 5 for v in state["variations"])
    assert state["variations"][1]["cost"]["cpu"] > 1.5  # four turns of D, each with a second backward pass

    for run in state["runs"]:
        words = shlex.split(run["command"])[1:]
        plain = start(tmp_path, *words, "--run_dir", "plain", "--checkpoint.every_kimg", "4")
        plain.communicate(timeout=300)
        assert plain.returncode == 0
        own = tmp_path / f"ablations/mlp-1/{run['variation']}/seed-{run['seed']}"
        assert table(own) == table(tmp_path / "plain")
        (tmp_path / "plain").rename(tmp_path / f"plain-{run['variation']}-{run['seed']}")
