"""Projection: closed forms for linear generators, the paper's schedules by hand, noise maps by naive loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from ganzoo import sampling, streams
from ganzoo.analysis import noise_maps, projection, spaces
from ganzoo.analysis.distances import Pixels
from ganzoo.analysis.projection import Search, learning_rate, project, render
from ganzoo.errors import UserError
from ganzoo.gan import GAN
from ganzoo.generator import Generator
from ganzoo.latents import Normal, Uniform
from ganzoo.models import DCGAN, MLPGAN, SAGAN, SNGAN, WGANGP, BigGAN, ProgressiveGAN, StyleGAN
from tests.mutants import kills

DIM = 6
EXACT = Pixels(scales=1)


class Linear(Generator):
    """Images of 1x3x4 pixels that are Q z + c, with orthonormal columns; the label adds to the last pixel."""

    latent_dim, shape = DIM, (1, 3, 4)

    def __init__(self) -> None:
        super().__init__()
        basis = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(1)))[0]
        self.basis = nn.Parameter(basis[:, :DIM].contiguous())
        self.outside = basis[:, DIM:]  #: what it cannot make
        self.register_buffer("offset", torch.linspace(-0.5, 0.5, 12))
        self.dropout = nn.Dropout(0.5)
        self.seen: list[Tensor] = []

    def forward(self, latents, labels=None):
        self.seen.append(latents.detach().clone())
        flat = self.dropout(latents) @ self.basis.T + self.offset
        if labels is not None:
            flat = flat + torch.eye(12)[11] * 3 * labels[:, None]
        return flat.view(-1, *self.shape)


class LinearStyles(Linear):
    """The same from styles w = 2 z + 1, or the label, of which each of three layers makes two of six directions."""

    layers = 3

    def mapping(self, latents, labels):
        w = 2 * latents + (1 if labels is None else 10.0 * labels[:, None])
        return w[:, None].expand(-1, self.layers, -1)

    def synthesis(self, w):
        own = torch.stack([w[:, i // 2, i] for i in range(DIM)], dim=1)
        return super().forward(own)

    def forward(self, latents, labels=None):
        return self.synthesis(self.mapping(latents, labels))


class OneStyle(LinearStyles):
    """The same style in all layers, without a place for each."""

    def mapping(self, latents, labels):
        return super().mapping(latents, labels)[:, 0]

    def synthesis(self, w):
        return super().synthesis(w[:, None].expand(-1, self.layers, -1))


class Noisy(Generator):
    """Images of 16x16 pixels: a level that the latent says, and noise as strong."""

    latent_dim = 1

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))

    def forward(self, latents, labels=None):
        noise = streams.randn(len(latents), 1, 16, 16, purpose="map")
        other = streams.rand(len(latents), 1, purpose="no map")
        return self.one * latents[:, :, None, None] + noise + 0 * other[:, :, None, None]


def gan_of(cls=Linear, **options) -> GAN:
    return GAN(cls(), nn.Linear(12, 1), **{"ema": None, **options})


def drawn(num: int, seed: int = 7, dim: int = DIM) -> Tensor:
    return torch.randn(num, dim, generator=torch.Generator().manual_seed(seed))


def images_of(gan: GAN, latents: Tensor) -> Tensor:
    """Q z + c, computed here, and something that the generator cannot make."""
    network = gan.generator
    rest = drawn(len(latents), seed=8, dim=12 - DIM) @ network.outside.T
    return (latents @ network.basis.detach().T + network.offset + rest).view(-1, *network.shape)


def patched(target, name: str, other, function=project) -> Callable:
    def changed(*args, **options):
        with mock.patch.object(target, name, other):
            return function(*args, **options)

    return changed


# ---------------------------------------------------------------------- what is found


def check_least_squares(search: Callable) -> None:
    """The nearest image of a linear generator is that of the least-squares solution."""
    gan = gan_of()
    targets = images_of(gan, drawn(3))
    design, rest = gan.generator.basis.detach().double(), (targets.flatten(1) - gan.generator.offset).double()
    expected = torch.linalg.lstsq(design, rest.T).solution.T.float()
    found = search(gan, targets, distance=EXACT, search=Search(steps=120))
    assert torch.allclose(found.latents, expected, atol=5e-3)
    misses = (targets - found.images).square().flatten(1).mean(dim=1)
    assert torch.allclose(found.end, misses, atol=1e-6)
    assert (found.end < 0.9 * found.start).all()
    assert found.space == "z"
    assert found.labels is None


def test_the_least_squares_solution() -> None:
    check_least_squares(project)
    kills(check_least_squares, patched(projection, "learning_rate", lambda place, peak: peak * (place < 0.05)))
    kills(check_least_squares, patched(projection, "jitter", lambda place, peak: peak))
    kills(check_least_squares, lambda gan, targets, **options: project(gan, targets.flip(0), **options))
    kills(check_least_squares, patched(Normal, "plausible", lambda self, latents: latents.clamp(-1, 1)))


def test_an_image_of_the_generator_is_found_again() -> None:
    gan = gan_of()
    made = gan.sample(2, seed=9)
    found = project(gan, made, search=Search(steps=200))
    assert (found.end < 1e-6).all()
    assert torch.allclose(found.latents, gan.latents.numbered(range(2), DIM, 9), atol=2e-3)


def check_prior(search: Callable) -> None:
    """Orthonormal columns: the nearest allowed latent is the allowed one that is nearest to the free optimum."""
    options = {"distance": EXACT, "search": Search(steps=160)}
    far = torch.tensor([[0.3, -0.2, 1.7, 0.5, -3.0, 0.0]])
    gan = gan_of(latents=Uniform())
    found = search(gan, images_of(gan, far), **options)
    assert torch.allclose(found.latents, far.clamp(-1, 1), atol=5e-3)
    gan, direction = gan_of(), nn.functional.normalize(far)
    usual, deviation = math.sqrt(DIM - 0.5), math.sqrt(0.5)
    for length, nearest in ((9.0, usual + 3 * deviation), (0.01, usual - 3 * deviation), (2.0, 2.0)):
        found = search(gan, images_of(gan, length * direction), **options)
        assert torch.allclose(found.latents, nearest * direction, atol=2e-2)


def test_latents_stay_where_their_distribution_has_some() -> None:
    check_prior(project)
    kills(check_prior, patched(spaces.Space, "plausible", lambda self, points: points))
    kills(check_prior, patched(spaces.Space, "inward", lambda self, points, gradient: gradient))
    kills(check_prior, patched(Normal, "plausible", lambda self, latents: latents / latents.norm() * math.sqrt(DIM)))


def test_lengths_of_draws_are_plausible() -> None:
    """99.7 % of normal draws are left as they are, in any dimension; the rest keeps its direction."""
    for dim in (1, 2, 64, 512):
        latents = drawn(5_000, dim=dim)
        kept = Normal().plausible(latents)
        assert (kept - latents).norm(dim=1).lt(1e-4).float().mean() > 0.99
        assert torch.allclose(nn.functional.normalize(10 * latents), nn.functional.normalize(kept), atol=1e-5)
    assert Normal().plausible(torch.zeros(1, 9)).equal(torch.zeros(1, 9))
    assert Normal().plausible(torch.full((1, 9), 50.0)).norm().item() == pytest.approx(math.sqrt(8.5) + 3 * 0.5**0.5)


def test_one_style_or_one_for_each_layer() -> None:
    """W is searched by default; in W+ layer i finds its own two directions, and the others stay at the mean."""
    gan, wanted = gan_of(LinearStyles), 2 * drawn(2)
    targets = images_of(gan, wanted)
    options = {"distance": EXACT, "search": Search(steps=160)}
    found = project(gan, targets, **options)
    assert found.space == "w"
    assert torch.allclose(found.latents, wanted, atol=2e-2)
    each = project(gan, targets, space="w+", **options)
    assert each.latents.shape == (2, 3, DIM)
    for i in range(DIM):
        assert torch.allclose(each.latents[:, i // 2, i], wanted[:, i], atol=2e-2)
    others = torch.ones(3, DIM, dtype=torch.bool)
    others[[0, 0, 1, 1, 2, 2], range(DIM)] = False
    assert (each.latents[:, others] - 1).abs().max() < 0.1  # the mean of 10,000 styles 2 z + 1
    latent = project(gan, targets, space="z", **options)
    assert latent.space == "z"
    assert torch.allclose(2 * latent.latents + 1, wanted, atol=2e-2)
    single = project(gan_of(OneStyle), targets, **options)
    assert torch.allclose(single.latents, wanted, atol=2e-2)


# ---------------------------------------------------------------------- where it begins


def check_beginning_of_styles(search: Callable) -> None:
    """The mean style of 10,000 latents: of the given label, or of all; the first step has no learning rate."""
    targets = torch.zeros(3, 1, 3, 4)
    gan = gan_of(LinearStyles, num_classes=3)
    still = {"search": Search(steps=1)}
    for labels, means in (([2, 0, 1], [20.0, 0.0, 10.0]), (None, [10.0] * 3)):
        found = search(gan, targets, labels=labels, **still)
        error = 5 * math.sqrt((4 + (0 if labels else 100 * 2 / 3)) / 10_000)
        assert torch.allclose(found.latents, torch.tensor(means)[:, None].expand(3, DIM), atol=error)
        assert (found.labels is None) == (labels is None)
    free = search(gan_of(LinearStyles), targets, **still)
    assert torch.allclose(free.latents, torch.ones(3, DIM), atol=0.1)


def test_styles_begin_with_their_mean() -> None:
    check_beginning_of_styles(project)
    kills(check_beginning_of_styles, patched(spaces, "MEAN_OF", 4))
    kills(check_beginning_of_styles, lambda *args, labels=None, **options: project(*args, **options))


def check_beginning_of_latents(search: Callable) -> None:
    """The nearest of 64 latents, with its label; or of those with the given label."""
    gan = gan_of(num_classes=3)
    targets, still = images_of(gan, drawn(4)) + 4 * torch.eye(12)[11].view(1, 3, 4), Search(steps=1, candidates=64)
    candidates = gan.latents.numbered(range(64), DIM, 5)
    own = sampling.choose_labels(3, 64, seed=5, labels=None, first=0)
    network = gan.generator.eval()
    for labels in (None, [2, 1, 0, 1]):
        found = search(gan, targets, labels=labels, distance=EXACT, search=still, seed=5)
        for i in range(4):
            classes = own if labels is None else torch.full((64,), labels[i])
            misses = (network(candidates, classes) - targets[i]).square().sum(dim=(1, 2, 3))
            assert torch.equal(found.latents[i], candidates[misses.argmin()])
            assert found.labels[i] == classes[misses.argmin()]
            assert found.start[i].item() == pytest.approx(misses.min().item() / 12, rel=1e-4)


def test_latents_begin_with_the_nearest_candidate() -> None:
    check_beginning_of_latents(project)
    kills(check_beginning_of_latents, patched(Tensor, "argmin", Tensor.argmax))
    kills(check_beginning_of_latents, lambda *args, labels, **options: project(*args, **options))


def test_the_spread_of_points() -> None:
    """The root mean square of |z| is sqrt(d), that of w = 2 z + 1 about its mean twice that, for one label or many."""
    targets = torch.zeros(2, 1, 3, 4)
    for cls, factor in ((Linear, 1), (LinearStyles, 2)):
        gan = gan_of(cls)
        space = spaces.space_of(gan, gan.generator, None, seed=0, candidates=2000)
        spread = space.start(targets, None, EXACT).spread
        assert torch.allclose(spread, torch.full((2,), factor * math.sqrt(DIM)), rtol=0.03)


# ---------------------------------------------------------------------- schedules


def check_learning_rate(rate: Callable[[float, float], float]) -> None:
    """Appendix D: 0.1 at most, up on a line in 50 of 1000 steps, down by a cosine in the last 250."""
    by_hand = {0: 0.0, 10: 0.02, 25: 0.05, 50: 0.1, 500: 0.1, 750: 0.1, 875: 0.05, 1000: 0.0}
    by_hand[750 + 250 / 3] = 0.075  # cos(60 degrees) = 1/2
    for step, expected in by_hand.items():
        assert rate(step / 1000, 0.1) == pytest.approx(expected, abs=1e-12)


def test_the_learning_rate() -> None:
    check_learning_rate(learning_rate)
    kills(check_learning_rate, lambda place, peak: peak * min(1, place / 0.05, (1 - place) / 0.25))
    kills(check_learning_rate, lambda place, peak: learning_rate(place, peak) if place > 0.05 else peak)
    kills(check_learning_rate, lambda place, peak: learning_rate(place, 1.0))


def check_jitter(deviation: Callable[[float, float], float]) -> None:
    """0.05 t^2, with t from one to zero in the first three quarters."""
    by_hand = {0: 0.05, 375: 0.0125, 675: 0.0005, 750: 0.0, 999: 0.0}
    for step, expected in by_hand.items():
        assert deviation(step / 1000, 0.05) == pytest.approx(expected, abs=1e-12)


def test_the_jitter() -> None:
    check_jitter(projection.jitter)
    kills(check_jitter, lambda place, peak: peak * max(0, 1 - place / 0.75))
    kills(check_jitter, lambda place, peak: peak * (1 - place) ** 2)


def check_points(search: Callable) -> None:
    """What the generator sees: points that do not move, and noise of that deviation times their spread, until 75 %."""
    gan = gan_of(Linear)
    found = search(gan, torch.zeros(300, 1, 3, 4), search=Search(steps=8, lr=0.0, candidates=16), batch_size=300)
    seen = torch.stack([one for one in gan.generator.seen if len(one) == 300][1:])  # without the beginning
    noise = seen - found.latents
    own = gan.latents.numbered(range(16), DIM, 0)
    spread = (own - own.mean(dim=0)).square().sum(dim=1).mean().sqrt().item()
    for step in range(8):
        expected = 0.05 * spread * max(0.0, 1 - step / 6) ** 2
        assert noise[step].std().item() == pytest.approx(expected, rel=0.1, abs=1e-7)
        assert abs(noise[step].mean().item()) <= expected / 8
    assert torch.equal(seen[6], seen[7])
    assert torch.nn.functional.cosine_similarity(noise[0].flatten(), noise[1].flatten(), dim=0).abs() < 0.15


def test_noise_on_points_decays_to_zero() -> None:
    check_points(project)
    kills(check_points, patched(projection, "jitter", lambda place, peak: 0.0))
    kills(check_points, patched(projection, "jitter", lambda place, peak: peak * (1 - place) ** 2))
    once = streams.randn

    def the_same(*shape, purpose, device=None):
        return drawn(shape[0]) if purpose == "jitter" else once(*shape, purpose=purpose, device=device)

    kills(check_points, patched(streams, "randn", the_same))


# ---------------------------------------------------------------------- noise maps


def naive(noise: Tensor) -> Tensor:
    """Appendix D, pixel by pixel, in float64."""
    totals = []
    for maps in noise.double():
        total = 0.0
        for level in maps:
            n = level
            while True:
                rows, columns = n.shape
                for dy, dx in ((0, 1), (1, 0)):
                    products = [
                        n[y, x] * n[(y - dy) % rows, (x - dx) % columns] for y in range(rows) for x in range(columns)
                    ]
                    total += (sum(products) / (rows * columns)) ** 2
                if min(rows, columns) // 2 < 8 or rows % 2 or columns % 2:
                    break
                corners = (n[i::2, j::2] for i in (0, 1) for j in (0, 1))
                n = sum(corners) / 4 * 2
        totals.append(total)
    return torch.stack(totals)


def check_autocorrelation(function: Callable[[Tensor], Tensor]) -> None:
    """The naive loop on maps of many shapes; constants and a chessboard by hand; white noise keeps its variance."""
    for shape in ((2, 1, 16, 32), (3, 2, 8, 8), (1, 1, 4, 4), (1, 1, 20, 18), (1, 1, 32, 34)):
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(2)) + 0.3
        assert torch.allclose(function(noise).double(), naive(noise), rtol=1e-4, atol=1e-9)
    one = torch.ones(1, 1, 8, 8)
    assert function(one).item() == 2
    assert function(3 * one).item() == 2 * 3**4
    assert function(torch.ones(1, 1, 16, 16)).item() == 2 + 2 * 2**4
    chessboard = (-1.0) ** (torch.arange(16)[:, None] + torch.arange(16))
    assert function(chessboard[None, None]).item() == 2  # and zero where it is averaged
    columns = ((-1.0) ** torch.arange(8)).expand(1, 1, 8, 8)
    assert function(columns).item() == 2  # -1 along the rows, 1 across
    assert function(torch.randn(64, 1, 64, 64)).mean() < 0.1


def test_the_autocorrelation() -> None:
    check_autocorrelation(noise_maps.autocorrelation)
    right, pool = noise_maps.autocorrelation, torch.nn.functional.avg_pool2d
    kills(check_autocorrelation, lambda noise: right(noise) / noise.shape[1])
    kills(check_autocorrelation, lambda noise: naive(noise[:, :, :8, :8]).float())
    kills(check_autocorrelation, patched(noise_maps.F, "avg_pool2d", lambda x, k: pool(x, k) / 2, right))
    kills(check_autocorrelation, patched(noise_maps.F, "avg_pool2d", lambda x, k: x[:, :, ::2, ::2] / 2, right))
    kills(check_autocorrelation, patched(Tensor, "square", Tensor.abs, right))
    kills(check_autocorrelation, patched(Tensor, "roll", lambda x, by, side: torch.cat([0 * x, x], side)[
        tuple(slice(x.shape[d] - 1, -1) if d == side else slice(None) for d in range(4))], right))  # fmt: skip


def check_normalize(function: Callable[[Tensor], object]) -> None:
    """Each map for itself: zero mean, unit variance, the same up to an affine map; a constant becomes zero."""
    maps = torch.randn(2, 3, 6, 9) * torch.tensor([1.0, 5.0, 0.01])[None, :, None, None] + 2
    maps[1, 2] = 0.7
    before = maps.clone()
    function(maps)
    rest = maps.flatten(0, 1)[:5].flatten(1)
    assert torch.allclose(rest.mean(dim=1), torch.zeros(5), atol=1e-4)
    assert torch.allclose(rest.var(dim=1, correction=0), torch.ones(5), rtol=1e-2)
    assert torch.allclose(
        rest, torch.nn.functional.layer_norm(before.flatten(0, 1)[:5].flatten(1), (54,), eps=0), atol=1e-3
    )
    assert maps[1, 2].abs().max() < 0.1


def test_the_normalization() -> None:
    check_normalize(noise_maps.normalize_)
    kills(check_normalize, lambda maps: maps.sub_(maps.mean()).div_(maps.std()))
    kills(check_normalize, lambda maps: maps.div_(maps.std(dim=(2, 3), keepdim=True)))


def check_noise(search: Callable) -> None:
    """With the regularization noise stays white and takes no picture; the level comes from the latent."""
    gan = GAN(Noisy(), nn.Linear(1, 1), ema=None)
    edge = torch.ones(1, 1, 16, 16)
    edge[..., :8] = -1
    found = search(gan, 1.2 + edge, search=Search(steps=120, candidates=8), seed=3)
    assert set(found.noise) == {"map", "no map"}
    maps = found.noise["map"]
    assert maps.shape == (1, 1, 16, 16)
    assert abs(maps.mean().item()) < 1e-5
    assert maps.square().mean().item() == pytest.approx(1, abs=1e-4)
    assert noise_maps.autocorrelation(maps).item() < 1e-3
    assert found.latents.item() == pytest.approx(1.2, abs=0.15)
    with streams.numbered([0], 3, "projection", device=torch.device("cpu")):
        first = streams.randn(1, 1, 16, 16, purpose="map")
        assert torch.equal(found.noise["no map"], streams.rand(1, 1, purpose="no map"))
    assert not torch.allclose(maps, first, atol=0.1)
    still = search(gan, 1.2 + edge, search=Search(steps=5, move_noise=False), seed=3)
    assert torch.equal(still.noise["map"], first)


def test_noise_maps_stay_noise() -> None:
    check_noise(project)
    zero = patched(projection, "autocorrelation", lambda noise: torch.zeros(len(noise)))
    kills(check_noise, zero)  # then the picture is in the map: a constant half is as far from white as can be
    kills(check_noise, patched(projection, "normalize_", lambda noise: None))
    kills(check_noise, patched(projection, "is_map", lambda noise: False))
    found = zero(GAN(Noisy(), nn.Linear(1, 1), ema=None), torch.ones(1, 1, 16, 16).triu(), search=Search(steps=100))
    assert noise_maps.autocorrelation(found.noise["map"]).item() > 0.1


# ---------------------------------------------------------------------- what stays as it is


def check_independence(search: Callable) -> None:
    """Image i depends on (seed, i): not on the others, nor on how many are searched at a time."""
    gan = gan_of(LinearStyles)
    targets, few = images_of(gan, 2 * drawn(5)), Search(steps=20)
    whole = search(gan, targets, search=few, batch_size=5)
    again = search(gan, targets, search=few, batch_size=5)
    for a, b in zip(whole, again, strict=True):
        assert a == b if not isinstance(a, Tensor) else torch.equal(a, b)
    pieces = search(gan, targets, search=few, batch_size=2)
    assert torch.allclose(whole.latents, pieces.latents, atol=1e-4)
    assert not torch.allclose(whole.latents, search(gan, targets, search=few, seed=1).latents, atol=1e-3)


def test_the_same_seed_finds_the_same() -> None:
    check_independence(project)
    keyed = streams.numbered

    def by_place(numbers, *parts, device):
        return keyed(range(len(numbers)), *parts, device=device)

    kills(check_independence, patched(streams, "numbered", by_place))


def tiny(size=16, channels: int = 3, **options) -> StyleGAN:
    torch.manual_seed(3)
    small = {"channel_base": 128, "latent_dim": 6, "style_dim": 8, "mapping_layers": 2, "label_layers": 2}
    gan = StyleGAN(size, channels, **{**small, **options})
    for name, value in gan.generator_ema.named_parameters():
        if name.endswith("strength"):
            value.data.fill_(0.02)
    return gan


NARROW = {"generator_width": 4, "generator_max_width": 8, "discriminator_width": 4, "discriminator_max_width": 8}
MODELS = {
    "DCGAN": partial(DCGAN, 8, 1, width=4, latent_dim=6, num_classes=3),
    "MLPGAN": partial(MLPGAN, shape=(1, 4, 6), latent_dim=6, hidden=8),
    "ProgressiveGAN": partial(ProgressiveGAN, 16, 2, growth=None, latent_dim=6, channel_base=64, channel_max=12),
    "StyleGAN": partial(tiny, 8),
    "conditional RGBA": partial(tiny, (8, 16), 4, num_classes=3),
}
LARGER = {
    "WGANGP": partial(WGANGP, 32, latent_dim=6, **NARROW),
    "SNGAN": partial(SNGAN, 32, num_classes=3, latent_dim=6, **NARROW),
    "SAGAN": partial(SAGAN, 32, num_classes=3, latent_dim=6, **NARROW),
    "BigGAN": partial(BigGAN, 32, num_classes=3, **NARROW),
}
SLOW = [pytest.param(make, marks=pytest.mark.slow) for make in LARGER.values()]


@pytest.mark.parametrize("make", [*MODELS.values(), *SLOW], ids=[*MODELS, *LARGER])
def test_samples_of_every_model_are_approached_and_nothing_is_touched(make: Callable[[], GAN]) -> None:
    """Gray to RGBA, square or not: near to nothing is left, and weights, buffers, gradients and modes are as before."""
    gan = make()
    gan.train()
    made = gan.sample(2, seed=4)
    labels = sampling.choose_labels(gan.num_classes, 2, seed=4, labels=None, first=0)
    state = {key: value.clone() for key, value in gan.state_dict().items()}
    flags = [(p.requires_grad, p.grad) for p in gan.parameters()]
    modes, random = [module.training for module in gan.modules()], torch.get_rng_state()
    given = None if labels is None else labels.tolist()
    search = Search(steps=80, candidates=128, jitter=0.01)
    with torch.no_grad():
        found = project(gan, made, labels=given, search=search, seed=1)
    assert (found.end < 0.2 * found.start).all()
    assert found.images.shape == made.shape
    assert torch.equal(found.end, Pixels()(made)(found.images))
    assert found.space == ("w" if isinstance(gan, StyleGAN) else "z")
    assert torch.equal(render(gan, found, batch_size=2), found.images)
    assert all(torch.equal(value, state[key]) for key, value in gan.state_dict().items())
    assert flags == [(p.requires_grad, p.grad) for p in gan.parameters()]
    assert modes == [module.training for module in gan.modules()]
    assert torch.equal(random, torch.get_rng_state())


def test_a_file_holds_what_was_found(tmp_path) -> None:
    gan = tiny()
    found = project(gan, gan.sample(3, seed=4), search=Search(steps=2), batch_size=2)
    projection.save(found, tmp_path / "found.pt")
    again = projection.load(tmp_path / "found.pt")
    assert torch.allclose(render(gan, again), found.images, atol=1e-6)
    assert {name: value.shape for name, value in again.noise.items()} == {
        name: value.shape for name, value in found.noise.items()
    }
    other = again._replace(latents=again.latents.flip(0), noise={k: v.flip(0) for k, v in again.noise.items()})
    assert torch.allclose(render(gan, other), found.images.flip(0), atol=1e-5)


def test_the_average_is_used_where_there_is_one() -> None:
    gan = GAN(Linear(), nn.Linear(12, 1))
    gan.generator_ema.basis.data.zero_()
    target, few = torch.zeros(1, 1, 3, 4), Search(steps=3)
    averaged = project(gan, target, search=few, distance=EXACT)
    raw = project(gan, target, search=few, distance=EXACT, averaged=False)
    assert averaged.averaged
    assert not raw.averaged
    assert averaged.end.item() == pytest.approx(gan.generator.offset.square().mean().item(), rel=1e-5)
    assert raw.end.item() != pytest.approx(averaged.end.item(), rel=0.01)
    assert torch.equal(render(gan, averaged), averaged.images)
    assert torch.equal(render(gan, raw), raw.images)


def test_how_far_it_is() -> None:
    lines: list[str] = []
    project(gan_of(), torch.zeros(3, 1, 3, 4), search=Search(steps=11), batch_size=2, report=lines.append)
    assert [line.partition(", distance ")[0] for line in lines] == [
        f"image {images} of 3: step {step} of 11" for images in ("1 to 2", "3 to 3") for step in (0, 10)
    ]


def _broken() -> GAN:
    gan = gan_of()
    gan.generator.basis.data.fill_(math.nan)
    return gan


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (
            lambda: project(gan_of(), torch.zeros(2, 1, 4, 3)),
            r"\(2, 1, 4, 3\) .* takes 1 or more of \(1, 3, 4\): resize",
        ),
        (lambda: project(gan_of(), torch.zeros(0, 1, 3, 4)), "1 or more of"),
        (lambda: project(gan_of(), torch.zeros(1, 3, 4)), "resize"),
        (lambda: project(gan_of(), torch.zeros(1, 1, 3, 4), batch_size=0), "in batches of 0"),
        (lambda: project(MLPGAN(), torch.zeros(1, 1, 3, 4)), r"makes points of shape \(2,\).*give a model of images"),
        (lambda: project(gan_of(), torch.zeros(1, 1, 3, 4), space="w"), "space w .* GAN has no styles: search z"),
        (lambda: project(gan_of(OneStyle), torch.zeros(1, 1, 3, 4), space="w+"), "none that differ .* the space w"),
        (lambda: project(gan_of(), torch.zeros(1, 1, 3, 4), labels=[0]), "this model is unconditional"),
        (lambda: project(gan_of(num_classes=2), torch.zeros(1, 1, 3, 4), labels=[2]), "each one from 0 to 1"),
        (lambda: project(_broken(), torch.zeros(1, 1, 3, 4)), "not finite: the model's weights are damaged"),
        (lambda: Search(steps=0), "given steps 0, which must be 1 or more"),
        (lambda: Search(lr=math.nan), "given lr nan"),
        (lambda: Search(candidates=0), "given candidates 0"),
        (lambda: projection.load("nowhere.pt"), "nowhere.pt is no projection that can be read"),
    ],
)
def test_what_has_no_meaning_is_refused(act, words) -> None:
    with pytest.raises(UserError, match=words):
        act()
