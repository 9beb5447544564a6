"""The page of results is what the generator makes of the records, and its verdicts are right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.speed import results
from benchmarks.speed.cases import CASES
from benchmarks.speed.levers import LEVERS
from benchmarks.speed.peers import PEERS, Peer
from tests.mutants import kills

ABOUT = {"machine": "a machine", "ganzoo": "1", "torch": "2", "lightning": "3", "commit": "abc"}


def test_the_committed_page_is_that_of_the_committed_records() -> None:
    assert results.page() == results.PAGE.read_text(), "run python -m benchmarks.speed results"


def row(**more: Any) -> dict[str, Any]:
    sizes = {"generator_parameters": 4_280_000, "discriminator_parameters": 1_050_000, "batch": 64, "d_per_g": 1.0}
    speed = {
        "gflop_per_image": 12.0,
        "share_of_ceiling": 0.5,
        "index": 50.0,
        "ms_per_cycle": 100.0,
        "model": "SNGAN",
        "threads": 1,
    }
    parts = dict.fromkeys((*results.PARTS, "loop", "trainer"), 1.0) | {"D backward": 9.0}
    return {**sizes, **speed, "parts_ms": parts, "peak_memory_mb": 77, "lightning_share": 0.05, **more}


def verdicts(done: Any) -> None:
    """Of a peer with index 30 and a goal of twice that."""
    peer = Peer("theirs", 18.0, 0.55, 30.0, 2.0)
    assert done(row(index=60.0), peer) == "yes"
    assert done(row(index=59.9), peer) == "no; most is left in D backward"
    assert done(row(index=59.9, share_of_ceiling=0.75), peer) == "yes, by its share; most is left in D backward"


def test_verdicts() -> None:
    verdicts(results.done)
    kills(verdicts, lambda row, peer: "yes" if row["index"] > peer.index else "no")
    kills(verdicts, lambda row, peer: results.done({**row, "share_of_ceiling": 0.0}, peer))


def test_without_records_every_table_says_so(tmp_path: Path) -> None:
    page = results.page(tmp_path)
    assert page.count("Not measured: there is no record") == 3
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) == len(PEERS)
    for name, line in zip(PEERS, rows, strict=True):
        assert ("not measured" if name in CASES else "no such model yet") in line


def test_a_page(tmp_path: Path) -> None:
    gain = {"folds": {"median": 1.3, "least": 1.25, "most": 1.4}, "all": {"median": 2.0, "least": 1.9, "most": 2.1}}
    graphs = {"median": 1.5, "least": 1.4, "most": 1.75}
    resident = {"median": 1.2, "least": 1.1, "most": 1.3, "replayed": {"median": 3.0, "least": 2.0, "most": 4.0}}
    gpu = {"mode": "fp32", "images_per_second": 100.0, "gain": gain, "graphs": graphs, "resident": resident}
    files = {
        "speed-cpu": [row(case="sngan-32", index=69.0)],
        "levers-cpu": [row(case="sngan-32", gain=gain), row(case="mlp", gain={})],
        "speed-gpu": [
            row(case="sngan-32", **gpu),
            row(case="sngan-32", mode="bf16", images_per_second=350.0, left_out={"levers": "no time"}),
            row(case="mlp", mode="bf16", images_per_second=50.0, graphs={"why_not": "hooks"}),
            {"case": "stylegan-256", "mode": "bf16", "left_out": {"cycles": "no time"}},
        ],
    }
    for name, rows in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps({**ABOUT, "rows": rows}))
    page = results.page(tmp_path)
    peer = "Mimicry SNGAN | 18.3 | 55% | 30 | 2.30 | 2 | yes |"
    assert f"| `sngan-32` | 4.28M, 1.05M | 64 | 1 | 12 | 50% | 69 | {peer}" in page
    # Eleven parts of 1 ms, one of them the rest, and one of 9: 20 ms in all.
    assert f"| `sngan-32` | 100 | 5.0% | 5.0% | 45.0% | {'5.0% | ' * 9}77 MB |" in page
    assert "| ms per cycle | data | D forward | D backward |" in page
    assert "Ours were timed on 1 thread(s)" in page
    assert f"| `folds` | {LEVERS['folds'].about} | 1.30 (1.25 to 1.40) | - |" in page
    # Plain float32 is 100 / 2 images per second.
    ratios = "1.50 (1.40 to 1.75) | 1.20 (1.10 to 1.30) / 3.00 (2.00 to 4.00)"
    assert f"| `sngan-32` | fp32 | 64 | 100 | 2.00 | {ratios} | 50% | 5.0% | 77 MB |" in page
    assert "| `sngan-32` | bf16 | 64 | 350 | 7.00 | - | - | 50% | 5.0% | 77 MB |" in page
    assert "- `sngan-32`, bf16: levers left out (no time)." in page
    assert "| `mlp` | bf16 | 64 | 50 | - | no: hooks |" in page
    assert "| `stylegan-256` | bf16 | left out: no time |" in page


def test_what_is_to_be_minded_of_a_peer() -> None:
    page, rows = results.page(), json.loads((results.RECORDS / "speed-cpu.json").read_text())["rows"]
    for name, peer in PEERS.items():
        about = next(line for line in page.splitlines() if line.startswith(f"- `{name}`: "))
        assert about.endswith(
            f"{CASES[name].about}. {peer.name}: {peer.note}." if peer.note else CASES[name].about + "."
        )
    ours = {row["case"]: row["gflop_per_image"] for row in rows}
    for name in ("dcgan-32", "dcgan-32-d2"):
        assert f"{1 - ours[name] / PEERS[name].gflop_per_image:.0%} fewer FLOPs" in PEERS[name].note


def test_rows_of_levers_say_what_all_is() -> None:
    gain = {name: {"median": 1.3, "least": 1.25, "most": 1.4} for name in ("folds", "iteration", "all")}
    before, now = row(case="sngan-32", gain=gain), row(case="sngan-32-b16", gain=gain, all=["folds"])
    text = results._levers({"rows": [before, now, row(case="mlp", gain={}, no_gain={"folds": "no memory"})]})
    assert "In `all` of `sngan-32`, measured before, `iteration` is, too." in text
    assert "| 1.30 (1.25 to 1.40) | 1.30 (1.25 to 1.40) | left out: no memory |" in text
    assert "measured before" not in results._levers({"rows": [now]})


@pytest.mark.parametrize("name", PEERS)
def test_peers_are_at_the_shapes_of_our_cases(name: str) -> None:
    """The peers' FLOPs are more than a forward pass of ours would be and their share of a ceiling is one."""
    peer = PEERS[name]
    assert 0 < peer.share_of_ceiling < 1 < peer.goal
    # index = images/s per TFLOP/s = 1000 share / GFLOP per image
    assert peer.index == pytest.approx(1000 * peer.share_of_ceiling / peer.gflop_per_image, rel=0.05)


def test_the_readme_says_what_the_record_says() -> None:
    rows = json.loads((results.RECORDS / "speed-cpu.json").read_text())["rows"]
    ratios = [row["index"] / PEERS[row["case"]].index for row in rows]
    words = f"{min(ratios):.1f} to {max(ratios):.1f} times as many images"
    assert words in " ".join((results.RECORDS.parents[1] / "README.md").read_text().split())
    assert len(rows) == len(PEERS) == 10  # "ten cases"
