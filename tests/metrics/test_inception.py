"""Inception against torch-fidelity's own extractor and torchmetrics', all with the same random weights."""

from __future__ import annotations

import copy
import io
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from ganzoo.config import build
from ganzoo.errors import UserError
from ganzoo.metrics.extractors import Inception
from ganzoo.metrics.extractors import inception as module
from ganzoo.metrics.extractors import weights as files
from tests.metrics.inception import random_inception, random_weights
from tests.metrics.inception import varied_images as images
from tests.mutants import kills


@pytest.fixture(scope="module")
def ours() -> Inception:
    extractor = random_inception()
    extractor.load()
    return extractor


@pytest.fixture(scope="module")
def theirs() -> FeatureExtractorInceptionV3:
    names = ["2048", "logits_unbiased", "logits"]
    return FeatureExtractorInceptionV3(
        "inception-v3-compat", names, feature_extractor_weights_path=str(random_weights())
    )


def error(found: Tensor, expected: Tensor) -> float:
    """Relative, over all numbers."""
    return float((found - expected).norm() / expected.norm())


class TestEqualToTorchFidelity:
    """Folding and the order of memory change nothing but the rounding."""

    @pytest.mark.parametrize("shape", [(32, 32), (299, 299), (64, 310)])
    def test_features_and_logits(
        self, ours: Inception, theirs: FeatureExtractorInceptionV3, shape: tuple[int, int]
    ) -> None:
        x = images(2, *shape)
        features, unbiased, _ = theirs(x)

        def check(extractor: Callable[[Tensor], Any]) -> None:
            found = extractor(x)
            assert found.features.shape == (2, 2048) and found.logits.shape == (2, 1008)
            assert found.features.dtype == found.logits.dtype == torch.float32
            assert error(found.features, features) < 1e-6
            assert error(found.logits, unbiased) < 3e-5  # the test's last layer sees differences of features

        check(ours)
        if shape == (32, 32):
            kills(check, lambda x: ours(x.flip(1)))  # BGR
            kills(check, lambda x: random_like(ours, resize="clean")(x))
            kills(check, lambda x: random_like(ours, logits="biased")(x))

    def test_images_do_not_look_alike(self, theirs: FeatureExtractorInceptionV3) -> None:
        """Random weights that a test can rely on: features and classes differ between images, none is dead."""
        features, unbiased, _ = theirs(images(8, 32, 32))
        spread = torch.linalg.svdvals((features - features.mean(0)).double())
        assert spread[6] > 1e-3 * spread[0]  # 8 images have 7 directions
        assert (features > 0).any(0).float().mean() > 0.8
        assert 0.05 < float(features.std(0).mean() / features.mean()) < 1
        assert unbiased.softmax(1).max() < 0.5
        assert unbiased.std(0).mean() > 0.1

    def test_biased_logits(self, ours: Inception, theirs: FeatureExtractorInceptionV3) -> None:
        x = images(2, 32, 32)
        assert error(random_like(ours, logits="biased")(x).logits, theirs(x)[2]) < 3e-5

    def test_batches_do_not_matter(self, ours: Inception) -> None:
        x = images(3, 32, 32)
        parts = torch.cat([ours(part).features for part in x.split(2)])
        assert error(parts, ours(x).features) < 1e-6

    def test_gray(self, ours: Inception, theirs: FeatureExtractorInceptionV3) -> None:
        gray = images(1, 32, 32)[:, :1]
        assert error(ours(gray).features, theirs(gray.repeat(1, 3, 1, 1))[0]) < 1e-6

    @pytest.mark.slow
    def test_torchmetrics(self, ours: Inception) -> None:
        """Its network is the same; unless told otherwise, it resizes with a smoothing filter, a protocol of its own."""
        fid = pytest.importorskip("torchmetrics.image.fid")
        network = fid.NoTrainInceptionV3("inception-v3-compat", ["2048"], str(random_weights()))
        x = images(1, 40, 40)
        network.use_antialias = False
        assert error(ours(x).features, network(x)) < 1e-6
        network.use_antialias = True
        assert error(ours(x).features, network(x)) > 1e-4


def test_folding() -> None:
    """One convolution in the place of two layers, for statistics with small variances, where epsilon counts."""
    conv, norm = nn.Conv2d(3, 5, 3, stride=2, bias=False), nn.BatchNorm2d(5, eps=1e-3)
    for x, low, high in ((norm.running_mean, -1, 1), (norm.running_var, 1e-4, 1e-2), (norm.weight, 0.5, 2)):
        x.data.uniform_(low, high)
    norm.bias.data.normal_()
    images_ = torch.randn(2, 3, 9, 9)
    norm.eval()

    def check(fold: Callable[[nn.Conv2d, nn.BatchNorm2d], None]) -> None:
        folded = copy.deepcopy(conv)
        fold(folded, copy.deepcopy(norm))
        torch.testing.assert_close(folded(images_), norm(conv(images_)), rtol=1e-5, atol=1e-4)

    def other_eps(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        norm.eps = 1e-5
        module._fold(conv, norm)

    def no_mean(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        norm.running_mean.zero_()
        module._fold(conv, norm)

    check(module._fold)
    kills(check, other_eps)
    kills(check, no_mean)


class TestPixelPaths:
    """What reaches the network, as each protocol's program computes it."""

    @pytest.mark.parametrize(
        ("resize", "filter_", "scale"),
        [
            ("clean", Image.Resampling.BICUBIC, lambda x: (x.clamp(0, 255) - 128) / 128),
            ("pil-bilinear-float", Image.Resampling.BILINEAR, lambda x: (x / 255 - 0.5) / 0.5),
        ],
    )
    def test_input(
        self, ours: Inception, resize: Any, filter_: Image.Resampling, scale: Callable[[Tensor], Tensor]
    ) -> None:
        x = images(16, 20, 24)
        planes = [
            torch.tensor(np.asarray(Image.fromarray(plane.numpy().astype(np.float32)).resize((299, 299), filter_)))
            for plane in x.flatten(0, 1)
        ]
        expected = scale(torch.stack(planes).unflatten(0, (16, 3)))

        def check(path: str) -> None:
            assert (seen(ours, path, x) - expected).abs().max() < 1e-6

        check(resize)
        kills(check, "tf1-bilinear")
        kills(check, "clean" if resize != "clean" else "pil-bilinear-float")

    def test_none(self, ours: Inception) -> None:
        x = images(1, 299, 299)
        assert torch.equal(seen(ours, "none", x), (x.float() - 128) / 128)
        with pytest.raises(UserError, match=r"have 32x32 pixels and are not to be resized"):
            random_like(ours, resize="none")(images(1, 32, 32))


class TestWeights:
    """Nothing is read from a file that is not the one that was asked for."""

    def test_wrong_hash(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path, trace = tmp_path / "evil.pth", tmp_path / "trace"
        path.write_bytes(pickle.dumps(Evil(trace)))
        found = files.sha256(path)
        asked = "ab" * 32

        def check(read: Callable[..., Any]) -> None:
            with pytest.raises(UserError) as caught:
                read(path, asked)
            assert found in str(caught.value) and asked in str(caught.value)
            assert str(caught.value).count(".") == str(caught.value).count(".pth") + 1  # one sentence
            assert not trace.exists()

        check(files.read_state)
        check(lambda path, asked: Inception(str(path), asked).load())

        def loads_first(path: Path, asked: str) -> None:
            pickle.loads(path.read_bytes())
            files.read_state(path, asked)

        kills(check, loads_first)

    def test_file_without_hash_is_taken_for_the_published_one(self) -> None:
        with pytest.raises(UserError, match=f"but {module.PUBLISHED_HASH} was asked for, so it was not opened"):
            Inception(str(random_weights())).load()

    def test_right_hash_of_a_program(self, tmp_path: Path) -> None:
        """A pickle runs no code even where its hash is the one that was given."""
        path, trace = tmp_path / "evil.pth", tmp_path / "trace"
        torch.save({"fc.weight": Evil(trace)}, path)
        with pytest.raises(UserError, match=r"evil\.pth holds no plain tensors"):
            Inception(str(path), files.sha256(path)).load()
        assert not trace.exists()

    def test_other_network(self, tmp_path: Path) -> None:
        path = tmp_path / "linear.pth"
        torch.save(nn.Linear(2, 3).state_dict(), path)
        with pytest.raises(UserError, match=r"linear\.pth holds weights of another network; the published ones are"):
            Inception(str(path), files.sha256(path)).load()

    def test_upper_case_and_short_hashes(self) -> None:
        path = random_weights()
        assert files.read_state(path, files.sha256(path).upper()).keys() == torch.load(path).keys()
        with pytest.raises(UserError, match=r"The hash 'abc' of weights was given; a SHA-256 has 64"):
            files.read_state(path, "abc")

    def test_missing_file(self) -> None:
        with pytest.raises(UserError, match=r"The weights nowhere\.pth cannot be read \(No such file or directory\)"):
            Inception("nowhere.pth", "ab" * 32).load()

    def test_no_network(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """One sentence says where to put the file, and from where."""
        monkeypatch.setenv("GANZOO_CACHE", str(tmp_path))
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
        with pytest.raises(UserError) as caught:
            Inception().load()
        name = "weights-inception-2015-12-05-6726825d.pth"
        assert f"are not in {tmp_path / 'weights' / name} and could not be downloaded" in str(caught.value)
        assert re.search(rf"get https://\S+/{name} on a machine with network and put it there", str(caught.value))
        assert not (tmp_path / "weights" / name).exists()

    def test_published_name_holds_its_hash(self) -> None:
        """Torch's convention: the last part of a file's name is the beginning of its SHA-256."""
        from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

        assert module.PUBLISHED_HASH.startswith(URL_INCEPTION_V3.rpartition("-")[2].removesuffix(".pth"))

    def test_download(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Once, checked, from an address into the cache; a file with another hash never gets its name."""
        monkeypatch.setenv("GANZOO_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
        source = tmp_path / "published.pth"
        torch.save({"x": torch.arange(3)}, source)
        arguments = {"url": source.as_uri(), "what": "a test"}
        with pytest.raises(UserError, match=r"could not be downloaded \(invalid hash value"):
            files.fetch("w.pth", expected="ab" * 32, **arguments)
        assert not (tmp_path / "cache/weights/w.pth").exists()
        path = files.fetch("w.pth", expected=files.sha256(source), **arguments)
        assert path == tmp_path / "cache/weights/w.pth" and path.read_bytes() == source.read_bytes()
        source.unlink()
        assert files.fetch("w.pth", expected="", **arguments) == path
        assert [p.name for p in path.parent.iterdir() if p.suffix not in (".lock",)] == ["w.pth"]

    def test_copy_of_torch_hub(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where torch-fidelity and torchmetrics put it."""
        monkeypatch.setenv("GANZOO_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
        place = tmp_path / "torch/hub/checkpoints/w.pth"
        place.parent.mkdir(parents=True)
        place.write_bytes(b"weights")
        assert files.fetch("w.pth", url="https://nowhere.invalid/w.pth", expected="", what="a test") == place

    def test_old_format(self, ours: Inception) -> None:
        """Files of torch before 1.6, as the published one may be."""
        buffer = io.BytesIO()
        state = OrderedDict(torch.load(random_weights()))
        torch.save(state, buffer, _use_new_zipfile_serialization=False)
        buffer.seek(0)
        assert torch.load(buffer, weights_only=True).keys() == state.keys()


class TestNames:
    def test_published(self) -> None:
        extractor = Inception()  # nothing is read or downloaded
        assert extractor.name == "inception-tf2015"
        assert extractor.weights_hash == module.PUBLISHED_HASH
        kinds = ["fd", "kd", "is", "precision", "ppl"]
        assert [extractor.score_name(kind) for kind in kinds] == [
            "fid",
            "kid",
            "is",
            "precision",
            "ppl/inception-tf2015",
        ]

    def test_other_weights_give_no_fid(self, ours: Inception) -> None:
        digits = files.sha256(random_weights())[:8]
        assert ours.score_name("fd") == f"fd/inception-{digits}"
        assert ours.score_name("is") == f"is/inception-{digits}"

    def test_config(self, ours: Inception) -> None:
        """Plain data that build the same extractor again, with no weights in them."""
        again = build(random_like(ours, resize="clean").config())
        assert (again.resize, again.weights_hash, again.name) == ("clean", ours.weights_hash, ours.name)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"resize": "box"}, r"no way to resize called 'box'"),
            ({"logits": "both"}, r"logits 'both' .* unbiased or bi"),
        ],
    )
    def test_unknown_options(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=message):
            Inception(**options)


class TestSideEffects:
    def test_random_numbers(self) -> None:
        """Loading in the middle of training draws nothing from torch's generator."""
        before = torch.get_rng_state()
        random_inception().load()
        assert torch.equal(torch.get_rng_state(), before)

    def test_autocast(self, ours: Inception) -> None:
        x = images(1, 32, 32)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(ours(x).features, ours(x).features.float())
            inside = ours(x).features
        assert torch.equal(inside, ours(x).features)

    def test_tf32(self) -> None:
        """Off while features are computed, and then as it was."""
        from ganzoo.metrics.extractors.base import exact

        cudnn, matmul = torch.backends.cudnn.conv, torch.backends.cuda.matmul
        before = (cudnn.fp32_precision, matmul.fp32_precision, torch.backends.cudnn.allow_tf32)
        with pytest.raises(KeyError), exact(torch.device("cpu")):
            assert (cudnn.fp32_precision, matmul.fp32_precision) == ("ieee", "ieee")
            raise KeyError
        assert (cudnn.fp32_precision, matmul.fp32_precision, torch.backends.cudnn.allow_tf32) == before

    def test_no_graph(self, ours: Inception) -> None:
        assert not ours(images(1, 32, 32)).features.requires_grad


class TestRefusals:
    @pytest.mark.parametrize(
        ("x", "message"),
        [
            (
                torch.zeros(1, 4, 8, 8, dtype=torch.uint8),
                r"alpha channel, which .* choose a background and put them on it",
            ),
            (torch.zeros(1, 2, 8, 8, dtype=torch.uint8), r"have 2 channels, but the extractor inception-\w+ takes 3"),
            (torch.zeros(1, 3, 8, 8), r"was given float32 of shape \(1, 3, 8, 8\), .* of the range 0 to 255"),
            (torch.zeros(3, 8, 8, dtype=torch.uint8), r"takes uint8 images \(N, C, H, W\)"),
        ],
    )
    def test_input(self, ours: Inception, x: Tensor, message: str) -> None:
        with pytest.raises(UserError, match=message):
            ours(x)


class Evil:
    """A pickle that leaves a trace when it is read."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


def random_like(ours: Inception, **options: Any) -> Inception:
    """Another one with the network of ``ours``, which takes a second to load."""
    made = random_inception(**options)
    made._network = ours._network
    return made


def seen(ours: Inception, resize: str, x: Tensor) -> Tensor:
    """What the network gets."""
    extractor = random_inception(resize=resize)
    extractor._network = Recorder()
    extractor(x)
    return extractor._network.seen


class Recorder:
    """A network that keeps its input."""

    def __call__(self, x: Tensor) -> Tensor:
        self.seen = x
        return torch.zeros(len(x), 2048)

    def classify(self, features: Tensor, *, bias: bool) -> Tensor:
        return features[:, :1008]
