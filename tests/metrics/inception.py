"""Inception with random weights, in a file that torch-fidelity, torchmetrics and ganzoo all read."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import torch
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from ganzoo.files import atomic, cache_root
from ganzoo.metrics.extractors.inception import Inception
from ganzoo.metrics.extractors.weights import sha256


@functools.cache
def random_weights() -> Path:
    """Written once per session into its cache folder.

    He's scaling (2015) and statistics of a trained network's size keep the signal's spread through all layers. The last
    layer sees the features' differences from those of noise alone: else every image would be of one and the same class.
    """
    path = cache_root() / "random-inception.pth"
    if path.is_file():
        return path
    generator = torch.Generator().manual_seed(2015)
    with torch.random.fork_rng(devices=[]):
        network = _untrained()
    for name, x in network.state_dict().items():
        if name.endswith("conv.weight"):
            x.copy_(torch.randn(x.shape, generator=generator) * (2 / x[0].numel()) ** 0.5)
        elif name.endswith(("running_var", "bn.weight")):
            x.copy_(torch.rand(x.shape, generator=generator) + 0.5)
        elif x.is_floating_point():  # running means, shifts, the last layer
            x.copy_(torch.randn(x.shape, generator=generator) * 0.1)
    noise = torch.randint(0, 256, (4, 3, 32, 32), generator=generator, dtype=torch.uint8)
    mean = network(noise)[0].mean(0)
    network.fc.weight.sub_(torch.outer(network.fc.weight @ mean, mean) / mean.square().sum())
    with atomic(path) as file:
        torch.save(network.state_dict(), file)
    return path


def random_inception(**options: object) -> Inception:
    """Ours, with these weights."""
    path = random_weights()
    return Inception(str(path), _hash(path), **options)


@functools.cache
def _hash(path: Path) -> str:
    return sha256(path)


def _untrained() -> nn.Module:
    """Torch-fidelity's network, whose constructor wants weights: it is given its own."""
    load, torch.load = torch.load, lambda *args, **kwargs: {}
    load_state_dict = FeatureExtractorInceptionV3.load_state_dict
    FeatureExtractorInceptionV3.load_state_dict = lambda self, state: None
    try:
        return FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=os.devnull)
    finally:
        torch.load, FeatureExtractorInceptionV3.load_state_dict = load, load_state_dict
