"""Rows of measurements: the commands that make them, and the records that keep them."""

from __future__ import annotations

import argparse
import json
import platform
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks.scores.records import commit, machine
from benchmarks.scores.stacks import SPAWN
from ganzoo import __version__
from ganzoo.files import write_json

SOURCES = ("ganzoo", "benchmarks/speed")
Row = dict[str, Any]


class Rows:
    """Rows that are printed and written as they come: a program that is stopped keeps what it has measured."""

    def __init__(self, path: Path | None, device: str | None = None) -> None:
        """
        Args:
            path: Of the record; none: it is printed alone.
            device: That was measured; default: what a row says of it.
        """
        self.path, self.device = path, device
        self.rows: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any], **more: Any) -> None:
        """Keep one more row, and further facts of the record."""
        self.rows.append(row)
        print(json.dumps(row), flush=True)
        if self.path:
            device = self.device or next((str(one["device"]) for one in self.rows if "device" in one), "cpu")
            write_json(self.path, record(torch.device(device), self.rows, **more))


def record(device: torch.device, rows: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """What a file of rows says about where they come from; ``more`` adds to it, or replaces."""
    facts = {
        "ganzoo": __version__,
        "torch": torch.__version__,
        "lightning": version("lightning"),
        "python": platform.python_version(),
        "commit": commit(SOURCES) if shutil.which("git") else "unknown",
        "machine": machine(device),
    }
    return {**facts, **more, "rows": rows}


def alone(function: Callable[..., Row], *arguments: Any) -> Row:
    """The row that a function makes in a new process: memory that one case has freed but kept is not the next one's."""
    with ProcessPoolExecutor(1, SPAWN) as pool:
        return pool.submit(function, *arguments).result()


def case_parser(command: str, about: str | None, default: Iterable[str]) -> argparse.ArgumentParser:
    """The parser of a command on cases, with the options that all of them have.

    Args:
        command: Its name.
        about: What ``--help`` says of it.
        default: Names of the cases that it takes when none are given.
    """
    from benchmarks.speed.cases import CASES

    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.speed {command}",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cases = f"of {', '.join(CASES)}; default: {' '.join(default)}"
    parser.add_argument("cases", nargs="*", metavar="CASE", help=cases)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the record here, after each row")
    return parser


def check_names(parser: argparse.ArgumentParser, given: Iterable[str], known: Iterable[str]) -> None:
    """End the program with a sentence if a name is not known."""
    if unknown := set(given) - set(known):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(known)}")


def split_options(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Our own options, and behind ``--`` those of ``ganzoo fit``."""
    given = list(arguments)
    at = given.index("--") if "--" in given else len(given)
    return given[:at], given[at + 1 :]
