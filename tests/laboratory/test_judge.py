"""What the laboratory says of a discriminator, against closed forms."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor, nn

from ganzoo.data import Mixture
from ganzoo.gan import GAN
from ganzoo.generator import Generator
from ganzoo.laboratory.judge import Optimum, judge, optimum
from ganzoo.laboratory.pictures import density_by_kernels
from ganzoo.losses import AdversarialLoss, Hinge, LeastSquares, NonSaturating, Saturating, Wasserstein
from ganzoo.models import MLPGAN
from ganzoo.tricks import MinibatchStdDev
from tests.common import quiet_trainer
from tests.mutants import kills


class Still(Generator):
    """Draws normal numbers and learns nothing."""

    latent_dim = 1

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        return latents + 0.0 * self.unused


class Bowl(nn.Module):
    """Logits |x|^2 / 2, whose gradient at x is x."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, data: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.scale * data.square().sum(1) / 2


def gan_with(discriminator: nn.Module, **recipe: Any) -> GAN:
    return GAN(Still(), discriminator, **recipe)


@pytest.mark.parametrize(("loss", "value"), [(NonSaturating(), torch.sigmoid), (Saturating(), torch.sigmoid)])
def test_probabilities_and_gradients(loss: AdversarialLoss, value: Callable[[Tensor], Tensor]) -> None:
    points = torch.randn(50, 3)
    judged = judge(gan_with(Bowl(), loss=loss), points)
    assert judged is not None and judged.is_probability
    assert torch.allclose(judged.values, value(points.square().sum(1) / 2))
    assert torch.allclose(judged.directions, points, atol=1e-6)


def test_other_losses() -> None:
    points = torch.randn(51, 2)
    logits = points.square().sum(1) / 2
    plain = judge(gan_with(Bowl(), loss=LeastSquares()), points)
    assert plain is not None and plain.is_probability and torch.allclose(plain.values, logits)
    pearson = judge(gan_with(Bowl(), loss=LeastSquares(1.0, -1.0)), points)  # from -1 and 1 to 0 and 1
    assert pearson is not None and torch.allclose(pearson.values, (logits + 1) / 2)
    for loss in (Wasserstein(), Hinge()):
        critic = judge(gan_with(Bowl(), loss=loss), points)
        assert critic is not None and not critic.is_probability
        assert torch.allclose(critic.values, logits - logits.sort().values[25])


class OfTheBatch(Bowl):
    """Compares each sample with the batch, as minibatch statistics do."""

    def forward(self, data: Tensor, labels: Tensor | None = None) -> Tensor:
        return super().forward(data) + data.std(0).sum()


class Packed(Bowl):
    """One logit for two samples."""

    def forward(self, data: Tensor, labels: Tensor | None = None) -> Tensor:
        return super().forward(data).view(-1, 2).sum(1)


class Wider(Bowl):
    """Made for data of another shape."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, data: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.layer(data).squeeze(1)  # type: ignore[no-any-return]


@pytest.mark.parametrize("cls", [OfTheBatch, Packed, Wider])
def test_what_cannot_judge_one_point_alone_is_left_out(cls: type[nn.Module]) -> None:
    assert judge(gan_with(cls()), torch.randn(50, 2)) is None


@pytest.mark.parametrize("num", [64, 67])  # of 67 no groups can be made
def test_minibatch_statistics_compare_samples(num: int) -> None:
    assert judge(MLPGAN(parts=[MinibatchStdDev()]), torch.randn(num, 2)) is None


def test_a_conditional_one_is_left_out() -> None:
    assert judge(MLPGAN((2,), num_classes=3), torch.randn(50, 2)) is None


def test_the_discriminator_is_left_as_it_was() -> None:
    layers = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Flatten(), nn.Linear(8, 1))
    layers[1].eval()

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.utils.parametrizations.spectral_norm(layers[0]), layers
            self.inner = layers

        def forward(self, data: Tensor, labels: Tensor | None = None) -> Tensor:
            return self.inner(data).squeeze(1)  # type: ignore[no-any-return]

    gan = gan_with(Network())
    before = {name: value.clone() for name, value in gan.discriminator.state_dict().items()}
    modes = [module.training for module in gan.discriminator.modules()]
    points = torch.randn(50, 2)
    with torch.no_grad():  # whatever the caller's mode is
        judged = judge(gan, points)
    assert judged is not None  # in evaluation mode neither dropout nor batch normalization couples samples
    after = gan.discriminator.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert [module.training for module in gan.discriminator.modules()] == modes
    assert all(p.grad is None for p in gan.parameters())
    assert not points.requires_grad


def is_the_logistic_of_two_normals(best: Callable[..., Optimum | None]) -> None:
    """For N(1, 1) against N(-1, 1) the optimal logits are 2 x."""
    x = torch.linspace(-3, 3, 61).double()
    p_data, p_g = (torch.tensor(scipy.stats.norm(mean).pdf(x.numpy())) for mean in (1.0, -1.0))
    for loss in (NonSaturating(), Saturating(), LeastSquares(), LeastSquares(1.0, -1.0)):
        found = best(loss, p_data, p_g)
        assert found is not None and (found.values - torch.sigmoid(2 * x)).abs().max() < 1e-9
    smoothed = best(NonSaturating(0.9, 0.1), p_data, p_g)
    assert smoothed is not None
    assert (smoothed.values - (0.9 * torch.sigmoid(2 * x) + 0.1 * torch.sigmoid(-2 * x))).abs().max() < 1e-9


def test_optimal_discriminators() -> None:
    is_the_logistic_of_two_normals(optimum)
    kills(is_the_logistic_of_two_normals, lambda loss, p_data, p_g: optimum(loss, p_g, p_data))
    kills(is_the_logistic_of_two_normals, lambda loss, p_data, p_g: optimum(NonSaturating(), p_data, p_g))
    assert optimum(Wasserstein(), torch.ones(3), torch.ones(3)) is None
    nowhere = optimum(NonSaturating(), torch.tensor([0.0, 1.0]), torch.tensor([0.0, 0.0]))
    assert nowhere is not None and nowhere.values.isnan().tolist() == [True, False] and nowhere.values[1] == 1


@pytest.mark.parametrize(
    ("loss", "formula"),
    [
        (NonSaturating(), r"p_{data} / (p_{data} + p_g)"),
        (Saturating(0.9), r"0.9 p_{data} / (p_{data} + p_g)"),
        (NonSaturating(0.9, 0.1), r"(0.9 p_{data} + 0.1 p_g) / (p_{data} + p_g)"),
        (NonSaturating(1.0, 0.25), r"(p_{data} + 0.25 p_g) / (p_{data} + p_g)"),
        (LeastSquares(1.0, -1.0), r"p_{data} / (p_{data} + p_g)"),  # as it is shown, between 0 and 1
    ],
)
def test_the_formula_of_an_optimum_gives_its_values(loss: AdversarialLoss, formula: str) -> None:
    p_data, p_g = 0.3, 0.5
    best = optimum(loss, torch.tensor([p_data]), torch.tensor([p_g]))
    assert best is not None and best.formula == formula
    products = re.sub(r"([\d.]+) p", r"\1 * p", formula.replace("{data}", "data"))
    assert best.values.item() == pytest.approx(eval(products, {"p_data": p_data, "p_g": p_g}))


def widens_by_the_kernel(estimate: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    """Of normal quantiles with variance 1 and kernels of variance h^2: N(0, 1 + h^2)."""
    shares = (np.arange(4000) + 0.5) / 4000
    samples = torch.tensor(scipy.stats.norm.ppf(shares))
    at = torch.linspace(-4, 4, 41).double()
    for width in (0.2, 1.0):
        exact = scipy.stats.norm(0, math.sqrt(1 + width**2)).pdf(at.numpy())
        assert np.abs(estimate(samples, at, width).numpy() - exact).max() < 1e-3


def test_densities_by_kernels() -> None:
    def without_norm(samples: Tensor, at: Tensor, width: float) -> Tensor:
        return density_by_kernels(samples, at, width) * width

    widens_by_the_kernel(density_by_kernels)
    kills(widens_by_the_kernel, without_norm)


@pytest.mark.parametrize("loss", [NonSaturating(), NonSaturating(0.9, 0.1), LeastSquares()])
def test_a_trained_discriminator_comes_close_to_the_closed_form(loss: AdversarialLoss) -> None:
    """Against a generator that stands still, where there is something to judge."""
    torch.manual_seed(0)
    data = Mixture(means=[-2.0, 1.5], stds=[0.5, 0.4], batch_size=512)
    gan = GAN(Still(), MLPGAN((1,), hidden=32).discriminator, loss=loss, ema=None, total_kimg=400)
    for player in gan.players.values():
        player.optimizer.lr = 5e-3
    quiet_trainer().fit(gan, datamodule=data)
    x = torch.linspace(-3, 3, 121)[:, None]
    p_data = data.distribution.log_prob(x).exp()
    p_g = torch.tensor(scipy.stats.norm.pdf(x[:, 0].numpy()))
    judged, best = judge(gan, x), optimum(gan.loss, p_data, p_g)
    assert judged is not None and best is not None
    seen = p_data + p_g
    assert ((judged.values - best.values).abs() * seen).sum() / seen.sum() < 0.06
    assert ((judged.values - 0.5).abs() * seen).sum() / seen.sum() > 0.15  # half everywhere would be wrong
