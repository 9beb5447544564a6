"""benchmarks/speed/RESULTS.md from the records: ``python -m benchmarks.speed results``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.scores.records import ROOT
from benchmarks.speed.cases import CASES
from benchmarks.speed.levers import LEVERS
from benchmarks.speed.peers import NEAR_THE_CEILING, PEERS, Peer

PAGE = ROOT / "benchmarks" / "speed" / "RESULTS.md"
RECORDS = ROOT / "docs" / "records"
Record = dict[str, Any]

HEAD = """# Speed: results

*Written by `python -m benchmarks.speed results` from the records in [docs/records](../../docs/records); not by hand.*

What is measured and how to read it is on [the page on speed](../../docs/speed.md). Absolute times of a shared machine
mean little; shares of its ceiling, the index and gains are medians of interleaved readings, in CPU time on a CPU.
"""

#: Parts of a cycle of which each has a share of its own in the table; the others are one.
PARTS = (
    "data",
    *(f"{player} {what}" for player in "DG" for what in ("forward", "backward", "penalties")),
    "optimizers",
    "EMA",
    "logging",
)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed results", description=__doc__)
    parser.add_argument("--records", type=Path, default=RECORDS, help="folder of the records")
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args(arguments)
    options.page.write_text(page(options.records))
    print(options.page)


def page(folder: Path = RECORDS) -> str:
    """The whole page."""
    peers, levers, gpu = (_read(folder / f"{name}.json") for name in ("speed-cpu", "levers-cpu", "speed-gpu"))
    parts = [HEAD, "## Whole cycles against peers, on a CPU\n", _source(peers, "peers", "speed-cpu"), _peers(peers)]
    parts += [_times(peers), "## What each lever gains, on a CPU\n", _source(levers, "levers", "levers-cpu")]
    parts += [_levers(levers), "## On a GPU\n", _source(gpu, "gpu", "speed-gpu"), _gpu(gpu)]
    return "\n".join(part for part in parts if part)


def _read(path: Path) -> Record:
    found: Record = json.loads(path.read_text()) if path.is_file() else {}
    return found


def _source(record: Record, command: str, name: str) -> str:
    """Where the numbers of a table come from."""
    path = f"docs/records/{name}.json"
    if not record:
        return f"Not measured: there is no record `{path}`, which `python -m benchmarks.speed {command}` writes.\n"
    versions = ", ".join(f"{key} {record[key]}" for key in ("ganzoo", "torch", "lightning", "python") if key in record)
    note = f" {record['note']}." if "note" in record else ""
    return f"{record['machine']}; {versions}; commit {record['commit']}; [{path}](../../{path}).{note}\n"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


# ---------------------------------------------------------------------- whole cycles


def _peers(record: Record) -> str:
    columns = [
        "case",
        "G, D parameters",
        "batch",
        "D per G",
        "GFLOP per image",
        "share of the ceiling",
        "index",
        "peer",
    ]
    columns += ["its GFLOP", "its share", "its index", "ratio", "goal", "done"]
    found = {row.get("case"): row for row in record.get("rows", [])}
    about = "\n".join(f"- `{name}`: {CASES[name].about}.{_note(peer)}" for name, peer in PEERS.items() if name in CASES)
    threads = sorted({row["threads"] for row in record.get("rows", [])}) or [1]
    return f"""{_table(columns, [_against(name, found.get(name), peer) for name, peer in PEERS.items()])}
{about}

The index is images/s per TFLOP/s of the ceiling. Ours were timed on {" or ".join(map(str, threads))} thread(s), the
peers' once, on another day, on two AVX2 cores of a quiet machine, whose ceiling was 206 GFLOP/s; no script here does it
again. A class is done at its goal, the ratio of the two, or at {NEAR_THE_CEILING:.0%} of the ceiling.
"""


def _note(peer: Peer) -> str:
    return f" {peer.name}: {peer.note}." if peer.note else ""


def _against(name: str, row: Record | None, peer: Peer) -> list[str]:
    theirs = [peer.name, f"{peer.gflop_per_image:g}", f"{peer.share_of_ceiling:.0%}", f"{peer.index:g}"]
    if row is None:
        ours = "not measured" if name in CASES else "no such model yet"
        return [f"`{name}`", ours, *["-"] * 5, *theirs, "-", f"{peer.goal:g}", "-"]
    sizes = ", ".join(f"{row[f'{player}_parameters'] / 1e6:.2f}M" for player in ("generator", "discriminator"))
    return [
        f"`{name}`",
        sizes,
        str(row["batch"]),
        f"{row['d_per_g']:g}",
        f"{row['gflop_per_image']:.3g}",
        f"{row['share_of_ceiling']:.0%}",
        f"{row['index']:.3g}",
        *theirs,
        f"{row['index'] / peer.index:.2f}",
        f"{peer.goal:g}",
        done(row, peer),
    ]


def done(row: Record, peer: Peer) -> str:
    """Whether a class is: at its goal, or near the ceiling in the FLOPs that are left."""
    if row["index"] >= peer.goal * peer.index:
        return "yes"
    if row["share_of_ceiling"] >= NEAR_THE_CEILING:
        return f"yes, by its share{_most(row)}"
    return f"no{_most(row)}"


def _most(row: Record) -> str:
    """The part that takes most of what is left."""
    parts: dict[str, float] = row.get("parts_ms", {})
    if not parts:
        return ""
    name = max(parts, key=lambda part: parts[part])
    return f"; most is left in {name}"


def _times(record: Record) -> str:
    """The time of each part of a cycle, where a record has it."""
    rows = [row for row in record.get("rows", []) if "parts_ms" in row]
    if not rows:
        return ""
    columns = ["case", "ms per cycle", *PARTS, "the rest", "Lightning", "peak memory"]
    text = _table(columns, [[f"`{row['case']}`", *_shares(row)] for row in rows])
    return f"""Where the time of a cycle goes, and the most memory that the process had:

{text}
Penalties are their own passes and gradients, and by how much backward passes are longer in turns with lazy terms. Of a
penalty of every turn there is no turn without it: going back through its gradient counts as D backward.
"""


def _shares(row: Record) -> list[str]:
    parts = row["parts_ms"]
    whole = sum(parts.values())
    rest = max(0.0, whole - sum(parts[name] for name in (*PARTS, "trainer")))
    shares = [*(parts[name] for name in PARTS), rest, parts["trainer"]]
    return [f"{row['ms_per_cycle']:,.0f}", *(f"{ms / whole:.1%}" for ms in shares), f"{row['peak_memory_mb']} MB"]


# ---------------------------------------------------------------------- levers


def _levers(record: Record) -> str:
    rows = record.get("rows", [])
    if not rows:
        return ""
    lines = [[lever.about, *(_gain(row, name) for row in rows)] for name, lever in LEVERS.items()]
    lines = [[f"`{name}`", *line] for name, line in zip(LEVERS, lines, strict=True)]
    lines.append(["all", "those that are exact and on, at once", *(_gain(row, "all") for row in rows)])
    about = "\n".join(
        f"- `{row['case']}`: {row.get('about', row['model'])}, batches of {row['batch']}." for row in rows
    )
    return f"""The time of a cycle without a lever over that with it: median, and least to most of the rounds.

{_table(["lever", "what it is", *(f"`{row['case']}`" for row in rows)], lines)}
{about}

{_not_as_others()}{_other_all(rows)}
"""


def _not_as_others() -> str:
    """What is said of levers that change the result, or are off."""
    other = " and ".join(f"`{name}`" for name, lever in LEVERS.items() if not lever.exact)
    off = " and ".join(f"`{name}`" for name, lever in LEVERS.items() if not lever.shipped)
    return (
        f"Without a lever the result is the same up to rounding, which a test shows over 20 cycles; with {other} it is "
        f"another algorithm. {off} are off: their gain is what they would bring."
    )


def _other_all(rows: Sequence[Record]) -> str:
    """Of which rows ``all`` is not what it is now: those do not say what it stands for."""
    other = [name for name, lever in LEVERS.items() if not lever.exact and lever.shipped]
    older = [row for row in rows if "all" in row.get("gain", {}) and "all" not in row]
    cases = [f"`{row['case']}`" for row in older if any(name in row["gain"] for name in other)]
    names = ", ".join(f"`{name}`" for name in other)
    return f" In `all` of {', '.join(cases)}, measured before, {names} is, too." if cases else ""


def _gain(row: Record, name: str) -> str:
    if gain := row.get("gain", {}).get(name):
        return _rounds(gain)
    reason = row.get("no_gain", {}).get(name)
    return f"left out: {reason}" if reason else "-"


def _rounds(found: Record) -> str:
    """The median of some rounds, and their least and most."""
    return f"{found['median']:.2f} ({found['least']:.2f} to {found['most']:.2f})"


# ---------------------------------------------------------------------- a GPU


def _gpu(record: Record) -> str:
    rows = record.get("rows", [])
    if not rows:
        return ""
    columns = [
        "case",
        "numbers",
        "batch",
        "images/s",
        "over plain float32",
        "as CUDA graphs",
        "images on the device",
        "share of the ceiling",
        "Lightning",
        "memory",
    ]
    plain = {row["case"]: _plain(row) for row in rows if row["mode"] == "fp32" and "all" in row.get("gain", {})}
    text = _table(columns, [_mode(row, plain.get(row["case"])) for row in rows])
    text += """
Plain float32 is without TF32 and without any of the levers that leave the result as it is. As CUDA graphs: the time of
a cycle over that with its turns replayed (`CaptureGraphs`), which the other columns are without. Images on the device:
the time of a cycle with batches from a loader over that with uint8 images on the device, which all other columns have;
first with turns as they are written, then replayed.
"""
    text += "".join(
        f"- `{row['case']}`, {row['mode']}: {', '.join(f'{stage} left out ({why})' for stage, why in left.items())}.\n"
        for row in rows
        if "images_per_second" in row and (left := row.get("left_out"))
    )
    for mode in dict.fromkeys(row["mode"] for row in rows if "gain" in row):
        some = [row for row in rows if row["mode"] == mode and "gain" in row]
        text += f"\nLevers, {mode}:\n\n" + _levers({"rows": some})
    return text


def _ratio(found: Record) -> str:
    """By which factor a cycle is faster where turns are replayed, or where images are on the device."""
    if "median" in found:
        return " / ".join(_rounds(one) for one in (found, found.get("replayed")) if isinstance(one, dict))
    return f"no: {found['why_not']}" if found else "-"


def _plain(row: Record) -> float:
    """Images per second of float32 without the levers that are on and exact."""
    return float(row["images_per_second"] / row["gain"]["all"]["median"])


def _mode(row: Record, plain: float | None) -> list[str]:
    if "images_per_second" not in row:
        return [f"`{row['case']}`", row["mode"], f"left out: {row['left_out']['cycles']}", *["-"] * 7]
    return [
        f"`{row['case']}`",
        row["mode"],
        str(row["batch"]),
        f"{row['images_per_second']:.4g}",
        "-" if plain is None else f"{row['images_per_second'] / plain:.2f}",
        _ratio(row.get("graphs", {})),
        _ratio(row.get("resident", {})),
        f"{row['share_of_ceiling']:.0%}",
        f"{row['lightning_share']:.1%}",
        f"{row['peak_memory_mb']} MB",
    ]
