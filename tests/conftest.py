"""What every test gets: one thread, a cache of its own, no network, and no seed or setting left by another test."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonargparse._common import parsing_settings

_LOCAL = ("127.0.0.1", "::1", "localhost", "")


def pytest_configure(config: pytest.Config) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # processes that tests start, too
        os.environ.setdefault(name, "1")
    torch.set_num_threads(1)  # networks here are small; bitwise equality must not depend on the machine


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The user's cache, W&B account and configuration are out of reach."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GANZOO_CACHE", str(folder))
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("MPLBACKEND", "Agg")
        yield folder


@pytest.fixture(autouse=True, scope="session")
def no_network() -> Iterator[None]:
    """Python sockets reach this machine alone."""
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in _LOCAL:
            raise OSError(f"A test tried to reach {address[0]}, but tests have no network.")
        return connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", local_only)
        yield


@pytest.fixture(autouse=True)
def fresh_state() -> Iterator[None]:
    """The same seed and settings for each test, whatever ran before it, and for the fixtures of the next one."""
    _forget_seeds()
    torch.manual_seed(0)
    settings = dict(parsing_settings)  # a command narrows what its parser may import, for as long as the process lives
    yield
    parsing_settings.update(settings)
    _forget_seeds()


def _forget_seeds() -> None:
    """Those that seed_everything leaves, in a test or in a fixture that many tests share."""
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        os.environ.pop(name, None)


@pytest.fixture
def ganzoo_data() -> Path:
    """The folder of real data that ``GANZOO_DATA`` names; the test is skipped without it."""
    folder = os.environ.get("GANZOO_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("GANZOO_DATA names no folder of real data (cifar10-jpeg.tar.xz, emoji128.tar.xz)")
    return Path(folder)
