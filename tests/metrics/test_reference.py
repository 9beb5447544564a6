"""Statistics of real images: computed once, and never taken for those of anything else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ganzoo import files
from ganzoo.data import Digits
from ganzoo.errors import UserError
from ganzoo.metrics import reference
from tests.metrics.fakes import Bytes, Corner, normal_bytes
from tests.mutants import kills

IMAGES = normal_bytes(100, 120, 20)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANZOO_CACHE", str(tmp_path))


def seen(data: Any, extractor: Corner, *, rows: bool = False) -> int:
    """How many images the extractor had to look at."""
    before = extractor.seen
    reference.open_or_build(data, extractor, rows=rows)
    return extractor.seen - before


def test_moments_are_those_of_all_images_and_computed_once() -> None:
    found = [reference.open_or_build(Bytes(IMAGES), Corner(), rows=True, batch_size=size) for size in (7, 64)]
    features = IMAGES.flatten(1)[:, :3].double().numpy()
    for one in found:
        np.testing.assert_allclose(one.collected.moments.mean, features.mean(0), rtol=1e-12)
        np.testing.assert_allclose(one.collected.moments.covariance(), np.cov(features.T), rtol=1e-10)
        np.testing.assert_array_equal(one.collected.rows, features)
        assert (one.title, one.split, one.content_hash) == ("Bytes, 2x2", "train", Bytes(IMAGES).content_hash)
    assert seen(Bytes(IMAGES), Corner(), rows=True) == 0


@dataclass
class Case:
    """Whose statistics must not be taken for those of the images by the plain extractor."""

    data: Any
    extractor: Corner


def is_never_reused(key: Callable[[Any, Any], dict[str, Any]]) -> None:
    original = reference._key
    reference._key = key
    try:
        seen(Bytes(IMAGES), Corner())
        wide = Bytes(IMAGES.reshape(100, 1, 1, 4))
        wide.content_hash = Bytes(IMAGES).content_hash  # the shape alone differs
        cases = [
            Case(Bytes(255 - IMAGES), Corner()),
            Case(wide, Corner()),
            Case(Bytes(IMAGES), Corner(2)),
            Case(Bytes(IMAGES), Corner(weights_hash="b" * 64)),
            Case(Bytes(IMAGES), Corner(resize="clean")),
            Case(Bytes(IMAGES, torch.arange(100) % 3), Corner()),
        ]
        for case in cases:
            assert seen(case.data, case.extractor) == 100
    finally:
        reference._key = original


def without(name: str) -> Callable[[Any, Any], dict[str, Any]]:
    """A key that lacks something, and the constructor's arguments, which repeat it."""
    return lambda data, extractor: {k: v for k, v in _key(data, extractor).items() if k not in (name, "options")}


_key = reference._key


def test_they_are_not_reused_for_anything_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    is_never_reused(_key)
    for number, name in enumerate(("content", "shape", "extractor", "weights", "resize")):
        monkeypatch.setenv("GANZOO_CACHE", str(tmp_path / f"mutant-{number}"))
        kills(is_never_reused, without(name))


def test_another_resolution_is_another_reference() -> None:
    extractor = Corner()
    assert seen(Digits(image_size=8), extractor) == 1797
    assert seen(Digits(image_size=16), extractor) == 1797
    assert seen(Digits(image_size=8), extractor) == 0


def test_rows_are_added_where_they_are_needed() -> None:
    extractor = Corner()
    assert [seen(Bytes(IMAGES), extractor, rows=rows) for rows in (False, True, True, False)] == [100, 100, 0, 0]


def test_labels_are_counted() -> None:
    labels = torch.tensor([0, 2, 2, 1, 2])
    found = reference.open_or_build(Bytes(IMAGES[:5], labels), Corner(), rows=False, batch_size=2)
    assert found.class_counts == [1, 1, 3]
    again = reference.open_or_build(Bytes(IMAGES[:5], labels), Corner(), rows=False)
    assert again.class_counts == [1, 1, 3] and torch.equal(again.collected.labels, labels)


def test_labels_are_added_where_they_are_needed() -> None:
    labels, extractor = torch.arange(100) % 3, Corner()
    data = [Bytes(IMAGES), Bytes(IMAGES, labels), Bytes(IMAGES, labels), Bytes(IMAGES)]
    assert [seen(one, extractor) for one in data] == [100, 100, 0, 0]


def test_a_draw_of_images() -> None:
    """Without replacement, evenly from everywhere; fewer are the first ones, and another seed draws others."""
    images = torch.arange(200, dtype=torch.uint8).view(200, 1, 1, 1)
    drawn = reference.drawn(Bytes(images), 50, seed=3).flatten().tolist()
    assert len(set(drawn)) == 50 and 60 < sum(drawn) / 50 < 140
    assert reference.drawn(Bytes(images), 20, seed=3).flatten().tolist() == drawn[:20]
    assert reference.drawn(Bytes(images), 50, seed=4).flatten().tolist() != drawn
    assert sorted(reference.drawn(Bytes(images), 500, seed=3).flatten().tolist()) == list(range(200))


@pytest.mark.parametrize("name", ["moments.pt", "rows.npy", "meta.json"])
def test_damaged_ones_are_computed_again(name: str) -> None:
    extractor = Corner()
    seen(Bytes(IMAGES), extractor, rows=True)
    (place,) = (path for path in (files.cache_root() / "references").iterdir() if path.is_dir())
    (place / name).write_bytes((place / name).read_bytes()[:40])
    assert seen(Bytes(IMAGES), extractor, rows=True) == 100
    assert json.loads((place / "meta.json").read_text())["num"] == 100


def test_what_fails_leaves_nothing_behind() -> None:
    class Broken(Corner):
        def extract(self, images: torch.Tensor) -> Any:
            if self.seen >= 64:
                raise MemoryError
            return super().extract(images)

    with pytest.raises(MemoryError):
        reference.open_or_build(Bytes(IMAGES), Broken(), rows=False, batch_size=64)
    assert not [path for path in (files.cache_root() / "references").iterdir() if path.is_dir()]


CHILD = """
import time
from tests.metrics.fakes import Bytes, Corner, normal_bytes
from ganzoo.metrics import reference
class Slow(Corner):
    def extract(self, images):
        time.sleep(0.02)
        return super().extract(images)
Slow.__module__, Slow.__qualname__ = "tests.metrics.fakes", "Corner"
extractor = Slow()
reference.open_or_build(Bytes(normal_bytes(100, 120, 20)), extractor, rows=False, batch_size=10)
print(extractor.seen)
"""


@pytest.mark.slow
def test_two_processes_compute_them_once() -> None:
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": str(root)}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "text": True, "env": env, "cwd": root}
    both = [subprocess.Popen([sys.executable, "-c", CHILD], **pipes) for _ in range(2)]
    assert sorted(int(child.communicate(timeout=600)[0]) for child in both) == [0, 100]


def test_points_are_refused() -> None:
    with pytest.raises(UserError, match="Bytes holds points, not images"):
        reference.open_or_build(Bytes(torch.zeros(5, 2, dtype=torch.uint8)), Corner(), rows=False)


def test_the_split_of_a_protocol_is_taken_where_there_are_two() -> None:
    from ganzoo.data import CIFAR10

    train = CIFAR10(root=".", batch_size=8)
    assert reference.with_split(train, "train") is train
    test = reference.with_split(train, "test")
    assert (test.split, test.batch_size, test.root) == ("test", 8, train.root)
    digits = Digits()
    assert reference.with_split(digits, "test") is digits
