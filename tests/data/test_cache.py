"""Decoded once, by one process, whole or not at all; damage and lack of room are said in one sentence."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import shutil
import signal
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from ganzoo.data import Digits, ImageFolder, cache
from ganzoo.data.framing import Framing
from ganzoo.errors import UserError
from tests.data.common import pixels


def cats(tree: Path, **options: Any) -> ImageFolder:
    return ImageFolder(str(tree / "train" / "cat"), **{"image_size": 8, "batch_size": 1} | options)


@pytest.fixture
def decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that grows by one byte for each picture that is decoded, in this process and in its children."""
    log, file = tmp_path / "decoded", Framing.file
    log.touch()

    def counting(self: Framing, data: bytes) -> Any:
        with open(log, "ab") as out:
            out.write(b".")
        return file(self, data)

    monkeypatch.setattr(Framing, "file", counting)
    return log


def count(log: Path) -> int:
    return log.stat().st_size


def test_a_second_run_decodes_nothing(tree: Path, decoded: Path, cache_folder: Path) -> None:
    first = cats(tree).dataset[np.arange(4)].data
    assert count(decoded) == 4
    again = cats(tree, corrupt="skip", batch_size=2, mirror=True, labels=False, num_workers=1)
    assert (again.dataset[np.arange(4)].data == first).all()
    assert count(decoded) == 4
    folders = [path for path in (cache_folder / "images").iterdir() if path.is_dir()]
    assert len(folders) == 1
    assert (folders[0] / "pixels.u8").stat().st_size == 4 * 3 * 8 * 8


@pytest.mark.parametrize(
    "option", [{"image_size": 4}, {"channels": 1}, {"fit": "pad"}, {"background": "red"}, {"resample": "nearest"}]
)
def test_an_option_that_changes_pixels_decodes_anew(tree: Path, decoded: Path, option: dict[str, Any]) -> None:
    cats(tree).setup()
    cats(tree, **option).setup()
    assert count(decoded) == 8


def test_a_changed_file_decodes_anew(tree: Path, decoded: Path) -> None:
    path = tree / "train" / "cat" / "1.png"
    before = cats(tree)
    before.setup()
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    touched = cats(tree)
    touched.setup()
    assert (count(decoded), touched.content_hash) == (8, before.content_hash)
    Image.new("RGB", (8, 8), "red").save(path)  # of another size, at the old time
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other = cats(tree)
    assert (other.dataset[np.array([1])].data[0].numpy() == pixels(path)).all()
    assert (count(decoded), other.content_hash == before.content_hash) == (12, False)
    path.unlink()
    assert cats(tree).num == 3


def test_it_pickles_as_its_place(tree: Path) -> None:
    dataset = ImageFolder(str(tree), split="train", image_size=8, labels=True).dataset
    data = pickle.dumps(dataset)
    assert len(data) < 2000
    copy = pickle.loads(data)[np.arange(7)]
    assert (copy.data == dataset[np.arange(7)].data).all()
    assert (copy.labels == dataset[np.arange(7)].labels).all()


def test_a_damaged_cache_is_made_again(tree: Path, decoded: Path) -> None:
    folder = cats(tree).dataset.folder
    with open(folder / "pixels.u8", "r+b") as file:
        file.truncate(100)
    assert cats(tree).num == 4
    assert count(decoded) == 8


def _slow(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    file = Framing.file
    monkeypatch.setattr(Framing, "file", lambda self, data: (time.sleep(seconds), file(self, data))[1])


def test_two_processes_that_start_together_decode_once(
    tree: Path, decoded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _slow(monkeypatch, 0.1)
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=cats(tree).setup) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0]
    assert count(decoded) == 4


def test_a_killed_build_leaves_no_half_cache(
    tree: Path, decoded: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        _slow(patch, 5)
        process = multiprocessing.get_context("fork").Process(target=cats(tree).setup)
        process.start()
        while not list(cache_folder.rglob("pixels.u8")):
            assert process.is_alive()
            time.sleep(0.01)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join(30)
    assert cache.find(cats(tree).pictures.cache_name()) is None
    assert cats(tree).num == 4  # neither the rest nor the lock of the dead process is in the way
    assert count(decoded) == 4
    assert len(list(cache_folder.rglob("pixels.u8"))) == 1


def test_what_a_killed_build_of_other_pictures_left_is_deleted_but_not_what_is_being_built(
    tree: Path, cache_folder: Path
) -> None:
    images = cache_folder / "images"
    for name in ("dead", "live"):
        (images / f"{name}.partial").mkdir(parents=True)
    with FileLock(images / "live.lock"):
        cats(tree).setup()
    assert [path.name for path in images.glob("*.partial")] == ["live.partial"]


def test_corrupt_pictures_are_named_and_refused(tree: Path, cache_folder: Path) -> None:
    folder = tree / "train" / "cat"
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:-60])  # truncated
    (folder / "2.png").write_bytes(b"nonsense")
    (folder / "3.png").write_bytes(b"")
    (folder / "4.png").symlink_to(folder / "nowhere.png")
    with pytest.raises(UserError, match=r"^4 of 5 pictures of cat cannot be .*: 1\.png \(.*2\.png.*3\.png.*1 more"):
        cats(tree).setup()
    assert not list(cache_folder.rglob("pixels.u8"))


def test_corrupt_pictures_are_skipped_by_name(tree: Path) -> None:
    folder = tree / "train" / "cat"
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:-60])
    options = {"image_size": 8, "split": "train", "labels": True, "batch_size": 1}
    data = ImageFolder(str(tree), corrupt="skip", **options)  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match=r"skipped 1 pictures that cannot be decoded: train/cat/1\.png"):
        data.setup()
    batch = data.dataset[np.arange(6)]
    names = ("cat/0.png", "cat/2.png", "cat/3.png", "dog/0.png", "dog/1.png", "dog/2.png")
    assert (batch.data.numpy() == np.stack([pixels(tree / "train" / name) for name in names])).all()
    assert (data.num, batch.labels.tolist()) == (6, [0, 0, 0, 1, 1, 1])
    assert [fault.name for fault in data.dataset.skipped] == ["train/cat/1.png"]
    with pytest.raises(UserError, match=r"1 of 7 pictures"):  # found in the cache, and yet refused
        ImageFolder(str(tree), **options).setup()  # type: ignore[arg-type]
    (folder / "1.png").unlink()
    assert ImageFolder(str(tree), **options).content_hash == data.content_hash  # type: ignore[arg-type]


def test_too_few_pictures_are_refused_before_decoding(tree: Path, decoded: Path) -> None:
    for hook in ("prepare_data", "setup"):
        with pytest.raises(UserError, match=r"dog has 2 pictures, fewer than one batch of 64; set batch_size to 2"):
            getattr(ImageFolder(str(tree / "test" / "dog"), image_size=8), hook)()
        assert count(decoded) == (0 if hook == "prepare_data" else 2)


def test_a_disk_without_room_is_refused_before_decoding(
    tree: Path, decoded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))
    with pytest.raises(UserError, match=r"Too little room .* takes 0\.0 MB and .* has 0\.0 MB free; .*GANZOO_CACHE"):
        cats(tree).setup()
    assert count(decoded) == 0


def test_a_disk_that_fills_up_leaves_nothing(tree: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache, "_write", full)
    with pytest.raises(UserError, match=r"disk is full: the cache of cat"):
        cats(tree).setup()
    assert not list(cache_folder.rglob("pixels.u8"))


def test_a_cache_folder_that_cannot_be_written_is_refused(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GANZOO_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"file/images cannot be written .*GANZOO_CACHE"):
        cats(tree).setup()


def test_the_disk_it_needs_is_stated_first(capfd: pytest.CaptureFixture[str], cache_folder: Path) -> None:
    Digits().setup()
    assert f"Digits: 1797 pictures, a cache of 1.8 MB in {cache_folder / 'images'}" in capfd.readouterr().err
    Digits().setup()
    assert capfd.readouterr().err == ""


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GANZOO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cache.cache_root() == Path("/elsewhere/ganzoo")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/elsewhere/someone")
    assert cache.cache_root() == Path("/elsewhere/someone/.cache/ganzoo")
