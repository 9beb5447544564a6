"""Orthogonal regularization, historical averaging and weight clipping against torch.linalg and hand-made numbers."""

from __future__ import annotations

import itertools
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from ganzoo.errors import UserError
from ganzoo.gan import GAN, Generator
from ganzoo.losses import Wasserstein
from ganzoo.models import MLPGAN
from ganzoo.parts import Part, Turn
from ganzoo.penalties import HistoricalAveraging, OrthogonalRegularization, WeightClipping
from ganzoo.penalties.weights import rows
from ganzoo.schedules import Linear
from tests.common import Critic, flat
from tests.mutants import kills
from tests.penalties.fits import RANDOM, SHAPES, leaves_no_trace, run, small, survives


class Layers(Generator):
    """Some layers; never called here."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.latent_dim, self.layers = 2, nn.ModuleList(layers)


def turn_of(*layers: nn.Module) -> Turn:
    return Turn(GAN(Layers(*layers), Critic(2)), "generator", 0, 0.0)


LAYERS = [
    lambda: nn.Linear(7, 4),
    lambda: nn.Conv2d(3, 5, (2, 3)),
    lambda: nn.Conv2d(4, 6, 3, groups=2),
    lambda: nn.ConvTranspose2d(5, 3, 4),
    lambda: nn.ConvTranspose2d(4, 6, 3, groups=2),
    lambda: nn.ConvTranspose1d(5, 2, 4),
]


@pytest.mark.parametrize("make", LAYERS, ids=lambda make: repr(make()))
def test_each_row_makes_one_output(make) -> None:
    """The layer is linear: with the other rows zero, only that channel answers, and by that row's numbers alone."""
    torch.manual_seed(0)
    layer = make()
    nn.init.zeros_(layer.bias)
    channels = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
    data = torch.randn(2, channels, *[6] * (layer.weight.dim() - 2))
    whole, matrix = layer(data), rows(layer)
    assert matrix.numel() == layer.weight.numel()
    assert len(matrix) == whole.shape[1]
    for output in range(len(matrix)):
        (used,) = torch.autograd.grad(layer(data)[:, output].square().sum(), layer.weight)
        layer_of_use = make()
        layer_of_use.weight = nn.Parameter((used != 0).float())
        per_row = rows(layer_of_use).sum(1)
        assert per_row[output] == matrix.shape[1]
        assert per_row.sum() == matrix.shape[1]


def is_the_distance_of_products_from_the_identity(cls) -> None:
    """Row by row, as sums of products of numbers."""
    torch.manual_seed(0)
    layers = [nn.Linear(4, 3), nn.Conv2d(2, 3, 2)]
    turn = turn_of(*layers, nn.Embedding(5, 2), nn.BatchNorm2d(3))
    with torch.no_grad():
        layers[0].bias.fill_(100.0)
    full = off = 0.0
    for layer in layers:
        matrix = [row.flatten().double() for row in layer.weight.detach()]
        for (i, a), (j, b) in itertools.product(enumerate(matrix), enumerate(matrix)):
            full += (float((a * b).sum()) - (i == j)) ** 2
            off += float((a * b).sum()) ** 2 * (i != j)
    assert cls(0.5)(turn).item() == pytest.approx(0.5 * full, rel=1e-4)
    assert cls(0.5, off_diagonal=True)(turn).item() == pytest.approx(0.5 * off, rel=1e-4)


def is_zero_for_orthonormal_rows_only(cls) -> None:
    torch.manual_seed(0)
    matrix = torch.linalg.qr(torch.randn(12, 5)).Q.T  # (5, 12), orthonormal rows
    layers = [nn.Linear(12, 5), nn.Conv2d(3, 5, 2), nn.ConvTranspose2d(3, 5, 2)]
    with torch.no_grad():
        layers[0].weight.copy_(matrix)
        layers[1].weight.copy_(matrix.view(5, 3, 2, 2))
        layers[2].weight.copy_(matrix.view(5, 3, 2, 2).transpose(0, 1))
    turn = turn_of(*layers)
    assert cls(1.0)(turn).item() == pytest.approx(0.0, abs=1e-10)
    assert cls(1.0, off_diagonal=True)(turn).item() == pytest.approx(0.0, abs=1e-10)
    with torch.no_grad():
        layers[0].weight.mul_(2)  # rows of length 2: 5 times (4 - 1)^2 on the diagonal, nothing beside it
    assert cls(1.0)(turn).item() == pytest.approx(45.0, rel=1e-4)
    assert cls(1.0, off_diagonal=True)(turn).item() == pytest.approx(0.0, abs=1e-8)


class OfColumns(OrthogonalRegularization):
    def excess(self, matrix):
        return super().excess(matrix.T)


class Cosines(OrthogonalRegularization):
    """Of rows of length 1."""

    def excess(self, matrix):
        return super().excess(nn.functional.normalize(matrix))


class Root(OrthogonalRegularization):
    def excess(self, matrix):
        return super().excess(matrix).sqrt()


class WithTheDiagonal(OrthogonalRegularization):
    def excess(self, matrix):
        products = matrix @ matrix.T
        return (products - (0 if self.off_diagonal else 1) * torch.eye(len(matrix))).square().sum()


class Elsewhere(OrthogonalRegularization):
    """On the wrong network."""

    def value(self, turn):
        turn.player = "discriminator"
        return super().value(turn)


def test_orthogonal_regularization() -> None:
    is_the_distance_of_products_from_the_identity(OrthogonalRegularization)
    is_zero_for_orthonormal_rows_only(OrthogonalRegularization)
    for mutant in (OfColumns, Cosines, Root, WithTheDiagonal, Elsewhere):
        kills(is_the_distance_of_products_from_the_identity, mutant)
    for mutant in (OfColumns, Cosines, WithTheDiagonal):
        kills(is_zero_for_orthonormal_rows_only, mutant)


def test_gradient_of_orthogonal_regularization() -> None:
    """d/dW |W W^T - I|^2 = 4 (W W^T - I) W."""
    layer = nn.Linear(4, 3)
    OrthogonalRegularization(1.0)(turn_of(layer)).backward()
    w = layer.weight.detach()
    assert torch.allclose(layer.weight.grad, 4 * (w @ w.T - torch.eye(3)) @ w, rtol=1e-4, atol=1e-6)
    assert layer.bias.grad is None


def test_under_spectral_normalization_it_is_of_the_trained_weight() -> None:
    torch.manual_seed(0)
    plain = nn.Linear(4, 3)
    value = OrthogonalRegularization(1.0)(turn_of(plain)).item()
    normalized = nn.Linear(4, 3)
    normalized.load_state_dict(plain.state_dict())
    spectral_norm(normalized)
    assert OrthogonalRegularization(1.0)(turn_of(normalized)).item() == pytest.approx(value)
    assert normalized.weight.norm().item() != pytest.approx(plain.weight.norm().item(), rel=1e-2)


def test_orthogonal_regularization_without_layers_is_refused() -> None:
    with pytest.raises(UserError, match="no linear or convolutional layer in the generator"):
        GAN(Layers(), Critic(2), penalties=[OrthogonalRegularization()])


@pytest.mark.parametrize("player", ["generator", "discriminator"])
def test_the_player_is_the_one_that_was_named(player: str) -> None:
    gan = small("points", penalties=[OrthogonalRegularization(1.0, player=player), HistoricalAveraging(player=player)])
    used = []

    class Look(Part):
        def forward(self, turn):
            used.extend(turn.player for part in turn.gan.tricks[:2] if turn.player in part.players)

    gan.tricks.append(Look())
    run(gan, "points", 1)
    assert used == [player] * 2


def historical(cls, *args, values=None, **options) -> tuple[HistoricalAveraging, Turn, GAN]:
    gan = MLPGAN(hidden=3, num_layers=1, penalties=[cls(*args, **options)])
    return gan.tricks[0], Turn(gan, "generator", 0, 0.0), gan


def follows_the_mean_of_a_hand_made_trajectory(cls) -> None:
    """All parameters are 1, 4, 9, 16 after turns 1, 2, 3, 4: the means are 1, 2.5, 14/3, 7.5."""
    penalty, turn, gan = historical(cls, 1.0)
    parameters = list(gan.generator.parameters())
    num = sum(p.numel() for p in parameters)
    assert penalty(turn).item() == 0.0  # nothing was before
    for value, mean in ((1.0, 1.0), (4.0, 2.5), (9.0, 14 / 3), (16.0, 7.5)):
        with torch.no_grad():
            for p in parameters:
                p.fill_(value)
        penalty.after_step(turn)
        gan.zero_grad()
        term = penalty(turn)
        term.backward()
        assert term.item() == pytest.approx(num * (value - mean) ** 2, rel=1e-4, abs=1e-8)
        for p in parameters:  # the mean counts as a constant
            assert p.grad.flatten().tolist() == pytest.approx([2 * (value - mean)] * p.numel(), rel=1e-4, abs=1e-6)


class Exponential(HistoricalAveraging):
    def after_step(self, turn):
        super().after_step(turn)
        self.count.fill_(1)


class OfOneTensor(HistoricalAveraging):
    """Of the first parameter alone."""

    def value(self, turn):
        return super().value(turn) * 0 + (next(turn.gan.generator.parameters()) - self.mean[0]).square().sum()


class Mean(HistoricalAveraging):
    """The mean square in place of the sum."""

    def value(self, turn):
        return super().value(turn) / len(self.mean)


class FromZero(HistoricalAveraging):
    def after_step(self, turn):
        if not self.count:
            self.count += 1
        super().after_step(turn)


def test_historical_averaging() -> None:
    follows_the_mean_of_a_hand_made_trajectory(HistoricalAveraging)
    for mutant in (Exponential, OfOneTensor, Mean, FromZero):
        kills(follows_the_mean_of_a_hand_made_trajectory, mutant)


def test_zero_for_constant_parameters() -> None:
    penalty, turn, _ = historical(HistoricalAveraging, 1.0)
    for _ in range(50):
        assert penalty(turn).item() == pytest.approx(0.0, abs=1e-10)
        penalty.after_step(turn)


def mean_moves_once_per_turn(cls) -> None:
    """In a run with two micro-batches per turn, the mean is the average of the weights after each turn, lazy or not."""
    gan = small("points", accumulate=2, penalties=[cls(1e-3, player="discriminator", every=2)])
    states = []

    class Keep(Part):
        players = ("discriminator",)

        def after_step(self, turn):
            states.append(flat(turn.gan.discriminator).double())

    gan.tricks.append(Keep())
    run(gan, "points", 5)
    assert gan.tricks[0].count.item() == 5
    assert torch.allclose(gan.tricks[0].mean.double(), torch.stack(states).mean(0), atol=1e-6)


class OncePerMicroBatch(HistoricalAveraging):
    def forward(self, turn):
        self.after_step(turn)
        return super().forward(turn)


class BeforeTheStep(HistoricalAveraging):
    def after_backward(self, turn):
        super().after_step(turn)

    def after_step(self, turn):
        pass


def test_the_historical_mean_moves_once_per_turn() -> None:
    mean_moves_once_per_turn(HistoricalAveraging)
    kills(mean_moves_once_per_turn, OncePerMicroBatch)
    kills(mean_moves_once_per_turn, BeforeTheStep)


@pytest.mark.parametrize("make", [OrthogonalRegularization, HistoricalAveraging])
def test_lazy_and_scheduled_weight(make) -> None:
    gan = MLPGAN(hidden=3, penalties=[make(1.0), make(Linear(4.0, 0.0, to_kimg=2.0), every=3)])
    turn = Turn(gan, "generator", 0, 1.0)
    eager, lazy = gan.tricks
    if make is HistoricalAveraging:
        for penalty in (eager, lazy):
            penalty.mean.fill_(0.5)
            penalty.count.fill_(1)
    assert eager(turn).item() > 0
    assert lazy(turn).item() == pytest.approx(2.0 * 3 * eager(turn).item())
    turn.number = 2
    assert lazy(turn) is None


class Head(Part):
    """A trick with parameters of its own, trained by the owner's optimizer."""

    def __init__(self, owner: str) -> None:
        super().__init__()
        self.owner = owner
        self.linear = nn.Linear(2, 2)
        nn.init.constant_(self.linear.weight, 3.0)

    def forward(self, turn):
        data = turn.fake if turn.player == "generator" else turn.real
        return self.linear(data).square().mean() if turn.player == self.owner else None


def stays_within_the_range(cls, kind: str = "points") -> None:
    """After every discriminator turn: all of its parameters and those of its parts, and nobody else's."""
    heads = [Head("discriminator"), Head("generator")] if kind == "points" else []
    norm = {"discriminator_norm": "batch"} if kind == "images" else {}
    gan = small(kind, loss=Wasserstein(), parts=[cls(0.02), *heads], **norm)
    largest, untouched = [], []

    class Look(Part):
        players = ("discriminator",)

        def after_step(self, turn):
            owned = [turn.gan.discriminator, *[head for head in heads if head.owner == "discriminator"]]
            largest.append(max(flat(module).abs().max().item() for module in owned))
            others = [turn.gan.generator, *[head for head in heads if head.owner == "generator"]]
            untouched.append(min(flat(module).abs().max().item() for module in others))

    gan.tricks.append(Look())
    run(gan, kind, 4)
    assert largest == pytest.approx([0.02] * 4, abs=1e-8)
    assert min(untouched) > 0.02


class OnlyMatrices(WeightClipping):
    def after_step(self, turn):
        with torch.no_grad():
            for p in turn.gan.players["discriminator"].trained:
                if p.dim() > 1:
                    p.clamp_(-self.bound, self.bound)


class OnlyTheNetwork(WeightClipping):
    def after_step(self, turn):
        with torch.no_grad():
            for p in turn.gan.discriminator.parameters():
                p.clamp_(-self.bound, self.bound)


class OnlyAbove(WeightClipping):
    def after_step(self, turn):
        with torch.no_grad():
            for p in turn.gan.players["discriminator"].trained:
                p.clamp_(max=self.bound)


class BeforeTheOptimizersStep(WeightClipping):
    def after_backward(self, turn):
        super().after_step(turn)

    def after_step(self, turn):
        pass


class Everybody(WeightClipping):
    def after_step(self, turn):
        with torch.no_grad():
            for p in turn.gan.parameters():
                p.clamp_(-self.bound, self.bound)


def test_weight_clipping() -> None:
    stays_within_the_range(WeightClipping)
    stays_within_the_range(WeightClipping, "images")
    for mutant in (OnlyMatrices, OnlyTheNetwork, OnlyAbove, BeforeTheOptimizersStep, Everybody):
        kills(stays_within_the_range, mutant)


def test_clipping_warns_of_what_it_does_not_go_with() -> None:
    with pytest.warns(UserWarning, match="the loss is NonSaturating"):
        small("points", parts=[WeightClipping()])
    with pytest.warns(UserWarning, match="spectral normalization"):
        small("images", loss=Wasserstein(), discriminator_norm="spectral", parts=[WeightClipping()])
    for function in (nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm):  # in a network of the user's
        critic = nn.Sequential(nn.Flatten(), function(nn.Linear(2, 4)), nn.ReLU(), nn.Linear(4, 1))
        with pytest.warns(UserWarning, match="spectral normalization"):
            GAN(MLPGAN().generator, critic, loss=Wasserstein(), parts=[WeightClipping()])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small("images", loss=Wasserstein(), discriminator_norm="batch", parts=[WeightClipping()])


def test_a_bound_that_is_not_positive_is_refused() -> None:
    with pytest.raises(UserError, match=r"was 0.0"):
        WeightClipping(0.0)


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize(
    "make",
    [
        lambda: OrthogonalRegularization(0.01),
        lambda: OrthogonalRegularization(0.01, player="discriminator", off_diagonal=True),
        HistoricalAveraging,
        lambda: HistoricalAveraging(player="discriminator"),
    ],
    ids=["orthogonal", "off-diagonal", "history of g", "history of d"],
)
def test_they_train(kind: str, make) -> None:
    survives(kind, make)


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.filterwarnings("ignore:WeightClipping")
def test_clipping_trains(kind: str) -> None:
    survives(kind, lambda: WeightClipping(0.05), "parts")


@pytest.mark.parametrize(("kind", "options"), RANDOM)
@pytest.mark.parametrize(
    "make",
    [
        lambda: OrthogonalRegularization(0.0),
        lambda: HistoricalAveraging(0.0),
        lambda: HistoricalAveraging(0.0, player="discriminator"),
    ],
)
def test_with_a_weight_of_zero_nothing_changes(kind: str, options: dict, make) -> None:
    leaves_no_trace(kind, make, **options)
