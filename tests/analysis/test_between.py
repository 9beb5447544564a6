"""Images between samples: where they are made from, by closed forms, and that they share their noise."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from unittest import mock

import pytest
import torch
from torch import nn

from ganzoo import sampling, streams
from ganzoo.analysis import between
from ganzoo.analysis.between import Options, interpolate, mix
from ganzoo.errors import UserError
from ganzoo.gan import GAN, Generator
from ganzoo.latents import Normal, Uniform
from tests.mutants import kills


class Plain(Generator):
    """Its points are its latents, moved by the label."""

    latent_dim = 5

    def __init__(self) -> None:
        super().__init__()
        self.zero = nn.Parameter(torch.zeros(()))
        self.dropout = nn.Dropout(0.5)

    def forward(self, latents, labels=None):
        shift = 0 if labels is None else 100.0 * labels[:, None]
        return self.dropout(latents) + shift + self.zero


class Styles(Generator):
    """Four layers with a style of two numbers each, which are the four rows of the image, and noise in each pixel."""

    latent_dim, num_layers = 3, 4
    mean = 7.0

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def mapping(self, latents, labels):
        style = self.scale * latents[:, :2] + (0 if labels is None else 100.0 * labels[:, None])
        return style[:, None].expand(-1, self.num_layers, -1)

    def synthesis(self, w):
        return w[:, None] + streams.randn(len(w), 1, self.num_layers, 2, purpose="noise", device=w.device)

    def forward(self, latents, labels=None):
        return self.synthesis(self.mapping(latents, labels))

    def truncate(self, w, psi, cutoff=None):
        end = self.num_layers if cutoff is None else cutoff
        return torch.cat([self.mean + psi * (w[:, :end] - self.mean), w[:, end:]], dim=1)


class OneStyle(Styles):
    """The same style in all layers, without a place for each."""

    def mapping(self, latents, labels):
        return super().mapping(latents, labels)[:, 0]

    def synthesis(self, w):
        return super().synthesis(w[:, None].expand(-1, self.num_layers, -1))


def plain(**options) -> GAN:
    return GAN(Plain(), nn.Linear(5, 1), ema=None, **options)


def styled(cls=Styles, **options) -> GAN:
    return GAN(cls(), nn.Linear(8, 1), ema=None, **options)


def latents(gan: GAN, num: int, seed: int) -> torch.Tensor:
    return gan.latents.numbered(range(num), gan.generator.latent_dim, seed)


def great_circle(a: torch.Tensor, b: torch.Tensor, t: float) -> torch.Tensor:
    """Shoemake's formula for directions, in float64; the length is between the lengths."""
    a, b = a.double(), b.double()
    one, two = a / a.norm(), b / b.norm()
    angle = torch.acos(one @ two)
    direction = (torch.sin((1 - t) * angle) * one + torch.sin(t * angle) * two) / torch.sin(angle)
    return direction * ((1 - t) * a.norm() + t * b.norm())


def check_latents(make: Callable[..., torch.Tensor]) -> None:
    """Great circles between normal latents, lines between uniform ones; ends included, at even distances."""
    for law, way in ((Normal(), great_circle), (Uniform(), torch.lerp)):
        gan = plain(latents=law)
        z = latents(gan, 3, 4)
        ways = make(gan, 3, 3, Options(seed=4))
        assert ways.shape == (2, 5, 5)
        for i in range(2):
            for k in range(5):
                expected = way(z[i], z[i + 1], k / 4)
                assert torch.allclose(ways[i, k].double(), expected.double(), atol=1e-5)


def check_styles(make: Callable[..., torch.Tensor]) -> None:
    """Lines between styles, each with the label of its own sample, and the noise of sample 0 in all images."""
    gan = styled(num_classes=3)
    z = latents(gan, 3, 4)
    w = 2.0 * z[:, :2] + 100.0 * torch.tensor([[2.0], [0.0], [2.0]])
    noise = gan.sample(1, seed=4, labels=[2])[0, 0] - w[0]
    ways = make(gan, 3, 4, Options(seed=4, labels=[2, 0]), closed=True)
    assert ways.shape == (3, 6, 1, 4, 2)
    for i in range(3):
        for k in range(6):
            expected = torch.lerp(w[i], w[(i + 1) % 3], k / 5) + noise
            assert torch.allclose(ways[i, k, 0], expected.expand(4, 2), atol=1e-4)


def patched(target, name: str, other, function=interpolate) -> Callable[..., torch.Tensor]:
    def made(*args, **options):
        with mock.patch.object(target, name, other):
            return function(*args, **options)

    return made


def lines(self, start, end, place):
    return torch.lerp(start, end, place.view(-1, *[1] * (start.dim() - 1)))


def without_ends(self, start, end, place):
    place = torch.linspace(0, 1, len(place) + 2)[1:-1]
    return lines(self, start, end, place)


KEYED = streams.numbered


def noise_of_each(numbers, *parts, device):
    return KEYED(range(len(numbers)), *parts, device=device)


def test_ways_between_latents() -> None:
    check_latents(interpolate)
    kills(check_latents, patched(between._Space, "between", lines))
    kills(check_latents, patched(between, "slerp", lambda a, b, t: torch.nn.functional.normalize(torch.lerp(a, b, t))))


def test_ways_between_styles() -> None:
    check_styles(interpolate)
    kills(check_styles, patched(streams, "numbered", noise_of_each))
    kills(check_styles, patched(between._Space, "between", without_ends))
    kills(check_styles, lambda *args, closed: interpolate(*args, closed=False))


def check_mixed(make: Callable[..., tuple[torch.Tensor, ...]]) -> None:
    """Row i has in its first layers the styles of sample i, column j in the others those of sample num + j."""
    gan = styled()
    w = 2.0 * latents(gan, 6, 1)[:, :2]
    noise = gan.sample(1, seed=1)[0, 0] - w[0]
    mixed, coarse, fine = make(gan, 3, 1, Options(seed=1))
    assert mixed.shape == (3, 3, 1, 4, 2)
    for i in range(3):
        for j in range(3):
            expected = torch.stack([w[i], w[3 + j], w[3 + j], w[3 + j]]) + noise
            assert torch.allclose(mixed[i, j, 0], expected, atol=1e-5)
        assert torch.allclose(coarse[i, 0], w[i].expand(4, 2) + noise, atol=1e-5)
        assert torch.allclose(fine[i, 0], w[3 + i].expand(4, 2) + noise, atol=1e-5)


def test_mixed_styles() -> None:
    check_mixed(mix)
    kills(check_mixed, lambda *args: (mix(*args)[0].transpose(0, 1), *mix(*args)[1:]))
    kills(check_mixed, lambda gan, num, layers, options: mix(gan, num, layers + 1, options))
    kills(check_mixed, lambda *args: (mix(*args)[0], mix(*args)[2], mix(*args)[1]))
    kills(check_mixed, patched(streams, "numbered", noise_of_each, mix))


@pytest.mark.parametrize("make", [plain, styled])
def test_the_batch_size_does_not_matter_and_nothing_moves(make) -> None:
    gan = make().train()
    state = torch.get_rng_state()
    whole = interpolate(gan, 3, 5, Options(batch_size=64))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in gan.generator.modules())
    assert torch.allclose(interpolate(gan, 3, 5, Options(batch_size=4)), whole, atol=1e-6)


def test_truncated_ways() -> None:
    """At psi 0 all is the mean; below it, the line between the truncated ends; latents have their threshold."""
    gan = styled()
    cut = partial(Options, 4)
    middle = interpolate(gan, 2, 3, cut(truncation=sampling.Truncation(0.0)))
    noise = gan.sample(1, seed=4)[0, 0] - 2.0 * latents(gan, 1, 4)[:, :2]
    assert torch.allclose(middle[0, :, 0], (7.0 + noise).expand(5, 4, 2), atol=1e-4)
    part = interpolate(gan, 2, 1, cut(truncation=sampling.Truncation(0.25, 3)))
    w = 2.0 * latents(gan, 2, 4)[:, :2].mean(dim=0)
    expected = torch.stack([7.0 + 0.25 * (w - 7.0)] * 3 + [w]) + noise
    assert torch.allclose(part[0, 1, 0], expected, atol=1e-4)
    ends = interpolate(plain(), 2, 1, Options(truncation=sampling.Truncation(0.3)))
    assert ends[0, [0, 2]].abs().max() <= 0.3


def test_the_average_is_used_where_there_is_one() -> None:
    gan = GAN(Styles(), nn.Linear(8, 1))
    gan.generator_ema.scale.data.fill_(0.0)
    assert interpolate(gan, 2, 1, Options()).std(dim=1).max() < 1e-6
    assert interpolate(gan, 2, 1, Options(averaged=False)).std(dim=1).max() > 0.01


def test_without_styles_all_samples_have_one_class() -> None:
    gan = plain(num_classes=3)
    own = sampling.choose_labels(3, 1, seed=2, labels=None, first=0).item()
    z = latents(gan, 2, 2)
    ways = interpolate(gan, 2, 1, Options(seed=2))
    assert torch.allclose(ways[0, [0, 2]], z + 100.0 * own, atol=1e-4)
    given = interpolate(gan, 2, 1, Options(seed=2, labels=[1]))
    assert torch.allclose(given[0, [0, 2]], z + 100.0, atol=1e-4)


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: interpolate(plain(), 1, 3, Options()), "give 1 and 2 or more"),
        (lambda: interpolate(plain(), 2, 0, Options()), "give 1 and 2 or more"),
        (
            lambda: interpolate(plain(num_classes=3), 2, 1, Options(labels=[0, 1])),
            "no space of styles .* one label",
        ),
        (lambda: interpolate(plain(), 2, 1, Options(truncation=sampling.Truncation(0.5, 2))), "leave the cutoff out"),
        (lambda: interpolate(plain(), 2, 1, Options(batch_size=0)), "a batch has 1 or more"),
        (lambda: mix(plain(), 2, 1, Options()), "has none that differ between layers"),
        (lambda: mix(styled(OneStyle), 2, 1, Options()), "has none that differ between layers"),
        (lambda: mix(styled(), 2, 4, Options()), "first 4 layers, but GAN has 4: give 1 to 3"),
        (lambda: mix(styled(), 0, 1, Options()), "0 sources"),
    ],
)
def test_what_has_no_meaning_is_refused(act, words) -> None:
    with pytest.raises(UserError, match=words):
        act()
