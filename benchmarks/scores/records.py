"""What is kept of a run: JSON with all that decides its numbers."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import ganzoo
from benchmarks.scores.methods import Method
from benchmarks.scores.protocol import Protocol, Target, differences
from benchmarks.scores.train import Run
from ganzoo.files import atomic

ROOT = Path(__file__).parents[2]
RECORDS = ROOT / "docs" / "records" / "toy"
SHOWN = 500  #: samples of the first seed that a record keeps for the pictures
_SOURCES = ("benchmarks/scores", *(f"ganzoo/{name}.py" for name in ("losses", "streams", "optim")), "ganzoo/metrics")


def name(protocol: Protocol, target: Target, method: Method) -> str:
    """Of the record and of the checkpoint."""
    return f"{protocol.name}-{target.name}-{method.name}"


def config(protocol: Protocol, target: Target, method: Method) -> dict[str, Any]:
    """All that decides the numbers of a seed, as plain data."""
    return {"protocol": asdict(protocol), "data": asdict(target), "method": method.config()}


def config_hash(content: dict[str, Any]) -> str:
    """Of the configuration in canonical form."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def write(runs: Sequence[Run], code: str, folder: Path = RECORDS) -> Path:
    """Write the record of runs that have ended, stacks of seeds of one method; ``code``: the commit at their start."""
    first = runs[0]
    content, seeds = config(first.protocol, first.target, first.method), [seed for run in runs for seed in run.seeds]
    points = first.samples()[0, :SHOWN]
    points = points[points.isfinite().all(1)]  # JSON has no nan
    curve = [_joined(rows) for rows in zip(*(run.curve for run in runs), strict=True)]
    record = {
        "protocol": first.protocol.name,
        "data": first.target.name,
        "method": first.method.name,
        "title": first.method.title,
        "seeds": seeds,
        "stacks": [len(run.seeds) for run in runs],
        "cycles": first.cycle,
        "results": {key: curve[-1][key] for key in curve[-1] if key != "cycle"},
        "seconds": {
            "cpu": round(sum(run.cpu_seconds for run in runs), 1),
            "wall": round(max(run.wall_seconds for run in runs), 1),
        },
        "differences": differences(first.protocol, len(seeds)),
        "notes": list(first.method.notes),
        "commit": code,
        "config_hash": config_hash(content),
        "config": content,
        "versions": {"ganzoo": ganzoo.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "machine": machine(first.latents.device),
        "curve": curve,
        "samples": [[round(x, 3) for x in point] for point in points.tolist()],
    }
    path = folder / f"{name(first.protocol, first.target, first.method)}.json"
    with atomic(path, "w") as file:
        file.write(_dump(record) + "\n")
    return path


def _joined(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One point of the curves of several stacks, as if they had been one."""
    lists = {key: [value for row in rows for value in row[key]] for key in rows[0] if key != "cycle"}
    return {"cycle": rows[0]["cycle"], **lists}


def read(folder: Path = RECORDS) -> list[dict[str, Any]]:
    """All records of a folder."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def commit(sources: Sequence[str] = _SOURCES) -> str:
    """The commit of the code, marked if what decides the numbers, the ``sources``, differs from it."""
    head = _git("rev-parse", "--short=12", "HEAD")
    return f"{head}+changes" if head and _git("status", "--porcelain", "--", *sources) else head or "unknown"


def machine(device: torch.device) -> str:
    """Kind and number of processors; no names."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{os.cpu_count()} CPU cores, {_processor()}; {torch.get_num_threads()} thread(s)"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _git(*arguments: str) -> str:
    result = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else ""


def _dump(record: dict[str, Any]) -> str:
    """One key per line, and one line per point of the curve, so that a difference can be read."""
    lines = []
    for key, value in record.items():
        text = json.dumps(value)
        if key == "curve":
            text = "[\n  " + ",\n  ".join(json.dumps(row) for row in value) + "\n ]"
        lines.append(f' "{key}": {text}')
    return "{\n" + ",\n".join(lines) + "\n}"


def missing(
    protocol: Protocol, targets: Sequence[Target], methods: Sequence[Method], folder: Path
) -> list[tuple[Target, Method]]:
    """What has no record yet, in order."""
    pairs = [(target, method) for target in targets for method in methods]
    return [(t, m) for t, m in pairs if not (folder / f"{name(protocol, t, m)}.json").exists()]
