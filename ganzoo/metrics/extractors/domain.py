"""A small residual classifier that ganzoo trains itself (``ganzoo extractor``), and its features.

For images that are unlike ImageNet's, and for places without network. The file holds plain data and tensors alone:
reading it runs no code.
"""

from __future__ import annotations

import hashlib
import io
import math
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ganzoo.errors import UserError
from ganzoo.metrics.extractors.base import Extractor, Features

KIND, FORMAT = "ganzoo extractor", 1

#: Extractors that ganzoo ships, by name.
SHIPPED = {"digits-cnn": Path(__file__).with_name("digits-cnn.pt")}


class Domain(Extractor):
    """Features of a classifier trained by ``ganzoo extractor``, such as the digits' that ganzoo ships.

    Features are the averages of the last feature maps, at least 0; logits are the classifier's. Images of another size
    are stretched to the network's by an antialiased bilinear filter, in floating point and without rounding.
    """

    resize = "bilinear-antialias"

    def __init__(self, path: str = "digits-cnn", *, weights_hash: str | None = None) -> None:
        """
        Args:
            path: File that ``ganzoo extractor`` wrote; its name without ending is in the names of scores. Or
                digits-cnn, which ganzoo ships: handwritten digits, gray, 32x32.
            weights_hash: SHA-256 that the file must have, checked before it is read; null for any.
        """
        self.path = SHIPPED.get(path) or Path(path).expanduser()
        self.name = self.path.stem
        self._expected = weights_hash
        self._network: nn.Module | None = None

    def load(self) -> None:
        """Read the file, if that is not done yet.

        Raises:
            UserError: There is none, or it is damaged or of another kind.
        """
        if self._network is not None:
            return
        found = read(self.path, self._expected)
        self.weights_hash, self.facts = found.sha256, found.facts
        self.channels, *self.image_size = found.network.shape
        self.num_features, self.num_logits = found.network.num_features, found.network.head.out_features
        self._network = fold(found.network).to(self.device).to(memory_format=torch.channels_last)

    def extract(self, images: Tensor) -> Features:
        self.load()
        assert self._network is not None
        features, logits = self._network(resized(images.float(), self.image_size))
        return Features(features, logits)

    def _move(self) -> None:
        if self._network is not None:
            self._network.to(self.device)


class ResNet(nn.Module):
    """A residual network (He et al. 2016, arXiv:1512.03385) for small images.

    A strided stem halves the sides, then stages halve them and double the channels until about 4 pixels are left:
    32x32 images pass through 16x16, 8x8 and 4x4 pixels, with 1, 2 and 4 times ``width`` channels.
    """

    def __init__(self, shape: tuple[int, int, int], num_classes: int, *, width: int = 32, blocks: int = 1) -> None:
        super().__init__()
        channels, height, wide = shape
        if min(height, wide) < 8:
            raise UserError(f"Images of {height}x{wide} pixels are too small for an extractor: give 8x8 or more.")
        self.shape = shape
        stages = min(4, int(math.log2(min(height, wide) / 8)) + 1)
        layers: list[nn.Module] = [_Convolution(channels, width, 4, 2), nn.ReLU()]
        for stage in range(stages):
            inputs, outputs = width << max(stage - 1, 0), width << stage
            layers.append(_Block(inputs, outputs, 2 if stage else 1))
            layers += [_Block(outputs, outputs, 1) for _ in range(blocks - 1)]
        self.body = nn.Sequential(*layers)
        self.num_features = width << (stages - 1)
        self.head = nn.Linear(self.num_features, num_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, D) and logits (N, K) of images (N, C, H, W) of this network's shape, values from 0 to 255."""
        x = (x / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        features = self.body(x).mean((2, 3))
        return features, self.head(features)


class _Convolution(nn.Module):
    """Without bias, followed by batch normalization."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        normalized: Tensor = self.norm(self.conv(x))
        return normalized


class _Block(nn.Module):
    """Two convolutions around which the input is carried, by a 1x1 convolution where its shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = _Convolution(inputs, outputs, 3, stride)
        self.second = _Convolution(outputs, outputs, 3, 1)
        same = stride == 1 and inputs == outputs
        self.shortcut: nn.Module = nn.Identity() if same else _Convolution(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


def fold(network: ResNet) -> ResNet:
    """The same network for evaluation: each normalization becomes part of the convolution before it, in place."""
    network.eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, _Convolution) and isinstance(module.norm, nn.BatchNorm2d):
            module.conv, module.norm = fuse_conv_bn_eval(module.conv, module.norm), nn.Identity()
    return network


def resized(images: Tensor, size: list[int] | tuple[int, int]) -> Tensor:
    """Floating-point images (N, C, H, W) stretched to ``size`` (H, W) by an antialiased bilinear filter."""
    if list(images.shape[2:]) == list(size):
        return images
    return F.interpolate(images, tuple(size), mode="bilinear", antialias=True, align_corners=False)


@dataclass
class Found:
    """What a file holds."""

    network: ResNet  #: as it was trained, in evaluation mode
    facts: dict[str, Any]  #: class names, the data's hash, held-out accuracy, recipe, versions
    sha256: str  #: of the file


def content(network: ResNet, architecture: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """What is written to a file: plain data and tensors on the CPU."""
    weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    return {"kind": KIND, "format": FORMAT, "network": architecture, "weights": weights, "facts": facts}


def read(path: str | Path, expected: str | None = None) -> Found:
    """What a file of ``ganzoo extractor`` holds. Its hash is of the very bytes that are read, and no code is run.

    Args:
        path: Of the file.
        expected: SHA-256 without which it is not opened; None for any.

    Raises:
        UserError: For a file that is missing or damaged, holds code, is of another kind or of a newer format.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"There is no extractor {path}: train one with ganzoo extractor, or name one that is shipped "
            f"({', '.join(SHIPPED)})."
        )
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    if expected is not None and sha256 != expected.lower():
        raise UserError(
            f"The extractor {path} has the SHA-256 {sha256}, but {expected.lower()} was asked for, so it was not "
            "opened: get the right file, or give the hash of this one if you trust it."
        )
    try:
        if zipfile.is_zipfile(io.BytesIO(data)):  # torch does not look at the checksums
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                if (damaged := archive.testzip()) is not None:
                    raise OSError(f"the checksum of {damaged} is wrong")
        held = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path} holds more than weights and plain data, so it was not loaded.") from error
    except Exception as error:  # a damaged file can make torch's reader fail in any way
        raise UserError(f"{path} is damaged or no extractor ({type(error).__name__} while reading it).") from error
    if not isinstance(held, dict) or held.get("kind") != KIND:
        raise UserError(f"{path} is no extractor that ganzoo trained: make one with ganzoo extractor.")
    if held.get("format") != FORMAT:
        raise UserError(
            f"{path} is an extractor of format {held.get('format')}, and this ganzoo reads format {FORMAT}: use the "
            "version that wrote it, or train it again."
        )
    try:
        made = dict(held["network"])
        network = ResNet(tuple(made.pop("shape")), made.pop("num_classes"), **made)
        network.load_state_dict(held["weights"])
        return Found(network.eval(), dict(held["facts"]), sha256)
    except (TypeError, KeyError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is damaged: its weights do not fit its network ({reason}).") from error
