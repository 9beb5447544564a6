"""Small runs that every penalty must survive, and a part that looks at a turn."""

from __future__ import annotations

import torch

from ganzoo import streams
from ganzoo.config import build
from ganzoo.gan import GAN
from ganzoo.models import DCGAN, MLPGAN
from ganzoo.parts import Part
from tests.common import Endless, fit, flat, max_difference, normal_batches

SHAPES = {"points": (8, 2), "images": (8, 1, 8, 8)}


def small(kind: str, seed: int = 0, **options) -> GAN:
    """A model of points, or of images without batch normalization in the discriminator."""
    torch.manual_seed(seed)
    gan: GAN
    if kind == "points":
        gan = MLPGAN(hidden=8, **options)
    else:
        gan = DCGAN(8, 1, width=4, **{"discriminator_norm": "none", **options})
    gan.step_seconds = 0.0
    return gan


def run(gan: GAN, kind: str, steps: int = 3, **trainer) -> GAN:
    torch.manual_seed(7)
    fit(gan, normal_batches(*SHAPES[kind]), max_steps=steps, **trainer)
    return gan


def survives(kind: str, make, where: str = "penalties") -> None:
    """It changes what is learned, in 32 bits and in bf16-mixed; a model built from its configuration and given its
    state goes on as the original does."""
    plain, with_it = run(small(kind), kind), run(small(kind, **{where: [make()]}), kind)
    assert not torch.equal(both(plain), both(with_it))
    assert both(with_it).isfinite().all()

    half = run(small(kind, **{where: [make()]}), kind, precision="bf16-mixed")
    assert both(half).isfinite().all()
    assert not torch.equal(both(run(small(kind), kind, precision="bf16-mixed")), both(half))

    again: GAN = build(with_it.config())
    again.step_seconds = 0.0
    assert again.config() == with_it.config()
    again.load_state_dict(with_it.state_dict())
    again.clock.load(with_it.clock.state())
    for gan in (with_it, again):  # the optimizers begin anew in both
        run(gan, kind, 2)
    assert with_it.clock.g_turns == again.clock.g_turns == 5
    assert max_difference(with_it.state_dict(), again.state_dict()) == 0.0


def leaves_no_trace(kind: str, make, **options) -> None:
    """With weights of 0 a run is that without it, to the last bit: statistics and random numbers included."""
    plain, with_it = run(small(kind, **options), kind), run(small(kind, penalties=[make()], **options), kind)
    state = {name: value for name, value in with_it.state_dict().items() if not name.startswith("parts.")}
    assert max_difference(plain.state_dict(), state) == 0.0


RANDOM = [
    ("images", {"discriminator_norm": "spectral"}),
    ("images", {"discriminator_norm": "batch"}),
    ("points", {"dropout": 0.3}),
]


def labelled(kind: str) -> Endless:
    """Batches of data and labels of three classes."""

    def make(k: int) -> tuple[torch.Tensor, torch.Tensor]:
        g = torch.Generator().manual_seed(k)
        return torch.randn(*SHAPES[kind], generator=g), torch.randint(3, (8,), generator=g)

    return Endless(make)


def both(gan: GAN) -> torch.Tensor:
    return torch.cat([flat(gan.generator), flat(gan.discriminator)])


class Noisy(Part):
    """Noise on all that the discriminator sees."""

    def inputs(self, turn, data, labels):
        return data + 0.1 * streams.randn(*data.shape, purpose="noise"), labels


class Watch(Part):
    """Calls ``look(turn)`` when the gradients of a turn are there; appended to ``gan.tricks``, so it comes last."""

    def __init__(self, look) -> None:
        super().__init__()
        self.__dict__["look"] = look

    def after_backward(self, turn) -> None:
        self.__dict__["look"](turn)


def gradient(network: torch.nn.Module) -> torch.Tensor:
    """All gradients as one vector, zero where there is none."""
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in network.parameters()])
