"""``ganzoo evaluate``: the same numbers as in training, of runs, checkpoints and folders, and never mixed protocols."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ganzoo import files
from ganzoo.checkpoint import load_model
from ganzoo.cli import main
from ganzoo.metrics import record
from tests.cli.common import TINY, refused

DIGITS = ["--protocol", "digits", "--num", "60"]
IN_TRAINING = (
    "--trainer.callbacks+=Evaluate --trainer.callbacks.every_kimg 0.128 --trainer.callbacks.protocol digits "
    "--trainer.callbacks.num 60 --checkpoint.every_kimg 0.128 --checkpoint.monitor eval/fd/digits-cnn "
    "--log.every_kimg 0.128"
).split()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A conditional model of 8x8 digits, measured three times."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    assert main(["fit", *TINY, *IN_TRAINING, "--run_dir", str(folder), "--trainer.accelerator", "cpu"]) == 0
    return folder


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def evaluate(*arguments: str | Path) -> list[record.Record]:
    options = ["--json", "out.json", "--overwrite", "--device", "cpu"]
    assert main(["evaluate", *map(str, arguments), *options]) == 0
    return record.load("out.json")


def test_it_finds_what_training_found(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open(run / "metrics.csv", newline="") as file:
        table = {float(row["progress/kimg"]): row["eval/fd/digits-cnn"] for row in csv.DictReader(file)}
    capsys.readouterr()
    records = evaluate(run, "--all", *DIGITS)
    assert [one.kimg for one in records] == [0.128, 0.256, 0.384]
    for one in records:
        assert one.scores["fd/digits-cnn"].value == pytest.approx(float(table[one.kimg]), rel=1e-6)
        (kept,) = record.load(run / "evaluations" / "digits-cnn-fd" / f"kimg-{one.kimg:010.3f}.json")
        assert kept.protocol == one.protocol and kept.hashes["config"] == one.hashes["config"]
    out = capsys.readouterr().out
    assert out.startswith(f"Protocol digits {records[0].protocol.id}\n\n| | kimg | fd/digits-cnn |\n")
    assert "| digits/kimg-000000.128.ckpt | 0.128 | " in out
    best = min(records, key=lambda one: one.scores["fd/digits-cnn"].value)
    assert load_model(run / "checkpoints" / "best.ckpt").clock.kimg == best.kimg


def test_records_hold_the_hashes_of_what_was_measured(run: Path) -> None:
    (one,) = evaluate(run / "checkpoints" / "kimg-000000.128.ckpt", *DIGITS)
    assert one.hashes["checkpoint"] == files.sha256(run / "checkpoints" / "kimg-000000.128.ckpt")
    assert len(one.hashes["code"]) == 64 and one.facts["model"] == "DCGAN"
    assert one.protocol.reference == "Digits, 8x8" and one.protocol.reference_num == 1797


def test_mixed_protocols_are_refused_in_a_sentence(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (first,) = evaluate(run, *DIGITS)
    Path("out.json").rename("first.json")
    (second,) = evaluate(run, "--protocol", "digits", "--num", "50", "--set", "seed=3", "--set", "weights=raw")
    capsys.readouterr()
    assert refused(capsys, "evaluate", "--compare", "first.json", "out.json") == (
        f"digits/last.ckpt and digits/last.ckpt were measured by different protocols ({first.protocol.label} and "
        f"{second.protocol.label}), so their scores cannot be compared: The number of samples is 60 and 50. The kind "
        "of weights is ema and raw. The seed is 0 and 3."
    )
    assert main(["evaluate", "--compare", "first.json", "first.json"]) == 0
    assert capsys.readouterr().out.count("| digits/last.ckpt |") == 2


def test_a_folder_has_the_score_of_the_model_that_drew_it(run: Path) -> None:
    assert main(["sample", str(run), "--num", "60", "--out", "made"]) == 0
    (model,) = evaluate(run, *DIGITS)
    options = ["--against.image_size", "8", "--against.batch_size", "9"]
    (folder,) = evaluate("made", "--against", "Digits", *options, *DIGITS)
    assert folder.scores["fd/digits-cnn"].value == pytest.approx(model.scores["fd/digits-cnn"].value, rel=1e-9)
    assert folder.subject == "made" and folder.kimg is None and folder.protocol.weights == "files"
    assert folder.protocol.reference_hash == model.protocol.reference_hash
    assert folder.protocol.id != model.protocol.id  # nobody knows how they were drawn


def test_two_folders(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for name, num, mean in (("real", 50, 120), ("fake", 40, 90)):
        Path(name).mkdir()
        for i in range(num):
            pixels = generator.normal(mean, 20, (12, 10)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(f"{name}/{i:03d}.png")
    digits = ["--protocol", "digits"]
    (one,) = evaluate("fake", "--against", "real", "--extractor", "digits-cnn", *digits, "--metrics", "fd,prdc")
    assert one.protocol.num == 40 and one.protocol.reference == "real, 12x10" and one.protocol.reference_num == 50
    (same,) = evaluate("real", "--against", "real", *digits)
    assert same.scores["fd/digits-cnn"].value == pytest.approx(0, abs=1e-6)
    assert one.scores["fd/digits-cnn"].value > 1
    assert one.scores["recall/digits-cnn"].value <= 1


def test_options_of_the_extractor(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sentence = refused(capsys, "evaluate", str(run), "--extractor.path", "nowhere.pt", *DIGITS)
    assert sentence.startswith("There is no extractor nowhere.pt")
    assert "SHA-256" in refused(
        capsys, "evaluate", str(run), "--extractor", "Inception", "--extractor.weights", str(run / "config.yaml")
    )


def test_a_time_limit_is_in_the_record(run: Path) -> None:
    (one,) = evaluate(run, *DIGITS, "--max_seconds", "0", "--batch_size", "20")
    assert one.protocol.num == 20


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "There is nothing to evaluate: give a run, a checkpoint or a folder of images."),
        (["nowhere"], "nowhere does not exist: give a run, a checkpoint or a folder of images."),
        (["RUN", "--protocol", "fid"], "There is no protocol 'fid'; choose one of torch-fidelity, studiogan, nvidia"),
        (
            ["RUN", "--metrics", "fid"],
            "There is no metric 'fid'; choose from fd, kd, is, prdc, intra-fd, ppl, swd, ms-ssim.",
        ),
        (["RUN", "--nmu", "3"], "There is no option --nmu: did you mean --num?"),
        (["RUN", "--set", "sede=1"], "--set sede=1 names no choice of a protocol: did you mean seed?"),
        (["RUN", "--set", "seed=x"], "--set seed=x was given, but seed is a number"),
        (["RUN", "--set", "seed"], "--set seed has no value: give seed=VALUE."),
        (["RUN", "--batch_size", "0"], "--batch_size was 0; give 1 or more."),
        (["RUN", "--max_seconds", "-1"], "--max_seconds was -1; give 0 or more."),
        (["RUN", "--json", "taken"], "taken is a folder: give the name of a file to --json."),
        (["RUN", "--set", "num=5"], "--set num=5 names no choice"),
        (["RUN", "--device", "tpu9"], "--device was tpu9, which this machine does not have"),
        (
            ["RUN", "--protocol", "digits", "--against", "Digits"],
            "The reference has 32x32 pixels, what is measured 8x8",
        ),
        (["RUN", "--protocol", "digits", "--set", "truncation=0.5"], "A truncation of 0.5 was asked for, but Uniform"),
        (["IMAGES", "--protocol", "digits"], "There is nothing to compare with: name real images by --against."),
        (["--compare", "a.json"], "a.json cannot be read (no such file"),
        (
            ["RUN", "--against", "nowhere"],
            "--against nowhere is no file, no folder and no data set: give a folder or an archive of images, or a data "
            "set that ganzoo list shows, such as CIFAR10.",
        ),
        (["RUN", "--against", "no/where.zip"], "--against no/where.zip is no file, no folder and no data set"),
        (["RUN", "--against", "Digit"], "--against Digit is no file, no folder and no data set: did you mean Digits?"),
        (["RUN", "--against", "DCGAN"], "--against DCGAN is no file, no folder and no data set"),
        (["RUN", "--against", "mine.Data"], "The class mine.Data (data) belongs neither to ganzoo nor to a module"),
        (
            ["RUN", "--extractor", "nowhere"],
            "--extractor nowhere is no file and no extractor: give a file .pt that ganzoo",
        ),
        (["RUN", "--extractor", "DCGAN"], "--extractor DCGAN is no file and no extractor"),
        (
            ["RUN", "--extractor", "Inceptoin"],
            "--extractor Inceptoin is no file and no extractor: did you mean Inception?",
        ),
        (["RUN", "--set", "weights=files"], "weights was 'files'; choose one of ema, raw."),
        (["RUN", "--set", "split=validation"], "split was 'validation'; choose one of train, test."),
        (["RUN", "--set", "quantization=floor"], "quantization was 'floor'; choose one of round, nvidia"),
        (["RUN", "--truncation=0.5"], "There is no option --truncation: give --set truncation=VALUE."),
        (["FILE", "--all"], "--all is for the checkpoints of a run, and "),
        (["IMAGES", "--set", "truncation=0.5"], "--set truncation is for samples of a model, and "),
        (["IMAGES", "--max_seconds", "1"], "--max_seconds is for samples of a model, and "),
        (["RUN", "--json", "taken.json"], "taken.json exists already: give another --json, or add --overwrite."),
    ],
)
def test_mistakes(arguments: list[str], sentence: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("taken.json").write_text("precious")
    Path("taken").mkdir()
    places: dict[str, Any] = {"RUN": run, "IMAGES": run / "samples", "FILE": run / "checkpoints" / "last.ckpt"}
    capsys.readouterr()
    assert refused(capsys, "evaluate", *(str(places.get(word, word)) for word in arguments)).startswith(sentence)
    assert Path("taken.json").read_text() == "precious"


def test_a_run_on_points_has_no_such_scores(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model", "MLPGAN", "--data", "Ring", "--trainer.max_steps", "1", "--trainer.accelerator", "cpu"]
    assert main(["fit", *options]) == 0
    capsys.readouterr()
    sentence = "Ring holds points, not images, which these scores compare."
    assert refused(capsys, "evaluate", "runs/mlpgan-1", "--protocol", "digits") == sentence


def test_resume_goes_on_with_the_scores(run: Path, tmp_path: Path) -> None:
    """A run that ended earlier and is resumed has the rows of the whole one."""
    options = ["--run_dir", "short", "--trainer.accelerator", "cpu", "--model.total_kimg", "0.2"]
    assert main(["fit", *TINY, *IN_TRAINING, *options]) == 0
    assert main(["fit", "--resume", "short", "--model.total_kimg", "0.384"]) == 0
    content = [torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True) for folder in (run, Path("short"))]
    assert content[0]["callbacks"]["Checkpoint"] == content[1]["callbacks"]["Checkpoint"]
    tables = [(folder / "metrics.csv").read_text().splitlines() for folder in (run, Path("short"))]
    column = tables[0][0].split(",").index("eval/fd/digits-cnn")
    found = [[line.split(",")[column] for line in table[1:]] for table in tables]
    assert found[0] == found[1] and len(json.loads(f"[{','.join(found[0])}]")) == 3


# ------------------------------------------------------------------ validate


def test_validate_measures_what_the_run_measured(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At each checkpoint the record that training wrote there, but for what the file's own hash adds."""
    assert main(["validate", str(run), "--all", "--json", "out.json", "--device", "cpu"]) == 0
    for one in record.load("out.json"):
        (kept,) = record.load(run / "evaluations" / "digits-cnn-fd" / f"kimg-{one.kimg:010.3f}.json")
        assert one.protocol == kept.protocol and one.scores.keys() == kept.scores.keys()
        assert one.scores["fd/digits-cnn"].value == pytest.approx(kept.scores["fd/digits-cnn"].value, rel=1e-6)
    assert capsys.readouterr().out.count("\n| digits/kimg-") == 3


def test_validate_takes_a_checkpoint_and_a_recipe_as_lightning_does(run: Path) -> None:
    file = str(run / "checkpoints" / "kimg-000000.128.ckpt")
    first = {"class_path": "Evaluate", "init_args": {"protocol": "digits", "num": 60}}
    second = {"class_path": "Evaluate", "init_args": {"protocol": "digits", "num": 40, "metrics": ["prdc", "swd"]}}
    Path("mine.yaml").write_text(json.dumps({"trainer": {"callbacks": [first, second]}}))
    assert main(["validate", "--config", "mine.yaml", "--ckpt_path", file, "--json", "out.json"]) == 0
    one, two = record.load("out.json")
    (kept,) = record.load(run / "evaluations" / "digits-cnn-fd" / "kimg-000000.128.json")
    assert one.scores["fd/digits-cnn"].value == pytest.approx(kept.scores["fd/digits-cnn"].value, rel=1e-6)
    assert two.protocol.num == 40 and {"precision/digits-cnn", "swd", "swd/8"} < two.scores.keys()
    assert main(["validate", file, "--json", "again.json"]) == 0
    assert record.load("again.json")[0].scores == one.scores


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "There is nothing to validate: give a run, or --config RECIPE with --ckpt_path FILE."),
        (["nowhere"], "nowhere does not exist"),
        (["RUN", "--config", "dcgan.yaml"], "has no callback Evaluate, so it does not say what to measure: name a"),
        (
            ["alone.ckpt"],
            "alone.ckpt is no run and lies in none, so nothing says what to measure: add --config RECIPE.",
        ),
        (["RUN", "--json", "taken"], "taken is a folder: give the name of a file to --json."),
    ],
)
def test_mistakes_of_validate(
    arguments: list[str], sentence: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("taken").mkdir()
    Path("alone.ckpt").write_bytes((run / "checkpoints" / "last.ckpt").read_bytes())
    capsys.readouterr()
    assert sentence in refused(capsys, "validate", *(str(run) if word == "RUN" else word for word in arguments))


# ------------------------------------------------------------------ without an extractor


def test_two_folders_without_an_extractor(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixels alone: nothing is opened or downloaded, also by a protocol whose extractor is not there."""
    import urllib.request

    monkeypatch.setattr(urllib.request, "urlopen", None)
    monkeypatch.setenv("GANZOO_CACHE", str(Path("cache").absolute()))
    generator = np.random.default_rng(0)
    for name, num, mean in (("real", 50, 120), ("fake", 40, 90)):
        Path(name).mkdir()
        for i in range(num):
            pixels = generator.normal(mean, 20, (32, 32, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(f"{name}/{i:03d}.png")
    (one,) = evaluate("fake", "--against", "real", "--metrics", "swd,ms-ssim", "--protocol", "torch-fidelity")
    assert one.scores.keys() == {"swd", "swd/32", "swd/16", "ms-ssim"} and one.protocol.extractor == ""
    assert one.protocol.num == 40 and one.scores["swd"].value > 0
    (same,) = evaluate("real", "--against", "real", "--metrics", "swd")
    assert same.scores["swd"].value == 0
    assert not (Path("cache") / "references").exists()
    (model,) = evaluate(run, "--metrics", "swd", "--set", "swd_images=50")
    assert model.protocol.num == 50 and model.scores.keys() == {"swd", "swd/8"}


def test_pictures_of_several_kinds_are_noted(capsys: pytest.CaptureFixture[str]) -> None:
    for folder, kinds in (
        ("same", [(9, 7, 3)] * 4),
        ("sizes", [(9, 7, 3), (8, 8, 3)]),
        ("gray", [(9, 7, 3), (9, 7, 1)]),
    ):
        Path(folder).mkdir()
        for i, (height, width, channels) in enumerate(kinds):
            pixels = np.random.default_rng(i).integers(0, 256, (height, width, channels)).astype(np.uint8)
            Image.fromarray(pixels.squeeze()).save(f"{folder}/{i}.png")
    for folder, noted in (("same", False), ("sizes", True), ("gray", True)):
        evaluate(folder, "--against", "same", "--metrics", "swd", "--set", "swd_directions=4")
        note = f"note: pictures of {folder} are read as 9x7 in colours; those that are not so are cropped, resized and"
        assert (note in capsys.readouterr().err) == noted


def test_classes_and_paths_of_a_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (one,) = evaluate(
        run, "--protocol", "digits", "--num", "300", "--metrics", "intra-fd,ppl", "--set", "ppl_epsilon=1e-3"
    )
    assert one.scores.keys() == {"intra-fd/digits-cnn", "ppl/digits-cnn"}
    assert all(score.value > 0 for score in one.scores.values()) and one.protocol.ppl_epsilon == 1e-3
    capsys.readouterr()
    assert "--extractor out" in refused(capsys, "evaluate", str(run), "--metrics", "swd", "--extractor", "digits-cnn")
    sentence = refused(capsys, "evaluate", str(run), "--metrics", "ppl", "--set", "ppl_space=w", *DIGITS)
    assert sentence.startswith("Paths between styles were asked for, but DCGAN has none")
    assert main(["sample", str(run), "--num", "20", "--out", "made"]) == 0
    images = ["evaluate", "made", "--against", "made", "--protocol", "digits", "--metrics"]
    main([*images, "ppl"])  # the first look at pictures also says where they are kept
    capsys.readouterr()
    assert (
        refused(capsys, *images, "ppl")
        == "The perceptual path length is of a model, and these are images: leave ppl out."
    )
    assert "labels are asked for, but made has none" in refused(capsys, *images, "intra-fd")
