"""ADA's gains of frequency bands: their law, by closed distributions and moments, and the band that each one scales.

Appendix B of the paper: for each band in turn, with probability p, t is 1 in all bands but this one, where it is
2^N(0, 1^2); t is divided by the root of sum_j POWER_j t_j^2, the power that it would give a natural image; and the
gains are the products of these.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from ganzoo.augment import ada, colour
from tests.augment.common import stream
from tests.mutants import kills

Filter = Callable[[Tensor, Tensor], Tensor]
#: Shares of a natural image's power, which falls as 1/f: frequencies up to pi/8, and the three octaves behind.
POWER = np.array([10, 1, 1, 1]) / 13
NUM = 40_000


def drawn(function: Filter, p: float, patch: pytest.MonkeyPatch, num: int = NUM) -> np.ndarray:
    """The gains (num, 4) that a function gives to ``colour.amplify``, in float64."""
    seen: list[Tensor] = []
    with patch.context() as inside:
        inside.setattr(colour, "amplify", lambda data, gains: seen.append(gains) or data)
        with stream(num):
            function(torch.zeros(1).expand(num, 3, 4, 4), torch.tensor(p))
    (gains,) = seen
    return gains.double().numpy()


def follows(values: np.ndarray, law: Callable[[np.ndarray], np.ndarray]) -> None:
    """Kolmogorov and Smirnov's test, at a level that one right law in 100,000 misses."""
    assert scipy.stats.kstest(values, law).pvalue > 1e-5


def check_one_band(function: Filter, patch: pytest.MonkeyPatch) -> None:
    """Images in which one band alone is amplified: how many, by how much, and what the others lose."""
    p = 0.25
    gains = drawn(function, p, patch)
    deviations = 5 * 0.5 / NUM**0.5
    assert abs((gains == 1).all(1).mean() - (1 - p) ** 4) < deviations
    for band in range(4):
        others = np.delete(gains, band, axis=1)
        alone = (np.ptp(others, axis=1) < 1e-6) & (np.abs(gains[:, band] / others[:, 0] - 1) > 1e-6)
        assert abs(alone.mean() - p * (1 - p) ** 3) < deviations
        t = gains[alone, band] / others[alone, 0]
        follows(np.log2(t), scipy.stats.norm(0, 1).cdf)
        lost = 1 / np.sqrt(POWER[band] * t**2 + 1 - POWER[band])
        assert np.allclose(others[alone, 0], lost, rtol=1e-4)
        assert np.allclose((gains[alone] ** 2 @ POWER), 1, rtol=1e-4)


def moments(band: int) -> tuple[float, float]:
    """Mean and variance of log2 of a band's gain at p = 1, by Gauss and Hermite's quadrature over each t = 2^z."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / weights.sum()
    mean = variance = 0.0
    for other in range(4):
        value = nodes * (other == band) - np.log2(POWER[other] * 4.0**nodes + 1 - POWER[other]) / 2
        mean += weights @ value
        variance += weights @ value**2 - (weights @ value) ** 2
    return mean, variance


def check_all_bands(function: Filter, patch: pytest.MonkeyPatch) -> None:
    """At p = 1 the gain of each is a product of four: moments of its logarithm, and the law of a ratio of two."""
    gains = drawn(function, 1.0, patch)
    for band in range(4):
        log = np.log2(gains[:, band])
        mean, variance = moments(band)
        assert abs(log.mean() - mean) < 5 * math.sqrt(variance / NUM)
        assert log.var() == pytest.approx(variance, rel=5 * math.sqrt(8 / NUM))  # of a law whose kurtosis is below 9
        for other in range(band):
            follows(log - np.log2(gains[:, other]), scipy.stats.norm(0, math.sqrt(2)).cdf)


def faulty(gain: Callable[[Tensor], Tensor] = torch.exp2, power: tuple[float, ...] | None = (10, 1, 1, 1)) -> Filter:
    """Written anew, with a place for each fault: the gain of a normal number, and the weights; None: not normalized."""

    def function(data: Tensor, p: Tensor) -> Tensor:
        num = len(data)
        gains = torch.ones(num, 4)
        for band in range(4):
            t = torch.ones(num, 4)
            t[:, band] = torch.where(torch.rand(num) < p, gain(torch.randn(num)), torch.ones(num))
            gains = gains * t
            if power:
                gains = gains / (t.square() @ torch.tensor(power).float() / sum(power)).sqrt()[:, None]
        return colour.amplify(data, gains)

    return function


def uniform(z: Tensor) -> Tensor:
    """Numbers in [0.5, 2], where the logarithm of a gain is most often."""
    return 0.5 + 1.5 * torch.special.ndtr(z)


WRONG_LAWS = {
    "another exponent": faulty(lambda z: (0.3 * z).exp2()),
    "base e": faulty(torch.exp),
    "uniform gains": faulty(uniform),
    "equal weights": faulty(power=(1, 1, 1, 1)),
    "weights from the highest band": faulty(power=(1, 1, 1, 10)),
    "no normalization": faulty(power=None),
}


def test_the_law_of_the_gains(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    for check in (check_one_band, check_all_bands):
        check(ada._filter, monkeypatch)
        check(faulty(), monkeypatch)


@pytest.mark.parametrize("name", WRONG_LAWS)
@pytest.mark.parametrize("check", [check_one_band, check_all_bands])
def test_another_law(check: Callable[..., None], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    kills(lambda function: check(function, monkeypatch), WRONG_LAWS[name])


def test_the_gain_of_a_band_is_put_at_that_band(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the weights where they belong, a shift by one band shows in the law alone."""
    torch.manual_seed(0)
    kills(lambda f: check_one_band(f, monkeypatch), lambda x, p: _rolled(x, p, monkeypatch))
    kills(lambda f: check_all_bands(f, monkeypatch), lambda x, p: _rolled(x, p, monkeypatch))


def _rolled(data: Tensor, p: Tensor, patch: pytest.MonkeyPatch) -> Tensor:
    seen: list[Tensor] = []
    amplify = colour.amplify
    with patch.context() as inside:
        inside.setattr(colour, "amplify", lambda data, gains: seen.append(gains) or data)
        ada._filter(data, p)
    return amplify(data, seen[0].roll(1, 1))


# ------------------------------------------------------------------ where they act


def half_band(frequency: float) -> float:
    """The response of the half-band filter of sym2, whose taps are -1, 0, 9, 16, 9, 0, -1 over 32 (Daubechies 1988)."""
    return sum(tap * math.cos((k - 3) * frequency) for k, tap in enumerate((-1, 0, 9, 16, 9, 0, -1))) / 32


def responses(frequency: float) -> np.ndarray:
    """How much of a wave of this frequency each of the four bands has: they add up to 1."""
    low, octave, two = (half_band(frequency * 2**k) for k in range(3))
    return np.array([low * octave * two, low * octave * (1 - two), low * (1 - octave), 1 - low])


def check_bands(amplify: Callable[[Tensor, Tensor], Tensor], patch: pytest.MonkeyPatch) -> None:
    """What ADA makes of pure waves is the wave times the gain of its band, along each axis.

    A constant image is of the lowest band alone, one of the highest frequency of the highest alone; others lie between
    two or three, and have of each gain what its filter passes there.
    """
    num, size, middle = 12, 64, 32
    place = torch.arange(size, dtype=torch.float64)
    gains = drawn(ada._filter, 1.0, patch, num)
    with patch.context() as inside:
        inside.setattr(colour, "amplify", amplify)
        for frequency in (0.0, 0.05, 3 / 16, 0.25, 3 / 8, 0.5, 0.8, 1.0):
            wave = torch.cos(frequency * math.pi * (place - middle))  # 1 in the middle
            share = gains @ responses(frequency * math.pi)
            along = {"x": wave[None, :], "y": wave[:, None], "both": wave[:, None] * wave}
            for name, image in along.items():
                other = share if name == "both" else gains[:, 0]  # along the other axis it is constant
                with stream(num):
                    out = ada._filter(image.expand(num, 1, size, size), torch.tensor(1.0))
                assert np.allclose(out[:, 0, middle, middle].numpy(), share * other, rtol=1e-4)


def test_a_gain_acts_on_its_band(monkeypatch: pytest.MonkeyPatch) -> None:
    amplify = colour.amplify
    check_bands(amplify, monkeypatch)
    assert responses(0.0) == pytest.approx([1, 0, 0, 0]) and responses(math.pi) == pytest.approx([0, 0, 0, 1])
    for wrong in (
        lambda x, gains: amplify(x, gains.flip(1)),  # from the highest band
        lambda x, gains: amplify(x, gains[:, [0, 2, 1, 3]]),
        lambda x, gains: amplify(x, gains[:1].expand(len(x), 4)),  # one image's gains for all
        lambda x, gains: amplify(x, gains.sqrt()),  # once for both axes
    ):
        kills(lambda f: check_bands(f, monkeypatch), wrong)
