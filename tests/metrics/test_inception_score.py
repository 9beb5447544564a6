"""The inception score: closed forms, the published formula in numpy, both libraries."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_isc import isc_features_to_metric
from torchmetrics.image.inception import InceptionScore as TheirScore

from ganzoo.errors import UserError
from ganzoo.metrics import inception_score as module
from ganzoo.metrics.inception_score import InceptionScore, inception_score
from tests.mutants import kills

Score = Callable[..., InceptionScore]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def closed_forms(score: Score) -> None:
    """K for sure and evenly spread classes, 1 for equal predictions, exp(entropy) for sure and uneven ones."""
    sure = torch.eye(8).repeat(10, 1)
    for logits in (1000 * sure, torch.where(sure > 0, 0.0, -math.inf)):
        assert score(logits, splits=1).mean == pytest.approx(8, rel=1e-12)
    assert score(draw(1, 8).expand(50, 8), splits=5).mean == pytest.approx(1, rel=1e-12)
    uneven = 1000 * torch.eye(2)[[0] * 30 + [1] * 10]
    assert score(uneven, splits=1).mean == pytest.approx(
        math.exp(0.75 * math.log(4 / 3) + 0.25 * math.log(4)), rel=1e-12
    )
    # Two classes, each predicted with 0.9 by half of the samples: ln 2 less the entropy of 0.9.
    unsure = torch.tensor([[0.9, 0.1], [0.1, 0.9]]).log().repeat(20, 1)
    information = math.log(2) + 0.9 * math.log(0.9) + 0.1 * math.log(0.1)
    assert score(unsure, splits=1, shuffle=False).mean == pytest.approx(math.exp(information), rel=1e-6)


def by_formula(logits: Tensor, *, splits: int) -> InceptionScore:
    p = np.exp(logits.double().numpy()) / np.exp(logits.double().numpy()).sum(1, keepdims=True)
    scores = []
    for part in np.array_split(p, splits):
        kl = (part * (np.log(part) - np.log(part.mean(0)))).sum(1)
        scores.append(np.exp(kl.mean()))
    return InceptionScore(float(np.mean(scores)), float(np.std(scores)))


def test_closed_forms() -> None:
    closed_forms(inception_score)


@pytest.mark.parametrize(
    "mutant",
    [
        lambda x, **options: InceptionScore(math.log(inception_score(x, **options).mean), 0.0),
        lambda x, **options: inception_score(x.softmax(1), **options),  # probabilities in the place of logits
        lambda x, **_: InceptionScore(float(torch.special.entr(x.double().softmax(1).mean(0)).sum().exp()), 0.0),
    ],
)
def test_wrong_scores(mutant: Score) -> None:
    kills(closed_forms, mutant)


def splits_are_runs(score: Score) -> None:
    logits = 2 * draw(60, 5)
    for splits in (1, 3, 10):
        expected = by_formula(logits, splits=splits)
        found = score(logits, splits=splits, shuffle=False)
        assert found.mean == pytest.approx(expected.mean, rel=1e-10)
        assert found.std == pytest.approx(expected.std, rel=1e-8, abs=1e-12)


def test_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the formula, in blocks of any size; a sample's split matters, its place in it does not."""
    splits_are_runs(inception_score)
    kills(splits_are_runs, lambda x, splits, shuffle: inception_score(x, splits=splits))
    kills(splits_are_runs, lambda x, splits, shuffle: inception_score(x, splits=1, shuffle=False))
    monkeypatch.setattr(module, "_ROWS", 7)
    splits_are_runs(inception_score)


def test_torch_fidelity() -> None:
    """Their shuffle and splits, also where the number is no multiple."""
    logits = 2 * draw(203, 30)
    for options in ({"splits": 10}, {"splits": 7}, {"splits": 10, "shuffle": False}):
        theirs = isc_features_to_metric(logits, **options)
        ours = inception_score(logits, **options)
        assert ours.mean == pytest.approx(theirs["inception_score_mean"], rel=1e-10)
        assert ours.std == pytest.approx(theirs["inception_score_std"], rel=1e-8)
    seeded = inception_score(logits, generator=np.random.RandomState(3))
    assert seeded.mean == pytest.approx(isc_features_to_metric(logits, rng_seed=3)["inception_score_mean"], rel=1e-10)


@pytest.mark.filterwarnings("ignore:Metric `InceptionScore` will save", "ignore:.*degrees of freedom")
def test_torchmetrics() -> None:
    """Their metric in one split, with logits in the place of images."""
    logits = 2 * draw(100, 10)
    theirs = TheirScore(feature=torch.nn.Identity(), splits=1)
    theirs.inception = torch.nn.Identity()
    theirs.features.append(logits)
    theirs._update_count = 1
    assert inception_score(logits, splits=1).mean == pytest.approx(float(theirs.compute()[0]), rel=1e-5)


def test_too_few_samples() -> None:
    with pytest.raises(UserError, match="5 samples in 10 splits"):
        inception_score(draw(5, 3))
