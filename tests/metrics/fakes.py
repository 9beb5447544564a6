"""An extractor and data whose features are known: the first bytes of an image."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ganzoo.data.batch import Batch
from ganzoo.gan import GAN
from ganzoo.generator import Generator
from ganzoo.metrics.extractors.base import Extractor, Features
from tests.common import Critic


class Corner(Extractor):
    """Features are the first bytes of an image, logits the first two of them divided by 100."""

    channels = None
    num_logits = 2

    def __init__(self, num_features: int = 3, *, weights_hash: str = "a" * 64, resize: str = "none") -> None:
        """
        Args:
            num_features: How many bytes.
            weights_hash: Of weights that do not exist.
            resize: Of images that are not resized.
        """
        self.num_features, self.weights_hash, self.resize = num_features, weights_hash, resize
        self.name = f"corner-{num_features}"
        self.seen = 0

    def extract(self, images: Tensor) -> Features:
        self.seen += len(images)
        x = images.flatten(1)[:, : self.num_features].float()
        return Features(x, x[:, :2] / 100)


class Bytes:
    """Images in memory, as a data module."""

    split = "train"

    def __init__(self, images: Tensor, labels: Tensor | None = None) -> None:
        self.images, self.labels = images, labels
        self.shape, self.num = tuple(images.shape[1:]), len(images)
        self.num_classes = 0 if labels is None else int(labels.max()) + 1
        self.class_names = [f"class {i}" for i in range(self.num_classes)]
        self.content_hash = hashlib.sha256(images.numpy().tobytes()).hexdigest()
        self.dataset = self

    def __getitem__(self, indices: Any) -> Batch:
        rows = torch.from_numpy(np.asarray(indices))
        return Batch(self.images[rows], None if self.labels is None else self.labels[rows])


def normal_bytes(num: int, mean: float, std: float, *, seed: int = 0, shape: tuple[int, ...] = (1, 2, 2)) -> Tensor:
    """Images of independent normal values, rounded to bytes."""
    values = torch.randn(num, *shape, generator=torch.Generator().manual_seed(seed)) * std + mean
    return values.round().clamp(0, 255).to(torch.uint8)


class Linear(Generator):
    """Latents through a linear map, batch normalization and a class's own shift, as images of 2x2 pixels."""

    latent_dim = 4

    def __init__(self, *, norm: bool = False, num_classes: int = 0) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4) if norm else nn.Identity()
        self.num_classes = num_classes

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        x = 0.3 * self.norm(self.linear(latents)).view(-1, 1, 2, 2)
        if labels is not None:  # the first pixel tells the class
            x[:, 0, 0, 0] = labels / self.num_classes * 2 - 1
        return x


def linear(*, norm: bool = False, num_classes: int = 0, **options: Any) -> GAN:
    torch.manual_seed(0)
    return GAN(Linear(norm=norm, num_classes=num_classes), Critic(4), num_classes=num_classes, **options).eval()
