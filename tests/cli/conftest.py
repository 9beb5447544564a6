"""Runs that tests of several commands work on."""

from __future__ import annotations

from pathlib import Path

import pytest

from ganzoo.cli import main
from tests.cli.common import TINY


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A conditional model of 8x8 digits."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    assert main(["fit", *TINY, "--run_dir", str(folder), "--trainer.accelerator", "cpu"]) == 0
    return folder
