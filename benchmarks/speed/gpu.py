"""The whole programme of a GPU: ``benchmarks/speed/gpu.sh [FILE]``, or ``python -m benchmarks.speed gpu``.

Each case in float32, with TF32, in bfloat16, and in bfloat16 with cuDNN choosing its algorithms by trial: whole cycles
through the trainer on uint8 images that are on the device, the time of a cycle over that with its turns as CUDA graphs,
that with batches from a loader over that with the images on the device, and what each lever gains. What fails or does
not fit into the time is left out, and the record says so. Nothing of the command line is needed: neither jsonargparse
nor torch-fidelity nor wandb.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import torch

from benchmarks.speed import captured, levers, residence
from benchmarks.speed.attempts import Attempts
from benchmarks.speed.cases import CASES, TINY, Case
from benchmarks.speed.clocks import silence
from benchmarks.speed.cycles import measure
from benchmarks.speed.rows import Row, Rows, case_parser, check_names
from ganzoo.ablation.timing import Subject


@dataclass(frozen=True)
class Mode:
    """In which numbers a network computes."""

    precision: str = "32-true"
    tf32: bool = False
    autotune: bool = False  #: whether cuDNN tries its algorithms
    levers: bool = True  #: whether each lever's gain is measured, too, and that of images on the device

    @contextmanager
    def on(self) -> Iterator[None]:
        """Torch's settings, inside the block."""
        backends: Any = torch.backends
        holders = ((backends.cuda.matmul, "allow_tf32"), (backends.cudnn, "allow_tf32"), (backends.cudnn, "benchmark"))
        before = [getattr(holder, name) for holder, name in holders]
        try:
            for (holder, name), value in zip(holders, (self.tf32, self.tf32, self.autotune), strict=True):
                setattr(holder, name, value)
            yield
        finally:
            for (holder, name), value in zip(holders, before, strict=True):
                setattr(holder, name, value)


#: In order of importance.
MODES = {
    "bf16": Mode("bf16-mixed", tf32=True),
    "fp32": Mode(),
    "bf16, autotuned": Mode("bf16-mixed", tf32=True, autotune=True, levers=False),
    "tf32": Mode(tf32=True, levers=False),
}
DEFAULT = ("dcgan-32", "sngan-32", "sagan-32", "stylegan-32", "stylegan-256", "r3gan-32-b64", "stylegan-64")
MOST = 3  #: times ``--each``, after which no further lever of a case is begun


def main(arguments: Sequence[str]) -> None:
    begin = time.monotonic()
    parser = case_parser("gpu", __doc__, DEFAULT)
    parser.add_argument("--seconds", type=float, default=480.0, help="after which nothing new is begun")
    parser.add_argument("--each", type=float, default=6.0, help="seconds for the levers of a case in a mode, about")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cycles", type=int, default=0, help="of a round; 0: as many as fit into a second")
    parser.add_argument("--tiny", action="store_true", help="tiny networks, to see that it works")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--commit", help="of the code, where git cannot say it")
    options = parser.parse_args(arguments)
    cases = TINY if options.tiny else CASES
    names = options.cases or (list(TINY) if options.tiny else DEFAULT)
    check_names(parser, names, cases)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no GPU here; with --device cpu --tiny the programme runs for a look at it")
    silence()
    torch.set_num_threads(options.threads)
    given = {"commit": options.commit} if options.commit else {}
    rows = Rows(options.json, options.device)
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, GANZOO_CACHE=folder):
        for row in programme({name: cases[name] for name in names}, options, until=begin + options.seconds):
            rows.add(row, seconds=round(time.monotonic() - begin, 1), **given)


def programme(cases: Mapping[str, Case], options: argparse.Namespace, *, until: float) -> Iterator[Row]:
    """One row for each case in each mode."""
    for mode_name, mode in MODES.items():
        for name, case in cases.items():
            with mode.on():
                row = _row(case, mode, options, until)
            yield {"case": name, "mode": mode_name, **row}


def _row(case: Case, mode: Mode, options: argparse.Namespace, until: float) -> Row:
    """What could be measured of a case, and under ``left_out`` why the rest could not."""
    attempts = Attempts(until)

    def fresh() -> Subject:
        return case.subject(options.device, mode.precision, resident=len(case.shape) == 3)

    def cycles() -> Row:
        return measure(fresh(), rounds=options.rounds, cycles=options.cycles, end=until)

    def gains() -> Row:
        found = levers.measure(fresh(), seconds=options.each, end=min(until, time.monotonic() + MOST * options.each))
        return {name: found[name] for name in ("gain", "all", "no_gain") if name in found}

    def ratio(name: str, kind: Any) -> Row:
        return {name: kind.measure(fresh(), rounds=options.rounds, end=until)}

    stages: dict[str, Callable[[], Row]] = {"cycles": cycles, "graphs": partial(ratio, "graphs", captured)}
    if mode.levers:
        stages |= {"resident": partial(ratio, "resident", residence), "levers": gains}
    row: Row = {}
    for name, stage in stages.items():
        row |= attempts(name, stage) or {}
        if not row:
            break  # what does not train has no ratios
    return row | ({"left_out": attempts.left_out} if attempts.left_out else {})
