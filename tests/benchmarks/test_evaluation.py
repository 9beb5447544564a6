"""The benchmark of scores: both references of the Frechet distance agree, and a peak is what was really taken."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks.speed import evaluation, limits
from ganzoo import memory
from tests.mutants import kills


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "DIM", 24)
    monkeypatch.setattr(evaluation, "CLASSES", 5)


@pytest.mark.filterwarnings("ignore::ganzoo.metrics.frechet.RankWarning")
def test_references_agree() -> None:
    """Above and below full rank: ours, scipy's root and singular values are one number."""
    for num in (60, 10):
        row = evaluation.compared(num, 2)
        assert set(row["cpu_seconds"]) == {"distance", "from_features", "root"}
        assert row["distance_from_root"] < 1e-5
        assert row["from_exact"]["distance"] < 1e-9
        assert row["from_exact"]["from_features"] < 1e-9


def resident_sees(resident: object) -> None:
    """200 MB that are held count in what is resident; given back, they are left in the peak."""
    begin, peak = resident("VmRSS"), resident("VmHWM")
    held = torch.ones(50_000_000)
    assert resident("VmRSS") - begin > 180e6
    del held
    assert resident("VmRSS") - begin < 100e6
    assert resident("VmHWM") >= peak
    assert resident("VmHWM") - begin > 180e6


def test_resident() -> None:
    memory.give_back()  # a fit that failed may have left the process keeping what it frees
    resident_sees(limits.resident)
    kills(resident_sees, lambda kind: limits.resident("VmRSS"))
    kills(resident_sees, lambda kind: limits.resident(kind) / 1024)


def test_all_scores_cost_the_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an extraction that takes all of the time, the ratio is 1; with none, that of the scores."""
    monkeypatch.setattr(evaluation, "kernel_distance", lambda fake, real: None)
    ratios = []
    for seconds in (1e6, 0.0):
        monkeypatch.setattr(evaluation, "seconds_per_image", lambda seconds=seconds: seconds)
        (row,) = evaluation.scores(argparse.Namespace(num=200))
        ratios.append(row["all_over_frechet"])
    assert ratios[0] == 1
    assert ratios[1] > 1


def test_the_page_says_what_the_records_say_and_the_bounds_hold() -> None:
    """Bounds: 1.4 times torch-fidelity, 6 times scipy's root and 1e-6 from it, 1.1 times FID alone, 1.5 and 3 GB."""
    folder = Path(__file__).parents[2] / "docs"
    page = (folder / "evaluation.md").read_text()
    rows = json.loads((folder / "records" / "evaluation-speed.json").read_text())["rows"]
    full, deficient = (row for row in rows if row["part"] == "frechet")
    assert full["root_over_distance"] >= 6 and full["distance_from_root"] < 1e-6
    assert deficient["root_over_from_features"] >= 6 and deficient["from_exact"]["from_features"] < 1e-6
    assert f"{full['root_over_distance']:.1f} times as fast, within" in page
    ways = (deficient["root_over_from_features"], deficient["root_over_distance"])
    assert "{:.0f} times as fast from the features, {:.0f} from covariances".format(*ways) in page
    whole = {row["part"]: row for row in rows if row["part"] in ("scores", "pair")}
    assert whole["scores"]["samples"] == 10_000 and max(row["all_over_frechet"] for row in whole.values()) <= 1.1
    ratios = (whole["scores"]["all_over_frechet"], whole["pair"]["all_over_frechet"], whole["pair"]["samples"])
    assert "{:.2f} times the time, as a sum of parts; {:.2f} for whole evaluations of {} images".format(*ratios) in page
    gigabytes = {row["of"]: row["peak_mb"] / 1e3 for row in rows if row["part"] == "memory"}
    features = 2 * 50_000 * 2048 * 4 / 1e9
    together = sum(gigabytes.values()) + features
    assert gigabytes["statistics"] < 1.5 and together < 3
    assert f"{gigabytes['statistics']:.2f} GB for FID and IS; with PRDC {together:.2f} GB" in page
    extractors = json.loads((folder / "records" / "extractors-speed.json").read_text())["rows"]
    assert all(row["ratio"] >= 1.4 and row["relative_difference"] < 1e-6 for row in extractors)
    assert "{:.2f} and {:.2f} times as fast".format(*(row["ratio"] for row in extractors)) in page


def test_rows_name_their_part_and_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "rows.json"
    monkeypatch.setattr(sys, "argv", ["evaluation", "frechet", "memory", "--json", str(file)])
    monkeypatch.setattr(evaluation, "compared", lambda num, pairs: {"samples": num})
    child = SimpleNamespace(run=lambda command, **_: SimpleNamespace(stdout="7e6"))
    monkeypatch.setattr(evaluation, "subprocess", child)
    evaluation.main()
    rows = json.loads(file.read_text())["rows"]
    assert [(row["part"], row["samples"]) for row in rows] == [
        *(("frechet", num) for num in (6000, 1000)),
        *[("memory", 50_000)] * 2,
    ]
    assert [(row["of"], row["peak_mb"]) for row in rows[2:]] == [("statistics", 7), ("prdc", 7)]
