"""Precision, recall, density and coverage: exact distances by brute force, closed forms, torch-fidelity."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_prc import prc_features_to_metric

from ganzoo.errors import UserError
from ganzoo.metrics import manifold
from ganzoo.metrics.manifold import prdc
from tests.mutants import kills

Scores = dict[str, float]
Measure = Callable[..., Scores]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def brute_force(real: Tensor, fake: Tensor, *, k: int, skip: int = 1, is_open: bool = False) -> Scores:
    """All distances at once, in float64 and by differences; Kynkaanniemi 2019, eq. 1 and 2; Naeem 2020, eq. 5 and 6."""

    def squared(x: Tensor, y: Tensor) -> Tensor:
        return (x.double()[:, None] - y.double()).square().sum(2)

    of_real, of_fake = (squared(x, x).sort(1).values[:, k - 1 + skip] for x in (real, fake))
    d = squared(real, fake)
    below, reached = d < of_real[:, None], d <= of_real[:, None]
    of_a_fake = d < of_fake if is_open else d <= of_fake
    return {
        "precision": float((below if is_open else reached).any(0).double().mean()),
        "recall": float(of_a_fake.any(1).double().mean()),
        "density": float(below.double().sum() / (k * len(fake))),
        "coverage": float(below.any(1).double().mean()),
    }


def clouds() -> list[tuple[Tensor, Tensor]]:
    """Easy ones; an offset; tight clusters far apart, where float32 products say nothing; duplicates on a grid."""
    easy = draw(150, 6), draw(130, 6, seed=1) * 0.7 + 0.3
    where = draw(5, 6, seed=2) * 1000
    tight = [where[torch.arange(n) % 5] + draw(n, 6, seed=n) * 0.01 for n in (150, 130)]
    grid = [(draw(n, 2, seed=n) * 2).round() for n in (150, 130)]
    return [easy, (easy[0] + 300, easy[1] + 300), (tight[0], tight[1]), (grid[0], grid[1])]


def equals_brute_force(measure: Measure) -> None:
    for real, fake in clouds():
        for k in (1, 3, 5):
            assert measure(real, fake, k=k) == pytest.approx(brute_force(real, fake, k=k), abs=1e-12)
            assert measure(fake, real, k=k) == pytest.approx(brute_force(fake, real, k=k), abs=1e-12)


def test_brute_force() -> None:
    equals_brute_force(prdc)


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_blocks(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of any shape, also of fewer columns than neighbours."""
    for columns in (2, 30, 1000):
        monkeypatch.setattr(manifold, "_COLUMNS", columns)
        for real, fake in clouds()[::2]:
            real, fake = real[:45], fake[:37]
            assert prdc(real, fake, k=3, block=rows) == pytest.approx(brute_force(real, fake, k=3), abs=1e-12)


@pytest.mark.parametrize(
    "mutant",
    [
        lambda real, fake, k: prdc(fake, real, k=k),
        lambda real, fake, k: prdc(real, fake, k=k + 1),
        lambda real, fake, k: brute_force(real, fake, k=k, skip=0),  # a sample is its own neighbour
        lambda real, fake, k: brute_force(real, fake, k=k, is_open=True),
        lambda real, fake, k: prdc(real, fake, k=k) | {"density": k * prdc(real, fake, k=k)["density"]},
        lambda real, fake, k: prdc(real, fake, k=k) | {"coverage": prdc(real, fake, k=k)["recall"]},
    ],
)
def test_wrong_scores(mutant: Measure) -> None:
    kills(equals_brute_force, mutant)


def test_float32_alone_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the second look at what rounding could change."""
    monkeypatch.setattr(manifold, "_rounding", lambda dtype, dim: -1.0)
    kills(equals_brute_force, prdc)


def test_float64_is_used_where_much_is_in_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs that are looked at by themselves are few, also where float32 decides nothing."""
    pairs = list[int]()
    exactly = manifold._exact
    monkeypatch.setattr(manifold, "_exact", lambda x, y, i, j: pairs.append(len(i)) or exactly(x, y, i, j))
    real, fake = clouds()[2]
    prdc(real, fake, k=3)
    candidates = 2 * (len(real) + len(fake)) * (3 + 1 + manifold._SPARE)
    assert sum(pairs) < candidates + len(real) * len(fake) / 10


# Closed forms


def test_a_set_with_itself() -> None:
    """1 in all four: each ball holds its own centre and k - 1 neighbours inside, the k-th on its surface."""
    for real in (draw(200, 5), draw(200, 5) + 1000, draw(60, 300, seed=3)):
        for k in (1, 3, 5):
            assert set(prdc(real, real, k=k).values()) == {1.0}
            order = torch.randperm(len(real), generator=torch.Generator().manual_seed(1))
            assert set(prdc(real, real[order], k=k).values()) == {1.0}


def test_a_collapsed_generator() -> None:
    """High precision, low recall: every sample is a real one, and the balls of none of them have a width."""
    real = draw(400, 4)
    found = prdc(real, real[:1].expand(300, 4), k=3)
    assert found["precision"] == 1
    assert found["recall"] == 1 / 400  # the one that is repeated
    inside = brute_force(real, real[:1].expand(4, 4), k=3)
    assert found["coverage"] == pytest.approx(inside["coverage"])
    assert found["density"] == pytest.approx(found["coverage"] * 400 / 3)  # the balls around it, of all samples, over k


def test_half_of_the_modes() -> None:
    """Samples of one of two distant modes: precision near 1, recall half; the other way round, the same exchanged."""
    mode = draw(500, 3)
    both, one = torch.cat([mode, draw(500, 3, seed=1) + 1000]), draw(1000, 3, seed=2)
    found = prdc(both, one, k=3)
    assert found["precision"] > 0.9
    assert 0.4 < found["recall"] <= 0.5
    assert found["coverage"] <= 0.5
    found = prdc(one, both, k=3)
    assert found["recall"] > 0.9
    assert 0.4 < found["precision"] <= 0.5


def test_far_apart() -> None:
    assert set(prdc(draw(50, 3), draw(50, 3) + 1000, k=3).values()) == {0.0}


def test_equal_distributions() -> None:
    """Naeem 2020, sec. 3.4: on average 1 and 1 - (N - 1)...(N - k)/(M + N - 1)...(M + N - k)."""
    found = [prdc(draw(200, 8, seed=2 * i), draw(300, 8, seed=2 * i + 1), k=5) for i in range(40)]
    density, coverage = (torch.tensor([one[name] for one in found]) for name in ("density", "coverage"))
    share = 1.0
    for i in range(1, 6):
        share *= (200 - i) / (500 - i)
    assert abs(float(density.mean()) - 1) < 4 * float(density.std()) / 40**0.5
    assert abs(float(coverage.mean()) - (1 - share)) < 4 * float(coverage.std()) / 40**0.5


# Library, refusals


def test_torch_fidelity() -> None:
    """Their precision and recall, of features like Inception's: positive, wide and correlated."""
    mixing = draw(64, 512, seed=5)
    real, fake = ((draw(n, 64, seed=n) @ mixing * scale).relu() for n, scale in ((900, 1.0), (700, 0.95)))
    for k in (3, 5):
        theirs = prc_features_to_metric(fake, real, prc_neighborhood=k, verbose=False)
        ours = prdc(real, fake, k=k)
        assert 0 < ours["recall"] < 1
        assert ours["precision"] == pytest.approx(theirs["precision"], rel=1e-5)
        assert ours["recall"] == pytest.approx(theirs["recall"], rel=1e-5)


def test_refusals() -> None:
    for k in (0, 5, 9):
        with pytest.raises(UserError, match="among 9 real and 5 generated samples"):
            prdc(draw(9, 2), draw(5, 2), k=k)
