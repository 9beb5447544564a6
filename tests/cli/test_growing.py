"""A growing run on the command line: what it says of its batches, and tables that cannot be used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ganzoo.cli import main
from ganzoo.cli.announce import batches
from tests.cli.common import refused
from tests.mutants import kills

TINY = (
    "--model ProgressiveGAN --model.latent_dim 4 --model.channel_base 16 --model.channel_max 4 --data Digits "
    "--data.image_size 16 --data.batch_size 32 --model.growth.stabilize_kimg 0.032 --model.growth.fade_kimg 0.032 "
    "--model.total_kimg 0.16 --samples.every_kimg 0 --samples.num 1 --samples.gif false --run_dir run"
).split()


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GANZOO_CACHE", str(tmp_path / "cache"))


def check_batches(text: Callable[[int, Sequence[tuple[int, int]]], str]) -> None:
    assert text(64, []) == "64"
    assert text(64, [(10_000, 32)]) == "64, then 32 from 10 kimg on"
    assert text(64, [(0, 32), (800_000, 32), (1_600_000, 16)]) == "32, then 16 from 1,600 kimg on"
    assert text(64, [(0, 32), (0, 16), (500, 16), (750, 64)]) == "16, then 64 from 0.75 kimg on"


def of_the_data(size: int, later: Sequence[tuple[int, int]]) -> str:
    return str(size)


def every_phase(size: int, later: Sequence[tuple[int, int]]) -> str:
    return "".join([str(size), *(f", then {new} from {images / 1000:,g} kimg on" for images, new in later)])


def test_sizes_of_batches_in_words() -> None:
    check_batches(batches)
    kills(check_batches, of_the_data)
    kills(check_batches, every_phase)


def test_the_first_lines_of_a_run_say_its_batches(capsys: pytest.CaptureFixture[str]) -> None:
    """8x8 begins to fade in after 32 images; the data's own size, 32, is that of no batch."""
    assert main(["fit", *TINY, "--model.growth.batch_size", "{4: 16, 8: 8}"]) == 0
    line = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("Data:"))
    assert line.endswith("batches of 16, then 8 from 0.032 kimg on")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            ["--model.growth.batch_size", "{4: 16, 8: 1800}"],
            "Digits has 1797 pictures, fewer than one batch of 1800, which the model asks for from 0.032 kimg on; set "
            "that batch_size to 1797 or less, or give more pictures.",
        ),
        (
            ["--model.growth.batch_size", "{4: 16, 8: 9}", "--model.accumulate", "2"],
            "A batch_size of 9 cannot be divided among 1 processes with 2 micro-batches each; make it a multiple of 2.",
        ),
        (
            ["--model.growth.batch_size", "{4: 16, 8: 9}", "--trainer.devices", "2"],
            "A batch_size of 9 cannot be divided among 2 processes with 1 micro-batches each; make it a multiple of 2.",
        ),
    ],
)
def test_sizes_that_cannot_be_used_are_refused_before_there_is_a_run(
    options: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", *TINY, *options]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {sentence}"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("given", ["{4:7}", "{4:7,8:3}", "{4: 7,8:3}", "{four:7}"])
def test_a_table_without_spaces_is_told_how_it_is_written(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    right = {"{4:7}": "{4: 7}", "{four:7}": "{four: 7}"}.get(given, "{4: 7, 8: 3}")
    for option in ("batch_size", "stabilize_kimg"):
        assert refused(capsys, "fit", *TINY, f"--model.growth.{option}", given) == (
            f"{given} (model.growth.{option}) has no space behind a colon, as YAML needs: write '{right}'."
        )


@pytest.mark.parametrize(
    ("option", "given", "shown"),
    [
        ("batch_size", "16", "16, but must be a table such as '{4: 32, 8: 16}', or null."),
        ("lr", "{four: 7}", "{'four': 7}, but must be a table such as '{4: 32, 8: 16}', or null."),
        ("fade_kimg", "{4: 7, 8}", "{4: 7, 8: 'None'}, but must be a number, or a table such as '{4: 32, 8: 16}'."),
    ],
)
def test_other_tables_are_told_an_example(
    option: str, given: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = refused(capsys, "fit", *TINY, f"--model.growth.{option}", given)
    assert text == f"model.growth.{option} was {shown}"


def test_a_table_in_a_file_is_told_an_example(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "own.yaml"
    config.write_text("model: {init_args: {growth: {class_path: Growing, init_args: {lr: {4:7,8:3}}}}}\n")
    text = refused(capsys, "fit", *TINY, "--config", str(config))
    assert text.startswith("model.growth.lr in ")
    assert text.endswith("but must be a table such as '{4: 32, 8: 16}', or null.")


def test_a_run_that_stops_growing_goes_on_with_all_levels(capsys: pytest.CaptureFixture[str]) -> None:
    """Level and alpha of its checkpoint are not what somebody moves any more. Others are told nothing of its end."""
    with pytest.warns(UserWarning, match="full resolution, 16, from 0.128 kimg on.*ends at 0.064"):
        assert main(["fit", *TINY, "--model.total_kimg", "0.064"]) == 0
    assert main(["sample", "run", "--num", "2", "--out", "samples.png"]) == 0
    capsys.readouterr()
    assert main(["fit", "--resume", "run", "--model.growth", "null", "--model.total_kimg", "0.16"]) == 2
    assert "add --allow_changes" in capsys.readouterr().err
    options = ["--model.growth", "null", "--model.total_kimg", "0.16", "--allow_changes"]
    assert main(["fit", "--resume", "run", *options]) == 0
    assert "Done at 0.16 kimg" in capsys.readouterr().err
