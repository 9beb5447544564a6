"""Path length regularization against linear generators, whose Jacobian is their matrix, and hand-made products."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from ganzoo import streams
from ganzoo.config import build
from ganzoo.errors import UserError
from ganzoo.gan import GAN
from ganzoo.generator import Generator
from ganzoo.models import DCGAN, MLPGAN
from ganzoo.models.mlp import MLPDiscriminator
from ganzoo.optim import SGD
from ganzoo.parts import Turn
from ganzoo.penalties import PathLength
from tests.common import fit, flat, max_difference, normal_batches
from tests.mutants import kills

CPU = torch.device("cpu")
IMAGE = (3, 4, 4)


class LinearStyle(Generator):
    """x = A w for w = z; images of 3 x 4 x 4."""

    latent_dim = 8

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix = nn.Parameter(matrix)

    def mapping(self, latents, labels=None):
        return latents

    def synthesis(self, w):
        return (w @ self.matrix.T).view(-1, *IMAGE)

    def forward(self, latents, labels=None):
        return self.synthesis(self.mapping(latents, labels))


class Styles(Generator):
    """A mapping with a running mean, and a synthesis with per-sample noise; one style, or one for each of 2 layers."""

    def __init__(self, layers: int = 0, shape=IMAGE, num_classes: int = 0) -> None:
        super().__init__()
        self.latent_dim, self.num_layers, self.shape, self.num_classes = 4, layers, shape, num_classes
        self.map = nn.Linear(4 + num_classes, 6)
        self.first, self.last = nn.Linear(6, 10), nn.Linear(10, math.prod(shape))
        self.second = nn.Linear(6, 10)
        self.register_buffer("mean_style", torch.zeros(6))

    def mapping(self, latents, labels=None):
        if self.num_classes:
            latents = torch.cat([latents, nn.functional.one_hot(labels, self.num_classes).to(latents.dtype)], 1)
        w = torch.tanh(self.map(latents))
        if self.training:
            self.mean_style.lerp_(w.detach().float().mean(0), 0.1)
        return w[:, None].repeat(1, self.num_layers, 1) if self.num_layers else w

    def synthesis(self, w):
        first, second = (w[:, 0], w[:, -1]) if self.num_layers else (w, w)
        noise = streams.randn(len(w), 10, purpose="noise", device=w.device)
        hidden = torch.tanh(self.first(first) + 0.3 * noise) * (1 + torch.sigmoid(self.second(second)))
        return self.last(hidden).view(-1, *self.shape)

    def forward(self, latents, labels=None):
        return self.synthesis(self.mapping(latents, labels))


def turn_of(generator: Generator, num: int, player="generator", **fields) -> Turn:
    gan = GAN(generator, MLPDiscriminator(IMAGE, 8, 1, 0, 1, 0.0))
    g = torch.Generator().manual_seed(1)
    latents = torch.randn(num, generator.latent_dim, generator=g)
    return Turn(gan, player, 0, 0.0, **{"latents": latents, **fields})


def at_mean(penalty: PathLength, mean: float) -> PathLength:
    penalty.mean.fill_(mean)
    penalty.num_turns.fill_(100_000)
    return penalty


def orthonormal(columns: int) -> Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.linalg.qr(torch.randn(math.prod(IMAGE), columns, generator=g)).Q


def mean_chi(d: int) -> float:
    return math.sqrt(2) * math.exp(math.lgamma((d + 1) / 2) - math.lgamma(d / 2))


# ---------------------------------------------------------------------- value


def check_expected_penalty(cls) -> None:
    """x = c Q w: J^T y is normal with deviation c / sqrt(HW) in d dimensions, so its length is a scaled chi."""
    c, d, pixels = 3.0, 8, 16
    expected = c**2 * (d - mean_chi(d) ** 2) / pixels
    penalty = at_mean(cls(1.0, every=1, fraction=1.0), c * mean_chi(d) / math.sqrt(pixels))
    torch.manual_seed(0)
    value = penalty(turn_of(LinearStyle(c * orthonormal(d)), 20_000)).item()
    assert value == pytest.approx(expected, rel=0.05)  # the deviation of this mean is about 1 % of it
    assert value > 0.5 * c**2 / (2 * pixels)  # not zero at the best of matrices


def test_unequal_singular_values_of_the_same_mean_length_cost_more() -> None:
    torch.manual_seed(0)
    values = []
    for spread in (torch.ones(8), torch.tensor([3.0, 2.0, 1.0, 1.0, 0.5, 0.2, 0.1, 0.1])):
        matrix = orthonormal(8) * spread
        y = torch.randn(200_000, math.prod(IMAGE)) / 4
        matrix = matrix / (y @ matrix).norm(dim=1).mean()  # mean length 1
        penalty = at_mean(PathLength(1.0, every=1, fraction=1.0), 1.0)
        values.append(penalty(turn_of(LinearStyle(matrix), 20_000)).item())
    assert values[1] > 1.5 * values[0] > 0


def known_noise(monkeypatch) -> Tensor:
    """What the penalty draws for y from here on: normal numbers of a fixed seed, (8, 3, 4, 4)."""
    y = torch.randn(8, *IMAGE, generator=torch.Generator().manual_seed(3))
    draw = streams.randn

    def randn(num, *shape, purpose, device=None):
        return y[:num].view(num, *shape) if purpose == "y" else draw(num, *shape, purpose=purpose, device=device)

    monkeypatch.setattr(streams, "randn", randn)
    return y


@pytest.mark.parametrize("layers", [0, 2])
def test_lengths_are_those_of_the_hand_product_and_of_vjp(layers, monkeypatch) -> None:
    g = torch.Generator().manual_seed(3)
    y, noise = torch.randn(8, *IMAGE, generator=g), torch.randn(1, 10, generator=g)
    known = {"y": y, "noise": noise}
    monkeypatch.setattr(streams, "randn", lambda *shape, purpose, device=None: known[purpose])
    generator = Styles(layers)
    turn = turn_of(generator, 8)
    lengths = PathLength(fraction=1.0).lengths(turn)
    w = generator.mapping(turn.latents).detach()
    _, by_vjp = torch.autograd.functional.vjp(generator.synthesis, w, y / 4)  # sqrt(HW) = 4
    squares = by_vjp.square().sum(-1)  # (8,) or (8, 2)
    expected = squares.mean(1).sqrt() if layers else squares.sqrt()
    assert torch.allclose(lengths, expected, rtol=1e-5)

    for i in range(8):  # the hand product: the Jacobian of one image, transposed, times y
        jacobian = torch.autograd.functional.jacobian(lambda v: generator.synthesis(v[None])[0].flatten(), w[i])
        product = torch.einsum("p...,p->...", jacobian, y[i].flatten() / 4)
        assert lengths[i].item() == pytest.approx((product.square().sum() / max(layers, 1)).sqrt().item(), rel=1e-5)


def test_expected_penalty_of_a_scaled_rotation() -> None:
    check_expected_penalty(PathLength)


def test_points_count_as_one_pixel(monkeypatch) -> None:
    class Points(LinearStyle):
        def synthesis(self, w):
            return w @ self.matrix.T

    y = torch.randn(8, 5, generator=torch.Generator().manual_seed(3))
    monkeypatch.setattr(streams, "randn", lambda *shape, purpose, device=None: y)
    matrix = torch.randn(5, 8)
    lengths = PathLength(fraction=1.0).lengths(turn_of(Points(matrix), 8))
    assert torch.allclose(lengths, (y @ matrix).norm(dim=1), rtol=1e-5)


class Unscaled(PathLength):
    def length(self, images, w):
        return super().length(images, w) * math.sqrt(math.prod(images.shape[2:]))


class ScaledByPixels(PathLength):
    def length(self, images, w):
        return super().length(images, w) / math.sqrt(math.prod(images.shape[2:]))


class BatchWide(PathLength):
    def length(self, images, w):
        return super().length(images, w).square().mean().sqrt().expand(len(w))


class OfTheMean(PathLength):
    def value(self, turn):
        return (self.lengths(turn).mean() - self.mean).square()


class NoSquare(PathLength):
    def value(self, turn):
        return super().value(turn).sqrt()


def test_mutants_of_the_value() -> None:
    for wrong in (Unscaled, ScaledByPixels, BatchWide, OfTheMean, NoSquare):
        kills(check_expected_penalty, wrong)


# ---------------------------------------------------------------------- gradient


def check_gradient(cls, monkeypatch) -> None:
    """x = A w: the length is |A^T y|, and d (|A^T y| - a)^2 / dA = 2 (|A^T y| - a) y (A^T y)^T / |A^T y|."""
    with monkeypatch.context() as patch:
        y = known_noise(patch)
        generator = LinearStyle(orthonormal(8) * torch.linspace(0.5, 2, 8))
        penalty = at_mean(cls(3.0, every=2, fraction=1.0), 0.4)
        value = penalty(turn_of(generator, 8))
        assert value.requires_grad
        value.backward()
    a, y = generator.matrix.detach().double(), y.double().flatten(1) / 4
    expected = torch.zeros_like(a)
    for row in y:
        product = a.T @ row
        expected += 2 * (product.norm() - 0.4) / product.norm() * torch.outer(row, product) / 8
    assert torch.allclose(generator.matrix.grad.double(), 3.0 * 2 * expected, rtol=1e-4, atol=1e-6)


class Detached(PathLength):
    def lengths(self, turn):
        return super().lengths(turn).detach()


class MeanWithGradient(PathLength):
    def value(self, turn):
        lengths = self.lengths(turn)
        return (lengths - torch.lerp(self.mean, lengths.mean(), self.decay)).square().mean()


class MeanFirst(PathLength):
    def value(self, turn):
        lengths = self.lengths(turn)
        self.mean.lerp_(lengths.detach().mean(), self.decay)
        return (lengths - self.mean).square().mean()


def test_gradient_by_hand(monkeypatch) -> None:
    def check(cls) -> None:
        check_gradient(cls, monkeypatch)

    check(PathLength)
    for wrong in (Detached, MeanWithGradient, MeanFirst, Unscaled):
        kills(check, wrong)


def test_first_and_second_derivatives_by_finite_differences(monkeypatch) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        monkeypatch.setattr(Tensor, "float", lambda self: self)
        generator = LinearStyle(torch.randn(math.prod(IMAGE), 8))
        turn = turn_of(generator, 4)
        penalty = at_mean(PathLength(1.0, every=1), 0.4)
        start = torch.randn(math.prod(IMAGE), 2, requires_grad=True)

        def value(columns: Tensor) -> Tensor:
            def synthesis(w):
                return torch.tanh(w[:, :2] @ columns.T).view(-1, *IMAGE)

            generator.synthesis = synthesis
            with streams.stream(5, start=0, num=4, total=4, device=CPU):
                return penalty(turn)

        assert torch.autograd.gradcheck(value, (start,))
        assert torch.autograd.gradgradcheck(value, (start,))
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_generator_without_any_influence_gives_finite_derivatives() -> None:
    generator = LinearStyle(torch.zeros(math.prod(IMAGE), 8))
    value = at_mean(PathLength(1.0), 1.0)(turn_of(generator, 8))
    assert value.item() == 4.0
    value.backward()
    assert torch.isfinite(generator.matrix.grad).all()


# ---------------------------------------------------------------------- the mean


def test_the_mean_is_that_of_the_first_lengths_and_then_a_moving_one() -> None:
    class Scripted(PathLength):
        def lengths(self, turn):
            return script[turn.number // 2] * torch.ones(4, requires_grad=True)

    script = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0]
    penalty = Scripted(1.0, every=2, decay=0.25)
    turn = turn_of(LinearStyle(torch.zeros(48, 8)), 4)
    means, values = [], []
    for turn.number in range(16):
        penalty.before_turn(turn)
        term = penalty(turn)
        assert (term is None) == (turn.number % 2 == 1)
        if term is not None:
            values.append(term.item())
            before = penalty.mean.item()
            assert before == (means[-1] if means else 0.0)
        penalty.after_backward(turn)
        if term is not None:
            means.append(penalty.mean.item())
    expected = [sum(script[: k + 1]) / (k + 1) for k in range(4)]
    for length in script[4:]:
        expected.append(expected[-1] * 0.75 + length * 0.25)
    assert means == pytest.approx(expected)
    # The first turn only measures; each later one is held against the mean before it, times every.
    assert values == pytest.approx([0.0, *(2 * (x - a) ** 2 for x, a in zip(script[1:], means, strict=False))])


def test_the_first_turn_has_no_gradient() -> None:
    generator = LinearStyle(orthonormal(8))
    PathLength(1.0)(turn_of(generator, 8)).backward()
    assert generator.matrix.grad.abs().max() == 0


def trained(cls=PathLength, *, accumulate: int = 1, layers: int = 2, steps: int = 6, **options) -> GAN:
    torch.manual_seed(0)
    rates = {"generator_optimizer": SGD(0.05), "discriminator_optimizer": SGD(0.05)}
    penalty = cls(**{"weight": 2.0, "every": 2, **options.pop("penalty", {})})
    gan = GAN(
        Styles(layers),
        MLPDiscriminator(IMAGE, 8, 1, 0, 1, 0.0),
        penalties=[penalty] if cls is not None else [],
        accumulate=accumulate,
        **{**rates, **options},
    )
    gan.seed = 5
    gan.step_seconds = 0.0
    data = torch.randn(steps, 16, *IMAGE, generator=torch.Generator().manual_seed(9))
    batches = [part for batch in data for part in batch.chunk(accumulate)]
    fit(gan, _Given(batches), max_steps=steps)
    return gan


class _Given:
    def __init__(self, batches: list[Tensor]) -> None:
        self.batches = batches

    def __iter__(self):
        yield from self.batches


def check_accumulation(cls) -> None:
    """Four micro-batches give what one batch gives: weights, mean length, and its count."""
    one, four = trained(cls).state_dict(), trained(cls, accumulate=4).state_dict()
    drop = {k for k in one if "mean_style" in k}  # the generator's own statistic moves once per pass
    one, four = ({k: v for k, v in state.items() if k not in drop} for state in (one, four))
    assert one["parts.0.mean"] > 0.05 and one["parts.0.num_turns"] == 3
    assert max_difference(one, four) < 1e-5


class MovesInEachMicroBatch(PathLength):
    def value(self, turn):
        value = super().value(turn)
        super().after_backward(turn)
        return value


class FirstHalf(PathLength):
    """A half of the batch that depends on how it is split."""

    def lengths(self, turn):
        half = len(turn.latents) // 2
        kept, turn.latents = turn.latents, turn.latents[:half]
        step, self.step = self.step, 1
        lengths = super().lengths(turn)
        turn.latents, self.step = kept, step
        return lengths


def test_gradient_accumulation_equals_one_batch() -> None:
    check_accumulation(PathLength)
    for wrong in (MovesInEachMicroBatch, FirstHalf):
        kills(check_accumulation, wrong)


def check_ranks(cls) -> None:
    """Two processes by hand: each has half of the rows; values, gradients and buffers are averaged."""

    def one(start: int, num: int, generator: Generator, penalty: PathLength) -> tuple[float, Tensor]:
        turn = turn_of(generator, 16)
        turn.latents = turn.latents[start : start + num]
        generator.zero_grad()
        with streams.stream(5, start=start, num=num, total=16, device=CPU):
            value = penalty(turn)
        value.backward()
        penalty.after_backward(turn)
        return value.item(), torch.cat([p.grad.flatten() for p in generator.parameters() if p.grad is not None])

    generator = Styles(2)
    penalty = at_mean(cls(1.0, every=1), 0.1)
    ranks = [copy.deepcopy(penalty) for _ in range(2)]
    value, grad = one(0, 16, generator, penalty)
    halves = [one(8 * r, 8, generator, ranks[r]) for r in range(2)]
    assert sum(v for v, _ in halves) / 2 == pytest.approx(value, rel=1e-5)
    assert torch.allclose((halves[0][1] + halves[1][1]) / 2, grad, rtol=1e-4, atol=1e-7)
    assert sum(r.mean.item() for r in ranks) / 2 == pytest.approx(penalty.mean.item(), rel=1e-6)
    assert penalty.mean.item() != pytest.approx(0.1, rel=1e-5)
    assert abs(halves[0][0] - halves[1][0]) > 1e-6 * value  # the ranks have other samples


def test_two_ranks_equal_one_process() -> None:
    check_ranks(PathLength)
    kills(check_ranks, FirstHalf)
    gan = trained(steps=1)
    mean = gan.tricks[0].mean
    assert any(buffer is mean for buffer in gan.players["generator"].float_buffers())  # averaged with G's gradients


def test_the_batch_is_thinned_evenly() -> None:
    class Look(LinearStyle):
        def mapping(self, latents, labels=None):
            seen.append((latents, labels))
            return latents

    for fraction, num, rows in ((1.0, 8, range(8)), (0.5, 8, [0, 2, 4, 6]), (0.25, 8, [0, 4]), (0.25, 6, [0, 2, 4])):
        seen: list = []
        turn = turn_of(Look(orthonormal(8)), num, fake_labels=torch.arange(num))
        lengths = PathLength(fraction=fraction).lengths(turn)
        rows = torch.tensor(list(rows))
        assert torch.equal(seen[0][0], turn.latents[rows]) and torch.equal(seen[0][1], rows)
        assert lengths.shape == rows.shape


# ---------------------------------------------------------------------- in a run


def test_the_pass_moves_no_statistic_of_the_generator() -> None:
    def check(cls) -> None:
        assert torch.equal(trained(cls, penalty={"weight": 0.0}).generator.mean_style, reference)

    class Plain(PathLength):
        def forward(self, turn):
            return None

    class Careless(PathLength):
        def value(self, turn):
            turn.gan.generator.mapping(turn.latents, None)
            return super().value(turn)

    reference = trained(Plain).generator.mean_style.clone()
    check(PathLength)
    kills(check, Careless)


def test_lengths_become_equal_in_training() -> None:
    """With nothing but the penalty, the spread of the lengths shrinks while their mean stays about where it was."""
    gans = [trained(adversarial_weight=0.0, steps=k, penalty={"every": 1, "weight": 20.0}) for k in (1, 150)]
    spreads = []
    for gan in gans:
        torch.manual_seed(0)
        lengths = PathLength(fraction=1.0).lengths(Turn(gan, "generator", 0, 0.0, latents=torch.randn(4000, 4)))
        spreads.append((lengths.std().item(), lengths.mean().item()))
    assert spreads[1][0] < 0.8 * spreads[0][0]
    assert 0.3 < spreads[1][1] / spreads[0][1] < 1.5


@pytest.mark.parametrize("layers", [0, 2])
def test_full_precision_under_autocast(layers) -> None:
    values = []
    for enabled in (False, True):
        torch.manual_seed(0)
        penalty = at_mean(PathLength(1.0, every=1), 0.2)
        turn = turn_of(Styles(layers), 8)
        with streams.stream(5, start=0, num=8, total=8, device=CPU), torch.autocast("cpu", torch.bfloat16, enabled):
            value = penalty(turn)
        value.backward()
        values.append(flat_grad(turn.gan.generator))
    assert values[0].abs().max() > 0
    assert torch.equal(*values)


def flat_grad(module: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


@pytest.mark.parametrize("shape", [(2,), IMAGE], ids=["points", "images"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_conditional_run_and_what_is_left_of_it(shape, precision) -> None:
    """It changes the generator alone, is logged, and its state is in the state dictionary."""

    def model(penalties) -> GAN:
        torch.manual_seed(0)
        gan = GAN(Styles(2, shape, 3), MLPDiscriminator(shape, 8, 1, 3, 1, 0.0), num_classes=3, penalties=penalties)
        gan.seed = 5
        return gan

    def run(gan: GAN) -> GAN:
        loader = normal_batches(8, *shape)
        labelled = loader.make
        loader.make = lambda k: (labelled(k), torch.arange(8) % 3)
        fit(gan, loader, max_steps=4, precision=precision)
        return gan

    penalty = build(PathLength(5.0, every=3, decay=0.1, fraction=0.25).config())
    gan, plain = run(model([penalty])), run(model([]))
    assert not torch.equal(flat(gan.generator), flat(plain.generator))
    values = gan.meter.values()["penalty/path_length"]
    assert len(values) == 2 and values[0] == 0.0 < values[1]
    again = model([build(penalty.config())])
    again.load_state_dict(gan.state_dict())
    assert again.tricks[0].num_turns == 2 and torch.equal(again.tricks[0].mean, penalty.mean) and penalty.mean > 0
    assert again.tricks[0].config() == penalty.config()


def test_what_cannot_work_is_refused() -> None:
    class Normalized(Styles):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(10)

    for make in (lambda: DCGAN(8, 1, width=4, penalties=[PathLength()]), lambda: MLPGAN(penalties=[PathLength()])):
        with pytest.raises(UserError, match=r"mapping and a synthesis network, which .*Generator does not have"):
            make()
    with pytest.raises(UserError, match="batch normalization"):
        GAN(Normalized(), MLPDiscriminator(IMAGE, 8, 1, 0, 1, 0.0), penalties=[PathLength()])
    for wrong in ({"decay": 0.0}, {"decay": 2.0}, {"fraction": 0.0}, {"fraction": 0.4}, {"fraction": 2.0}):
        with pytest.raises(UserError, match=str(next(iter(wrong.values())))):
            PathLength(**wrong)
