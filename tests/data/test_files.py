"""Folders, zips and tars of pictures hold the same data; labels come from folders or files."""

from __future__ import annotations

import json
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ganzoo.data import ImageFolder
from ganzoo.errors import UserError
from tests.data.common import pixels


def folder(path: Path, **options: Any) -> ImageFolder:
    return ImageFolder(str(path), **{"image_size": 8, "batch_size": 1} | options)


def everything(data: ImageFolder) -> np.ndarray:
    return data.dataset[np.arange(data.num)].data.numpy()


def packed(tree: Path, kind: str) -> Path:
    """An archive of the tree whose members are in no order."""
    path = tree.with_name(f"animals.{kind}")
    names = sorted((p for p in tree.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size % 7)
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.write(name, name.relative_to(tree))
        return path
    with tarfile.open(path, f"w:{kind.removeprefix('tar').removeprefix('.')}") as archive:
        for name in names:
            archive.add(name, f"./{name.relative_to(tree)}")
    return path


def test_a_folder_is_read_in_the_order_of_its_names(tree: Path) -> None:
    data = folder(tree, split="train", labels=True)
    expected = [pixels(tree / "train" / name) for name in ("cat/0.png", "cat/1.png", "cat/2.png", "cat/3.png")]
    assert data.num == 7
    assert (everything(data)[:4] == np.stack(expected)).all()
    assert data.class_names == ["cat", "dog"]
    assert data.dataset[np.arange(7)].labels.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert folder(tree, split="train").dataset[np.arange(7)].labels is None


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_an_archive_equals_its_folder(tree: Path, kind: str) -> None:
    one, other = folder(tree, split="train", labels=True), folder(packed(tree, kind), split="train", labels=True)
    assert (one.num_classes, one.class_names) == (other.num_classes, other.class_names) == (2, ["cat", "dog"])
    assert (everything(one) == everything(other)).all()
    assert one.content_hash == other.content_hash


def test_the_content_hash_follows_pixels_and_labels(tree: Path) -> None:
    first = folder(tree, split="train").content_hash
    assert first != folder(tree, split="test").content_hash
    shutil.copytree(tree, tree.with_name("copy"))
    assert first == folder(tree.with_name("copy"), split="train").content_hash
    (tree / "train/dog/0.png").rename(tree / "train/cat/9.png")  # same pictures in the same order, another class
    assert first != folder(tree, split="train").content_hash


def test_a_split_must_be_chosen_and_exist(tree: Path) -> None:
    with pytest.raises(UserError, match=r"the splits test, train; choose one"):
        folder(tree).setup()
    with pytest.raises(UserError, match=r"no pictures below 'valid' .* test, train"):
        folder(tree, split="valid").setup()
    assert folder(tree, split=".").num == 9
    assert folder(tree, split="train/dog").num == 3


def test_pictures_side_by_side_have_no_class(tree: Path) -> None:
    data = folder(tree / "train" / "cat")
    assert (data.num_classes, data.class_names) == (0, [])
    with pytest.raises(UserError, match="labels are asked for, but cat has none"):
        _ = folder(tree / "train" / "cat", labels=True).num_classes


NAMES = ("0.png", "1.png", "2.png", "3.png")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("l.csv", "\n".join(f"{name},{label}" for name, label in zip(NAMES, "2010", strict=True))),
        ("l.csv", "file,label\n" + "\n".join(f"./{name}, {label}" for name, label in zip(NAMES, "2010", strict=True))),
        ("l.json", json.dumps(dict(zip(NAMES, [2, 0, 1, 0], strict=True)))),
        ("l.json", json.dumps({"labels": [[name, label] for name, label in zip(NAMES, [2, 0, 1, 0], strict=True)]})),
        ("l.json", json.dumps(list(zip(NAMES, [2, 0, 1, 0], strict=True)))),
    ],
)
@pytest.mark.parametrize("outside", [False, True])
def test_labels_from_a_file(tree: Path, name: str, content: str, outside: bool) -> None:
    cats = tree / "train" / "cat"
    place = tree.parent / name if outside else cats / name
    place.write_text(content)
    data = folder(cats, labels=True, labels_file=str(place) if outside else name)
    assert (data.num_classes, data.class_names) == (3, ["0", "1", "2"])
    assert data.dataset[np.arange(4)].labels.tolist() == [2, 0, 1, 0]


def test_labels_from_a_file_in_an_archive_named_from_the_split(tree: Path) -> None:
    lines = [f"{name},{'odd' if int(name[4]) % 2 else 'even'}" for name in ("cat/0", "cat/1", "cat/2", "cat/3")]
    (tree / "train" / "labels.csv").write_text("\n".join(line.replace(",", ".png,") for line in lines))
    shutil.rmtree(tree / "train" / "dog")
    data = folder(packed(tree, "tar.gz"), split="train", labels=True, labels_file="labels.csv")
    assert data.class_names == ["even", "odd"]
    assert data.dataset[np.arange(4)].labels.tolist() == [0, 1, 0, 1]


def test_a_changed_label_file_is_another_data_set(tree: Path) -> None:
    cats = tree / "train" / "cat"
    (cats / "l.csv").write_text("\n".join(f"{name},0" for name in NAMES))
    assert folder(cats, labels=True, labels_file="l.csv").num_classes == 1
    (cats / "l.csv").write_text("\n".join(f"{name},{i}" for i, name in enumerate(NAMES)))
    assert folder(cats, labels=True, labels_file="l.csv").num_classes == 4


def test_labels_that_do_not_fit_are_refused(tree: Path) -> None:
    cats = tree / "train" / "cat"
    for content, message in (
        ("0.png,0\n1.png,1", r"no label for 2 of 4 pictures, such as 2.png, 3.png"),
        ("\n".join(f"{name},-1" for name in NAMES), "smallest label is -1"),
        ("0.png", "cannot be read as labels"),
    ):
        (cats / "l.csv").write_text(content)
        with pytest.raises(UserError, match=message):
            _ = folder(cats, labels=True, labels_file="l.csv").num_classes
    with pytest.raises(UserError, match=r"labels_file none.csv is neither in cat nor"):
        _ = folder(cats, labels=True, labels_file="none.csv").num_classes


def test_folders_named_by_numbers_keep_their_order(tree: Path) -> None:
    root = tree.parent / "numbers"
    for name in ("10", "9", "2"):
        shutil.copytree(tree / "test" / "dog", root / name)
    assert folder(root, labels=True).class_names == ["2", "9", "10"]


def test_what_is_no_source_is_refused(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing at .*nowhere"):
        folder(tmp_path / "nowhere")
    (tmp_path / "text.tar").write_text("not an archive")
    with pytest.raises(UserError, match="neither a folder nor a zip or tar"):
        folder(tmp_path / "text.tar")
    whole = packed(tree, "tar.xz")
    whole.write_bytes(whole.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"animals\.tar\.xz is damaged after"):
        folder(whole, split="train").setup()


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("")
    for hook in ("prepare_data", "setup"):
        with pytest.raises(UserError, match="no pictures in empty"):
            getattr(folder(tmp_path / "empty"), hook)()
