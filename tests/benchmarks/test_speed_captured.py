"""The time with graphs and without: both are cycles of the same model, and what has none says why."""

from __future__ import annotations

import pytest

from benchmarks.speed import captured, results
from benchmarks.speed.cases import TINY
from ganzoo import graphs
from tests.recorder import Recorder


@pytest.mark.parametrize("name", ["dcgan", "stylegan"])
def test_both_forms_are_timed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(graphs.RECORDERS, "cpu", Recorder)
    monkeypatch.setattr(Recorder, "recorded", 0)
    found = captured.measure(TINY[name].subject("cpu"), rounds=2, seconds=0.01)
    assert 0 < found["least"] <= found["median"] <= found["most"]
    # Turns are plain or lazy: R1 with the discriminator, path length with the generator.
    assert found["graphs"] == Recorder.recorded == (4 if name == "stylegan" else 2)
    assert 0.2 < found["replayed"] < 1.0


def test_without_graphs_it_says_why() -> None:
    assert captured.measure(TINY["dcgan"].subject("cpu")) == {"why_not": "graphs are of CUDA, and the model is on cpu"}


def test_the_column_of_the_table() -> None:
    row = {"case": "dcgan-32", "mode": "bf16", "batch": 64, "images_per_second": 1e5, "share_of_ceiling": 0.5}
    row |= {"lightning_share": 0.01, "peak_memory_mb": 100}
    gain = {"median": 2.5, "least": 2.25, "most": 3.0, "graphs": 2, "replayed": 0.9}
    lines = results._gpu({"rows": [row | {"graphs": gain}, row | {"graphs": {"why_not": "so"}}, row]}).splitlines()
    place = [cell.strip() for cell in lines[0].split("|")].index("as CUDA graphs")
    cells = [line.split("|")[place].strip() for line in lines[2:5]]
    assert cells == ["2.50 (2.25 to 3.00)", "no: so", "-"]
    assert len({line.count("|") for line in lines[:5]}) == 1
