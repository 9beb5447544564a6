"""A digit classifier, trained on three quarters of scikit-learn's digits: the judge of generated ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganzoo.data import Digits


@dataclass
class Judge:
    """``sure`` is the share of the held-out real digits of which it is at least 0.9 sure."""

    network: nn.Module
    accuracy: float
    sure: float

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[float, Tensor]:
        """Share of images (N, 1, 32, 32) in [-1, 1] of which it is at least 0.9 sure, and the share of each class."""
        confidence, label = self.network(images).softmax(1).max(1)
        return (confidence >= 0.9).float().mean().item(), label.bincount(minlength=10) / len(images)


def train_judge(seed: int = 0, epochs: int = 20) -> Judge:
    """About four seconds. A random quarter of each class is held out."""
    torch.manual_seed(seed)
    data = Digits(image_size=32, labels=True)
    batch = data.dataset[np.arange(data.num)]
    images, labels = batch.data.float() / 127.5 - 1, batch.labels
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(10):
        rows = (labels == label).nonzero().squeeze(1)
        held_out[rows[torch.randperm(len(rows))[: len(rows) // 4]]] = True
    network = _network()
    x, y = images[~held_out], labels[~held_out]
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=epochs * (len(x) // 64))
    for _ in range(epochs):
        for rows in torch.randperm(len(x))[: len(x) // 64 * 64].split(64):
            top, left = torch.randint(0, 5, (2,)).tolist()  # shifted by up to two pixels
            shifted = F.pad(x[rows], (2, 2, 2, 2), value=-1.0)[:, :, top : top + 32, left : left + 32]
            optimizer.zero_grad()
            F.cross_entropy(network(shifted), y[rows]).backward()
            optimizer.step()
            schedule.step()
    network.eval()
    with torch.no_grad():
        accuracy = (network(images[held_out]).argmax(1) == labels[held_out]).float().mean().item()
    judge = Judge(network, accuracy, 0.0)
    judge.sure, _ = judge(images[held_out])
    return judge


def _network() -> nn.Module:
    layers: list[nn.Module] = []
    for narrow, wide in ((1, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(narrow, wide, 3, 2, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * 16, 10))
