"""The directory of a run: never shared, never one that holds something already."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from itertools import count
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from ganzoo import __version__
from ganzoo.errors import UserError


def check(path: Path | None) -> None:
    """Refuse a directory that is not empty.

    Only the first process looks: the others start when it has made the run's directory.

    Raises:
        UserError: It holds files, or is one.
    """
    if path is None or any(os.environ.get(name, "0") != "0" for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID")):
        return
    if path.exists() and not path.is_dir():
        raise UserError(f"--run_dir {path} is a file; give a directory that does not exist yet.")
    if path.is_dir() and any(path.iterdir()):
        raise UserError(
            f"The directory {path} is not empty, and a new run never writes into another's: "
            f"give another --run_dir, or go on with that run by --resume {path}."
        )


def create(path: Path | None, name: str, config: str) -> Path:
    """Make the directory of a new run with its config.yaml; of two processes that ask at once, only one gets it.

    Args:
        path: The directory; none: the first free ``runs/NAME-N``.
        name: Of the recipe or model.
        config: Content of config.yaml.

    Raises:
        UserError: The directory holds something.
    """
    if path is not None:
        check(path)
        path.mkdir(parents=True, exist_ok=True)
    else:
        Path("runs").mkdir(exist_ok=True)
        path = _first_free(name)
    if not write_new(path / "config.yaml", config):
        raise UserError(f"Another run has just begun in {path}: give another --run_dir.")
    return path


def hold(path: Path) -> AbstractContextManager[object]:
    """Keep other processes out of a run's directory until the block ends; the system lets go of it when this one dies.

    Raises:
        UserError: Another process holds it.
    """
    try:
        return FileLock(path / ".lock").acquire(timeout=0)
    except Timeout as error:
        raise UserError(f"The run {path} is in progress in another process: wait for it, or stop it.") from error


def config_text(settings: Mapping[str, Any]) -> str:
    """The content of config.yaml: paths of data are made absolute, so that a run can be resumed from anywhere."""
    settings = copy.deepcopy(dict(settings))
    init_args = settings["data"].get("init_args", {})
    for name in ("path", "root"):
        if isinstance(init_args.get(name), str):
            init_args[name] = str(Path(init_args[name]).expanduser().absolute())
    return _HEADER.format(version=__version__) + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)


def write_new(path: Path, text: str) -> bool:
    """Write a file that does not exist yet, whole or not at all; False if it exists."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=".", suffix=".tmp") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
        os.chmod(file.name, 0o644)
        try:
            os.link(file.name, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without links
            return _write_plain(path, text)
    return True


def _write_plain(path: Path, text: str) -> bool:
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True


def _first_free(name: str) -> Path:
    for number in count(1):
        path = Path("runs") / f"{name}-{number}"
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise AssertionError("numbers do not end")


_HEADER = """\
# All settings of this run (ganzoo {version}). Another one like it: ganzoo fit --config THIS_FILE
"""
