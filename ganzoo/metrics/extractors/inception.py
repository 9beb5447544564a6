"""The Inception network of published scores: that of TensorFlow's archive of December 2015, as torch-fidelity ports it.

Szegedy 2015, "Rethinking the inception architecture", arXiv:1512.00567; first used for scores by Salimans 2016
(arXiv:1606.03498) and for the Frechet distance by Heusel 2017 (arXiv:1706.08500). The network is torch-fidelity's own;
here it is only made faster: batch normalization folded into the convolutions, channels last.
"""

from __future__ import annotations

import io
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ganzoo.errors import UserError
from ganzoo.metrics import pixels
from ganzoo.metrics.extractors import weights as files
from ganzoo.metrics.extractors.base import Extractor, Features

if TYPE_CHECKING:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

#: SHA-256 of the published file (95,628,359 bytes); its first digits are in the file's name.
PUBLISHED_HASH = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"

_SIZE = 299


class Inception(Extractor):
    """Features and logits of the Inception network that published FID, KID and inception scores are computed with.

    Scores are called ``fid``, ``kid``, ... with the published weights; with any others ``fd/inception-<hash>``.
    """

    published_name: ClassVar[dict[str, str]] = {"fd": "fid", "kd": "kid", "intra-fd": "intra-fid"} | {
        kind: kind for kind in ("is", "precision", "recall", "density", "coverage")
    }
    num_features = 2048
    num_logits = 1008
    resize: pixels.Resize

    def __init__(
        self,
        weights: str | None = None,
        weights_hash: str | None = None,
        *,
        resize: pixels.Resize = "tf1-bilinear",
        logits: Literal["unbiased", "biased"] = "unbiased",
    ) -> None:
        """
        Args:
            weights: File of the weights; none: the published ones, downloaded on first use into GANZOO_CACHE.
            weights_hash: SHA-256 of that file, if it is not the published one; no other file is opened.
            resize: How images get 299x299 pixels: ``tf1-bilinear`` as the network does it (torch-fidelity, NVIDIA,
                Mimicry), ``clean`` (clean-fid), ``pil-bilinear-float`` (StudioGAN, whose input is x/127.5 - 1 instead
                of (x - 128)/128), or ``none``.
            logits: Of the inception score: ``unbiased``, without the last layer's bias (torch-fidelity, NVIDIA,
                Mimicry), or ``biased`` (StudioGAN).
        """
        if resize not in pixels.RESIZES:
            raise UserError(f"There is no way to resize called {resize!r}; choose one of {', '.join(pixels.RESIZES)}.")
        if logits not in ("unbiased", "biased"):
            raise UserError(f"The logits {logits!r} of Inception were asked for; choose unbiased or biased.")
        self.weights = weights
        self.weights_hash = (weights_hash or PUBLISHED_HASH).lower()
        self.resize = resize
        self.logits = logits
        self.name = "inception-" + ("tf2015" if self.weights_hash == PUBLISHED_HASH else self.weights_hash[:8])
        self._network: _Trunk | None = None

    def load(self) -> None:
        """Find, check and read the weights, and fold them, if that is not done yet."""
        if self._network is None:
            state = files.read_state(self.file, self.weights_hash)
            self._network = _Trunk(_published_network(state, self.file))
            self._move()

    @cached_property
    def file(self) -> Path:
        """The file of the weights; downloaded if it has to be."""
        if self.weights is not None:
            return Path(self.weights).expanduser()
        from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3  # a second, so only where it is used

        name = URL_INCEPTION_V3.rpartition("/")[2]
        return files.fetch(name, url=URL_INCEPTION_V3, expected=PUBLISHED_HASH, what="Inception")

    def extract(self, images: Tensor) -> Features:
        """Features (N, 2048) and logits (N, 1008) of images (N, 3, H, W)."""
        assert self._network is not None
        x = pixels.resize(images, _SIZE, self.resize)
        x = x / 127.5 - 1 if self.resize == "pil-bilinear-float" else (x - 128) / 128
        features = self._network(x.contiguous(memory_format=torch.channels_last))
        return Features(features, self._network.classify(features, bias=self.logits == "biased"))

    def score_name(self, kind: str) -> str:
        """``fid`` and the like with the published weights alone."""
        return super().score_name(kind) if self.weights_hash == PUBLISHED_HASH else f"{kind}/{self.name}"

    def _move(self) -> None:
        if self._network is not None:
            self._network.to(self.device)


class _Trunk(nn.Module):
    """The layers of torch-fidelity's network in their order, for input that has been resized already."""

    def __init__(self, network: FeatureExtractorInceptionV3) -> None:
        super().__init__()
        for module in network.modules():
            if isinstance(getattr(module, "bn", None), nn.BatchNorm2d):
                _fold(module.conv, module.bn)
                module.bn = nn.Identity()
        *layers, self.fc = network.children()
        self.layers = nn.Sequential(*layers)
        self.to(memory_format=torch.channels_last)
        self.requires_grad_(False).eval()

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.layers(x)
        return features.flatten(1)

    def classify(self, features: Tensor, *, bias: bool) -> Tensor:
        """Logits of the 1,008 outputs."""
        return nn.functional.linear(features, self.fc.weight, self.fc.bias if bias else None)


def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Take the fixed scale and shift that follow a convolution into it; in float64, so that it is rounded once."""
    assert norm.running_mean is not None and norm.running_var is not None
    mean, var, scale, shift = (x.double() for x in (norm.running_mean, norm.running_var, norm.weight, norm.bias))
    weight, bias = fuse_conv_bn_weights(conv.weight.double(), None, mean, var, norm.eps, scale, shift)
    conv.weight, conv.bias = nn.Parameter(weight.float()), nn.Parameter(bias.float())


def _published_network(state: dict[str, Any], path: Path) -> FeatureExtractorInceptionV3:
    """Torch-fidelity's network with these weights.

    Its constructor unpickles a file: it gets a copy that holds these tensors and nothing else.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    with torch.random.fork_rng(devices=[]):  # its layers draw initial weights, which are replaced
        try:
            return FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=buffer)
        except (RuntimeError, TypeError, AttributeError) as error:
            raise UserError(
                f"The file {path} holds weights of another network; the published ones are {URL_INCEPTION_V3}."
            ) from error
