"""What is trained on what: the protocols, the two targets, and where ours differ from PacGAN's.

PacGAN (Lin 2018, arXiv 1712.04086, sec. 4.1) took the targets from VEEGAN (Srivastava 2017). What the paper leaves
open is as its published code has it (github.com/fjxmlzn/PacGAN, synthetic_data_experiments).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Protocol:
    """Sizes and numbers of one run. The defaults are PacGAN's."""

    name: str
    generator_width: int = 400
    generator_layers: int = 4
    discriminator_width: int = 200
    discriminator_layers: int = 3
    pieces: int = 5  #: linear maps per maxout unit
    latent_dim: int = 2
    init_std: float = 0.02  #: of all weights; biases start at zero
    lr: float = 1e-4
    beta1: float = 0.8
    beta2: float = 0.999
    batch: int = 100  #: packs; with packs of m, a cycle takes 100 m real points
    num_points: int = 100_000  #: packs of real points that make up an epoch
    cycles: int = 400_000
    score_every: int = 1_000  #: cycles
    num_samples: int = 2_500  #: that are scored

    @property
    def per_epoch(self) -> int:
        """Batches of an epoch."""
        return self.num_points // self.batch


@dataclass(frozen=True)
class Target:
    """A mixture of equal normal distributions in the plane."""

    name: str
    means: tuple[tuple[float, float], ...]
    std: float
    num_seeds: int  #: that the table has

    def centres(self) -> Tensor:
        """Means, (modes, 2)."""
        return torch.tensor(self.means)


def _on_circle(i: int) -> tuple[float, float]:
    return math.cos(math.tau * i / 8), math.sin(math.tau * i / 8)


_LINE = (-4.0, -2.0, 0.0, 2.0, 4.0)

PROTOCOLS = {
    p.name: p
    for p in (
        Protocol("paper"),
        Protocol("compact", generator_width=128, discriminator_width=64, lr=1e-3, cycles=20_000),
    )
}
TARGETS = {
    t.name: t
    for t in (
        Target("grid", tuple((a, b) for a in _LINE for b in _LINE), std=0.05, num_seeds=5),
        Target("ring", tuple(_on_circle(i) for i in range(8)), std=0.01, num_seeds=3),
    )
}

#: Of both protocols, against the paper and its code.
DIFFERENCES = [
    "Running variances of the generator's batch normalization are unbiased (torch's convention; n = 100).",
    "The last checkpoint is scored, on 2,500 samples of the generator with its running statistics; the paper's code "
    "writes a score per epoch, and we read its table as that of the last one.",
]


def differences(protocol: Protocol, num_seeds: int) -> list[str]:
    """In what a run of this protocol differs from PacGAN's, a sentence each."""
    paper, found = PROTOCOLS["paper"], []
    if (protocol.generator_width, protocol.discriminator_width) != (paper.generator_width, paper.discriminator_width):
        found.append(
            f"Networks of {protocol.generator_layers} x {protocol.generator_width} (generator) and "
            f"{protocol.discriminator_layers} x {protocol.discriminator_width} maxout of {protocol.pieces} "
            f"(discriminator), in place of {paper.generator_layers} x {paper.generator_width} and "
            f"{paper.discriminator_layers} x {paper.discriminator_width} maxout of {paper.pieces}."
        )
    if protocol.cycles != paper.cycles:
        found.append(f"{protocol.cycles:,} cycles in place of {paper.cycles:,} (400 epochs of 1,000).")
    if protocol.lr != paper.lr:
        found.append(f"Learning rate {protocol.lr:g} in place of {paper.lr:g}, both networks.")
    return [*found, f"{num_seeds} seeds in place of 10.", *DIFFERENCES]
