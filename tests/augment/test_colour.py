"""Colour maps against products of homogeneous 4x4 matrices in numpy; bands against the Fourier transform."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ganzoo.augment import colour
from tests.augment.common import images, second_derivative_is_right
from tests.mutants import kills

VALUES = {"brightness": 0.3, "contrast": 1.4, "flip": 1.0, "hue": 0.9, "saturation": 0.6}


def parameters(num: int, **changed: float) -> dict[str, torch.Tensor]:
    neutral = {"brightness": 0.0, "contrast": 1.0, "flip": 0.0, "hue": 0.0, "saturation": 1.0}
    return {k: torch.full((num,), v, dtype=torch.float64) for k, v in {**neutral, **changed}.items()}


def product(brightness, contrast, flip, hue, saturation) -> np.ndarray:
    """The paper's C: brightness first, then contrast, luma flip, hue (Rodrigues), saturation."""
    v = np.array([1, 1, 1, 0]) / math.sqrt(3)
    shift = np.eye(4)
    shift[:3, 3] = brightness
    scale = np.diag([contrast] * 3 + [1])
    mirror = np.eye(4) - 2 * flip * np.outer(v, v)
    cross = np.zeros((4, 4))
    cross[:3, :3] = np.cross(np.eye(3), v[:3])
    turn = np.eye(4) + math.sin(hue) * cross + (1 - math.cos(hue)) * cross @ cross
    luma = np.outer(v, v)
    saturate = luma + (np.eye(4) - luma) * saturation
    saturate[3, 3] = 1
    return saturate @ turn @ mirror @ scale @ shift


def check_colour(matrix) -> None:
    for chosen in ({}, *({name: value} for name, value in VALUES.items()), VALUES):
        expected = product(**{k: v[0].item() for k, v in parameters(1, **chosen).items()})
        x = images(2, 3, 4, 4, dtype=torch.float64)
        pixels = np.concatenate([x.permute(1, 0, 2, 3).flatten(1).numpy(), np.ones((1, 32))])
        out = colour.colour(x, *matrix(**parameters(2, **chosen)))
        assert np.allclose(out.permute(1, 0, 2, 3).flatten(1).numpy(), (expected @ pixels)[:3], atol=1e-12)


def test_colours() -> None:
    check_colour(colour.colour_matrix)

    def transposed(**p):
        matrix, offset = colour.colour_matrix(**p)
        return matrix.mT, offset

    def brightness_last(**p):
        matrix, _ = colour.colour_matrix(**p)
        return matrix, p["brightness"]

    kills(check_colour, transposed)
    kills(check_colour, brightness_last)


def test_rotation_of_hue_takes_red_to_green() -> None:
    """By the right hand around (1, 1, 1), 120 degrees permute the colours."""
    x = images(1, 3, 2, 2, dtype=torch.float64)
    out = colour.colour(x, *colour.colour_matrix(**parameters(1, hue=2 * math.pi / 3)))
    assert torch.allclose(out, x[:, [2, 0, 1]], atol=1e-12)


@pytest.mark.parametrize("channels", [1, 2])
def test_gray_images_are_what_equal_colours_become(channels) -> None:
    gray = images(2, channels, dtype=torch.float64)
    maps = colour.colour_matrix(**parameters(2, **VALUES))
    rgb = colour.colour(gray[:, :1].expand(2, 3, 8, 8), *maps)
    out = colour.colour(gray, *maps)
    assert torch.allclose(rgb, out[:, :1].expand(2, 3, 8, 8), atol=1e-12)
    assert torch.equal(out[:, 1:], gray[:, 1:])


def test_alpha_is_not_coloured() -> None:
    rgba = images(2, 4, dtype=torch.float64)
    maps = colour.colour_matrix(**parameters(2, **VALUES))
    assert torch.equal(colour.colour(rgba, *maps), torch.cat([colour.colour(rgba[:, :3], *maps), rgba[:, 3:]], 1))


def test_bands() -> None:
    """They add up to the identity; each passes the middle of its octave best; the filters have no phase."""
    bands = colour.bands(64, torch.float64, torch.device("cpu"))
    assert torch.allclose(bands.sum(0), torch.eye(64, dtype=torch.float64), atol=1e-12)
    half_band = [-1 / 32, 0, 9 / 32, 1 / 2, 9 / 32, 0, -1 / 32]  # of two vanishing moments (Daubechies 1988)
    w = np.array([0.03, 3 / 16, 3 / 8, 0.8]) * math.pi  # inside of each octave

    def response(frequency):
        return sum(tap * math.cos((k - 3) * frequency) for k, tap in enumerate(half_band))

    for n, frequency in enumerate(w):
        wave = torch.cos(frequency * torch.arange(64, dtype=torch.float64) + 0.4)
        got = [((band @ wave) / wave)[32].item() for band in bands]
        p, p2, p4 = response(frequency), response(2 * frequency), response(4 * frequency)
        assert got == pytest.approx([p * p2 * p4, p * p2 * (1 - p4), p * (1 - p2), 1 - p], abs=1e-9)
        assert int(np.argmax(got)) == n


def check_amplify(amplify) -> None:
    """Each image has gains of its own; equal gains g in all bands scale by g^2 (once per axis)."""
    x = images(2, 3, 12, 16, dtype=torch.float64)
    out = amplify(x, torch.tensor([[1.0] * 4, [1.5] * 4]))
    assert torch.allclose(out[0], x[0], atol=1e-9)
    assert torch.allclose(out[1], x[1] * 1.5**2, atol=1e-9)
    column = torch.ones(1, 1, 12, 1) * torch.cos(0.8 * math.pi * torch.arange(16.0))
    high = amplify(column.double(), torch.tensor([[1.0, 1, 1, 0]]))
    assert torch.allclose(amplify(torch.ones(1, 1, 12, 16), torch.tensor([[1.0, 1, 1, 0]])), torch.ones(1, 1, 12, 16))
    assert high[..., 8].abs().max() < 0.1 < column[..., 8].abs().max()


def test_amplification() -> None:
    check_amplify(colour.amplify)
    kills(check_amplify, lambda x, gains: colour.amplify(x, gains[:1].expand(len(x), 4)))
    kills(check_amplify, lambda x, gains: colour.amplify(x, gains.flip(1)))


def test_second_derivatives() -> None:
    maps = colour.colour_matrix(**parameters(2, **VALUES))
    second_derivative_is_right(lambda x: colour.colour(x, *maps).pow(3), images(2, 3, 3, 3))
    gains = torch.tensor([[1.2, 0.5, 1, 2], [1, 1, 0.3, 1]])
    second_derivative_is_right(lambda x: colour.amplify(x, gains).pow(3), images(2, 1, 3, 4))
