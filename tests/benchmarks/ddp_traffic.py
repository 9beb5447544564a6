"""Run by test_scaling.py in two processes: trains small GANs and saves what each process gave to the others."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator

import lightning.pytorch as L
import torch

from benchmarks.speed.scaling import Traffic, cycle_reductions
from ganzoo import strategy
from ganzoo.data import Digits
from ganzoo.gan import GAN
from ganzoo.losses import RelativisticAverage
from ganzoo.models import DCGAN
from ganzoo.parts import Part, Turn
from ganzoo.penalties import R1, LeCam
from ganzoo.plan import Play
from ganzoo.tricks import SpectralNorm
from tests.common import quiet_trainer

CYCLES = 4


class Sizes(Part):
    """Notes how many real images this process has in each micro-batch of the discriminator's turns."""

    players = ("discriminator",)

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def prepared(self, turn: Turn, real):
        self.seen.append(len(real))
        return real


def dcgan(**options) -> GAN:
    penalties = [R1(1.0, every=2), LeCam()]
    return DCGAN(8, 1, width=4, discriminator_norm="layer", penalties=penalties, parts=[Sizes()], **options)


def both_players(gan: GAN) -> None:
    """As torch's DistributedDataParallel with ``find_unused_parameters``: both networks in each turn."""
    average = strategy.average_over_ranks

    def both(parameters, buffers):
        players = gan.players.values()
        average([p for one in players for p in one.active], [b for one in players for b in one.float_buffers()])

    strategy.average_over_ranks = both


def each_micro_batch(gan: GAN) -> None:
    """Gradients are averaged after each backward pass."""
    backward = gan._backward

    def eager(loss):
        backward(loss)
        strategy.average_over_ranks([p for one in gan.players.values() for p in one.active if p.grad is not None], [])

    gan._backward = eager


def no_buffers(gan: GAN) -> None:
    """Gradients only: statistics drift apart."""
    average = strategy.average_over_ranks
    strategy.average_over_ranks = lambda parameters, buffers: average(parameters, [])


Wrong = Callable[[GAN], None]


def scenarios() -> Iterator[tuple[str, GAN, Wrong | None, bool]]:
    """Name, model, what is done wrong, whether images live on the device."""
    yield "plain", dcgan(play=Play(2, 1)), None, False
    yield "resident", dcgan(play=Play(2, 1)), None, True
    yield "accumulated", dcgan(play=Play(1, 1), accumulate=2), None, False
    yield "statistics", spectral(), None, False
    yield "joint", dcgan(loss=RelativisticAverage()), None, False
    yield "both_players", dcgan(), both_players, False
    yield "each_micro_batch", dcgan(accumulate=2), each_micro_batch, False
    yield "no_buffers", spectral(), no_buffers, False


def spectral() -> GAN:
    """Batch normalization in the generator, spectral vectors in the discriminator."""
    return DCGAN(8, 1, width=4, discriminator_norm="layer", parts=[SpectralNorm(), Sizes()])


def run(gan: GAN, wrong: Wrong | None, on_device: bool) -> dict:
    """Events of each cycle: a backward pass, or a collective operation with the bytes that this process gives."""
    cycles: list[list[tuple[str, int]]] = []
    between: list[list[tuple[str, int]]] = []
    cycle, backward, watch, end = gan.cycle, gan._backward, Traffic(), 0

    def watched(loader) -> None:
        nonlocal end
        begin = len(watch.seen)
        between.append(watch.seen[end:begin])
        cycle(loader)
        end = len(watch.seen)
        cycles.append(watch.seen[begin:end])

    def noted(loss) -> None:
        backward(loss)
        watch.seen.append(("backward", 0))

    gan.cycle, gan._backward = watched, noted
    average = strategy.average_over_ranks
    if wrong:
        wrong(gan)
    trainer = quiet_trainer(devices=2, max_steps=CYCLES)
    with watch:
        trainer.fit(gan, Digits(image_size=8, batch_size=16, on_device=on_device))
    strategy.average_over_ranks = average
    return {
        "cycles": cycles,
        "between": between[1:],  # what comes before the first is the start
        "expected": cycle_reductions(gan),
        "sizes": next(part.seen for part in gan.tricks if isinstance(part, Sizes)),
        "state": gan.state_dict(),
        "parameters": {name: len(player.trained) for name, player in gan.players.items()},
    }


def main(folder: str) -> None:
    for name, gan, wrong, on_device in scenarios():
        L.seed_everything(11, verbose=False)
        for module in gan.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        found = run(gan, wrong, on_device)
        torch.save(found, os.path.join(folder, f"{name}-{os.environ.get('LOCAL_RANK', '0')}.pt"))


if __name__ == "__main__":
    main(sys.argv[1])
