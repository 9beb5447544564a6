"""The Frechet distance: closed forms, scipy's root of a matrix, singular values, and both libraries."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor, nn
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torchmetrics.image.fid import FrechetInceptionDistance

from ganzoo.errors import UserError
from ganzoo.metrics import frechet
from ganzoo.metrics.frechet import RankWarning, frechet_distance, from_features, from_moments, intra_class, rank_note
from ganzoo.metrics.statistics import Moments
from tests.mutants import kills

Distance = Callable[[Tensor, Tensor, Tensor, Tensor], float]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Few samples are the point of some tests; who warns is tested by itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RankWarning)
        yield


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spectrum(num: int, dim: int, *, decades: float, seed: int = 0) -> Tensor:
    """Features whose deviations fall over so many decades, along random directions."""
    directions = torch.linalg.qr(draw(dim, dim, seed=seed + 1))[0]
    return (draw(num, dim, seed=seed) * torch.logspace(0, -decades, dim, dtype=torch.float64)) @ directions + seed


def by_definition(mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor) -> float:
    """Heusel 2017, with scipy's root of the product."""
    root = scipy.linalg.sqrtm((cov1 @ cov2).numpy())
    return float((mean1 - mean2).square().sum() + cov1.trace() + cov2.trace() - 2 * np.trace(root).real)


def by_singular_values(first: Tensor, second: Tensor, *, unbiased: bool = True) -> float:
    """tr (C1 C2)^(1/2) is the nuclear norm of the product of the centred features, whatever the ranks."""
    (m1, x), (m2, y) = ((f.mean(0), f - f.mean(0)) for f in (first, second))
    x, y = (c / math.sqrt(len(c) - unbiased) for c in (x, y))
    root = torch.linalg.svdvals(x @ y.T).sum()
    return float((m1 - m2).square().sum() + x.square().sum() + y.square().sum() - 2 * root)


# Normal distributions


def two_normals(distance: Distance) -> None:
    """On the line (m1 - m2)^2 + (s1 - s2)^2; in commuting axes the sum of it; and the shift alone for equal ones."""
    one = torch.ones(1, dtype=torch.float64)
    assert abs(distance(one, one[None] * 4, one * 4, one[None] * 25) - (3**2 + 3**2)) < 1e-12
    std1, std2, directions = draw(6).abs(), draw(6, seed=1).abs(), torch.linalg.qr(draw(6, 6))[0]
    cov1, cov2 = (directions * std**2 @ directions.T for std in (std1, std2))
    mean, shift = draw(6, seed=2), draw(6, seed=3)
    expected = float(shift.square().sum() + (std1 - std2).square().sum())
    assert abs(distance(mean, cov1, mean + shift, cov2) - expected) < 1e-10
    assert abs(distance(mean, cov1, mean, cov1)) < 1e-12
    assert abs(distance(mean, cov1, mean + shift, cov1) - float(shift.square().sum())) < 1e-10
    # Not commuting: the roots of the eigenvalues of [[1, 0], [0, 4]] [[2, 1], [1, 2]], whose trace is 10 and det. 12.
    cov1, cov2 = torch.diag(torch.tensor([1.0, 4.0])).double(), torch.tensor([[2.0, 1.0], [1.0, 2.0]]).double()
    root = math.sqrt(5 + math.sqrt(13)) + math.sqrt(5 - math.sqrt(13))
    assert abs(distance(mean[:2], cov1, mean[:2], cov2) - (5 + 4 - 2 * root)) < 1e-10


def test_two_normals() -> None:
    two_normals(frechet_distance)


def roots_of_each(m1: Tensor, c1: Tensor, m2: Tensor, c2: Tensor) -> float:
    """Right only where the covariances commute."""
    r1, r2 = (torch.from_numpy(scipy.linalg.sqrtm(c.numpy()).real) for c in (c1, c2))
    return float((m1 - m2).square().sum() + (r1 - r2).square().sum())


@pytest.mark.parametrize(
    "mutant",
    [
        roots_of_each,
        lambda m1, c1, m2, c2: frechet_distance(m1, c1, m1, c2),
        lambda m1, c1, m2, c2: math.sqrt(frechet_distance(m1, c1, m2, c2)),
        lambda m1, c1, m2, c2: float((m1 - m2).norm()) + frechet_distance(m1, c1, m1, c2),
        lambda m1, c1, m2, c2: float((m1 - m2).square().sum() + (c1 + c2).trace() - 2 * (c1 @ c2).trace().sqrt()),
        lambda m1, c1, m2, c2: float((m1 - m2).square().sum() + (c1 - c2).trace()),
    ],
)
def test_wrong_distances(mutant: Distance) -> None:
    kills(two_normals, mutant)


def test_a_shift() -> None:
    """Features moved by a constant vector are at its squared length, for any sets and ranks."""
    for num in (10, 32, 33, 500):
        x, shift = spectrum(num, 32, decades=3), draw(32, seed=4)
        assert from_features(x, x + shift) == pytest.approx(float(shift.square().sum()), rel=1e-9)
        assert from_features(x, x) == pytest.approx(0, abs=1e-10)


# Many samples: scipy's root


def equals_the_definition(distance: Distance) -> None:
    """Conditions of one and of a million, and one side a thousand times wider."""
    for decades, scale in ((0.0, 1.0), (3.0, 1.0), (1.5, 1000.0)):
        x, y = spectrum(400, 64, decades=decades), spectrum(300, 64, decades=decades, seed=5) * scale
        given = x.mean(0), x.T.cov(), y.mean(0), y.T.cov()
        assert distance(*given) == pytest.approx(by_definition(*given), rel=1e-9)
        assert distance(*given) == pytest.approx(by_singular_values(x, y), rel=1e-9)


def test_full_rank() -> None:
    equals_the_definition(frechet_distance)
    kills(equals_the_definition, roots_of_each)


def test_features_and_moments() -> None:
    """From features, from moments, and with covariances divided by N, as NVIDIA's."""
    x, y = spectrum(400, 16, decades=2).float(), spectrum(300, 16, decades=2, seed=5).float()
    moments = [Moments(16), Moments(16)]
    for part, features in zip(moments, (x, y), strict=True):
        part.update(features)
    for unbiased in (True, False):
        expected = by_singular_values(x.double(), y.double(), unbiased=unbiased)
        assert from_features(x, y, unbiased=unbiased) == pytest.approx(expected, rel=1e-9)
        assert from_moments(*moments, unbiased=unbiased) == pytest.approx(expected, rel=1e-9)


# Few samples: singular values


def equals_singular_values(from_pair: Callable[[Tensor, Tensor], float]) -> None:
    """Each rank below, at and above the dimension on each side, flat and steep spectra."""
    for decades in (0.0, 4.0):
        for n1, n2 in ((20, 30), (30, 20), (20, 500), (500, 20), (64, 64), (65, 64), (64, 65), (65, 65), (2, 40)):
            x, y = spectrum(n1, 64, decades=decades), spectrum(n2, 64, decades=decades, seed=5)
            assert from_pair(x, y) == pytest.approx(by_singular_values(x, y), rel=1e-6)


def by_covariances(x: Tensor, y: Tensor) -> float:
    return frechet_distance(x.mean(0), x.T.cov(), y.mean(0), y.T.cov())


def test_without_full_rank() -> None:
    equals_singular_values(from_features)
    equals_singular_values(by_covariances)


def with_a_ridge(x: Tensor, y: Tensor) -> float:
    """What other programs do when the root fails: 1e-6 on both diagonals."""
    ridge = 1e-6 * torch.eye(x.shape[1], dtype=x.dtype)
    return by_definition(x.mean(0), x.T.cov() + ridge, y.mean(0), y.T.cov() + ridge)


def with_noise_for_zeros(x: Tensor, y: Tensor) -> float:
    """Roots of eigenvalues that should be zero are the roots of rounding errors."""
    values = torch.linalg.eigvals(x.T.float().cov() @ y.T.float().cov()).abs().sqrt().double()
    return float((x.mean(0) - y.mean(0)).square().sum() + x.var(0).sum() + y.var(0).sum() - 2 * values.sum())


@pytest.mark.parametrize("mutant", [with_a_ridge, with_noise_for_zeros])
def test_wrong_without_full_rank(mutant: Callable[[Tensor, Tensor], float]) -> None:
    kills(equals_singular_values, mutant)


def test_collapse() -> None:
    """All samples in one point c: |m - c|^2 + tr C, or just the distance of two points."""
    x, point = spectrum(100, 8, decades=1), draw(8, seed=9)
    expected = float((x.mean(0) - point).square().sum() + x.T.cov().trace())
    for num in (5, 50):
        collapsed = point.expand(num, 8)
        assert from_features(x, collapsed) == pytest.approx(expected, rel=1e-9)
        assert by_covariances(x, collapsed) == pytest.approx(expected, rel=1e-9)
        assert by_covariances(collapsed, x) == pytest.approx(expected, rel=1e-9)
        assert by_covariances(collapsed, collapsed + 1) == pytest.approx(8, rel=1e-9)


def test_doubt_leads_to_singular_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where roots of tiny eigenvalues matter, they are not used; where they don't, the fast way is taken."""
    calls = list[int]()
    monkeypatch.setattr(frechet, "_nuclear", lambda a, b: calls.append(1) or 0.0)
    flat, steep = spectrum(400, 64, decades=2), spectrum(400, 64, decades=9)
    by_covariances(flat, flat)
    assert not calls
    by_covariances(steep, steep)
    assert calls


# Warnings and refusals


def test_the_rank_is_said() -> None:
    x = draw(10, 16)
    with pytest.warns(RankWarning, match="16 features from 10 samples has rank 9"):
        from_features(x, draw(100, 16))
    with pytest.warns(RankWarning, match="16 features from 16 samples has rank 15"):
        from_features(draw(16, 16), draw(100, 16))
    moments = Moments(16)
    moments.update(x)
    with pytest.warns(RankWarning, match="has rank 9"):
        from_moments(moments, moments)
    assert rank_note(16, 17, 18) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        from_features(draw(17, 16), draw(17, 16))


def test_refusals() -> None:
    x = draw(10, 4)
    with pytest.raises(UserError, match="not finite"):
        from_features(x, x / 0)
    with pytest.raises(UserError, match="2 samples"):
        from_features(x[:1], x)
    with pytest.raises(ValueError, match="covariances"):
        frechet_distance(x[0], torch.eye(3), x[1], torch.eye(3))


# Classes


def mean_over_classes(intra: Callable[..., float]) -> None:
    """Shifts of 1 and 3 in two classes of different sizes: (1 + 9)/2, though most samples are of the first."""
    x, labels = draw(60, 4), torch.tensor([0] * 50 + [7] * 10)
    shift = torch.where(labels == 0, 0.5, 1.5).double()[:, None]
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    assert intra(x, labels, (x + shift)[order], labels[order]) == pytest.approx(5, rel=1e-9)


def test_intra_class() -> None:
    mean_over_classes(intra_class)
    kills(mean_over_classes, lambda x, a, y, b: from_features(x, y))  # all classes together
    kills(mean_over_classes, by_share)


def by_share(x: Tensor, a: Tensor, y: Tensor, b: Tensor) -> float:
    """Large classes count for more."""
    return sum(from_features(x[a == c], y[b == c]) * float((a == c).double().mean()) for c in set(a.tolist()))


def test_intra_class_needs_every_class() -> None:
    with pytest.raises(UserError, match=r"of the classes \[2\]"):
        intra_class(draw(4, 2), torch.tensor([0, 0, 2, 2]), draw(4, 2), torch.tensor([0, 0, 0, 0]))
    with pytest.raises(UserError, match=r"one image only of the classes \[1\].* two or more of each class"):
        intra_class(draw(4, 2), torch.tensor([0, 0, 0, 1]), draw(4, 2), torch.tensor([0, 0, 1, 1]))


# Libraries


def test_torch_fidelity() -> None:
    x, y = (spectrum(n, 48, decades=1, seed=n).float() for n in (200, 300))
    theirs = fid_statistics_to_metric(fid_features_to_statistics(x), fid_features_to_statistics(y), verbose=False)
    assert from_features(x, y) == pytest.approx(theirs["frechet_inception_distance"], rel=1e-5)


class Flat(nn.Module):
    """Features are the pixels."""

    num_features = 48

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1).float()


def test_torchmetrics() -> None:
    """Their metric with pixels for features."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randint(low, 256, (200, 3, 4, 4), dtype=torch.uint8, generator=generator) for low in (0, 100))
    theirs = FrechetInceptionDistance(feature=Flat(), input_img_size=(3, 4, 4)).set_dtype(torch.float64)
    theirs.update(x, real=True)
    theirs.update(y, real=False)
    assert from_features(x.flatten(1).double(), y.flatten(1).double()) == pytest.approx(
        float(theirs.compute()), rel=1e-5
    )
