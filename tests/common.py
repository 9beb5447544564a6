"""What several tests need: a silent trainer and data in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ganzoo.gan import GAN
from ganzoo.trainer import Trainer


class Endless:
    """A loader without end whose batch k is ``make(k)``; keeps what it gave."""

    def __init__(self, make: Callable[[int], Any]) -> None:
        self.make, self.given = make, []

    def __iter__(self) -> Iterator[Any]:
        k = 0
        while True:
            self.given.append(self.make(k))
            yield self.given[-1]
            k += 1


def normal_batches(*shape: int, seed: int = 0) -> Endless:
    """Batch k: standard normal numbers of the given shape, from a generator of its own."""
    return Endless(lambda k: torch.randn(*shape, generator=torch.Generator().manual_seed(1000 * seed + k)))


def quiet_trainer(**options: Any) -> Trainer:
    silent: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(**{"accelerator": "cpu", "enable_model_summary": False, **silent, **options})


def fit(gan: GAN, loader: Any, **options: Any) -> Trainer:
    trainer = quiet_trainer(**options)
    trainer.fit(gan, loader)
    return trainer


def flat(module: torch.nn.Module) -> Tensor:
    """All parameters as one vector, copied."""
    return torch.cat([p.detach().flatten().clone() for p in module.parameters()])


def max_difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Largest absolute difference between two state dictionaries with the same keys."""
    assert a.keys() == b.keys()
    return max((a[k].double() - b[k].double()).abs().max().item() for k in a if a[k].numel())


class Critic(torch.nn.Module):
    """One linear map of the flattened data to a logit; labels are ignored."""

    def __init__(self, inputs: int = 1) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(inputs, 1)

    def forward(self, data: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.linear(data.flatten(1)).squeeze(1)
