"""Small runs that every loss, and every part which changes the game, must survive."""

from __future__ import annotations

import torch

from ganzoo.config import build
from ganzoo.gan import GAN
from ganzoo.models import DCGAN, MLPGAN
from ganzoo.parts import Part, Turn
from tests.common import fit, flat, max_difference, normal_batches

SHAPES = {"points": (8, 2), "images": (8, 1, 8, 8), "larger": (8, 1, 16, 16)}


def small(kind: str, *parts: Part, seed: int = 0, **options) -> GAN:
    """A model of points, or of images without batch normalization in the discriminator."""
    torch.manual_seed(seed)
    options["parts"] = list(parts)
    if kind == "points":
        return MLPGAN(hidden=8, **options)
    return DCGAN(SHAPES[kind][-1], 1, width=4, **{"discriminator_norm": "none", **options})


def run(gan: GAN, kind: str, steps: int = 3, **trainer) -> GAN:
    torch.manual_seed(7)
    gan.step_seconds = 0.0
    fit(gan, normal_batches(*SHAPES[kind]), max_steps=steps, **trainer)
    return gan


def survives(kind: str, *makes, **options) -> None:
    """It trains in 32 bits and in bf16-mixed, to nearly the same weights; a model built from the configuration and
    given the state goes on as the original does."""
    original = run(small(kind, *(make() for make in makes), **options), kind)
    assert flat(original).isfinite().all()
    half = run(small(kind, *(make() for make in makes), **options), kind, precision="bf16-mixed")
    apart = (flat(half) - flat(original)).abs().max()
    assert 0 < apart < 0.02  # a weight moves by 0.001 a step
    again: GAN = build(original.config())
    assert again.config() == original.config()
    again.load_state_dict(original.state_dict())
    again.clock.load(original.clock.state())
    for gan in (original, again):  # the optimizers begin anew in both
        run(gan, kind, 5)
    assert original.clock.g_turns == again.clock.g_turns > 3
    assert max_difference(original.state_dict(), again.state_dict()) == 0.0


class Watch(Part):
    """Calls ``look(turn)`` at one hook; appended to ``gan.tricks``, so that it comes last."""

    def __init__(self, hook: str, look) -> None:
        super().__init__()
        setattr(self, hook, look)


def watched(gan: GAN, **looks) -> GAN:
    """The model with a part that calls each function, of a turn, at the hook of its name."""
    gan.tricks.extend(Watch(hook, look) for hook, look in looks.items())
    return gan


def keep_gradient_of_fakes(turn: Turn) -> None:
    """For the hook ``generated``: gradients of the turn's fakes, to read after its backward pass."""
    if turn.player == "generator":
        turn.fake.retain_grad()
