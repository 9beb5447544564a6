"""The dispatcher: quick answers, exit codes, commands that do not exist."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from ganzoo import __version__
from ganzoo.cli import COMMANDS, main
from ganzoo.errors import TrainingError, UserError
from tests.cli.common import ROOT, refused


def cpu_seconds(*arguments: str) -> float:
    """Processor time of a process of its own; wall time would measure what else the machine does."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "ganzoo", *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["fit", "--help"]])
def test_help_and_version_answer_within_03_seconds(arguments: list[str]) -> None:
    assert min(cpu_seconds(*arguments) for _ in range(2)) < 0.3


@pytest.mark.parametrize("arguments", [["list"], *([name, "--help"] for name in COMMANDS)])
def test_tools_answer_within_a_second_without_torch(arguments: list[str]) -> None:
    assert min(cpu_seconds(*arguments) for _ in range(2)) < 1
    code = f"""
import atexit, os, sys
from ganzoo.cli import main
atexit.register(lambda: 'torch' in sys.modules and os._exit(9))  # argparse leaves by sys.exit
main({arguments})
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"ganzoo {__version__}\n"


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == main(["--help"]) == main(["-h"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text and summary in text for name, (_, summary) in COMMANDS.items())


def test_an_unknown_command_gets_the_nearest_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "smaple") == "There is no command smaple: did you mean sample?"
    assert refused(capsys, "--verison") == "There is no option --verison: see ganzoo --help."
    assert refused(capsys, "xyzzy") == "There is no command xyzzy: see ganzoo --help."


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (UserError("Too much."), 2, "error: Too much.\n"),
        (TrainingError("No more."), 1, "error: No more.\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_exit_codes(
    error: BaseException, code: int, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(arguments: list[str]) -> int:
        raise error

    monkeypatch.setattr("ganzoo.cli.listing.run", fail)
    assert main(["list"]) == code
    assert capsys.readouterr().err == text


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ganzoo.cli.listing.run", lambda arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["list"])


def test_a_reader_who_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -m ganzoo list | true; exit ${{PIPESTATUS[0]}}"
    found = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, "")
