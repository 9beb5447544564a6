"""What the tests of the command line share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ganzoo.cli import main

ROOT = Path(__file__).parents[2]

#: A run of a second: 8x8 digits, 6 cycles.
TINY = (
    "--model DCGAN --data Digits --data.image_size 8 --data.labels true --model.width 4 --model.total_kimg 0.384"
).split()


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """``ganzoo`` in a process of its own."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "ganzoo", *arguments],
        cwd=folder,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    """The sentence with which a command line is refused, which must be all that it prints."""
    assert main(arguments) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err.removeprefix("error: ").removesuffix("\n")
