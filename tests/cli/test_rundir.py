"""Directories of runs are never shared and never overwritten."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ganzoo.cli import rundir
from ganzoo.errors import UserError


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_first_free_number() -> None:
    Path("runs/a-2").mkdir(parents=True)
    assert [rundir.create(None, "a", "text") for _ in range(3)] == [
        Path("runs/a-1"),
        Path("runs/a-3"),
        Path("runs/a-4"),
    ]
    assert Path("runs/a-4/config.yaml").read_text() == "text"
    assert list(Path("runs/a-2").iterdir()) == []


def together(num: int, path: Path | None) -> list[Path | UserError]:
    """What ``num`` threads get that ask for a directory at the same moment."""
    found: list[Path | UserError] = []
    barrier = threading.Barrier(num)

    def ask(i: int) -> None:
        barrier.wait()
        try:
            found.append(rundir.create(path, "a", f"text {i}"))
        except UserError as error:
            found.append(error)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(num)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_who_asks_at_once_gets_different_ones() -> None:
    found = together(16, None)
    assert set(found) == {Path(f"runs/a-{i}") for i in range(1, 17)}
    assert len({(path / "config.yaml").read_text() for path in found if isinstance(path, Path)}) == 16


def test_one_of_many_gets_a_named_directory() -> None:
    for attempt in range(5):
        found = together(8, Path(f"x{attempt}"))
        assert sum(isinstance(one, Path) for one in found) == 1
        assert [path.name for path in Path(f"x{attempt}").iterdir()] == ["config.yaml"]


def test_a_directory_that_holds_something_is_refused() -> None:
    Path("full").mkdir()
    Path("full/file").touch()
    for ask in (lambda: rundir.check(Path("full")), lambda: rundir.create(Path("full"), "a", "text")):
        with pytest.raises(
            UserError, match=r"The directory full is not empty, .* or go on with that run by --resume full\."
        ):
            ask()
    with pytest.raises(UserError, match="is a file"):
        rundir.check(Path("full/file"))
    Path("empty").mkdir()
    assert rundir.create(Path("empty"), "a", "text") == Path("empty")


def test_writing_without_links_is_exclusive_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr("os.link", no_links)
    assert rundir.write_new(Path("a"), "first")
    assert not rundir.write_new(Path("a"), "second")
    assert Path("a").read_text() == "first"
    assert [path.name for path in Path().iterdir()] == ["a"]


def test_paths_of_data_are_made_absolute(tmp_path: Path) -> None:
    settings = {"data": {"class_path": "X", "init_args": {"path": "p", "root": None, "split": "p"}}}
    text = rundir.config_text(settings)
    assert f"path: {tmp_path / 'p'}\n" in text
    assert "root: null\n" in text
    assert "split: p\n" in text
    assert settings["data"]["init_args"] == {"path": "p", "root": None, "split": "p"}
