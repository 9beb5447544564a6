"""docs/tricks.md, the catalogue of all tricks, says what the code does."""

from __future__ import annotations

import inspect
import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks.speed.tricks import filled
from ganzoo.losses import AdversarialLoss
from ganzoo.parts import Part
from tests.ddp_tricks import TABLE
from tests.test_every_trick import TRICKS, parsed
from tests.test_house import ROOT, parts

PAGE = (ROOT / "docs" / "tricks.md").read_text()
RECORD = ROOT / "docs" / "records" / "tricks-cost.json"
COLUMNS = ("name", "purpose", "source", "defaults", "shared", "cost")
CLASSES = {cls.__name__: cls for cls in parts() if issubclass(cls, AdversarialLoss | Part)}


def rows() -> dict[str, dict[str, str]]:
    """The rows of all tables by the name in the first column."""
    lines = [line for line in PAGE.splitlines() if re.match(r"\| `\w+` \|", line)]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert all(len(row) == len(COLUMNS) for row in cells)
    found = {row[0].strip("`"): dict(zip(COLUMNS, row, strict=True)) for row in cells}
    assert len(found) == len(cells), "a trick has two rows"
    return found


ROWS = rows()


def plain(value: Any) -> str:
    """A default as the page writes it."""
    if isinstance(value, Mapping):
        return str(value["class_path"]).rpartition(".")[2]
    if isinstance(value, list):
        return "[" + ", ".join(map(str, value)) + "]"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def defaults(cls: type) -> str:
    """All settings of a class with their defaults."""
    given = inspect.signature(cls).parameters.values()
    return ", ".join(f"{p.name} {plain(p.default)}" for p in given if p.default is not p.empty)


def test_every_trick_has_a_row() -> None:
    assert set(ROWS) == set(TRICKS)


@pytest.mark.parametrize("name", TRICKS)
def test_the_defaults_are_those_of_the_code(name: str) -> None:
    assert ROWS[name]["defaults"] == defaults(CLASSES[name])


@pytest.mark.parametrize("name", TRICKS)
def test_devices_and_micro_batches_are_as_tested(name: str) -> None:
    row = TABLE[name]
    ranks = "joint" if row.ranks == "joint" else "per device"
    micro = "joint" if row.micro == "joint" else "per micro-batch"
    assert ROWS[name]["shared"] == f"{ranks}, {micro}"


@pytest.mark.parametrize("name", TRICKS)
def test_purpose_and_source_are_there(name: str) -> None:
    assert len(ROWS[name]["purpose"]) > 10
    assert re.search(r"\b(19|20)\d\d\b", ROWS[name]["source"]), "a source has a year"


def test_the_costs_are_those_of_the_record() -> None:
    """Before there is one, no number is written."""
    if RECORD.exists():
        assert filled(PAGE, json.loads(RECORD.read_text())["rows"]) == PAGE
    else:
        assert {row["cost"] for row in ROWS.values()} == {"not measured"}


def test_the_lines_of_yaml_and_the_options_give_the_same_model(tmp_path: Path) -> None:
    (yaml,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S)
    (command,) = re.findall(r"^ganzoo fit (.*)$", PAGE.replace("\\\n", ""), re.M)
    (tmp_path / "tricks.yaml").write_text(yaml)
    by_yaml = parsed("points", f"--config {tmp_path / 'tricks.yaml'}").model
    options = shlex.join(part for part in shlex.split(command) if part not in ("--config", "ring.yaml"))
    by_options = parsed("points", options).model
    for part in ("loss", "penalties", "parts"):
        assert by_yaml.config()["init_args"][part] == by_options.config()["init_args"][part]
    assert len(by_yaml.tricks) == 3
