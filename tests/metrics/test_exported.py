"""Networks from files: exported and scripted ones, DINOv2 by torch.hub and CLIP, all of them small stand-ins."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_fidelity.feature_extractor_clip import CLIPVisual, FeatureExtractorCLIP

from ganzoo.config import build
from ganzoo.errors import UserError
from ganzoo.metrics.extractors import CLIP, DINOv2, Exported
from ganzoo.metrics.extractors import weights as files
from ganzoo.metrics.extractors.exported import quiet
from ganzoo.metrics.extractors.pretrained import _DINOV2_CODE
from tests.mutants import kills


class Net(nn.Module):
    """Mean and maximum of each channel; the classes are the corners' sums if there are any."""

    def __init__(self, classes: bool = False) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.classes = classes

    def forward(self, x: Tensor) -> Any:
        features = torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1) * self.scale
        return (features, x[:, :, 0, 0]) if self.classes else features


def export(folder: Path, network: nn.Module, kind: str, size: int = 8, name: str = "tiny") -> Path:
    path = folder / f"{name}{kind}"
    example = torch.rand(2, 3, size, size)
    if kind == ".pt2":
        shapes = ({0: torch.export.Dim("batch")},)
        torch.export.save(torch.export.export(network.eval(), (example,), dynamic_shapes=shapes), path)
    else:
        with quiet():
            torch.jit.save(torch.jit.trace(network.eval(), example), path)
    return path


@pytest.fixture
def images() -> Tensor:
    return torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)


class TestExported:
    @pytest.mark.parametrize("kind", [".pt2", ".pt"])
    @pytest.mark.parametrize("classes", [False, True])
    def test_features(self, tmp_path: Path, images: Tensor, kind: str, classes: bool) -> None:
        """Those of the network itself, of the range that was declared."""
        path = export(tmp_path, Net(classes), kind)
        mean, std = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
        x = (images.double() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
        expected = torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1) * 2

        def check(extractor: Exported) -> None:
            features, logits = extractor(images)
            torch.testing.assert_close(features.double(), expected, rtol=1e-5, atol=1e-5)
            assert (logits is None) == (not classes)
            if classes:
                torch.testing.assert_close(logits.double(), x[:, :, 0, 0], rtol=1e-5, atol=1e-5)

        extractor = Exported(str(path), size=8, mean=mean, std=std, resize="none", trust=True)
        check(extractor)
        assert extractor.name == "tiny" and extractor.score_name("fd") == "fd/tiny"
        assert extractor.weights_hash == files.sha256(path)
        assert (extractor.num_features, extractor.num_logits) == (6, 3 if classes else None)
        kills(check, Exported(str(path), size=8, resize="none", trust=True))  # the range [-1, 1]
        kills(check, Exported(str(path), size=8, mean=mean[::-1], std=std, resize="none", trust=True))

    def test_ranges(self, tmp_path: Path) -> None:
        path = export(tmp_path, Net(), ".pt")
        extremes = torch.stack([torch.zeros(3, 8, 8), torch.full((3, 8, 8), 255)]).to(torch.uint8)
        for mean, std, expected in (([0.5], [0.5], [-2, 2]), ([0.0], [1.0], [0, 2]), ([0.0], [1 / 255], [0, 510])):
            found = Exported(str(path), size=8, mean=mean, std=std, trust=True)(extremes).features[:, 0]
            torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32))

    def test_resizes_gray_images(self, tmp_path: Path) -> None:
        path = export(tmp_path, Net(), ".pt")
        gray = torch.full((2, 1, 20, 16), 51, dtype=torch.uint8)
        features = Exported(str(path), size=8, mean=[0.0], std=[1.0], trust=True)(gray).features
        torch.testing.assert_close(features, torch.full((2, 6), 0.4))

    @pytest.mark.parametrize("kind", [".pt2", ".pt"])
    def test_needs_trust(self, tmp_path: Path, kind: str) -> None:
        path = export(tmp_path, Net(), kind)
        for given in (None, files.sha256(path)):
            with pytest.raises(UserError, match=r"could do anything on this machine: set trust to true if you trust"):
                Exported(str(path), size=8, weights_hash=given).load()

    def test_why_a_pt2_needs_trust(self, tmp_path: Path) -> None:
        """Torch reads its tensors as pickles: a file made for it runs code when it is opened."""
        good, bad, trace = export(tmp_path, Net(), ".pt2"), tmp_path / "bad.pt2", tmp_path / "trace"
        with zipfile.ZipFile(good) as source, zipfile.ZipFile(bad, "w") as target:
            for entry in source.infolist():
                content = source.read(entry)
                if "sample_inputs" in entry.filename and entry.filename.endswith(".pt"):
                    torch.save(Evil(trace), tmp_path / "evil.pt")
                    content = (tmp_path / "evil.pt").read_bytes()
                target.writestr(entry.filename, content)

        def check(load: Callable[[], object]) -> None:
            with pytest.raises(UserError):
                load()
            assert not trace.exists()

        check(Exported(str(bad), size=8).load)
        check(Exported(str(bad), size=8, weights_hash=files.sha256(good), trust=True).load)

        def without_asking() -> None:
            try:
                torch.export.load(bad)
            except Exception as error:
                raise UserError("too late") from error

        kills(check, without_asking)

    def test_wrong_hash(self, tmp_path: Path) -> None:
        path = export(tmp_path, Net(), ".pt")
        with pytest.raises(UserError, match=r"has the SHA-256 \w{64}, but (ab){32} was asked for"):
            Exported(str(path), size=8, weights_hash="ab" * 32, trust=True).load()

    @pytest.mark.parametrize(
        ("network", "options", "message"),
        [
            (nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), {"size": 16}, r"does not take 2 images of 3x16x16 pixels"),
            (nn.Flatten(0), {"size": 8}, r"returned \[\(384,\)\] for 2 images; it must return features \(2, D\)"),
        ],
    )
    def test_networks_that_do_not_fit(
        self, tmp_path: Path, network: nn.Module, options: dict[str, Any], message: str
    ) -> None:
        path = export(tmp_path, network, ".pt")
        with pytest.raises(UserError, match=message):
            Exported(str(path), trust=True, **options).load()

    @pytest.mark.parametrize("kind", [".pt2", ".pt"])
    def test_no_network(self, tmp_path: Path, kind: str) -> None:
        path = tmp_path / f"text{kind}"
        path.write_text("no network")
        with pytest.raises(UserError, match=r"text\.pt2? holds no network that torch can read"):
            Exported(str(path), size=8, trust=True).load()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"mean": [0.0, 0.0]}, r"mean \[0\.0, 0\.0\] .* each needs one number or three"),
            ({"std": [0.0]}, r"std is > 0"),
            ({"resize": "box"}, r"no way to resize called 'box'"),
        ],
    )
    def test_options(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=message):
            Exported("tiny.pt", size=8, **options)

    def test_config(self, tmp_path: Path, images: Tensor) -> None:
        extractor = Exported(str(export(tmp_path, Net(), ".pt")), size=8, trust=True)
        assert torch.equal(build(extractor.config())(images).features, extractor(images).features)


class TestDINOv2:
    @pytest.fixture
    def published(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        """Stand-ins where torch.hub keeps the repository's code, and ganzoo its weights."""
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
        monkeypatch.setenv("GANZOO_CACHE", str(tmp_path / "cache"))
        code = tmp_path / "torch/hub" / _DINOV2_CODE.replace("/", "_").replace(":", "_")
        code.mkdir(parents=True)
        (code / "hubconf.py").write_text(
            "import torch\n"
            "def dinov2_vits14(pretrained):\n"
            "    assert not pretrained\n"
            "    return torch.nn.Sequential(torch.nn.AvgPool2d(112), torch.nn.Flatten(), torch.nn.Linear(12, 384))\n"
        )
        network = nn.Sequential(nn.AvgPool2d(112), nn.Flatten(), nn.Linear(12, 384))
        path = tmp_path / "cache/weights/dinov2_vits14_pretrain.pth"
        path.parent.mkdir(parents=True)
        torch.save(network.state_dict(), path)
        return {"network": network, "hash": files.sha256(path)}

    def test_features(self, published: dict[str, Any]) -> None:
        """ImageNet's mean and deviation at 224x224 pixels, the hub's network with the checked weights."""
        x = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        expected = published["network"]((x / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1))
        extractor = DINOv2("dinov2_vits14", weights_hash=published["hash"], trust=True)
        torch.testing.assert_close(extractor(x).features, expected.detach(), rtol=1e-5, atol=1e-5)
        assert extractor(x).logits is None
        assert extractor.score_name("fd") == f"fd/dinov2-vits14-{published['hash'][:8]}"

    def test_needs_trust(self) -> None:
        with pytest.raises(UserError, match=r"runs code from github\.com/facebookresearch/dinov2: set trust to true"):
            DINOv2().load()

    def test_published_hash(self, published: dict[str, Any]) -> None:
        """Without another hash, the stand-in is not the published file."""
        with pytest.raises(UserError, match=rf"has the SHA-256 {published['hash']}, but b938bf1b\w+ was asked for"):
            DINOv2("dinov2_vits14", trust=True).load()
        assert DINOv2("dinov2_vits14").name == "dinov2-vits14"

    def test_no_network(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
        monkeypatch.setenv("GANZOO_CACHE", str(tmp_path / "cache"))
        with pytest.raises(UserError, match=r"get https://dl\.fbaipublicfiles\.com/dinov2/dinov2_vitl14/\S+ on a "):
            DINOv2(trust=True).load()
        path = tmp_path / "w.pth"
        torch.save({}, path)
        with pytest.raises(UserError, match=r"code of DINOv2 could not be downloaded .* or give an exported network"):
            DINOv2(weights=str(path), weights_hash=files.sha256(path), trust=True).load()

    def test_unknown_model(self) -> None:
        with pytest.raises(UserError, match=r"'dinov2_vitg14' is none of dinov2_vits14, dinov2_vitb14, dinov2_vitl14"):
            DINOv2("dinov2_vitg14")  # type: ignore[arg-type]


class Whole(nn.Module):
    """A CLIP of the fewest numbers, with what else is in OpenAI's files."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.visual = CLIPVisual(16, 32, 1, 64, 16).visual
        self.text_projection = nn.Parameter(torch.zeros(4, 16))

    def forward(self, x: Tensor) -> Tensor:
        return self.visual(x)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
class TestCLIP:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return export(tmp_path, Whole(), ".pt", size=32)

    def test_features_are_those_of_torch_fidelity(self, path: Path) -> None:
        x = torch.randint(0, 256, (3, 3, 20, 20), dtype=torch.uint8)
        with quiet():
            (expected,) = FeatureExtractorCLIP("clip-vit-b-32", ["clip"], feature_extractor_weights_path=str(path))(x)

        def check(resize: Any) -> None:
            extractor = CLIP(weights=str(path), weights_hash=files.sha256(path), resize=resize)
            torch.testing.assert_close(extractor(x).features, expected, rtol=1e-5, atol=1e-5)

        check("tf1-bilinear")
        kills(check, "clean")

    def test_published_hash(self, path: Path) -> None:
        """It is OpenAI's, which their address holds, too."""
        with pytest.raises(UserError, match=r"but 40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"):
            CLIP(weights=str(path)).load()
        assert CLIP().name == "clip-vit-b-32"

    def test_other_network(self, tmp_path: Path) -> None:
        path = export(tmp_path, Net(), ".pt")
        with pytest.raises(UserError, match=r"tiny\.pt holds no network that OpenAI published as CLIP"):
            CLIP(weights=str(path), weights_hash=files.sha256(path)).load()


class Evil:
    """A pickle that leaves a trace when it is read."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)
