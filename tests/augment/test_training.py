"""Augmentations in real runs: gradients reach the generator, precision, checkpoints, recipes."""

from __future__ import annotations

import pytest
import torch

from ganzoo.augment import ADA, APA, DiffAugment, InstanceNoise
from ganzoo.config import build
from ganzoo.errors import UserError
from ganzoo.gan import GAN
from ganzoo.models import DCGAN, MLPGAN
from ganzoo.parts import Part, Turn
from ganzoo.penalties import R1
from tests.augment.common import images, stream
from tests.common import fit, flat, normal_batches
from tests.mutants import kills

ALL = ["blit", "geometric", "color", "filter", "noise", "cutout"]
PARTS = {
    "noise": lambda: InstanceNoise(0.2),
    "diffaugment": DiffAugment,
    "ada": lambda: ADA(ALL, p=0.6, speed_kimg=0.1),
    "apa": lambda: APA(0.5, speed_kimg=0.1),
}


def trained(*parts: Part, precision: str = "32-true", **options) -> GAN:
    torch.manual_seed(0)
    gan = DCGAN(8, 1, width=4, discriminator_norm="none", parts=list(parts), **options)
    gan.step_seconds = 0.0
    fit(gan, normal_batches(4, 1, 8, 8), max_steps=3, precision=precision)
    return gan


@pytest.mark.parametrize("name", PARTS)
def test_it_trains_with_r1_and_changes_what_is_learned(name) -> None:
    plain, changed = trained(penalties=[R1()]), trained(PARTS[name](), penalties=[R1()])
    for gan in (plain, changed):
        assert all(torch.isfinite(torch.tensor(v)).all() for v in gan.meter.values().values())
    assert not torch.allclose(flat(plain.discriminator), flat(changed.discriminator), atol=1e-5)
    again = build(changed.config())
    assert [type(part) for part in again.tricks] == [type(part) for part in changed.tricks]
    assert again.config() == changed.config()
    again.load_state_dict(changed.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(again.parts.buffers(), changed.parts.buffers(), strict=True))


@pytest.mark.parametrize("name", ["noise", "apa"])
def test_points(name) -> None:
    torch.manual_seed(0)
    gan = MLPGAN(hidden=8, parts=[PARTS[name]()])
    before = flat(gan)
    fit(gan, normal_batches(8, 2), max_steps=2)
    assert torch.isfinite(flat(gan)).all()
    assert not torch.equal(before, flat(gan))


@pytest.mark.parametrize("name", ["diffaugment", "ada"])
def test_points_are_refused_with_what_takes_them(name) -> None:
    with pytest.raises(UserError, match="InstanceNoise"):
        fit(MLPGAN(hidden=8, parts=[PARTS[name]()]), normal_batches(8, 2), max_steps=1)


def check_gradient_reaches_the_generator(make) -> None:
    """The generator's gradient is that through the augmentation: D(T(G(z))) with T's own draws, by plain autograd."""
    torch.manual_seed(0)
    gan = DCGAN(8, 1, width=4, discriminator_norm="none", parts=[make()])
    part, latents = gan.tricks[0], torch.randn(4, 100)
    turn = Turn(gan, "generator", 0, 0.0)
    with stream(4):
        got = torch.autograd.grad(
            gan.discriminate(gan.generate(latents), None, turn).sum(), [*gan.generator.parameters()]
        )
    fake = gan.generate(latents)
    points = fake.detach().requires_grad_()
    with stream(4):
        seen = part.augment(points)
    (at_seen,) = torch.autograd.grad(gan.discriminator(seen).sum(), seen, retain_graph=True)
    (at_points,) = torch.autograd.grad(seen, points, at_seen)
    expected = torch.autograd.grad(fake, [*gan.generator.parameters()], at_points)
    assert max(g.abs().max() for g in got) > 0
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-6) for a, b in zip(got, expected, strict=True))
    assert not torch.equal(seen, points)


@pytest.mark.parametrize("name", ["noise", "diffaugment", "ada"])
def test_gradient_reaches_the_generator(name) -> None:
    check_gradient_reaches_the_generator(PARTS[name])


def test_an_augmentation_that_stops_the_gradient_is_seen() -> None:
    class StraightThrough(DiffAugment):
        """Changes the values, but has the gradient of the identity: what non-differentiable libraries amount to."""

        def inputs(self, turn, data, labels):
            changed, labels = super().inputs(turn, data, labels)
            return data + (changed - data).detach(), labels

    kills(check_gradient_reaches_the_generator, StraightThrough)


def check_full_precision(make) -> None:
    """Under autocast an augmentation gives the same numbers, in float32."""
    x = images(8, 3)
    turn = Turn(MLPGAN(hidden=4), "generator", 0, 0.0)
    with stream(8):
        expected, _ = make().inputs(turn, x, None)
    with stream(8), torch.autocast("cpu", torch.bfloat16):
        got, _ = make().inputs(turn, x, None)
    assert got.dtype == torch.float32
    assert torch.equal(got, expected)


class UnderAutocast(ADA):
    def inputs(self, turn, data, labels):
        return self.augment(data), labels


@pytest.mark.parametrize("name", ["noise", "diffaugment", "ada"])
def test_precision(name) -> None:
    check_full_precision(PARTS[name])
    if name == "ada":
        kills(check_full_precision, lambda: UnderAutocast(ALL, p=0.6))


@pytest.mark.parametrize("name", PARTS)
def test_it_trains_in_mixed_precision(name) -> None:
    """Weights stay near those of a 32-bit run: 3 steps of Adam move them by 6e-4."""
    mixed, full = (trained(PARTS[name](), penalties=[R1()], precision=p) for p in ("bf16-mixed", "32-true"))
    assert torch.isfinite(flat(mixed)).all()
    assert (flat(mixed) - flat(full)).abs().max() < 2e-3


def test_all_at_once_in_order() -> None:
    """Four of them and a part that joins pairs of samples, which comes last."""
    from ganzoo.tricks.packing import Packing

    gan = trained(APA(0.5, target=None), ADA(p=0.5), DiffAugment(), InstanceNoise(0.1), Packing(2), penalties=[R1()])
    assert torch.isfinite(flat(gan)).all()
    with pytest.raises(UserError, match="name Packing after it"):
        DCGAN(8, 1, width=4, parts=[Packing(2), DiffAugment()])
