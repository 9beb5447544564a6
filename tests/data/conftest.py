"""Hand-made pictures, and a cache of its own for each test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("GANZOO_CACHE", str(folder))
    return folder


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """train/cat, train/dog and test/dog with 4, 3 and 2 pictures of 8x8 noise, as PNG; and files that are none."""
    rng = np.random.default_rng(0)
    root = tmp_path / "animals"
    for folder, num in (("train/cat", 4), ("train/dog", 3), ("test/dog", 2)):
        (root / folder).mkdir(parents=True)
        for i in range(num):
            noise = rng.integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(noise).save(root / folder / f"{i}.png")
    (root / "train" / "readme.txt").write_text("no picture")
    (root / "train" / "cat" / "._0.png").write_bytes(b"left by another system")
    return root
