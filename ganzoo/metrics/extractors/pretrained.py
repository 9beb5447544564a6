"""DINOv2 and CLIP: networks that were not trained on the classes of ImageNet.

Frechet distances in DINOv2's features follow people's judgement of realism better than Inception's (Stein 2023,
arXiv:2306.04675, FD-DINOv2).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor, nn

from ganzoo.errors import UserError
from ganzoo.metrics import pixels
from ganzoo.metrics.extractors import weights as files
from ganzoo.metrics.extractors.base import Extractor, Features
from ganzoo.metrics.extractors.exported import quiet

if TYPE_CHECKING:
    from torch_fidelity.feature_extractor_clip import FeatureExtractorCLIP

DINOv2Model = Literal["dinov2_vits14", "dinov2_vitb14", "dinov2_vitl14"]
CLIPModel = Literal["clip-vit-b-32", "clip-vit-b-16", "clip-vit-l-14", "clip-vit-l-14-336px"]

#: Of each published file, as public records of its users agree on.
_DINOV2 = {
    "dinov2_vits14": (384, "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9"),
    "dinov2_vitb14": (768, "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73"),
    "dinov2_vitl14": (1024, "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428"),
}
_DINOV2_CODE = "facebookresearch/dinov2:7764ea0f912e53c92e82eb78a2a1631e92725fc8"
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CLIP_PIXELS = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_CLIP_FEATURES = {"clip-vit-l-14": 768, "clip-vit-l-14-336px": 768}


class DINOv2(Extractor):
    """Self-supervised features (Oquab 2023, arXiv:2304.07193) at 224x224 pixels; the class token, normalized.

    Its code is that of its authors' repository, by torch.hub, at a fixed commit. An exported one needs no foreign
    code: see Exported, with size 224 and ImageNet's mean and std.
    """

    resize: pixels.Resize

    def __init__(
        self,
        model: DINOv2Model = "dinov2_vitl14",
        weights: str | None = None,
        weights_hash: str | None = None,
        *,
        resize: pixels.Resize = "clean",
        trust: bool = False,
    ) -> None:
        """
        Args:
            model: Size of the network; published scores use ViT-L (dinov2_vitl14).
            weights: File of the weights; none: the published ones, downloaded on first use into GANZOO_CACHE.
            weights_hash: SHA-256 of that file, if it is not the published one; no other file is opened.
            resize: How images get 224x224 pixels: ``clean`` (dgm-eval) or ``tf1-bilinear`` (torch-fidelity).
            trust: Whether the code of github.com/facebookresearch/dinov2 may be downloaded and run.
        """
        _known(model, DINOv2Model)
        _known(resize, pixels.Resize)
        self.model, self.weights, self.resize, self.trust = model, weights, resize, trust
        self.num_features, published = _DINOV2[model]
        self.weights_hash = (weights_hash or published).lower()
        self.name = _name(model.replace("_", "-"), self.weights_hash, published)
        self._network: nn.Module | None = None

    def load(self) -> None:
        """Get the network's code and its weights, if that is not done yet."""
        if self._network is not None:
            return
        if not self.trust:
            raise UserError(
                f"DINOv2 runs code from github.com/{_DINOV2_CODE.partition(':')[0]}: set trust to true to allow that, "
                "or give an exported network to Exported."
            )
        name = f"{self.model}_pretrain.pth"
        url = f"https://dl.fbaipublicfiles.com/dinov2/{self.model}/{name}"
        path = _file(self.weights) or files.fetch(name, url=url, expected=self.weights_hash, what="DINOv2")
        state = files.read_state(path, self.weights_hash)
        network = _from_hub(self.model)
        try:
            network.load_state_dict(state)
        except RuntimeError as error:
            raise UserError(f"The file {path} holds weights of another network than {self.model}.") from error
        self._network = network.requires_grad_(False).eval()
        self._move()

    def extract(self, images: Tensor) -> Features:
        """Features of images (N, 3, H, W)."""
        assert self._network is not None
        return Features(self._network(pixels.normalize(pixels.resize(images, 224, self.resize), *_IMAGENET)).float())

    def _move(self) -> None:
        if self._network is not None:
            self._network.to(self.device)


class CLIP(Extractor):
    """Features of the image encoder of CLIP (Radford 2021, arXiv:2103.00020), as torch-fidelity ports it."""

    resize: pixels.Resize

    def __init__(
        self,
        model: CLIPModel = "clip-vit-b-32",
        weights: str | None = None,
        weights_hash: str | None = None,
        *,
        resize: pixels.Resize = "clean",
    ) -> None:
        """
        Args:
            model: Size of the network.
            weights: OpenAI's file of it; none: it is downloaded on first use into GANZOO_CACHE.
            weights_hash: SHA-256 of that file, if it is not the published one; no other file is opened. Such a file is
                a program: give the hash only of one that you trust.
            resize: How images get the network's size: ``clean`` (clean-fid) or ``tf1-bilinear`` (torch-fidelity).
        """
        _known(model, CLIPModel)
        _known(resize, pixels.Resize)
        self.model, self.weights, self.resize = model, weights, resize
        published, _ = _published_clip(model)
        self.weights_hash = (weights_hash or published).lower()
        self.name = _name(model, self.weights_hash, published)
        self.num_features = _CLIP_FEATURES.get(model, 512)
        self._network: FeatureExtractorCLIP | None = None

    def load(self) -> None:
        """Find, check and read the weights, if that is not done yet."""
        if self._network is not None:
            return
        from torch_fidelity.feature_extractor_clip import FeatureExtractorCLIP

        path = _file(self.weights) or files.fetch(
            f"{self.model}.pt", url=_published_clip(self.model)[1], expected=self.weights_hash, what="CLIP"
        )
        with files.checked(path, self.weights_hash) as file, torch.random.fork_rng(devices=[]), quiet():
            try:
                self._network = FeatureExtractorCLIP(self.model, ["clip"], feature_extractor_weights_path=file).eval()
            except (RuntimeError, KeyError) as error:
                raise UserError(f"The file {path} holds no network that OpenAI published as CLIP.") from error
        self._move()

    def extract(self, images: Tensor) -> Features:
        """Features of images (N, 3, H, W)."""
        assert self._network is not None
        x = pixels.normalize(pixels.resize(images, self._network.resolution, self.resize), *_CLIP_PIXELS)
        return Features(self._network.model.visual(x).float())

    def _move(self) -> None:
        if self._network is not None:
            self._network.to(self.device)


def _published_clip(model: str) -> tuple[str, str]:
    """Hash and address of OpenAI's file."""
    from torch_fidelity.feature_extractor_clip import MODEL_METADATA, MODEL_URLS  # a second, so only where it is used

    return MODEL_METADATA[model]["hash"], MODEL_URLS[model]


def _known(given: str, kind: object) -> None:
    if given not in get_args(kind):
        raise UserError(f"{given!r} is none of {', '.join(get_args(kind))}.")


def _name(model: str, found: str, published: str) -> str:
    return model if found == published else f"{model}-{found[:8]}"


def _file(given: str | None) -> Path | None:
    return None if given is None else Path(given).expanduser()


def _from_hub(model: str) -> nn.Module:
    """The untrained network, from the code of a fixed commit, or from torch.hub's copy of it."""
    load: Callable[..., nn.Module] = torch.hub.load
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")  # that optional faster kernels are missing
            return load(_DINOV2_CODE, model, pretrained=False, trust_repo=True, skip_validation=True, verbose=False)
    except OSError as error:
        place = f"{torch.hub.get_dir()}/{_DINOV2_CODE.replace('/', '_').replace(':', '_')}"
        raise UserError(
            f"The code of DINOv2 could not be downloaded ({error}): unpack {_DINOV2_CODE} of GitHub into {place}, or "
            "give an exported network to Exported."
        ) from error
