"""Memory that is kept, on systems with glibc."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ganzoo import memory

ROOT = Path(__file__).resolve().parent.parent

#: Prints how many pages the system had to fill while 40 MB were asked for and freed ten times: 10,000 are 40 MB.
PAGES = """
import resource, sys
import torch
from ganzoo import memory
assert memory.keep_freed()
if sys.argv[1] == "given":
    memory.give_back()
for _ in range(20):  # small blocks come to lie between large ones until there is room for both
    torch.ones(10_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(10_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
FIT = """
from ganzoo import memory
from ganzoo.data import Digits
from ganzoo.models import MLPGAN
from tests.common import quiet_trainer
asked = []
memory.keep_freed = lambda: asked.append("kept")
memory.give_back = lambda: asked.append("given")
quiet_trainer(max_steps=1).fit(MLPGAN((1, 8, 8), hidden=4, num_layers=1), Digits(image_size=8, batch_size=16))
print(asked)
"""

needs_glibc = pytest.mark.skipif(memory._glibc() is None, reason="the C library is not glibc")


def said(program: str, *arguments: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name not in memory.VARIABLES}
    command = [sys.executable, "-c", program, *arguments]
    paths = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env={**kept, **paths}, check=True, capture_output=True, text=True, timeout=200)
    return done.stdout.strip().splitlines()[-1]


@needs_glibc
def test_freed_memory_is_kept() -> None:
    assert int(said(PAGES, "kept")) < 1_000
    assert int(said(PAGES, "given")) > 50_000


@needs_glibc
def test_a_plan_of_the_user_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    memory.give_back()
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000000")
    monkeypatch.setattr(memory, "_glibc", lambda: SimpleNamespace())  # whose settings cannot be changed
    assert not memory.keep_freed()
    memory.give_back()


def test_other_systems_have_nothing_to_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_glibc", lambda: None)
    assert not memory.keep_freed()
    memory.give_back()


def test_it_is_kept_for_the_time_of_a_fit() -> None:
    assert said(FIT) == "['kept', 'given']"
