"""The record of a training that the gallery shows.

``python -m benchmarks.scores.training runs/sngan-1 --command "ganzoo fit --config sngan.yaml" --out sngan.json``

All that decided the run and what came out of it: settings of model and data, the hashes of the data and of the last
checkpoint, the last row of the log, and the scores that the run keeps. It has no paths of this machine.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.scores.records import commit, machine
from ganzoo import __version__, checkpoint, files
from ganzoo.ablation.results import Metrics
from ganzoo.config import build
from ganzoo.metrics import record


def main() -> None:
    """Write the record."""
    parser = argparse.ArgumentParser("python -m benchmarks.scores.training", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--command", required=True, help="what anybody types to have this run")
    parser.add_argument("--commit", help="that the run was started from; default: this one")
    parser.add_argument("--threads", type=int, default=1, help="that the run used")
    parser.add_argument("--note", default="", help="what else a reader must know")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    content = of_run(options.run) | {
        "command": options.command,
        "commit": options.commit or commit(("ganzoo", "configs")),
        "machine": machine(torch.device("cpu")),
        "note": options.note,
    }
    files.write_json(options.out, content)


def of_run(run: Path) -> dict[str, Any]:
    """What the directory of a run says of it."""
    last = checkpoint.find(run)
    own = checkpoint.read(last)[checkpoint.KEY]
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    log = Metrics(run)
    return {
        "ganzoo": __version__,
        "torch": torch.__version__,
        "seed": own["seed"],
        "kimg": own["clock"]["images"] / 1000,
        "generator_updates": own["clock"]["g_turns"],
        "minutes": round(log.seconds / 60, 1),
        "model": own["model"],
        "data": _without_places(config["data"]),
        "data_hash": build(config["data"]).content_hash,
        "checkpoint_sha256": files.sha256(last),
        "last_row": {name: float(cell) for name, cell in log.rows[-1].items() if cell} if log.rows else {},
        "evaluations": _evaluations(run),
    }


def _without_places(value: Any) -> Any:
    """Settings in which a path is but its last name."""
    if isinstance(value, dict):
        return {key: _without_places(one) for key, one in value.items()}
    return Path(value).name if isinstance(value, str) and "/" in value else value


def _evaluations(run: Path) -> list[dict[str, Any]]:
    """One entry per protocol, with the scores in the order of training."""
    found: dict[str, dict[str, Any]] = {}
    records = [one for path in sorted((run / "evaluations").rglob("*.json")) for one in record.load(path)]
    for one in sorted(records, key=lambda one: one.kimg or 0.0):
        entry = found.setdefault(one.protocol.id, {"protocol": one.protocol.state(), "scores": []})
        entry["scores"].append({"kimg": one.kimg} | {name: score.value for name, score in one.scores.items()})
    return list(found.values())


if __name__ == "__main__":
    main()
