"""The published toy table: ``python -m benchmarks.scores run|table|speed``.

VEEGAN's ring of 8 and grid of 25 under PacGAN's protocol (``--protocol paper``) or a compact one, named so. The seeds
of a method train at once, as one stacked network per core (``--stacks``). A run that is stopped goes on with the same
command, and ends with the numbers of one that was not.

    python -m benchmarks.scores run --data grid --method pacgan2 --seconds 600
    python -m benchmarks.scores run --all --minutes 60     # fills what is missing, in order
    python -m benchmarks.scores table                      # docs/toy-table.md and its pictures, from the records
    python -m benchmarks.scores speed --method gan         # five seeds against one, in interleaved pairs
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.scores import records
from benchmarks.scores.methods import METHODS, Method
from benchmarks.scores.protocol import PROTOCOLS, TARGETS, Protocol, Target
from benchmarks.scores.speed import compare
from benchmarks.scores.stacks import Plan, split, train
from benchmarks.scores.table import write_table
from ganzoo.files import write_json
from ganzoo.memory import keep_freed


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    keep_freed()
    if options.command == "table":
        print(write_table(options.records))
        return 0
    protocol = PROTOCOLS[options.protocol]
    if options.command == "speed":
        facts = compare(protocol, METHODS[options.method], TARGETS[options.data], seconds=options.seconds)
        print(json.dumps(facts, indent=1))
        if options.json:
            write_json(options.json, facts)
        return 0
    return _run(protocol, options)


def _run(protocol: Protocol, options: argparse.Namespace) -> int:
    if options.all:
        todo = records.missing(protocol, list(TARGETS.values()), list(METHODS.values()), options.records)
        end = time.monotonic() + 60 * options.minutes
    else:
        todo = [(TARGETS[options.data], METHODS[options.method])]
        end = time.monotonic() + options.seconds
    failed, code = False, records.commit()  # now: a long run is by the code that it was started from
    for target, method in todo:
        if time.monotonic() >= end:
            break
        try:
            _one(protocol, target, method, end - time.monotonic(), code, options)
        except Exception:
            if not options.all:
                raise
            traceback.print_exc()  # the others do not depend on this one
            failed = True
    return int(failed)


def _one(
    protocol: Protocol, target: Target, method: Method, seconds: float, code: str, options: argparse.Namespace
) -> None:
    seeds = range(options.seeds or target.num_seeds)
    name, key = records.name(protocol, target, method), records.config_hash(records.config(protocol, target, method))
    stacks = split(seeds, options.stacks or max(1, (os.cpu_count() or 1) // options.threads))
    checkpoints = {options.work / f"{name}-{key}-{'-'.join(map(str, stack))}.pt": stack for stack in stacks}
    runs = train(Plan(protocol, method, target, options.device, options.threads), checkpoints, seconds)
    for run in runs:
        scores = {key: values for key, values in run.curve[-1].items() if key != "cycle"} if run.curve else {}
        print(f"{name}, seeds {run.seeds}: cycle {run.cycle} of {protocol.cycles} {scores}", flush=True)
    if all(run.cycle >= protocol.cycles for run in runs):
        print(f"  {records.write(runs, code, options.records).name}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    commands = parser.add_subparsers(dest="command", required=True)
    run, table, speed = (commands.add_parser(name) for name in ("run", "table", "speed"))
    for command in (run, speed):
        command.add_argument("--protocol", choices=PROTOCOLS, default="compact")
        command.add_argument("--data", choices=TARGETS, default="grid")
        command.add_argument("--method", choices=METHODS, default="gan")
    run.add_argument("--seconds", type=float, default=math.inf, help="stop after so many; the same command goes on")
    run.add_argument("--all", action="store_true", help="every method on both targets that has no record yet")
    run.add_argument("--minutes", type=float, default=math.inf, help="the same with --all")
    run.add_argument("--seeds", type=int, help="default: 5 on the grid, 3 on the ring")
    run.add_argument("--stacks", type=int, help="processes that share the seeds; default: one per core and thread")
    run.add_argument("--device", default="cpu", help="on a GPU, --stacks 1 is best")
    run.add_argument("--work", type=Path, default=records.ROOT / "runs" / "scores", help="folder of the checkpoints")
    for command in (run, table):
        command.add_argument("--records", type=Path, default=records.RECORDS, help="folder of the records")
    speed.add_argument("--seconds", type=float, default=30.0)
    speed.add_argument("--json", type=Path, help="docs/records/toy-speed.json is what the table quotes")
    return parser


if __name__ == "__main__":
    sys.exit(main())
