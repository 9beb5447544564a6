"""The numbers of a report from runs with known ones, and its four files."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from ganzoo.ablation import report
from ganzoo.ablation.plan import Plan
from ganzoo.ablation.results import Score
from ganzoo.ablation.runner import Outcome
from ganzoo.ablation.statistics import Interval
from ganzoo.ablation.summary import Summary, VariationSummary, columns, command_of, split_given, summarize
from ganzoo.ablation.tables import plain, runs_table, score_table, unfinished
from ganzoo.ablation.timing import Clocks, Cost
from ganzoo.cli import arguments
from tests.ablation.common import finals, plan_of, write_run
from tests.mutants import kills

SCORE = Score("toy/score", "max")
COST = Cost(
    1.5, (1.4, 1.6), 9.0, (8.0, 10.0), Clocks(2.0, 3.0), Clocks(3.0, 4.5), 64, 64, 7, 20, "cpu", 1, load_average=0.5
)


@pytest.fixture
def five(tmp_path: Path) -> Summary:
    """Five seeds that matter more than the variation, which is always better by 0.5 or 1.5."""
    plan = plan_of("R1", seeds=range(5))
    base = [10.0, 20.0, 30.0, 40.0, 50.0]
    finals(tmp_path, plan, {"base": base, "R1": [b + d for b, d in zip(base, (0.5, 1.5, 0.5, 1.5, 0.5), strict=True)]})
    return summarize(plan, tmp_path, [SCORE], {"R1": COST})


def of(summary: Summary, name: str) -> VariationSummary:
    return next(v for v in summary.variations if v.name == name)


def test_means_deviations_and_paired_differences(five: Summary) -> None:
    base, r1 = of(five, "base").scores["toy/score"], of(five, "R1").scores["toy/score"]
    assert base.final.mean == 30.0
    assert base.final.deviation == pytest.approx(np.std([10, 20, 30, 40, 50], ddof=1))
    assert base.final.difference is None
    difference = r1.final.difference
    assert difference is not None
    assert difference.differences == (0.5, 1.5, 0.5, 1.5, 0.5)
    assert difference.mean == pytest.approx(0.9)
    assert difference.interval is not None
    assert 0.5 <= difference.interval.low < 0.9 < difference.interval.high <= 1.5


def test_the_best_of_a_run_is_not_its_last(tmp_path: Path) -> None:
    plan = plan_of(seeds=[0])
    write_run(plan.runs(tmp_path)[0], {"x": [3.0, 9.0, -1.0, 4.0]}, Outcome("finished", 0))
    for direction, expected in (("max", 9.0), ("min", -1.0)):
        numbers = summarize(plan, tmp_path, [Score("x", direction)], {}).variations[0].scores["x"]
        assert (numbers.final.mean, numbers.best.mean, numbers.best.deviation) == (4.0, expected, None)


ENDS = {
    "base": [Outcome("finished", 0)] * 4,
    "R1": [Outcome("finished", 0), Outcome("diverged", 1, "not finite"), Outcome("failed", 1, "no disk"), None],
    "bad": [Outcome("failed", -9, "killed by signal 9")] * 4,
}


def check_shares(share: Callable[[VariationSummary], float | None], folder: Path) -> None:
    """One of the two runs of R1 that show anything diverged; a run that failed says nothing about the variation."""
    plan = plan_of("R1", "bad", seeds=range(4))
    for run in plan.runs(folder):
        write_run(run, {"toy/score": [1.0 + run.seed]}, ENDS[run.variation][run.seed])
    summary = summarize(plan, folder, [SCORE], {})
    assert share(of(summary, "base")) == 0.0
    assert share(of(summary, "R1")) == 0.5
    assert share(of(summary, "bad")) is None


def test_diverged_and_failed_runs_are_counted_apart(tmp_path: Path) -> None:
    check_shares(lambda v: v.diverged_share, tmp_path / "right")
    kills(lambda share: check_shares(share, tmp_path / "a"), lambda v: v.states["diverged"] / v.num_runs)
    kills(
        lambda share: check_shares(share, tmp_path / "b"),
        lambda v: (v.states["diverged"] + v.states["failed"]) / v.num_runs,
    )


def test_only_finished_runs_have_scores(tmp_path: Path) -> None:
    plan = plan_of("R1", "bad", seeds=range(4))
    for run in plan.runs(tmp_path):
        write_run(run, {"toy/score": [1.0 + run.seed]}, ENDS[run.variation][run.seed])
    summary = summarize(plan, tmp_path, [SCORE], {})
    numbers = of(summary, "R1").scores["toy/score"]
    assert numbers.final.by_seed == numbers.best.by_seed == {0: 1.0}
    assert numbers.final.difference is not None
    assert (numbers.final.difference.seeds, numbers.final.difference.interval) == ((0,), None)
    assert of(summary, "bad").scores["toy/score"].final.mean is None
    rows = score_table(summary, SCORE).rows
    assert rows[1][1:] == ["1 (1 of 4 runs)", "1 (1 of 4 runs)", "+0 (pairs: +0)", "+0 (pairs: +0)"]
    assert rows[2][1:] == ["-", "-", "no pair", "no pair"]
    assert [row[:5] for row in runs_table(summary).rows] == [
        ["base", "4/4", "0 (0 %)", "0", "-"],
        ["R1", "1/4", "1 (50 %)", "1", "-"],
        ["bad", "0/4", "-", "4", "-"],
    ]
    assert unfinished(summary)[:3] == [
        "bad seed 0 failed: killed by signal 9",
        "R1 seed 1 diverged: not finite",
        "bad seed 1 failed: killed by signal 9",
    ]


def test_tables(five: Summary) -> None:
    difference = of(five, "R1").scores["toy/score"].final.difference
    assert difference is not None
    assert isinstance(difference.interval, Interval)
    row = score_table(five, SCORE).rows[1]
    assert row[:2] == ["R1", "30.9 ± 16"]
    assert row[3] == f"+0.9 [{difference.interval.low:+.3g}, {difference.interval.high:+.3g}]"
    assert runs_table(five).rows[1][4:] == ["1.50 (1.40 to 1.60)", "--model.x 1"]
    assert runs_table(five).rows[0][5] == "--model.total_kimg 1"
    text = plain(runs_table(five)).splitlines()
    assert text[1].split() == ["finished", "diverged", "failed", "cost", "per", "cycle"]
    assert len({line.index("5/5") for line in text[2:]}) == 1


def test_a_cost_on_a_gpu_is_wall_time() -> None:
    assert COST.ratio == 1.5
    assert Cost(**{**COST.__dict__, "device": "cuda"}).ratio == 9.0


def test_json_holds_everything(five: Summary, tmp_path: Path) -> None:
    report.write(five, tmp_path)
    state = json.loads((tmp_path / "ablation.json").read_text())
    assert state["plan"]["seeds"] == [0, 1, 2, 3, 4]
    assert [v["config_hash"] for v in state["variations"]] == [v.config_hash for v in five.plan.variations]
    assert {"ganzoo", "python", "torch", "lightning", "numpy"} == set(state["versions"])
    assert len(state["runs"]) == 10
    run = next(r for r in state["runs"] if (r["variation"], r["seed"]) == ("R1", 3))
    assert (run["state"], run["code"], run["final"], run["best"]) == (
        "finished",
        0,
        {"toy/score": 41.5},
        {"toy/score": 41.5},
    )
    assert run["command"] == "ganzoo fit --config toy.yaml --model.total_kimg 1 --model.x 1 --seed 3"
    assert run["seconds"] == 20.0
    assert state["variations"][1]["cost"]["cpu"] == 1.5


def test_commands_read_as_they_were_run() -> None:
    """Overlays before the options of all runs, which come before the variation's own."""
    assert split_given("a.yaml b.yaml --x 1 c") == (["a.yaml", "b.yaml"], ["--x", "1", "c"])
    assert split_given("") == ([], [])
    plan = plan_of("R1")
    one = plan.variations[1].__class__("both", "fast.yaml '--model.loss=Hinge'", {})
    plan = Plan("mlp.yaml", ["--model.hidden", "8"], [plan.variations[0], one], [4])
    (_, run) = plan.runs(Path("out"))
    words = shlex.split(command_of(plan, run))
    assert words[:2] == ["ganzoo", "fit"]
    assert [path.name for path in arguments.read(words[2:]).configs] == ["mlp.yaml", "fast.yaml"]
    assert words[-5:] == ["--model.hidden", "8", "--model.loss=Hinge", "--seed", "4"]


class Reader(HTMLParser):
    """Tags that are closed, addresses and cells of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.cells: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        assert tag not in ("script", "link", "img")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th", "code"):
            self.cells.append(data)


def test_the_page_is_one_file_that_is_readable_in_light_and_dark(five: Summary) -> None:
    five.variations[1].given = five.variations[1].given + " <b>&</b>"
    page = report.page(five)
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    assert all(address.startswith("#") for address in reader.addresses)
    assert not re.search(r"url\((?!#)", page)
    assert "--model.x 1 <b>&</b>" in reader.cells
    assert "30.9 ± 16" in reader.cells
    assert "prefers-color-scheme: dark" in page
    picture = page[page.index("<svg") : page.index("</svg>") + 6]
    root = ElementTree.fromstring(picture)
    assert "width" not in root.attrib
    texts = list(root.iter("{http://www.w3.org/2000/svg}text"))
    assert {"R1", "toy/score", "kimg"} <= {"".join(e.itertext()).strip() for e in texts}
    for text in texts:  # black words would vanish on a dark page
        style = text.attrib["style"]
        assert "currentColor" in style or "#0072b2" in style, style
    assert report.page(five) == page


def test_the_picture_has_a_line_for_each_run(five: Summary) -> None:
    from ganzoo.ablation.plot import figure

    whole = figure(five)
    curves, *differences = whole.findobj(lambda artist: hasattr(artist, "get_lines") and artist.get_visible())
    assert len(curves.get_lines()) == 10
    final = differences[0].get_lines()
    pairs = next(line for line in final if line.get_marker() == "o")
    assert list(pairs.get_xdata()) == [0.5, 1.5, 0.5, 1.5, 0.5]
    mean = next(line for line in final if line.get_marker() == "|")
    assert list(mean.get_xdata()) == [pytest.approx(0.9)]


def test_four_files(five: Summary, tmp_path: Path) -> None:
    report.write(five, tmp_path)
    with Image.open(tmp_path / "ablation.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 200
    text = (tmp_path / "ablation.md").read_text()
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert len(tables) == 8
    assert all(line.count("|") == tables[0].count("|") for line in tables[:4])
    assert "| `--model.x 1` |" in text
    assert "(ablation.png)" in text


def test_a_base_alone_and_runs_without_numbers_make_a_report_too(tmp_path: Path) -> None:
    plan = plan_of(seeds=[0, 1])
    write_run(plan.runs(tmp_path)[0], {"toy/score": [math.nan, 2.0]}, Outcome("diverged", 1, "not finite"))
    report.write(summarize(plan, tmp_path, [SCORE], {}), tmp_path)
    text = (tmp_path / "ablation.md").read_text()
    assert "- base seed 0 diverged: not finite\n- base seed 1 stopped: not ended yet\n" in text


def test_columns_of_all_runs(tmp_path: Path) -> None:
    plan = plan_of(seeds=[0, 1, 2])
    first, second, _ = plan.runs(tmp_path)
    write_run(first, {"a": [1.0]})
    write_run(second, {"a": [1.0], "b": [1.0]})
    assert columns(plan.runs(tmp_path)) == ["progress/kimg", "progress/images", "a", "time/seconds", "b"]
