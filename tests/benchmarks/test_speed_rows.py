"""Records of rows: what was measured is kept, whatever comes after."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from benchmarks.speed import levers, peers, rows
from benchmarks.speed.rows import Rows, split_options
from tests.mutants import kills


class Late(Rows):
    """Writes nothing before the end, which may not come."""

    def add(self, row: dict, **more: object) -> None:
        self.rows.append(row)


@pytest.mark.parametrize("command", [levers, peers], ids=["levers", "peers"])
def test_a_stopped_program_keeps_its_rows(
    command: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def keeps(kind: type[Rows]) -> None:
        path, left = tmp_path / f"{kind.__name__}.json", [{"index": 1.5, "device": "cpu"}]
        monkeypatch.setattr(command, "Rows", kind)
        monkeypatch.setattr(command, "alone", lambda function, *arguments: function(*arguments))
        monkeypatch.setattr(command, "measure", lambda *_, **__: left.pop())  # the second one fails
        with pytest.raises(IndexError):
            command.main(["mlp", "dcgan-32-narrow", "--json", str(path)])
        assert path.is_file()
        record = json.loads(path.read_text())
        assert [(row["case"], row["index"]) for row in record["rows"]] == [("mlp", 1.5)]
        assert json.loads(capsys.readouterr().out) == record["rows"][0]

    keeps(Rows)
    kills(keeps, Late)


def _process(fails: bool) -> dict[str, int]:
    if fails:
        raise RuntimeError("not measured")
    return {"process": os.getpid()}


def test_each_row_is_measured_in_a_process_of_its_own() -> None:
    processes = {os.getpid(), *(rows.alone(_process, False)["process"] for _ in range(2))}
    assert len(processes) == 3
    with pytest.raises(RuntimeError, match="not measured"):
        rows.alone(_process, True)


def test_facts_of_a_record_and_what_replaces_them(tmp_path: Path) -> None:
    kept = Rows(tmp_path / "rows.json", "cpu")
    kept.add({"a": 1}, seconds=2.0)
    kept.add({"a": 2}, seconds=3.0, commit="told")
    record = json.loads((tmp_path / "rows.json").read_text())
    assert (record["rows"], record["seconds"], record["commit"]) == ([{"a": 1}, {"a": 2}], 3.0, "told")
    assert {"ganzoo", "torch", "lightning", "python", "machine"} < set(record)


def test_options_of_fit_are_behind_two_dashes() -> None:
    assert split_options(["a", "--b", "--", "--c", "--", "d"]) == (["a", "--b"], ["--c", "--", "d"])
    assert split_options(["a"]) == (["a"], [])


def test_unknown_names_end_a_command_with_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        rows.check_names(rows.case_parser("peers", None, []), ["dcgan", "b"], ["a", "b"])
    assert "there is no dcgan; there are a, b" in capsys.readouterr().err
