"""Files are the old ones or the new ones, whenever the process dies."""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ganzoo import files
from ganzoo.errors import TrainingError


def test_a_block_that_ends_replaces_the_file_and_one_that_fails_leaves_it(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "file.txt"
    with files.atomic(path, "w") as file:
        file.write("old")
    with pytest.raises(KeyError), files.atomic(path, "w") as file:
        file.write("half of the n")
        raise KeyError
    assert path.read_text() == "old"
    with files.atomic(path, "w") as file:
        file.write("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["file.txt"]


def test_json_is_read_back_as_it_was_and_strict_json_has_no_nan(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    content = {"name": "Gemälde", "values": [1.5, math.inf, None], "nested": {"a": True}}
    files.write_json(path, content)
    assert json.loads(path.read_text(encoding="utf-8")) == content
    assert "Gemälde" in path.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, {"value": math.nan}, allow_nan=False)
    with pytest.raises(TypeError):
        files.write_json(path, {"value": object()})
    assert json.loads(path.read_text(encoding="utf-8")) == content
    assert os.listdir(tmp_path) == ["facts.json"]


def test_the_content_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, order = tmp_path / "file", []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (order.append(f"sync {os.fstat(handle).st_size}"), sync(handle)))
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("name"), replace(a, b)))
    with files.atomic(path) as file:
        file.write(b"12345")
    assert order[:2] == ["sync 5", "name"]


def test_kill_in_the_middle_leaves_the_old_file_and_a_leftover_that_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    program = (
        "import os, signal\nfrom ganzoo import files\n"
        f"with files.atomic({str(path)!r}) as file:\n"
        "    file.write(b'n' * 100_000)\n    file.flush()\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert len(os.listdir(tmp_path)) == 2
    files.remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == ["file"]


def test_a_link_is_a_second_name_that_replaces_another(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"new")
    target.write_bytes(b"old")
    for _ in range(2):  # the second time both are names of one file already
        files.link(source, target)
        assert target.read_bytes() == b"new" and target.stat().st_ino == source.stat().st_ino
    assert sorted(os.listdir(tmp_path)) == ["source", "target"]


def test_where_links_do_not_work_the_file_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"new")
    target.write_bytes(b"old")
    files.link(source, target)
    assert target.read_bytes() == b"new" and target.stat().st_ino != source.stat().st_ino


def test_an_error_of_the_disk_becomes_a_sentence() -> None:
    sentence = r"^The grid could not be written \(No space left on device\): see that the disk has room"
    with pytest.raises(TrainingError, match=sentence), files.explained("The grid"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_the_hash_of_a_file_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")  # the example of FIPS 180-2
    assert files.sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
