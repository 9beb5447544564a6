"""Every trick on two devices and in micro-batches: the table of test_ddp_tricks.py, and what its processes run.

Started by the test as a script, it trains each row in two gloo processes and saves what the models became, per rank.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal
from unittest import mock

import lightning.pytorch as L
import torch
from torch import Tensor, nn

from ganzoo import joint, losses, penalties, strategy, streams, tricks
from ganzoo.augment import ADA, APA, DiffAugment, InstanceNoise
from ganzoo.data import Digits
from ganzoo.gan import GAN
from ganzoo.generator import Generator
from ganzoo.health.signals import Signals
from ganzoo.models import DCGAN, ProgressiveGAN
from ganzoo.optim import SGD
from ganzoo.plan import Play
from tests.common import quiet_trainer

Share = Literal["joint", "own"]
Cut = Literal["gradients", "means", "buffers", "first", "draws"]

STEPS, BATCH, LR = 4, 16, 0.2


@dataclass(frozen=True)
class Row:
    """A trick, what it is the same on, and the communication without which it would not be."""

    options: Callable[[], dict[str, Any]]
    ranks: Share = "joint"  #: whether two processes equal one
    micro: Share = "joint"  #: whether two micro-batches equal one batch
    cut: Cut | None = "gradients"  #: what is taken out to see the comparison fail
    acts: bool = True  #: whether it changes what is learned
    network: dict[str, Any] = field(default_factory=dict)


def loss(make: Callable[[], losses.AdversarialLoss], **options: Any) -> Row:
    return Row(lambda: {"loss": make()}, **options)


def penalty(make: Callable[[], penalties.R1 | Any], **options: Any) -> Row:
    return Row(lambda: {"penalties": [make()]}, **options)


def part(make: Callable[[], Any], **options: Any) -> Row:
    return Row(lambda: {"parts": [make()]}, **options)


NORMALIZED = {"generator_norm": True}  # by what a part puts in the place of batch normalization
PER_RANK: dict[str, Any] = {"ranks": "own", "micro": "own", "cut": None}
#: p moves in each turn; the targets are such that one half of a batch alone would have moved it another way.
ADAPTIVE: dict[str, Any] = {"p": 0.5, "speed_kimg": 0.5, "interval": 1}
GROUPS: Any = ["blit", "geometric", "color", "filter", "noise", "cutout"]

TABLE: dict[str, Row] = {
    "NonSaturating": loss(losses.NonSaturating, acts=False),  # the default, without any trick
    "Saturating": loss(losses.Saturating),
    "Hinge": loss(losses.Hinge),
    "Wasserstein": loss(losses.Wasserstein, network={"lr": 0.05}),
    "LeastSquares": loss(losses.LeastSquares),
    "Relativistic": loss(losses.Relativistic),
    "RelativisticAverage": loss(losses.RelativisticAverage, micro="own", cut="means"),
    "D2GAN": Row(lambda: {"loss": losses.D2GAN(), "parts": [tricks.DualDiscriminator()]}),
    "DualDiscriminator": Row(lambda: {"loss": losses.D2GAN(0.5), "parts": [tricks.DualDiscriminator()]}),
    "R1": penalty(lambda: penalties.R1(1.0, every=2)),
    "R2": penalty(lambda: penalties.R2(1.0)),
    "ZeroCenteredGradientPenalty": penalty(lambda: penalties.ZeroCenteredGradientPenalty(1.0), cut="draws"),
    "WassersteinGradientPenalty": penalty(lambda: penalties.WassersteinGradientPenalty(1.0), cut="draws"),
    "DRAGAN": penalty(lambda: penalties.DRAGAN(1.0, scale=4.0), micro="own", cut="means"),
    "PathLength": penalty(
        lambda: penalties.PathLength(5.0, every=1, decay=0.5), cut="buffers", network={"style": True}
    ),
    "Drift": penalty(lambda: penalties.Drift(0.5, fake=True)),
    "FeatureMatching": penalty(lambda: penalties.FeatureMatching(1.0), micro="own", cut="means"),
    "LeCam": penalty(lambda: penalties.LeCam(1.0, decay=0.5), cut="buffers"),
    "Consistency": penalty(lambda: penalties.Consistency(shift=2), cut="draws"),
    "BalancedConsistency": penalty(lambda: penalties.BalancedConsistency(shift=2), cut="draws"),
    "LatentConsistency": penalty(lambda: penalties.LatentConsistency(sigma=0.5), cut="draws"),
    "OrthogonalRegularization": penalty(lambda: penalties.OrthogonalRegularization(0.01)),
    "HistoricalAveraging": penalty(lambda: penalties.HistoricalAveraging(1.0)),
    "WeightClipping": Row(
        lambda: {"loss": losses.Wasserstein(), "parts": [penalties.WeightClipping(0.2)]}, network={"lr": 0.05}
    ),
    "SpectralNorm": part(lambda: tricks.SpectralNorm("both")),
    "EqualizedLearningRate": part(tricks.EqualizedLearningRate),
    "PixelNorm": part(tricks.PixelNorm, network=NORMALIZED),
    "SelfAttention": part(lambda: tricks.SelfAttention(resolution=8)),
    "VirtualBatchNorm": Row(
        lambda: {"parts": [tricks.VirtualBatchNorm(player, size=4) for player in ("generator", "discriminator")]},
        cut="first",
        network={**NORMALIZED, "discriminator_norm": "batch"},
    ),
    "LatentOptimization": part(lambda: tricks.LatentOptimization(5.0, bound=None)),
    #: The first turn at 4x4, two in a fade-in, and one at 8x8.
    "Growing": part(lambda: tricks.Growing(0.016, fade_kimg=0.032), network={"levels": True}),
    "FreezeD": part(lambda: tricks.FreezeD(1)),
    "InstanceNoise": part(InstanceNoise, cut="draws"),
    "DiffAugment": part(DiffAugment, cut="draws"),
    "ADA": part(lambda: ADA(GROUPS, **ADAPTIVE, target=0.8), cut="buffers"),
    "APA": part(lambda: APA(**ADAPTIVE, target=0.4), cut="buffers"),
    "Signals": part(lambda: Signals(every=2), acts=False),
    "MinibatchStdDev": part(lambda: tricks.MinibatchStdDev(4), **PER_RANK),
    "MinibatchDiscrimination": part(lambda: tricks.MinibatchDiscrimination(4), **PER_RANK),
    "TopK": part(lambda: tricks.TopK(0.5, factor=1e-30), **PER_RANK),
    "Unrolled": part(lambda: tricks.Unrolled(2), **PER_RANK),
    "AuxiliaryClassifier": part(tricks.AuxiliaryClassifier, network={"num_classes": 10}),
    "Packing": part(tricks.Packing),  # of neighbours in the batch, which stay together
    "ADA + APA + DiffAugment + InstanceNoise + R1": Row(
        lambda: {
            "parts": [APA(**ADAPTIVE, target=0.4), ADA(GROUPS, **ADAPTIVE, target=0.8), DiffAugment(), InstanceNoise()],
            "penalties": [penalties.R1(1.0)],
        },
    ),
    "R1 + SpectralNorm + a shared pass": Row(
        lambda: {
            "play": Play(shared=True),
            "parts": [tricks.SpectralNorm("generator")],
            "penalties": [penalties.R1(1.0)],
        }
    ),
    "FeatureMatching + LeCam + WassersteinGradientPenalty": Row(
        lambda: {
            "penalties": [
                penalties.FeatureMatching(1.0),
                penalties.LeCam(1.0, decay=0.5),
                penalties.WassersteinGradientPenalty(1.0, every=2),
            ],
        },
        micro="own",
        cut="means",
        network={"lr": 0.02},
    ),
}


class Style(Generator):
    """Two layers: what penalties of a style space ask for."""

    latent_dim = 100

    def __init__(self, base: Generator) -> None:
        super().__init__()
        self.style, self.image = nn.Linear(base.latent_dim, 8), nn.Linear(8, 16 * 16)

    def mapping(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        return self.style(latents).tanh()

    def synthesis(self, w: Tensor) -> Tensor:
        return self.image(w).tanh().view(-1, 1, 16, 16)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.synthesis(self.mapping(latents, labels))


def model(
    options: dict[str, Any],
    *,
    accumulate: int = 1,
    discriminator_norm: Any = "none",
    generator_norm: bool = False,
    style: bool = False,
    levels: bool = False,
    num_classes: int = 0,
    lr: float = LR,
) -> GAN:
    """Convolutional networks of 16x16 images in which no layer looks at the batch."""
    torch.manual_seed(11)
    if levels:
        base: GAN = ProgressiveGAN(16, 1, latent_dim=8, channel_base=64, stddev_channels=0, growth=None)
    else:
        base = DCGAN(16, 1, width=4, num_classes=num_classes, discriminator_norm=discriminator_norm)
    generator: Any = base.generator
    if not (generator_norm or levels):
        for name, module in list(generator.layers.named_children()):
            if isinstance(module, nn.BatchNorm2d):
                generator.layers[int(name)] = nn.Identity()
    with torch.no_grad():
        for weight in [] if levels else base.parameters():
            weight.mul_(5 if weight.dim() > 1 else 1)  # those of the paper are small, and little would move in 4 steps
    return GAN(
        Style(generator) if style else generator,
        base.discriminator,
        num_classes=num_classes,
        generator_optimizer=SGD(lr),
        discriminator_optimizer=SGD(lr),
        accumulate=accumulate,
        **options,
    )


def train(
    row: Row, *, devices: int = 1, accumulate: int = 1, options: Callable[[], dict[str, Any]] | None = None
) -> GAN:
    """What the row's model becomes in a few cycles; with other ``options``, the same networks under these."""
    L.seed_everything(11, verbose=False)
    gan = model((options or row.options)(), accumulate=accumulate, **row.network)
    gan.step_seconds = 0.0
    data = Digits(image_size=16, batch_size=BATCH, labels=bool(gan.num_classes))
    quiet_trainer(devices=devices, max_steps=STEPS).fit(gan, data)
    return gan


@contextmanager
def without(cut: Cut) -> Iterator[None]:
    """Processes that do not share one thing: a means of communication, or the numbers drawn for the joint batch."""
    average = strategy.average_over_ranks
    changed: dict[Cut, list[tuple[Any, str, Any]]] = {
        "gradients": [(strategy, "average_over_ranks", lambda parameters, buffers: None)],
        "buffers": [(strategy, "average_over_ranks", lambda parameters, buffers: average(parameters, []))],
        "means": [(joint, "mean", lambda x: x)],
        "first": [(joint, "first", lambda x: x.detach())],
        "draws": [(streams, name, first_rows(getattr(streams, name))) for name in ("randn", "rand", "randint")],
    }
    patches = [mock.patch.object(*change) for change in changed[cut]]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()


def first_rows(draw: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Draws that give each process the first one's rows, save for latents, which every run has."""

    def drawn(*args: Any, purpose: str, **options: Any) -> Tensor:
        current = streams._current
        if current is None or purpose == "latent":
            return draw(*args, purpose=purpose, **options)
        start, current.start = current.start, 0
        try:
            return draw(*args, purpose=purpose, **options)
        finally:
            current.start = start

    return drawn


def main(folder: str) -> None:
    found: dict[str, dict[str, dict[str, Tensor]]] = {"two": {}, "both": {}, "cut": {}}
    for name, row in TABLE.items():
        found["two"][name] = train(row, devices=2).state_dict()
        found["both"][name] = train(row, devices=2, accumulate=2).state_dict()
        if row.cut is not None:
            with without(row.cut):
                found["cut"][name] = train(row, devices=2).state_dict()
    torch.save(found, os.path.join(folder, f"{torch.distributed.get_rank()}.pt"))


if __name__ == "__main__":
    main(sys.argv[1])
