"""Inception with random weights, in a file that torch-fidelity, torchmetrics and ganzoo all read."""

from __future__ import annotations

import functools
import io
from pathlib import Path

import torch
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from ganzoo.files import atomic, cache_root
from ganzoo.metrics.extractors.inception import Inception
from ganzoo.metrics.extractors.weights import sha256


@functools.cache
def random_weights() -> Path:
    """Written once per session into its cache folder.

    He's scaling (2015) and statistics of a trained network's size keep the signal's spread through all layers. (Those
    of real images would make differences between them grow with depth, rounding errors too.) The last layer sees how
    features differ from their mean: else every image would be of one and the same class.
    """
    path = cache_root() / "random-inception.pth"
    if path.is_file():
        return path
    generator = torch.Generator().manual_seed(2015)
    with torch.random.fork_rng(devices=[]):
        network = _Untrained()
    for name, x in network.state_dict().items():
        if name.endswith("conv.weight"):
            x.copy_(torch.randn(x.shape, generator=generator) * (2 / x[0].numel()) ** 0.5)
        elif name.endswith(("running_var", "bn.weight")):
            x.copy_(torch.rand(x.shape, generator=generator) + 0.5)
        elif x.is_floating_point():  # running means, shifts, the last layer
            x.copy_(torch.randn(x.shape, generator=generator) * 0.1)
    mean = network(varied_images(8, 32, 32, seed=2015))[0].mean(0)
    network.fc.weight.sub_(torch.outer(network.fc.weight @ mean, mean) / mean.square().sum())
    with atomic(path) as file:
        torch.save(network.state_dict(), file)
    return path


def varied_images(num: int, height: int, width: int, *, seed: int = 0) -> Tensor:
    """Random images (num, 3, height, width), uint8, from smooth ones to noise."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(num, 3, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    noise = torch.rand(num, 3, height, width, generator=generator)
    share = torch.linspace(0, 1, num).view(-1, 1, 1, 1)
    return ((1 - share) * smooth + share * noise).mul(255).round().to(torch.uint8)


def random_inception(**options: object) -> Inception:
    """Ours, with these weights."""
    path = random_weights()
    return Inception(str(path), _hash(path), **options)


@functools.cache
def _hash(path: Path) -> str:
    return sha256(path)


class _Untrained(FeatureExtractorInceptionV3):
    """Torch-fidelity's network, whose constructor wants weights, without any."""

    def __init__(self) -> None:
        empty = io.BytesIO()
        torch.save({}, empty)
        empty.seek(0)
        super().__init__("inception-v3-compat", ["2048"], feature_extractor_weights_path=empty)

    def load_state_dict(self, *_: object) -> None:
        pass
