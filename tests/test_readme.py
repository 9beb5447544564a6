"""The commands of the README and of the gallery are true: each is run, on a small budget."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent


def commands(page: str) -> list[str]:
    """The lines of the page's bash blocks that begin with ganzoo, continued lines joined and comments cut off."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line.partition("  #")[0].strip() for line in lines if line.startswith("ganzoo ")]


def small(command: str) -> str:
    """The same command with a budget of a few cycles."""
    command = re.sub(r"--model.total_kimg \d+", "--model.total_kimg 0.4", command)
    if command.startswith("ganzoo fit") and "--model.total_kimg" not in command and "--resume" not in command:
        command += " --model.total_kimg 0.2"
    command = re.sub(r"--kimg \d+", "--kimg 0.2", command)
    if command.startswith("ganzoo evaluate"):
        command = re.sub(r"(--num |swd_images=)\d+", r"\g<1>64", command)
    if command.startswith("ganzoo ablate"):
        command = re.sub(r"--seeds \d+", "--seeds 1", command) + " --model.total_kimg 0.6 --no-timing"
    return command


def run(command: str, folder: Path) -> None:
    (folder / "bin").mkdir(exist_ok=True)
    program = folder / "bin" / "ganzoo"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m ganzoo "$@"\n')
    program.chmod(0o755)
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(["bash", "-c", command], cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{command}\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}"


@pytest.mark.slow
def test_commands_of_the_readme(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for i in range(128):
        Image.new("RGB", (90, 70), (i, 255 - i, 99)).save(tmp_path / "photos" / f"{i}.jpg")
    subprocess.run([sys.executable, "-m", "zipfile", "-c", "photos.zip", "photos"], cwd=tmp_path, check=True)
    given = commands("README.md")
    assert len(given) >= 12
    for command in given:
        run(small(command), tmp_path)
    assert (tmp_path / "grid.png").is_file()
    assert len(list((tmp_path / "threes").glob("*.png"))) == 30
    assert next((tmp_path / "runs").rglob("wandb/offline-run-*"))


@pytest.mark.slow
@pytest.mark.skipif("GANZOO_DATA" not in os.environ, reason="GANZOO_DATA names no folder with the data sets")
def test_commands_of_the_gallery(tmp_path: Path) -> None:
    """Samples are drawn from the last checkpoint, since a small budget reaches no numbered one."""
    for command in commands("docs/gallery.md"):
        run(re.sub(r"checkpoints/kimg-\S+", "checkpoints/last.ckpt", small(command)), tmp_path)


@pytest.mark.slow
def test_python_of_the_readme(tmp_path: Path) -> None:
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    code = code.replace("total_kimg=20", "total_kimg=0.2") + "\nassert images.shape == (16, 1, 32, 32)\n"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, check=True, capture_output=True, timeout=300)
