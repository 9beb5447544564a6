"""Whole cycles at the shapes at which peers were timed: ``python -m benchmarks.speed peers [CASE...]``.

The index is images/s per TFLOP/s of the machine's own ceiling in the same run, so that machines can be compared. The
peers' cycles were timed once, on two AVX2 cores in float32 on a quiet machine, with real batches in memory as floats;
no script here can do that again. Ours are on as many threads as ``--threads`` says.

    python -m benchmarks.speed peers --json docs/records/speed-cpu.json
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from benchmarks.speed.cases import CASES
from benchmarks.speed.clocks import silence
from benchmarks.speed.cycles import measure
from benchmarks.speed.rows import Row, Rows, alone, case_parser, check_names


@dataclass(frozen=True)
class Peer:
    """What was read of another code base at the shape of one of our cases."""

    name: str
    gflop_per_image: float
    share_of_ceiling: float
    index: float
    goal: float  #: our index over the peer's
    note: str = ""  #: what to mind when the two are compared


_DEEP_CONV = (
    "its networks are not the paper's, which are ours and have 36% fewer FLOPs per image: compare the shares of the "
    "ceiling, not the indices"
)
_PLAIN = "without its CUDA operations, which are for a GPU alone"


#: By case; some are still to come.
PEERS = {
    "dcgan-32-d2": Peer("StudioGAN deep_conv", 2.03, 0.58, 283, 1.3, _DEEP_CONV),
    "dcgan-32": Peer("StudioGAN deep_conv", 2.56, 0.58, 227, 1.3, _DEEP_CONV),
    "sngan-32-d5": Peer("Mimicry SNGAN", 8.96, 0.51, 57, 2.0),
    "sngan-32": Peer("Mimicry SNGAN", 18.3, 0.55, 30, 2.0),
    "sagan-32-d5": Peer("StudioGAN SAGAN", 9.01, 0.62, 69, 1.6),
    "sagan-32": Peer("StudioGAN SAGAN", 18.1, 0.62, 34, 1.6),
    "stylegan-32": Peer("stylegan2-ada-pytorch", 12.8, 0.52, 40, 2.0, _PLAIN),
    "stylegan-64": Peer("stylegan2-ada-pytorch", 24.7, 0.31, 12.6, 2.5, _PLAIN),
    "progressive-32": Peer("pytorch_GAN_zoo", 15.2, 0.61, 40, 1.6),
    "r3gan-32": Peer("R3GAN", 267, 0.55, 2.0, 1.3),
}

#: A class is done at this share of the ceiling, too: then what is left to do is done nearly as fast as can be.
NEAR_THE_CEILING = 0.75


def main(arguments: Sequence[str]) -> None:
    default = [name for name in PEERS if name in CASES]
    parser = case_parser("peers", __doc__, default)
    parser.add_argument("--rounds", type=int, default=2, help="of as many cycles as lazy terms need, or a second's")
    options = parser.parse_args(arguments)
    check_names(parser, options.cases, CASES)
    rows = Rows(options.json, "cpu")
    for name in options.cases or default:
        rows.add(alone(row, name, options.rounds, options.threads))


def row(name: str, rounds: int, threads: int) -> Row:
    """What is measured of a case, in this process."""
    torch.set_num_threads(threads)
    silence()
    return {"case": name, **measure(CASES[name].subject("cpu"), rounds=rounds)}
