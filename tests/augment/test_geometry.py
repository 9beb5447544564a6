"""Transformations against numpy's inverse, scalar loops, analytic images and exact permutations."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from ganzoo.augment import geometry
from tests.augment.common import images, second_derivative_is_right
from tests.mutants import kills


def one(value: float) -> torch.Tensor:
    return torch.tensor([float(value)], dtype=torch.float64)


# ------------------------------------------------------------------ matrices


def forward(kind: str, *values: float) -> np.ndarray:
    """The homogeneous matrices of the paper, by their definition."""
    if kind == "scale":
        return np.diag([*values, 1.0])
    if kind == "move":
        return np.array([[1, 0, values[0]], [0, 1, values[1]], [0, 0, 1.0]])
    c, s = math.cos(values[0]), math.sin(values[0])
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])


def check_blit_inverse(function) -> None:
    """The inverse of shift after turns after mirroring."""
    for flip, turns, x, y in itertools.product((0, 1), range(4), (-2, 3), (0, 1)):
        whole = forward("move", x, y) @ forward("turn", turns * math.pi / 2) @ forward("scale", 1 - 2 * flip, 1)
        got = function(one(flip), one(turns), one(x), one(y))[0].numpy()
        assert np.allclose(got, np.linalg.inv(whole), atol=1e-12)
        assert np.array_equal(got, got.round())


def check_affine_inverse(function) -> None:
    """The inverse of shift after rotation after stretching after rotation after scaling."""
    s, a, r, b, x, y = 1.3, 0.4, 0.7, -1.1, 2.5, -0.3
    whole = forward("move", x, y) @ forward("turn", b) @ forward("scale", r, 1 / r)
    whole = whole @ forward("turn", a) @ forward("scale", s, s)
    assert np.allclose(function(*map(one, (s, a, r, b, x, y)))[0].numpy(), np.linalg.inv(whole), atol=1e-12)


def test_inverses() -> None:
    check_blit_inverse(geometry.blit_inverse)
    kills(check_blit_inverse, lambda f, t, x, y: geometry.blit_inverse(f, t, -x, -y))
    kills(check_blit_inverse, lambda f, t, x, y: geometry.blit_inverse(f, -t, x, y))
    kills(check_blit_inverse, lambda f, t, x, y: geometry.blit_inverse(f, t, y, x))
    check_affine_inverse(geometry.affine_inverse)
    kills(check_affine_inverse, lambda s, a, r, b, x, y: geometry.affine_inverse(1 / s, a, r, b, x, y))
    kills(check_affine_inverse, lambda s, a, r, b, x, y: geometry.affine_inverse(s, b, r, a, x, y))
    kills(check_affine_inverse, lambda s, a, r, b, x, y: geometry.affine_inverse(s, a, r, b, -x, -y))


# ------------------------------------------------------------------ pixels to pixels


def check_blit(move) -> None:
    """Mirroring, turns by 90 degrees and shifts are exact: torch.flip, rot90 and roll with reflection, bit by bit."""
    x = images(1)

    def blit(*values):
        return move(x, geometry.blit_inverse(*map(one, values)))

    assert torch.equal(blit(0, 0, 0, 0), x)
    assert torch.equal(blit(1, 0, 0, 0), x.flip(3))
    for turns in range(4):  # x towards y is clockwise where y points down: rot90 from the columns to the rows
        assert torch.equal(blit(0, turns, 0, 0), torch.rot90(x, turns, (3, 2)))
    right, down = 2, -3
    expected = torch.empty_like(x)
    for row in range(8):
        for column in range(8):
            source = (7 - abs(7 - abs(row - down)), 7 - abs(7 - abs(column - right)))
            expected[:, :, row, column] = x[:, :, source[0], source[1]]
    shifted = blit(0, 0, right, down)
    assert torch.equal(shifted, expected)
    back = move(shifted, geometry.blit_inverse(*map(one, (0, 0, -right, -down))))
    assert torch.equal(back[:, :, 3:, :-2], x[:, :, 3:, :-2])


def test_blits_are_exact() -> None:
    check_blit(geometry.move_pixels)
    kills(check_blit, lambda x, inverse: geometry.move_pixels(x, torch.linalg.inv(inverse)))
    kills(check_blit, lambda x, inverse: geometry.move_pixels(x, inverse.mT))
    kills(check_blit, geometry.warp)  # computes values instead of moving them


def test_many_shifts_far_beyond_the_border_are_reflected_exactly() -> None:
    x = images(1, 1, 5, 7)
    for right in range(-20, 21):
        out = geometry.move_pixels(x, geometry.translation(one(-right), one(0)))
        columns = [geometry.reflected(c - right, 7) for c in range(7)]
        assert torch.equal(out, x[..., columns])
    naive = [0, 1, 2, 3, 4, 5, 6, 5, 4, 3, 2, 1]
    assert [geometry.reflected(i, 7) for i in range(-12, 24)] == naive * 3


# ------------------------------------------------------------------ resampling


def test_the_filter_is_the_least_asymmetric_one() -> None:
    """Derived anew: of all factors of the half-band filter with 6 zeros at -1, the one of the most linear phase."""
    order = 6
    # |h|^2 = (cos^2(w/2))^6 P(sin^2(w/2)), P(y) = sum_k C(5 + k, k) y^k, and y = (2 - z - 1/z) / 4 (Daubechies 1988).
    polynomial = [math.comb(order - 1 + k, k) for k in range(order)]
    zeros = []
    for y in np.roots(polynomial[::-1]):
        inside, outside = sorted(np.roots([1, 4 * y - 2, 1]), key=abs)
        zeros.append((inside, outside))
    real = [pair for pair in zeros if abs(pair[0].imag) < 1e-9]
    upper = [pair for pair in zeros if pair[0].imag > 1e-9]
    frequencies = np.linspace(0.05, 2.0, 60)
    candidates = []
    for choice in itertools.product((0, 1), repeat=len(real) + len(upper)):
        chosen = [pair[c] for pair, c in zip(real + upper, choice, strict=True)]
        roots = [-1.0] * order + chosen + [z.conjugate() for z in chosen[len(real) :]]
        taps = np.poly(roots).real
        taps *= math.sqrt(2) / taps.sum()
        phase = np.unwrap(np.angle(np.exp(-1j * np.outer(frequencies, np.arange(12))) @ taps))
        line = np.polyfit(frequencies, phase, 1)
        candidates.append((np.abs(phase - np.polyval(line, frequencies)).max(), taps))
    best = min(candidates, key=lambda c: c[0])[1]
    assert min(np.abs(best - geometry.SYM6).max(), np.abs(best[::-1] - geometry.SYM6).max()) < 1e-9


@pytest.mark.parametrize("size", [2, 5, 8, 32])
def test_halving_undoes_doubling(size) -> None:
    """Fine pixels that ``down`` reads begin 5 before the image, those that ``up`` writes begin 6 before it."""
    up, down = geometry.resampling(size, torch.float64, torch.device("cpu"))
    assert torch.allclose(down @ up[1:-1], torch.eye(size, dtype=torch.float64), atol=1e-10)


def check_identity(warp) -> None:
    for shape in ((2, 3, 8, 8), (1, 1, 9, 14)):
        x = images(*shape, dtype=torch.float64)
        assert torch.allclose(warp(x, torch.eye(3).expand(len(x), 3, 3)), x, atol=1e-6)


def check_shift(warp) -> None:
    """A shift by whole pixels through the filters, against the exact one, where no border is near."""
    x = images(1, 2, 24, 24, dtype=torch.float64)
    inverse = geometry.translation(one(-3), one(2))
    difference = (warp(x, inverse) - geometry.move_pixels(x, inverse))[:, :, 7:-7, 7:-7]
    assert difference.abs().max() < 1e-9


def check_analytic(warp) -> None:
    """A transformed wave is the wave of transformed coordinates.

    The error of linear interpolation at half a pixel's distance is at most |wave vector|^2 (1/2)^2 / 8 per axis.
    """
    size, wave = 24, (0.35, 0.2)
    middle = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    y, x = torch.meshgrid(middle, middle, indexing="ij")
    image = torch.cos(wave[0] * x + wave[1] * y + 0.3)[None, None]
    for scale, angle, stretch, right in ((1, 0, 1, 0.5), (1, math.pi, 1, 0), (1.2, 0.7, 0.9, -0.3), (0.9, -2, 1, 1.7)):
        inverse = geometry.affine_inverse(*map(one, (scale, angle, stretch, 0.2, right, -0.4)))
        places = inverse[0].numpy() @ np.stack([x.flatten(), y.flatten(), np.ones(size * size)])
        expected = np.cos(wave[0] * places[0] + wave[1] * places[1] + 0.3)
        inside = (np.abs(places[:2]) < size / 2 - 4).all(0)
        inside &= (np.abs(np.stack([x.flatten(), y.flatten()])) < size / 2 - 3).all(0)
        assert inside.sum() > 100
        error = np.abs(warp(image, inverse)[0, 0].flatten().numpy() - expected)[inside].max()
        assert error < 1.3 * (wave[0] ** 2 + wave[1] ** 2) / 4 / 8


def test_warp() -> None:
    for check in (check_identity, check_shift, check_analytic):
        check(geometry.warp)
    kills(check_shift, lambda x, inverse: geometry.warp(x, torch.linalg.inv(inverse)))
    kills(check_analytic, lambda x, inverse: geometry.warp(x, torch.linalg.inv(inverse)))
    kills(check_analytic, lambda x, inverse: geometry.warp(x.mT, inverse).mT)


@pytest.mark.parametrize("wrong", [0.5, 0.0])
def test_the_filters_delay_matters(wrong, monkeypatch) -> None:
    """Taking the filter's middle for its delay, or no delay, turns images around a wrong centre."""
    monkeypatch.setattr(geometry, "_DELAY", wrong)
    check_identity(geometry.warp)  # which cannot see it
    kills(check_analytic, geometry.warp)


def test_shrinking_does_not_alias() -> None:
    """Halved in size, a wave of 0.8 pi per pixel would have 1.6 pi: it vanishes. Plain sampling shows it as 0.4 pi."""
    x = torch.cos(0.8 * math.pi * torch.arange(32, dtype=torch.float64)).expand(1, 1, 32, 32)
    half = geometry.scaling(one(2), one(2))
    assert geometry.warp(x, half)[..., 11:21, 11:21].abs().max() < 0.02
    assert x[..., ::2].abs().max() > 0.9


def naive_bilinear(image: np.ndarray, x: float, y: float) -> float:
    """One value between four pixels; places beyond the border are reflected about the outermost centres."""

    def inside(place: float, size: int) -> float:
        while not 0 <= place <= size - 1:
            place = -place if place < 0 else 2 * (size - 1) - place
        return place

    x, y = inside(x, image.shape[1]), inside(y, image.shape[0])
    left, top = min(int(x), image.shape[1] - 2), min(int(y), image.shape[0] - 2)
    fx, fy = x - left, y - top
    above = image[top, left] * (1 - fx) + image[top, left + 1] * fx
    below = image[top + 1, left] * (1 - fx) + image[top + 1, left + 1] * fx
    return above * (1 - fy) + below * fy


def check_sampler(sample) -> None:
    """Places in the sampler's units (-1 and 1 are the outermost centres) against a scalar loop."""
    x = images(2, 2, 5, 6, dtype=torch.float64)
    places = torch.rand(2, 2, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 4 - 2
    out = sample(x, places)
    for n, c, k in itertools.product(range(2), range(2), range(12)):
        column, row = (places[n, 0, k].item() + 1) / 2 * 5, (places[n, 1, k].item() + 1) / 2 * 4
        assert out[n, c].flatten()[k].item() == pytest.approx(naive_bilinear(x[n, c].numpy(), column, row), abs=1e-12)


def test_sampler() -> None:
    check_sampler(lambda x, places: geometry._sample(x, places, (3, 4), geometry._BILINEAR))
    kills(check_sampler, lambda x, places: geometry._sample(x, places.flip(1), (3, 4), geometry._BILINEAR))
    kills(check_sampler, lambda x, places: geometry._sample(x, places, (3, 4), geometry._NEAREST))


def test_second_derivatives_of_both_samplers() -> None:
    inverse = geometry.affine_inverse(*(one(v).expand(2) for v in (1.1, 0.3, 0.9, -0.2, 0.4, 0.7)))
    second_derivative_is_right(lambda x: geometry.warp(x, inverse).pow(3), images(2, 1, 3, 4))
    blit = geometry.blit_inverse(*(one(v).expand(2) for v in (1, 1, 1, -1)))
    second_derivative_is_right(lambda x: geometry.move_pixels(x, blit).pow(3), images(2, 1, 3, 4))
