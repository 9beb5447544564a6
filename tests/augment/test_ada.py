"""ADA's pipeline: the laws of its random numbers, its identity at p = 0, and its derivatives up to the second."""

from __future__ import annotations

import math

import pytest
import torch

from ganzoo.augment import ADA, ada, colour, geometry
from ganzoo.errors import UserError
from ganzoo.gan import GAN
from ganzoo.models import MLPGAN
from ganzoo.parts import Turn
from ganzoo.penalties import R1
from tests.augment.common import images, second_derivative_is_right, stream
from tests.common import Critic
from tests.mutants import kills

ALL = ["blit", "geometric", "color", "filter", "noise", "cutout"]


# ------------------------------------------------------------------ laws of the parameters


def captured(
    function, module, name: str, monkeypatch, num: int, p: float, *, height=16, width=32
) -> list[torch.Tensor]:
    """What ``function`` draws for ``num`` images, as it gives it to ``module.name``."""
    seen = []

    def capture(*args, **kwargs):
        seen.extend([*args, *kwargs.values()])
        return torch.zeros(num, 3, 3) if module is geometry else (torch.zeros(num, 3, 3), torch.zeros(num))

    monkeypatch.setattr(module, name, capture)
    monkeypatch.setattr(colour, "colour", lambda data, *rest: data)
    with stream(num):
        function(torch.zeros(1).expand(num, 3, height, width), torch.tensor(p))
    monkeypatch.undo()
    return seen


def share_is(values: torch.Tensor, expected: float) -> None:
    """A share of samples, up to 5 deviations."""
    assert abs(values.float().mean().item() - expected) < 5 * (0.25 / len(values)) ** 0.5


def normal_is(values: torch.Tensor, std: float) -> None:
    """Mean 0, the deviation and the fourth moment of a Gaussian, up to 5 deviations of their estimates."""
    num = len(values)
    assert abs(values.mean().item()) < 5 * std / num**0.5
    assert values.var().item() == pytest.approx(std**2, rel=5 * (2 / num) ** 0.5)
    assert (values**4).mean().item() == pytest.approx(3 * std**4, rel=5 * (96 / 9 / num) ** 0.5)


def uniform_is(values: torch.Tensor, low: float, high: float) -> None:
    counts = torch.histc(values, 8, low, high)
    assert counts.sum() == len(values)
    assert ((counts - len(values) / 8) ** 2 / (len(values) / 8)).sum() < 7 + 5 * 14**0.5


def check_blit_laws(blit, monkeypatch) -> None:
    num, p = 20_000, 0.4
    flip, turns, right, down = captured(blit, geometry, "blit_inverse", monkeypatch, num, p, height=32)
    share_is(flip == 1, p / 2)
    share_is(turns > 0, p * 3 / 4)
    for k in (1, 2, 3):
        share_is(turns == k, p / 4)
    for shift in (right, down):  # U(-4, 4), rounded: nine places, the outer ones half as often
        for place in range(-4, 5):
            weight = p / 8 if abs(place) < 4 else p / 16
            share_is(shift == place, weight + (1 - p if place == 0 else 0))
    assert abs(torch.corrcoef(torch.stack([flip, turns, right, down])).fill_diagonal_(0)).max() < 5 / num**0.5
    turns = captured(blit, geometry, "blit_inverse", monkeypatch, num, p)[1]  # 16 x 32: only upside down
    share_is(turns == 2, p / 2)
    assert set(turns.unique().tolist()) == {0.0, 2.0}


def check_affine_laws(affine, monkeypatch) -> None:
    num, p = 20_000, 0.4
    drawn = captured(affine, geometry, "affine_inverse", monkeypatch, num, p)
    scale, before, stretch, after, right, down = drawn
    for values, neutral in ((scale, 1), (stretch, 1), (right, 0), (down, 0)):
        share_is(values != neutral, p)
    share_is((before != 0) | (after != 0), p)
    share_is(before != 0, 1 - math.sqrt(1 - p))
    assert torch.equal(right != 0, down != 0)
    normal_is(scale[scale != 1].log2(), 0.2)
    normal_is(stretch[stretch != 1].log2(), 0.2)
    normal_is(right[right != 0], 0.125 * 32)
    normal_is(down[down != 0], 0.125 * 16)
    for angle in (before, after):
        uniform_is(angle[angle != 0], -math.pi, math.pi)
    assert abs(torch.corrcoef(torch.stack(drawn)).fill_diagonal_(0)).max() < 5 / num**0.5


def check_color_laws(color, monkeypatch) -> None:
    num, p = 20_000, 0.4
    brightness, contrast, flip, hue, saturation = captured(color, colour, "colour_matrix", monkeypatch, num, p)
    for values, neutral in ((brightness, 0), (contrast, 1), (hue, 0), (saturation, 1)):
        share_is(values != neutral, p)
    share_is(flip == 1, p / 2)
    normal_is(brightness[brightness != 0], 0.2)
    normal_is(contrast[contrast != 1].log2(), 0.5)
    normal_is(saturation[saturation != 1].log2(), 1.0)
    uniform_is(hue[hue != 0], -math.pi, math.pi)


def test_laws(monkeypatch) -> None:
    """Appendix B of the paper."""
    check_blit_laws(ada._blit, monkeypatch)
    check_affine_laws(ada._affine, monkeypatch)
    check_color_laws(ada._color, monkeypatch)


def test_wrong_laws(monkeypatch) -> None:
    def rotations_with_p_each(data, p):
        return ada._affine(data, 1 - (1 - p) ** 2)

    kills(lambda f: check_affine_laws(f, monkeypatch), rotations_with_p_each)
    kills(lambda f: check_blit_laws(f, monkeypatch), lambda data, p: ada._blit(data, p / 2))
    kills(lambda f: check_affine_laws(f, monkeypatch), lambda data, p: ada._affine(data.mT, p))
    kills(lambda f: check_color_laws(f, monkeypatch), lambda data, p: ada._color(data, 1 - p))
    monkeypatch.setattr(ada, "_gates", lambda data, p, num, group: ((torch.rand(1) < p).expand(len(data)),) * num)
    same_gates = ada._blit
    kills(lambda f: check_blit_laws(f, monkeypatch), same_gates)


def check_cutout(cutout) -> None:
    """At p = 1 a box of half of the sides around a centre that is uniform in the image; at p = 0.3 some have one."""
    num = 4000
    with stream(num):
        kept = cutout(torch.ones(num, 1, 8, 16), torch.tensor(1.0))[:, 0]
    cut_rows, cut_columns = (kept.sum(2) < 16).sum(1), (kept.sum(1) < 8).sum(1)
    assert torch.equal((1 - kept).sum((1, 2)), (cut_rows * cut_columns).float())
    # Rows cut: the centre is c, the box from round(8 (c - 1/4)) to round(8 (c + 1/4)), cut off at 0 and 8.
    centres = (torch.arange(8000) + 0.5) / 8000
    for cut, side in ((cut_rows, 8), (cut_columns, 16)):
        first, last = (side * (centres - 0.25)).round().clamp(min=0), (side * (centres + 0.25)).round().clamp(max=side)
        assert abs(cut.float().mean() - (last - first).mean()) < 5 * (last - first).std() / num**0.5
    with stream(num):
        share_is(cutout(torch.ones(num, 1, 8, 16), torch.tensor(0.3)).amin((1, 2, 3)) == 0, 0.3)


def test_cutout() -> None:
    check_cutout(ada._cutout)
    kills(check_cutout, lambda x, p: x * ada._cutout(torch.ones_like(x[:1]), p))
    kills(check_cutout, lambda x, p: ada._cutout(x, p.sqrt()))


def check_noise(noise) -> None:
    """Half-normal strength: the variance over images and pixels is 0.1^2 p, one strength per image."""
    num = 2000
    with stream(num):
        out = noise(torch.zeros(num, 4, 16, 16), torch.tensor(0.5))
    assert (out[:, 3] == 0).all()  # alpha
    std = out[:, :3].std((1, 2, 3))
    share_is(std > 0, 0.5)
    strength = std[std > 0]  # |N(0, 0.1^2)|
    assert strength.square().mean().item() == pytest.approx(0.01, rel=5 * (2 / len(strength)) ** 0.5)
    assert strength.mean().item() == pytest.approx(0.1 * math.sqrt(2 / math.pi), rel=0.1)


def test_noise() -> None:
    check_noise(ada._noise)
    kills(check_noise, lambda x, p: x + 0.1 * torch.randn_like(x))
    kills(check_noise, lambda x, p: ada._noise(x, p * 2))


def test_filter_keeps_the_power_of_natural_images(monkeypatch) -> None:
    """sum_j POWER_j g_j^2 = 1 while one band at a time is amplified; with all four it is their product's."""
    seen = []
    monkeypatch.setattr(colour, "amplify", lambda data, gains: seen.append(gains) or data)
    num = 4000
    with stream(num):
        ada._filter(torch.zeros(num, 3, 4, 4), torch.tensor(0.1))
    power = torch.tensor([10.0, 1, 1, 1]) / 13
    (gains,) = seen
    ratios = gains / gains[:, 3:]
    changed = (ratios[:, :3] - 1).abs() > 1e-5
    one_band = changed.sum(1) <= 1  # the first three alone, or all against the fourth
    one_band |= changed.all(1) & ((ratios[:, :3] - ratios[:, :1]).abs().amax(1) < 1e-5)
    share_is((gains == 1).all(1), 0.9**4)
    assert one_band.float().mean() > 0.9
    assert torch.allclose((power * gains.square()).sum(1)[one_band], torch.ones(1), atol=1e-4)


# ------------------------------------------------------------------ the whole


def test_at_zero_it_is_the_identity() -> None:
    x = images(4)
    for part in (ADA(ALL), ADA(ALL, p=0.0, target=None)):
        assert part.augment(x) is x


def check_bitwise_at_zero(cls) -> None:
    """Also where p is not looked at, as on an accelerator, and for the images that nothing was drawn for."""
    x = images(64, 4)
    part = cls(ALL)
    with stream(64):
        assert torch.equal(part.augment(x), x)
    part.p.fill_(0.02)
    with stream(64):
        same = (part.augment(x) == x).flatten(1).all(1)
    assert same.float().mean() > 0.5  # 0.98^20 = 0.67 if nothing else touches them


class NotLooking(ADA):
    never = False


class ResamplesAll(NotLooking):
    def _place(self, data):
        return geometry.warp(data, torch.eye(3).expand(len(data), 3, 3))


def test_bit_by_bit_at_zero() -> None:
    check_bitwise_at_zero(NotLooking)
    kills(check_bitwise_at_zero, ResamplesAll)


def check_composition(place) -> None:
    """Blits and resampling are one transformation of the source: no cropping between the two."""
    x = images(16, 1, 8, 8)
    part = ADA(["blit", "geometric"], p=0.3, target=None)
    with stream(16):
        out = place(part, x)
    with stream(16):
        first, (second, warped) = ada._blit(x, part.p), ada._affine(x, part.p)
    assert 0 < warped.sum() < 16
    for i in range(16):
        inverse = (first[i] @ second[i])[None]
        expected = (geometry.warp if warped[i] else geometry.move_pixels)(x[i : i + 1], inverse)
        assert torch.allclose(out[i : i + 1], expected, atol=1e-5)


def test_composition() -> None:
    check_composition(ADA._place)

    def one_after_the_other(part, x):
        moved = geometry.move_pixels(x, ada._blit(x, part.p))
        inverse, warped = ada._affine(x, part.p)
        return torch.where(warped[:, None, None, None], geometry.warp(moved, inverse), moved)

    def wrong_order(part, x):
        first, (second, warped) = ada._blit(x, part.p), ada._affine(x, part.p)
        return torch.where(
            warped[:, None, None, None], geometry.warp(x, second @ first), geometry.move_pixels(x, first)
        )

    kills(check_composition, one_after_the_other)
    kills(check_composition, wrong_order)


def test_images_of_one_batch_are_changed_differently() -> None:
    x = images(1).expand(16, 3, 8, 8)
    for group in ALL:
        with stream(16):
            out = ADA([group], p=1.0, target=None).augment(x)
        distinct = len({tuple(image.flatten().tolist()) for image in out})
        assert distinct > 8, group


def test_two_halves_of_the_joint_batch_equal_the_whole() -> None:
    x, part = images(8), ADA(ALL, p=0.8, target=None)
    with stream(8):
        whole = part.augment(x)
    halves = []
    for start in (0, 4):
        with stream(4, start=start, total=8):
            halves.append(part.augment(x[start : start + 4]))
    assert torch.allclose(whole, torch.cat(halves), atol=1e-6)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_channels(channels) -> None:
    """Alpha goes where its image goes; gray becomes what a gray RGB image becomes."""
    x = images(8, channels)
    part = ADA(["blit", "geometric", "color", "filter"], p=0.8, target=None)
    with stream(8):
        out = part.augment(x)
    assert out.shape == x.shape
    if channels in (2, 4):
        with stream(8):
            alpha = ADA(["blit", "geometric"], p=0.8, target=None).augment(x[:, -1:])
        assert torch.allclose(out[:, -1:], alpha, atol=1e-5)
    if channels < 3:
        with stream(8):
            rgb = part.augment(x[:, :1].expand(8, 3, 8, 8))
        assert torch.allclose(rgb, out[:, :1].expand(8, 3, 8, 8), atol=1e-5)


@pytest.mark.parametrize("group", ALL)
def test_second_derivatives_of_groups(group) -> None:
    second_derivative_is_right(lambda x: ADA([group], p=0.9, target=None).augment(x).pow(3), images(2, 3, 2, 2))


def test_second_derivatives_of_the_pipeline() -> None:
    second_derivative_is_right(lambda x: ADA(ALL, p=0.9, target=None).augment(x).pow(3), images(2, 1, 3, 3))


def test_r1_sees_augmented_images_and_differentiates_by_the_images_before() -> None:
    """For D(x) = <w, x> and a pipeline that is affine, x -> A x + b: R1 = gamma/2 E|A^T w|^2, A by its columns."""
    torch.manual_seed(0)
    gan = GAN(MLPGAN((1, 4, 4), hidden=4).generator, Critic(16), parts=[ADA(p=0.9, target=None)])
    turn = Turn(gan, "discriminator", 0, 0.0, real=images(4, 1, 4, 4), fake=images(4, 1, 4, 4))
    with stream(4):
        value = R1(2.0)(turn).item()

    def augmented(x):
        with stream(4):
            return gan.tricks[0].augment(x)

    columns = torch.eye(16).view(16, 1, 1, 4, 4)
    weight = gan.discriminator.linear.weight.view(-1)
    response = torch.stack([(augmented(turn.real + c) - augmented(turn.real)).flatten(1) @ weight for c in columns], 1)
    assert value == pytest.approx(response.square().sum(1).mean().item(), rel=1e-4)
    assert value != pytest.approx(weight.square().sum().item(), rel=1e-2)


def test_training_goes_on_where_a_size_was_first_seen_in_inference_mode() -> None:
    part, x = ADA(ALL, p=0.9, target=None), images(2, 3, 6, 10)
    with torch.inference_mode():
        part.augment(x)
    x.requires_grad_()
    with stream(2):
        (got,) = torch.autograd.grad(part.augment(x).sum(), x)
    with stream(2):  # affine, so the same anywhere
        (expected,) = torch.autograd.grad(part.augment(2 * x).sum() / 2, x)
    assert torch.allclose(got, expected, atol=1e-5)


def test_refusals() -> None:
    with pytest.raises(UserError, match="InstanceNoise"):
        ADA().augment(torch.zeros(4, 2))
    with pytest.raises(UserError, match="5 channels"):
        ADA(["color"], p=0.5, target=None).augment(images(2, 5))
    assert ADA(["blit", "geometric", "cutout"], p=0.5, target=None).augment(images(2, 5)).shape == (2, 5, 8, 8)
    with pytest.raises(UserError, match="blit, geometric, color, filter, noise, cutout"):
        ADA(["colour"])
