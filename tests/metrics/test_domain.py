"""The domain extractor: what it computes, what it reads from a file, and the digits' that is shipped."""

from __future__ import annotations

import hashlib
import io
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from ganzoo.config import build
from ganzoo.data import Digits
from ganzoo.errors import UserError
from ganzoo.metrics.extractors import Domain
from ganzoo.metrics.extractors.domain import SHIPPED, ResNet, content, fold, read, resized
from ganzoo.metrics.frechet import from_features
from ganzoo.metrics.training import split
from tests.mutants import kills


def trained_looking(shape: tuple[int, int, int] = (3, 32, 32), *, seed: int = 0, **options: int) -> ResNet:
    """A network with statistics and weights as if it had been trained: nothing is 0 or 1."""
    torch.manual_seed(seed)
    network = ResNet(shape, 5, **{"width": 4, **options})
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
            nn.init.normal_(module.running_mean, 0, 0.5)
            nn.init.uniform_(module.running_var, 0.2, 2)
    return network.eval()


def written(path: Path, network: ResNet, /, **changes: Any) -> Path:
    width = network.body[0].conv.out_channels
    architecture = {"shape": list(network.shape), "num_classes": 5, "width": width, "blocks": 1}
    torch.save(content(network, architecture, {"class_names": list("abcde")}) | changes, path)
    return path


def pictures(*shape: int, seed: int = 1) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def naive(network: ResNet, images: Tensor) -> tuple[Tensor, Tensor]:
    """He et al.'s network written out with functions, in float64, from the state dictionary."""
    state = {name: value.double() for name, value in network.state_dict().items() if value.is_floating_point()}

    def convolve(x: Tensor, name: str, stride: int, padding: int) -> Tensor:
        x = F.conv2d(x, state[f"{name}.conv.weight"], stride=stride, padding=padding)
        mean, var = (state[f"{name}.norm.running_{what}"][:, None, None] for what in ("mean", "var"))
        weight, bias = (state[f"{name}.norm.{what}"][:, None, None] for what in ("weight", "bias"))
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    x = convolve(images.double() / 127.5 - 1, "body.0", 2, 1).relu()
    stage = 0
    while f"body.{stage + 2}.first.conv.weight" in state:
        name, stride = f"body.{stage + 2}", 2 if stage else 1
        carried = convolve(x, f"{name}.shortcut", stride, 0) if f"{name}.shortcut.conv.weight" in state else x
        x = convolve(convolve(x, f"{name}.first", stride, 1).relu(), f"{name}.second", 1, 1) + carried
        x = x.relu()
        stage += 1
    features = x.sum((2, 3)) / (x.shape[2] * x.shape[3])
    return features, features @ state["head.weight"].T + state["head.bias"]


def check_features(make: Callable[[str], Domain], path: Path) -> None:
    """Features and logits of the folded network in a file against the written-out one."""
    network = trained_looking()
    written(path, network)
    images = pictures(7, 3, 32, 32)
    found = make(str(path))(images)
    features, logits = naive(network, images)
    assert found.features.dtype == found.logits.dtype == torch.float32
    assert found.features.shape == (7, 16)
    assert features.std() > 0.1  # else agreement would show little
    assert (found.features - features).abs().max() < 1e-5
    assert (found.logits - logits).abs().max() < 1e-5


class OfTheBatch(Domain):
    """Wrong: normalizes by the batch's own statistics."""

    def load(self) -> None:
        super().load()
        self._network = read(self.path).network.train()


class BeforePooling(Domain):
    """Wrong: the value of one place instead of their average."""

    def extract(self, images: Tensor) -> Any:
        found = super().extract(images)
        x = self._network.body(images.float() / 127.5 - 1)
        return found._replace(features=x[:, :, 0, 0])


class OtherRange(Domain):
    """Wrong: bytes taken for values from 0 to 1."""

    def extract(self, images: Tensor) -> Any:
        return super().extract((images.float() / 255 * 127.5 + 127.5).to(torch.uint8))


def test_features_are_those_of_the_network_written_out(tmp_path: Path) -> None:
    check_features(Domain, tmp_path / "a.pt")
    for mutant in (OfTheBatch, BeforePooling, OtherRange):
        kills(lambda make: check_features(make, tmp_path / "a.pt"), mutant)


@pytest.mark.parametrize(("side", "features"), [(8, 4), (16, 8), (32, 16), (64, 32), (128, 32)])
def test_the_last_maps_have_about_four_pixels(side: int, features: int) -> None:
    network = trained_looking((1, side, side))
    assert network.num_features == features
    last = network.body(torch.zeros(1, 1, side, side))
    assert tuple(last.shape[2:]) == ((8, 8) if side == 128 else (4, 4))


def test_a_file_gives_back_the_very_weights(tmp_path: Path) -> None:
    """Unfolded, outputs are bitwise equal; folding moves them by rounding alone."""
    network = trained_looking()
    path = written(tmp_path / "net.pt", network)
    found = read(path)
    x = pictures(4, 3, 32, 32).float()
    assert all(torch.equal(a, b) for a, b in zip(network(x), found.network(x), strict=True))
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    features, logits = fold(found.network)(x)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in found.network.modules())
    assert (features - network(x)[0]).abs().max() < 1e-5
    assert (logits - network(x)[1]).abs().max() < 1e-5


def test_features_of_an_image_depend_on_no_other_image() -> None:
    extractor, images = Domain(), pictures(9, 1, 32, 32)
    whole = extractor(images)
    single = [extractor(images[i : i + 1]) for i in range(9)]
    assert (torch.cat([one.features for one in single]) - whole.features).abs().max() < 1e-5
    order = torch.tensor([3, 1, 4, 8, 5, 0, 2, 6, 7])
    assert (extractor(images[order]).features - whole.features[order]).abs().max() < 1e-5


def test_features_depend_on_where_pixels_are() -> None:
    """A bag of pixels is not enough: the same values in another order are another image."""
    images = Digits().dataset[np.arange(20)].data
    places = torch.randperm(32 * 32, generator=torch.Generator().manual_seed(0))
    permuted = images.flatten(2)[:, :, places].view_as(images)
    extractor = Domain()
    real, mixed = extractor(images).features, extractor(permuted).features
    assert ((real - mixed).norm(dim=1) > 0.5 * real.norm(dim=1)).all()


def test_other_sizes_are_stretched_by_pillows_filter(tmp_path: Path) -> None:
    """Torch's antialiased bilinear filter in floating point agrees with Pillow's on float images."""
    images = pictures(3, 1, 50, 21).float()
    for size in ((32, 32), (16, 64)):
        expected = np.stack(
            [
                np.asarray(Image.fromarray(one.numpy()).resize(size[::-1], Image.Resampling.BILINEAR))
                for one in images[:, 0]
            ]
        )
        assert np.abs(resized(images, size)[:, 0].numpy() - expected).max() < 0.02
    extractor = Domain(str(written(tmp_path / "a.pt", trained_looking())))
    twice = pictures(2, 3, 32, 32).repeat_interleave(2, 2).repeat_interleave(2, 3)
    by_hand = naive(trained_looking(), resized(twice.float(), (32, 32)))[0]
    assert (extractor(twice).features - by_hand).abs().max() < 1e-4


def test_channels(tmp_path: Path) -> None:
    """Gray is repeated for a network of colours; colours are refused by one of gray, by name."""
    colours = Domain(str(written(tmp_path / "colours.pt", trained_looking())))
    gray = pictures(2, 1, 32, 32)
    assert torch.equal(colours(gray).features, colours(gray.repeat(1, 3, 1, 1)).features)
    with pytest.raises(UserError, match=r"3 channels.*digits-cnn takes 1"):
        Domain()(pictures(2, 3, 32, 32))


def test_scores_are_named_after_the_file(tmp_path: Path) -> None:
    extractor = Domain(str(tmp_path / "my-birds.pt"))
    assert extractor.score_name("fd") == "fd/my-birds"  # known without the file
    assert Domain().score_name("kd") == "kd/digits-cnn"
    again = build(Domain("digits-cnn").config())
    assert again.score_name("fd") == "fd/digits-cnn"


def test_the_distance_of_digits_grows_with_noise_and_with_what_is_missing() -> None:
    """What a score must be good for: two halves are closest; more noise and fewer classes are farther."""
    data = Digits(labels=True)
    batch = data.dataset[np.arange(data.num)]
    order = torch.randperm(data.num, generator=torch.Generator().manual_seed(0))
    one, other = batch.data[order[:900]], batch.data[order[900:]]
    labels, noise = batch.labels[order[900:]], torch.randn(897, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    extractor = Domain()
    reference = extractor(one).features

    def distance(images: Tensor) -> float:
        return from_features(reference, extractor(images).features)

    noisy = [(other.float() + level * noise).clamp(0, 255).to(torch.uint8) for level in (40, 80, 160)]
    for chain in ([other, *noisy], [other, *(other[labels < k] for k in (9, 6, 3, 1))]):
        distances = [distance(images) for images in chain]
        assert all(far > 1.3 * near for near, far in itertools.pairwise(distances)), distances


class Planted:
    """Pickled, it would write a file when it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.write_text, (self.target, "run")


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    target = tmp_path / "proof"
    file = written(tmp_path / "net.pt", trained_looking(), facts={"class_names": Planted(target)})
    with pytest.raises(UserError, match="holds more than weights and plain data"):
        Domain(str(file)).load()
    assert not target.exists()
    torch.load(file, weights_only=False)
    assert target.exists()  # the trap does work


def test_what_is_no_extractor_is_refused(tmp_path: Path) -> None:
    network = trained_looking()
    good = written(tmp_path / "good.pt", network).read_bytes()
    middle = good.index(network.body[2].second.conv.weight.detach().numpy().tobytes()) + 99
    other = io.BytesIO()
    torch.save({"state_dict": {}}, other)
    wrong = {
        "There is no extractor": None,
        "is no extractor that ganzoo trained": other.getvalue(),
        "is damaged or no extractor": good[:5000],
        r"is damaged or no extractor \(OSError": good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :],
        "format 2": written(tmp_path / "b.pt", network, format=2).read_bytes(),
        "do not fit its network": written(tmp_path / "b.pt", network, weights={}).read_bytes(),
        "is damaged: its weights": written(tmp_path / "b.pt", network, network={"shape": [3, 32, 32]}).read_bytes(),
    }
    for sentence, data in wrong.items():
        path = tmp_path / "x.pt"
        if data is not None:
            path.write_bytes(data)
        with pytest.raises(UserError, match=sentence):
            Domain(str(path)).load()


def test_a_file_with_another_hash_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a.pt", trained_looking())
    right = hashlib.sha256(path.read_bytes()).hexdigest()
    Domain(str(path), weights_hash=right.upper()).load()
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was opened"))
    with pytest.raises(UserError, match="was not opened"):
        Domain(str(path), weights_hash="0" * 64).load()


def test_the_shipped_digits_extractor_is_right_about_held_out_digits() -> None:
    """Computed from the data, by a split that training did not see; the file says the same."""
    data = Digits(labels=True)
    batch = data.dataset[np.arange(data.num)]
    _, rows = split(batch.labels, 0.2)
    extractor = Domain("digits-cnn")
    right = extractor(batch.data[rows]).logits.argmax(1) == batch.labels[rows]
    facts = extractor.facts
    assert right.float().mean() >= 0.98
    assert facts["held_out"]["accuracy"] == pytest.approx(right.double().mean().item(), abs=1e-9)
    assert facts["held_out"]["num"] == len(rows) == 359
    assert facts["content_hash"] == data.content_hash
    assert facts["class_names"] == data.class_names
    assert extractor.num_logits == 10
    assert SHIPPED["digits-cnn"].stat().st_size < 150_000
