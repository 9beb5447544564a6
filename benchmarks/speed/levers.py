"""What each lever gains: ``python -m benchmarks.speed levers [CASE...]``.

A lever is what ganzoo does to be faster; without it a cycle gives the same result, save where the table says that it is
another algorithm. ``all`` are those that give the same result and are on. Forms with and without a lever take turns,
pair by pair, on the same networks in one process; a gain is the median over rounds of the time of a mean cycle without
it, divided by the time with it just before or after, in CPU time on a CPU (a machine may be shared), in wall time on a
GPU.

    python -m benchmarks.speed levers --json docs/records/levers-cpu.json
    python -m benchmarks.speed levers sngan-32 --only folds shortcuts --rounds 3
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from benchmarks.speed import forms
from benchmarks.speed.attempts import NO_TIME, Attempts
from benchmarks.speed.cases import CASES
from benchmarks.speed.clocks import Clocks, silence
from benchmarks.speed.cycles import Cycles, clock_of, drive, dtype_of, facts, speed
from benchmarks.speed.limits import ceiling
from benchmarks.speed.rows import Row, Rows, alone, case_parser, check_names
from ganzoo.ablation.timing import Subject
from ganzoo.gan import GAN

Form = Callable[[GAN], AbstractContextManager[None]]


@dataclass(frozen=True)
class Lever:
    """Something that makes a cycle faster."""

    about: str
    other: Form  #: does without it for as long as the context is open; or with it, where it is not ``shipped``
    applies: Callable[[GAN], bool] = lambda gan: True  #: asked inside of a fit
    exact: bool = True  #: whether the result is the same without it, up to rounding
    shipped: bool = True  #: whether it is on


LEVERS = {
    "folds": Lever(
        "a 3x3 convolution behind upsampling or before pooling, in one step",
        lambda gan: forms.unfolded(gan, 3),
        lambda gan: forms.has_folds(gan, 3),
    ),
    "shortcuts": Lever(
        "1x1 convolutions on the small side of a change of resolution",
        lambda gan: forms.unfolded(gan, 1),
        lambda gan: forms.has_folds(gan, 1),
    ),
    "modulation": Lever(
        "modulation by scaled activations, not by weights of each sample", forms.grouped, forms.is_modulated
    ),
    "fusion": Lever(
        "factors, bias, noise and gain of a styled layer in few passes over the features",
        forms.unfused,
        forms.is_modulated,
    ),
    "filter": Lever(
        "low-pass filters as depthwise convolutions in channels_last, with derivatives of their own",
        forms.zeros_between,
        forms.is_modulated,
    ),
    "sweep": Lever(
        "an adversarial loss from the penalties' gradient, in one sweep back with them",
        forms.two_sweeps,
        forms.is_in_pieces,
    ),
    "twice": Lever(
        "convolutions and leaky rectifiers whose second derivatives are as fast as the first",
        forms.once,
        forms.is_twice,
    ),
    "together": Lever(
        "real and fake in one pass of the discriminator", forms.apart, lambda gan: gan.judges_in_groups > 0
    ),
    "channels_last": Lever("the memory format of feature maps and kernels", forms.contiguous, forms.is_channels_last),
    "memory": Lever("freed memory kept for its next use", forms.given_back, forms.keeps_freed),
    "adam": Lever("fused Adam", forms.unfused_adam, forms.has_fused_adam),
    "average": Lever(
        "the average of the generator in one step for all tensors",
        forms.one_by_one,
        lambda gan: gan.generator_ema is not None,
    ),
    "freezing": Lever("no gradients for the discriminator's weights in the generator's turn", forms.thawed),
    "logging": Lever("scalars kept as tensors, no self.log in a turn", forms.logged),
    "format": Lever(
        "channels_last where a model does not ask for it",
        forms.channels_last,
        forms.may_be_channels_last,
        shipped=False,
    ),
    "iteration": Lever(
        "one step of the power iteration per turn, as in algorithm 1 of Miyato 2018; other code takes one per pass",
        forms.iterating,
        forms.is_spectral,
        exact=False,
    ),
    "shared": Lever(
        "one pass of the generator for both players' turns (the option play.shared)",
        forms.shared,
        forms.may_share,
        exact=False,
        shipped=False,
    ),
}


@contextmanager
def without(gan: GAN, names: Sequence[str]) -> Iterator[None]:
    """The other form of each of these levers."""
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(LEVERS[name].other(gan))
        yield


#: Cases of the table: together they have every lever, and small ones show what large ones hide.
DEFAULT = ("mlp", "dcgan-32-narrow", "sngan-32-b16", "stylegan-32", "stylegan-64", "r3gan-32-narrow")


def main(arguments: Sequence[str]) -> None:
    parser = case_parser("levers", __doc__, DEFAULT)
    parser.add_argument(
        "--only", nargs="+", metavar="LEVER", help=f"of {', '.join(LEVERS)}, all; default: all of these"
    )
    parser.add_argument("--rounds", type=int, default=0, help="per case; default: what --seconds allow")
    parser.add_argument("--seconds", type=float, default=40.0, help="per case, about; at least 3 rounds")
    parser.add_argument("--precision", default="32-true")
    options = parser.parse_args(arguments)
    check_names(parser, options.cases, CASES)
    check_names(parser, options.only or [], [*LEVERS, "all"])
    rows = Rows(options.json)
    for name in options.cases or DEFAULT:
        rows.add(alone(row, name, options))


def row(name: str, options: argparse.Namespace) -> Row:
    """What is measured of a case, in this process."""
    torch.set_num_threads(options.threads)
    silence()
    subject = CASES[name].subject(precision=options.precision)
    found = measure(subject, options.only, rounds=options.rounds, seconds=options.seconds)
    return {"case": name, "about": CASES[name].about, **found}


def measure(
    subject: Subject,
    only: Sequence[str] | None = None,
    *,
    rounds: int = 0,
    seconds: float = 60.0,
    end: float = math.inf,
) -> dict[str, Any]:
    """One row: the cycle with all levers, and how much longer it takes without each, and without any.

    Args:
        subject: A fresh model.
        only: Names of levers, ``all`` for the exact ones at once; default: those that the model has, and ``all``.
        rounds: How often each form is timed.
        seconds: Or how long, about, in 3 rounds or more.
        end: By ``time.monotonic``, from which on no pair is begun, whatever else was asked for.
    """

    def run(cycles: Cycles) -> Measured:
        applicable = [name for name, lever in LEVERS.items() if lever.applies(cycles.gan)]
        names = [name for name in only or ["all", *applicable] if name in (*applicable, "all")]
        together = [name for name in applicable if LEVERS[name].shipped and LEVERS[name].exact]
        chosen = {name: together if name == "all" else [name] for name in names}
        return _measured(cycles, chosen, rounds, seconds, Attempts(end), dtype_of(subject))

    found = drive(subject, run)
    clock = clock_of(subject.gan.device)
    gain = {name: summary([one[clock] for one in ratios]) for name, ratios in found.ratios.items() if ratios}
    row = {
        **facts(subject, subject.gan.device),
        **speed(found.flop, found.images, found.readings, clock),
        "rounds": len(found.readings),
        "gain": gain,
    }
    if "all" in gain:
        row["all"] = found.chosen["all"]
    return row | ({"no_gain": found.left_out} if found.left_out else {})


@dataclass
class Measured:
    """What was timed."""

    flop: float  #: of a mean cycle
    images: int
    chosen: dict[str, list[str]]  #: the levers that each name stands for
    ratios: dict[str, list[Clocks]]  #: time of a mean cycle without a lever over that with it, by round
    readings: list[tuple[Clocks, Clocks]] = field(
        default_factory=list
    )  #: seconds of a mean cycle, FLOP/s of the ceiling
    left_out: dict[str, str] = field(default_factory=dict)  #: why some names have no ratios


def _measured(
    cycles: Cycles, chosen: dict[str, list[str]], rounds: int, seconds: float, attempts: Attempts, dtype: torch.dtype
) -> Measured:
    until = min(time.monotonic() + seconds, attempts.end)
    found = Measured(cycles.flop(), cycles.images, chosen, {name: [] for name in chosen})
    # A reading takes a fifth of a second, or less if there is no time for three pairs of each form.
    num = 2 * max(1, len(chosen)) * len(cycles.kinds)
    repeats = max(1, round(min(0.2, seconds / 3 / num) / cycles.seconds().wall))
    for name, names in chosen.items():
        attempts(name, partial(_warm_up, cycles, names))
    while not found.readings or not attempts.is_over:
        turn = len(found.readings)
        if turn >= (rounds or 3) and (rounds or time.monotonic() >= until):
            break
        shipped = []
        for name in chosen:
            pair = attempts(name, partial(_pair, cycles, chosen[name], repeats, turn))
            if pair is not None:
                on = name == "all" or LEVERS[name].shipped
                found.ratios[name].append(Clocks(*(a / b for a, b in zip(pair[on], pair[not on], strict=True))))
                shipped.append(pair[False])
        readings = zip(*(shipped or [cycles.seconds(repeats)]), strict=True)
        whole = Clocks(*(statistics.median(one) for one in readings))
        found.readings.append((whole, ceiling(cycles.gan.device, dtype)))
    failed = {name: reason for name, reason in attempts.left_out.items() if reason != NO_TIME or not found.ratios[name]}
    for name in failed:
        found.ratios[name].clear()
    found.left_out = failed
    return found


def _warm_up(cycles: Cycles, names: Sequence[str]) -> None:
    with without(cycles.gan, names):
        cycles.run(cycles.kinds[0][0])


def _pair(cycles: Cycles, names: Sequence[str], repeats: int, turn: int) -> dict[bool, Clocks]:
    """Seconds of a mean cycle in the other form of some levers, and as it is; what drifts meets both forms alike."""
    spent = {}
    for changed in ((), names) if turn % 2 else (names, ()):
        with without(cycles.gan, changed):
            spent[bool(changed)] = cycles.seconds(repeats)
    return spent


def summary(found: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(found), 3), "least": round(min(found), 3), "most": round(max(found), 3)}
