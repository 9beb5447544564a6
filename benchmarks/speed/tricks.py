"""What each trick adds to a cycle: ``python -m benchmarks.speed.tricks [NAME...]``.

DCGAN of 32x32x3 images, width 16, batches of 64 from memory, one thread of a CPU. The model with the trick and the same
model without it train by turns in one process, in bursts of whole intervals of lazy terms: the cost is the median ratio
of processor time over these pairs, wall time is beside it. A cycle is one turn of each player and the average.
The discriminator has no normalization, save where the trick takes the place of one.

    python -m benchmarks.speed.tricks --json docs/records/tricks-cost.json --page docs/tricks.md
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.speed.clocks import silence
from benchmarks.speed.noise import Noise
from benchmarks.speed.rows import record
from ganzoo import losses, penalties, tricks
from ganzoo.ablation.timing import Subject, compare
from ganzoo.augment import ADA, APA, DiffAugment, InstanceNoise
from ganzoo.files import atomic, write_json
from ganzoo.gan import GAN, Generator
from ganzoo.health.signals import Signals
from ganzoo.models import DCGAN, ProgressiveGAN

SIZE, CHANNELS, WIDTH, BATCH = 32, 3, 16, 64
DATA = f"{SIZE}x{SIZE}x{CHANNELS}, width {WIDTH}, batches of {BATCH}"


def dcgan(**options: Any) -> GAN:
    """The model of nearly all rows."""
    return DCGAN(SIZE, CHANNELS, width=WIDTH, **options)


@dataclass(frozen=True)
class Case:
    """A trick: the class that the catalogue names, settings that matter for its cost, and the options of a model."""

    name: str
    options: Callable[[], dict[str, Any]]
    setting: str = ""
    base: Callable[[], dict[str, Any]] = dict  #: options of what it is compared with
    make: Callable[..., GAN] = dcgan

    def subject(self, *, with_it: bool) -> Subject:
        """A fresh model of the pair."""
        options = {"discriminator_norm": "none", **(self.options() if with_it else self.base())}
        data = Noise([CHANNELS, SIZE, SIZE], classes=options.get("num_classes", 0), batch_size=BATCH)
        return Subject(self.make(**options), data, {"accelerator": "cpu"})


def of_loss(name: str, make: Callable[[], losses.AdversarialLoss]) -> Case:
    return Case(name, lambda: {"loss": make()})


def of_penalty(make: Callable[[], Any], setting: str = "") -> Case:
    return Case(type(make()).__name__, lambda: {"penalties": [make()]}, setting)


def of_part(make: Callable[[], Any], setting: str = "", **base: Any) -> Case:
    return Case(type(make()).__name__, lambda: {**base, "parts": [make()]}, setting, lambda: base)


def two_discriminators() -> dict[str, Any]:
    return {"loss": losses.D2GAN(), "parts": [tricks.DualDiscriminator()]}


def cases() -> list[Case]:
    """All tricks that a recipe can name, with their defaults where nothing else is said."""
    fixed: dict[str, Any] = {"p": 0.5, "target": None}
    return [
        of_loss("NonSaturating", losses.NonSaturating),  # the base against itself: how far 1.00 can be believed
        of_loss("Saturating", losses.Saturating),
        of_loss("Hinge", losses.Hinge),
        of_loss("Wasserstein", losses.Wasserstein),
        of_loss("LeastSquares", losses.LeastSquares),
        of_loss("Relativistic", losses.Relativistic),
        of_loss("RelativisticAverage", losses.RelativisticAverage),
        Case("D2GAN", two_discriminators, "with DualDiscriminator"),
        Case("DualDiscriminator", two_discriminators, "with D2GAN"),
        of_penalty(penalties.R1),
        of_penalty(lambda: penalties.R1(every=16), "every 16"),
        of_penalty(penalties.R2),
        of_penalty(penalties.ZeroCenteredGradientPenalty),
        of_penalty(penalties.WassersteinGradientPenalty),
        of_penalty(penalties.DRAGAN),
        Case(
            "PathLength", lambda: {"penalties": [penalties.PathLength()]}, "every 4, on half of the batch", make=style
        ),
        of_penalty(penalties.Drift),
        of_penalty(penalties.FeatureMatching),
        of_penalty(penalties.LeCam),
        of_penalty(penalties.Consistency),
        of_penalty(penalties.BalancedConsistency),
        of_penalty(penalties.LatentConsistency),
        of_penalty(penalties.OrthogonalRegularization),
        of_penalty(penalties.HistoricalAveraging),
        of_part(penalties.WeightClipping, loss=losses.Wasserstein()),
        of_part(tricks.SpectralNorm),
        of_part(lambda: tricks.VirtualBatchNorm("generator"), "generator"),
        of_part(lambda: tricks.VirtualBatchNorm("discriminator"), "discriminator", discriminator_norm="batch"),
        of_part(tricks.PixelNorm),
        of_part(tricks.EqualizedLearningRate),
        of_part(lambda: tricks.SelfAttention(resolution=16), "at 16x16, both"),
        of_part(tricks.MinibatchStdDev),
        of_part(tricks.MinibatchDiscrimination),
        of_part(tricks.Packing),
        of_part(lambda: tricks.TopK(factor=1e-30), "half of the fakes"),
        of_part(lambda: tricks.Unrolled(5), "5 steps"),
        of_part(lambda: tricks.Unrolled(5, backprop=False), "5 steps without backprop"),
        of_part(tricks.LatentOptimization),
        Case(
            "Growing", lambda: {"parts": [tricks.Growing()]}, "at 4x4, against its networks at 32x32", make=progressive
        ),
        of_part(tricks.AuxiliaryClassifier, "10 classes", num_classes=10),
        of_part(tricks.FreezeD),
        of_part(InstanceNoise),
        of_part(DiffAugment),
        of_part(lambda: ADA(**fixed), "p 0.5"),
        of_part(lambda: APA(**fixed), "p 0.5"),
        of_part(Signals, "every 10"),
    ]


class StyleBased(Generator):
    """The layers of a generator without batch normalization as a synthesis network, behind a mapping of two layers."""

    def __init__(self, base: Generator) -> None:
        super().__init__()
        self.latent_dim = base.latent_dim
        width = self.latent_dim
        self.map = nn.Sequential(nn.Linear(width, width), nn.LeakyReLU(0.2), nn.Linear(width, width), nn.LeakyReLU(0.2))
        layers: Any = base.layers
        self.layers = nn.Sequential(*(layer for layer in layers if not isinstance(layer, nn.BatchNorm2d)))

    def mapping(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        styles: Tensor = self.map(latents)
        return styles

    def synthesis(self, w: Tensor) -> Tensor:
        images: Tensor = self.layers(w[:, :, None, None])
        return images

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.synthesis(self.mapping(latents, labels))


def style(*, discriminator_norm: Any, **options: Any) -> GAN:
    """A GAN that has what path length regularization asks for."""
    base = DCGAN(SIZE, CHANNELS, width=WIDTH, discriminator_norm=discriminator_norm)
    return GAN(StyleBased(base.generator), base.discriminator, **options)


def progressive(*, discriminator_norm: Any, **options: Any) -> GAN:
    """Networks with levels, at full size unless something makes them grow."""
    return ProgressiveGAN(SIZE, CHANNELS, channel_base=WIDTH * SIZE, growth=None, **options)


def measure(chosen: Sequence[Case], seconds: float, **limits: int) -> list[dict[str, Any]]:
    """One row for each case, printed when it is there."""
    rows = []
    for case in chosen:
        cost = compare(case.subject(with_it=False), case.subject(with_it=True), seconds=seconds, **limits)
        rows.append({"name": case.name, "setting": case.setting, **asdict(cost)})
        print(line(rows[-1]), flush=True)
    return rows


def line(row: dict[str, Any]) -> str:
    """A row of the Markdown table."""
    low, high = row["cpu_quartiles"]
    name = f"`{row['name']}`" + (f", {row['setting']}" if row["setting"] else "")
    base, ms = (row[key][0] for key in ("base_ms", "ms"))
    return f"| {name} | {row['cpu']:.2f} | {low:.2f} to {high:.2f} | {row['wall']:.2f} | {base:.1f} | {ms:.1f} |"


HEAD = (
    "| trick | cost per cycle | quartiles | by the wall clock | ms without it | ms with it |\n|---|---|---|---|---|---|"
)


def filled(page: str, rows: Sequence[dict[str, Any]]) -> str:
    """The catalogue with its last column, the cost per cycle, as the rows of a record say."""
    costs: dict[str, list[str]] = {}
    for row in rows:
        text = f"{row['cpu']:.2f}" + (f" ({row['setting']})" if row["setting"] else "")
        costs.setdefault(row["name"], []).append(text)

    def cell(found: re.Match[str]) -> str:
        cost = ", ".join(costs.get(found["name"], [found["cost"].strip()]))
        return f"{found['rest']}| {cost} |"

    return re.sub(r"^(?P<rest>\| `(?P<name>\w+)` \|.*)\|(?P<cost>[^|]*)\|$", cell, page, flags=re.M)


def main() -> None:
    known = cases()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of classes; default: all")
    parser.add_argument("--seconds", type=float, default=15.0, help="of measuring, per row")
    parser.add_argument("--json", type=Path, help="write the record here")
    parser.add_argument("--page", type=Path, help="fill the last column of this catalogue")
    options = parser.parse_args()
    if unknown := set(options.names) - {case.name for case in known}:
        parser.error(f"no trick is named {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    silence()
    print(HEAD)
    rows = measure([case for case in known if not options.names or case.name in options.names], options.seconds)
    if options.json:
        facts = {"model": f"DCGAN, {DATA}", "seconds_per_row": options.seconds}
        write_json(options.json, record(torch.device("cpu"), rows, **facts))
    if options.page:
        page = options.page.read_text()
        with atomic(options.page, "w") as file:
            file.write(filled(page, rows))


if __name__ == "__main__":
    main()
