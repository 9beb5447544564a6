"""Arrays and named sets against their sources; real archives where GANZOO_DATA names them."""

from __future__ import annotations

import os
import pickle
import struct
import urllib.request
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch

from ganzoo.data import CIFAR10, MNIST, Array, Digits, FashionMNIST, ImageFolder
from ganzoo.errors import UserError


def noise(*shape: int, dtype: Any = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def everything(data: Any) -> np.ndarray:
    return data.dataset[np.arange(data.num)].data.numpy()


def test_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    source = load_digits()
    data = Digits(image_size=8, labels=True)
    assert (everything(data)[:, 0] == np.rint(source.images * 255 / 16)).all()
    assert (data.dataset[np.arange(1797)].labels.numpy() == source.target).all()
    assert data.class_names == list("0123456789")


def test_digits_are_enlarged_bilinearly() -> None:
    small = torch.from_numpy(everything(Digits(image_size=8))[:20]).float()
    expected = torch.nn.functional.interpolate(small, size=32, mode="bilinear", align_corners=False)
    assert (torch.from_numpy(everything(Digits())[:20]).float() - expected).abs().max() <= 1


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_arrays_of_every_layout(tmp_path: Path, name: str) -> None:
    images = noise(2500, 4, 6, 3)  # more than one part
    for stored, layout, expected in (
        (images, "NHWC", images.transpose(0, 3, 1, 2)),
        (images.transpose(0, 3, 1, 2), "NCHW", images.transpose(0, 3, 1, 2)),
        (np.asfortranarray(images), "NHWC", images.transpose(0, 3, 1, 2)),
        (images[..., 0], "NHWC", images[:, None, :, :, 0]),
        (images[..., 0], "NCHW", images[:, None, :, :, 0]),
    ):
        np.save(tmp_path / name, stored) if name.endswith("npy") else np.savez(tmp_path / name, pictures=stored)
        data = Array(str(tmp_path / name), layout=layout)  # type: ignore[arg-type]
        assert data.shape == expected.shape[1:]
        assert (everything(data) == expected).all()


def test_arrays_are_resized_and_recoloured_on_demand(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.full((3, 4, 6), 77, np.uint8))
    data = Array(str(tmp_path / "x.npy"), image_size=8, channels=3)
    assert data.shape == (3, 8, 8)
    assert (everything(data) == 77).all()


def test_other_numbers_become_levels(tmp_path: Path) -> None:
    values = np.array([-1.5, -1, -0.5, 0, 0.25, 1, 1.5], np.float32)
    np.save(tmp_path / "x.npy", np.tile(values[:, None, None], (1, 2, 2)))
    with pytest.raises(UserError, match=r"x\.npy are float32; .* give value_range"):
        Array(str(tmp_path / "x.npy"))
    data = Array(str(tmp_path / "x.npy"), value_range=(-1, 1))
    assert everything(data)[:, 0, 0, 0].tolist() == [0, 0, 64, 128, 159, 255, 255]
    np.save(tmp_path / "y.npy", np.array([0, 257, 32768, 65535], np.uint16)[:, None, None])
    assert everything(Array(str(tmp_path / "y.npy"))).ravel().tolist() == [0, 1, 128, 255]


def test_labels_of_arrays(tmp_path: Path) -> None:
    images, labels = noise(5, 2, 2, 3), np.array([2, 0, 0, 2, 1])
    np.savez(tmp_path / "x.npz", images=images, classes=labels)
    np.save(tmp_path / "y.npy", labels.astype(np.uint8))
    for source in ("classes", str(tmp_path / "y.npy")):
        data = Array(str(tmp_path / "x.npz"), labels=True, labels_from=source)
        assert (data.num_classes, data.dataset[np.arange(5)].labels.tolist()) == (3, [2, 0, 0, 2, 1])
    np.save(tmp_path / "short.npy", labels[:4])
    with pytest.raises(UserError, match=r"shape \(4,\); give one whole number from 0 for each of the 5 images"):
        _ = Array(str(tmp_path / "x.npz"), labels=True, labels_from=str(tmp_path / "short.npy")).num_classes
    with pytest.raises(UserError, match=r"labels none cannot be read"):
        _ = Array(str(tmp_path / "x.npz"), labels=True, labels_from="none").num_classes


def test_arrays_that_are_no_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file .*missing\.npy"):
        Array(str(tmp_path / "missing.npy"))
    (tmp_path / "text.npy").write_text("text")
    with pytest.raises(UserError, match=r"text\.npy is no whole"):
        Array(str(tmp_path / "text.npy"))
    np.save(tmp_path / "flat.npy", noise(4, 4))
    with pytest.raises(UserError, match=r"have the shape \(4, 4\)"):
        Array(str(tmp_path / "flat.npy"))
    np.save(tmp_path / "first.npy", noise(4, 3, 8, 8))
    with pytest.raises(UserError, match=r"8 channels, read as NHWC; .* give the other layout"):
        Array(str(tmp_path / "first.npy"))
    np.savez(tmp_path / "two.npz", a=noise(4, 4, 4), b=noise(4, 4, 4))
    with pytest.raises(UserError, match=r"holds the arrays a, b; name the one"):
        Array(str(tmp_path / "two.npz"))
    assert Array(str(tmp_path / "two.npz"), array="b").shape == (1, 4, 4)


def test_an_array_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", noise(50, 4, 4))
    (tmp_path / "x.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-100])
    with pytest.raises(UserError, match=r"x\.npy is no whole"):
        Array(str(tmp_path / "x.npy"))
    np.savez_compressed(tmp_path / "y.npz", images=noise(50, 40, 40))
    content = bytearray((tmp_path / "y.npz").read_bytes())
    content[5000] ^= 255
    (tmp_path / "y.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"y\.npz is no whole"):
        Array(str(tmp_path / "y.npz"), batch_size=1).setup()


def idx(path: Path, array: np.ndarray) -> None:
    """The format of the MNIST files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">I{array.ndim}I", 0x0800 + array.ndim, *array.shape)
    path.write_bytes(header + array.tobytes())


@pytest.mark.parametrize("cls", [MNIST, FashionMNIST])
def test_mnist_files_that_are_there_are_used(cls: Any, tmp_path: Path) -> None:
    images, labels = noise(12, 28, 28), noise(12) % 10
    for part, count in (("train", 12), ("t10k", 5)):
        idx(tmp_path / cls.__name__ / "raw" / f"{part}-images-idx3-ubyte", images[:count])
        idx(tmp_path / cls.__name__ / "raw" / f"{part}-labels-idx1-ubyte", labels[:count])
    data = cls(root=str(tmp_path), image_size=28, labels=True)
    assert (data.shape, data.num_classes, data.num) == ((1, 28, 28), 10, 12)
    assert (everything(data)[:, 0] == images).all()
    assert data.dataset[np.arange(12)].labels.tolist() == labels.tolist()
    assert cls(root=str(tmp_path), split="test", image_size=28).num == 5
    assert cls(root=str(tmp_path)).shape == (1, 32, 32)


def test_cifar_files_that_are_there_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *args: True)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    images = noise(5, 2, 3, 32, 32)  # five files of two pictures
    for i in range(5):
        content = {"data": images[i].reshape(2, -1), "labels": [i, 9 - i]}
        (folder / f"data_batch_{i + 1}").write_bytes(pickle.dumps(content))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    data = CIFAR10(root=str(tmp_path), labels=True)
    assert (everything(data) == images.reshape(10, 3, 32, 32)).all()
    assert data.dataset[np.arange(10)].labels.tolist() == [0, 9, 1, 8, 2, 7, 3, 6, 4, 5]


def test_class_names_are_those_of_torchvision() -> None:
    from torchvision import datasets

    assert FashionMNIST().class_names == datasets.FashionMNIST.classes
    assert len(CIFAR10().class_names) == 10


@pytest.mark.parametrize("cls", [MNIST, CIFAR10])
def test_without_network_it_is_said_in_one_sentence(cls: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*args: Any, **kwargs: Any) -> None:
        raise URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    with pytest.raises(UserError, match=rf"^{cls.__name__} is not in {tmp_path} and cannot be downloaded"):
        cls(root=str(tmp_path)).prepare_data()


def real(name: str) -> str:
    folder = os.environ.get("GANZOO_DATA")
    if folder is None:
        pytest.skip("GANZOO_DATA names no folder with real data")
    return str(Path(folder) / name)


@pytest.mark.slow
def test_cifar_as_jpeg() -> None:
    data = ImageFolder(real("cifar10-jpeg.tar.xz"), split="train", image_size=32, labels=True)
    data.setup()
    assert (data.num, data.num_classes, data.shape) == (50_000, 10, (3, 32, 32))
    labels = data.dataset[np.arange(50_000)].labels
    assert labels is not None and torch.bincount(labels).tolist() == [5000] * 10
    assert tuple(data.class_names) == tuple(sorted(CIFAR10.names))


@pytest.mark.slow
def test_emoji_with_their_transparency() -> None:
    path = real("emoji128.tar.xz")
    kept = ImageFolder(path, image_size=32, channels=4)
    assert kept.num == 3583
    opacity = everything(kept)[:, 3]
    assert opacity.min() == 0 and opacity.max() == 255
    white, black = (everything(ImageFolder(path, image_size=32, background=name)) for name in ("white", "black"))
    # Blending is linear, so what the background adds is what opacity leaves open, up to rounding and overshoot.
    assert np.abs(white.astype(int) - black - (255 - opacity[:, None].astype(int))).mean() < 1
