"""The cost of each trick: every trick has a row, each pair differs by the trick, and the page takes the numbers."""

from __future__ import annotations

import json

import pytest

from benchmarks.speed.tricks import HEAD, Case, cases, filled, line, measure
from ganzoo.models import MLPGAN
from tests.ablation.test_timing import Busy
from tests.ddp_tricks import TABLE

CASES = {f"{case.name} {case.setting}".strip(): case for case in cases()}


def test_every_trick_is_measured() -> None:
    assert {case.name for case in CASES.values()} == {name for name in TABLE if "+" not in name}
    assert len(CASES) == len(cases())


@pytest.mark.filterwarnings("ignore:VirtualBatchNorm:UserWarning")
@pytest.mark.parametrize("key", CASES)
def test_a_pair_differs_by_the_trick(key: str) -> None:
    case = CASES[key]
    base, other = (case.subject(with_it=with_it).gan for with_it in (False, True))
    names = [{type(part).__name__ for part in (gan.loss, *gan.tricks)} for gan in (base, other)]
    assert case.name in names[1]
    assert (case.name in names[0]) == (case.name == "NonSaturating")
    settings = [
        {k: v for k, v in gan.config()["init_args"].items() if k not in ("loss", "parts", "penalties")}
        for gan in (base, other)
        if type(gan).__name__ == "DCGAN"
    ]
    assert settings[1:] == settings[:-1]


@pytest.mark.filterwarnings("ignore")
def test_a_known_cost_and_the_way_through_json() -> None:
    """A part that is busy for as long as the base is."""

    def make(**options):
        return MLPGAN((3, 32, 32), hidden=8, parts=[Busy(20.0), *options.get("parts", [])])

    case = Case("Busy", lambda: {"parts": [Busy(20.0)]}, "20 ms", make=make)
    (row,) = json.loads(json.dumps(measure([case], 0.1, min_pairs=3)))
    assert row["ms"][0] - row["base_ms"][0] == pytest.approx(20.0, abs=3.0)  # a busy machine slows the rest down
    assert row["cpu"] == pytest.approx(1 + 20.0 / row["base_ms"][0], abs=0.15)
    cells = [cell.strip() for cell in line(row).strip("|").split("|")]
    assert len(cells) == len(HEAD.splitlines()[0].strip("|").split("|"))
    assert cells[:2] == ["`Busy`, 20 ms", f"{row['cpu']:.2f}"]


def test_the_page_takes_the_numbers_of_its_rows_only() -> None:
    page = "# R1\n| trick | cost |\n|---|---|\n| `R1` | a | - |\n| `R2` | b | 1.50 |\nR1 | `R1` | c |\n"
    rows = [
        {"name": "R1", "setting": "", "cpu": 1.314},
        {"name": "R1", "setting": "every 16", "cpu": 1.02},
        {"name": "Other", "setting": "", "cpu": 3.0},
    ]
    expected = page.replace("| a | - |", "| a | 1.31, 1.02 (every 16) |")
    assert filled(page, rows) == expected
    assert filled(expected, rows) == expected
