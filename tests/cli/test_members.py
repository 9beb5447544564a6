"""Options of one member of a list."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from ganzoo.cli import arguments
from ganzoo.cli.parser import FitCLI


def parsed(*options: str) -> Any:
    cli = FitCLI(arguments.read(["--config", "stylegan.yaml", *options]))
    cli.parse()
    return cli.resolved()


def test_it_changes_that_member_and_nothing_else() -> None:
    before, after = parsed(), parsed("--model.penalties.R1.gamma", "5", "--model.penalties.R1.every=4")
    r1, path_length = before["model"]["init_args"]["penalties"]
    assert (r1["init_args"]["gamma"], r1["init_args"]["every"], path_length["init_args"]["every"]) == (1.0, 16, 4)
    r1["init_args"] |= {"gamma": 5.0, "every": 4}
    assert after == before


def test_of_a_member_that_was_appended_and_of_a_class_inside() -> None:
    options = ["--model.penalties+=R2", "--model.penalties.R2.gamma", "3", "--model.penalties.R2.every", "2"]
    options += [f"--model.penalties.PathLength.weight.{name}" for name in ("class_path=Linear", "to_kimg=7", "end=0.5")]
    _, path_length, r2 = parsed(*options)["model"]["init_args"]["penalties"]
    weight = path_length["init_args"]["weight"]
    assert (r2["class_path"], r2["init_args"]["gamma"], r2["init_args"]["every"]) == ("ganzoo.penalties.R2", 3.0, 2)
    assert weight["class_path"] == "ganzoo.schedules.Linear"
    assert (weight["init_args"]["to_kimg"], weight["init_args"]["end"]) == (7.0, 0.5)


def test_the_printed_config_has_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parsed("--model.penalties.R1.gamma", "5", "--print_config")
    assert ended.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["model"]["init_args"]["penalties"][0]["init_args"]["gamma"] == 5.0
