"""``ganzoo compare``: scores that runs keep, with the time that their logs say; never two protocols in one table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from ganzoo.cli import main
from ganzoo.metrics import record
from ganzoo.metrics.protocol import Protocol
from ganzoo.metrics.record import Record, Score
from tests.cli.common import refused

PROTOCOL = Protocol(num=100, kid_subsets=5, kid_subset_size=20, is_splits=2)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def make(name: str, scores: dict[float, float], seconds: float, *, protocol: Protocol = PROTOCOL) -> str:
    """A run that trained ``seconds`` per kimg, with a row of its log every 4 kimg."""
    folder = Path("runs") / name
    (folder / "evaluations" / "some").mkdir(parents=True, exist_ok=True)
    rows = "".join(f"{kimg},{kimg * seconds}\n" for kimg in range(4, 41, 4))
    (folder / "metrics.csv").write_text(f"progress/kimg,time/seconds\n{rows}")
    for kimg, value in scores.items():
        one = Record(f"{name}/kimg", protocol, {"swd": Score(value), "precision": Score(0.5)}, kimg)
        record.save([one], folder / "evaluations" / "some" / f"{protocol.id}-{kimg}.json")
    return str(folder)


def test_the_table_and_the_files(capsys: pytest.CaptureFixture[str]) -> None:
    """Between two rows of the log, the time is between theirs: 10 kimg at 6 s per kimg are a minute."""
    a = make("a", {10: 8.0, 20: 4.0, 30: 2.0}, 6.0)
    b = make("b", {10: 9.0, 40: 3.0}, 60.0)
    assert main(["compare", a, b, "--score", "swd", "--json", "out.json", "--png", "out.png"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"Protocol {PROTOCOL.label}\n\nswd\n\n| kimg | a | minutes | b | minutes |")
    assert "| 10 | 8 | 1 | 9 | 10 |\n| 20 | 4 | 2 |  |  |\n| 30 | 2 | 3 |  |  |\n| 40 |  |  | 3 | 40 |" in out
    assert "precision" not in out
    kept = json.loads(Path("out.json").read_text())
    assert kept["protocol"] == PROTOCOL.label
    (one,) = kept["comparisons"]
    assert one["courses"][0] == {"run": "a", "kimg": [10, 20, 30], "minutes": [1.0, 2.0, 3.0], "values": [8, 4, 2]}
    assert (one["kimg"], one["minutes"]) == (30, 3.0)
    assert one["summaries"][1]["equal_minutes"] is None  # its first score is of a model that trained for longer
    with Image.open("out.png") as picture:
        assert picture.format == "PNG"


def test_all_scores_that_are_shared(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", make("a", {10: 8.0}, 6.0), make("b", {10: 9.0}, 6.0)]) == 0
    out = capsys.readouterr().out
    assert "\nswd\n\n" in out and "\nprecision\n\n" in out


def test_a_run_that_was_stopped_behind_its_last_row(capsys: pytest.CaptureFixture[str]) -> None:
    """The log ends at 40 kimg: a checkpoint just behind it has its time, one far behind it has none."""
    assert main(["compare", make("a", {20: 8.0, 40.2: 7.0}, 6.0), make("b", {20: 9.0, 48: 5.0}, 6.0)]) == 0
    assert "| 20 | 8 | 2 | 9 | 2 |\n| 40.2 | 7 | 4 |  |  |\n| 48 |  |  | 5 | - |" in capsys.readouterr().out


def test_protocols_are_never_mixed(capsys: pytest.CaptureFixture[str]) -> None:
    other = replace(PROTOCOL, num=200)
    a, b = make("a", {10: 8.0}, 6.0), make("b", {10: 7.0}, 6.0, protocol=other)
    sentence = refused(capsys, "compare", a, b)
    assert "different protocols" in sentence and "100 and 200" in sentence
    make("a", {20: 1.0}, 6.0, protocol=other)  # what both have is compared, and nothing else
    assert main(["compare", a, b]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"Protocol {other.label}\n") and "| 10 |  |  | 7 | 1 |\n| 20 | 1 | 2 |  |  |" in out


def test_the_protocol_that_has_the_score_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    """Although a later measurement of both has it not."""
    a, b = make("a", {10: 8.0}, 6.0), make("b", {10: 7.0}, 6.0)
    later = replace(PROTOCOL, seed=5)
    for run in (a, b):
        record.save([Record("x", later, {"recall": Score(0.1)}, 10)], Path(run) / "evaluations" / "z.json")
    assert main(["compare", a, b, "--score", "swd"]) == 0
    assert capsys.readouterr().out.startswith(f"Protocol {PROTOCOL.label}\n\nswd\n")
    assert main(["compare", a, b]) == 0
    assert capsys.readouterr().out.startswith(f"Protocol {later.label}\n\nrecall\n")


def test_what_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    a = make("a", {10: 8.0}, 6.0)
    assert "is no directory" in refused(capsys, "compare", a, "nowhere")
    Path("empty").mkdir()
    assert "ganzoo evaluate empty --all --json empty/evaluations/scores.json" in refused(capsys, "compare", "empty")
    assert "takes one of swd, precision" in refused(capsys, "compare", a, "--score", "fid")
    assert "Two of the runs are called a" in refused(capsys, "compare", a, a)
