"""The sliced Wasserstein distance of patches: a naive reference in numpy, what each level sees, invariances."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve1d
from scipy.stats import wasserstein_distance
from torch import Tensor

from ganzoo.errors import UserError
from ganzoo.metrics import sliced
from ganzoo.metrics.sliced import Patches, pyramid, sliced_distance
from ganzoo.streams import generator, key
from tests.mutants import kills

Levels = Callable[[Tensor], list[Tensor]]


def images(num: int = 12, side: int = 32, *, seed: int = 0, channels: int = 3) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (num, channels, side, side), generator=draw, dtype=torch.uint8)


def patches(x: Tensor, **options: int) -> Patches:
    found = Patches(**options)
    found.update(x)
    return found


# The pyramid


def smoothed(x: np.ndarray) -> np.ndarray:
    """Burt and Adelson 1983, with a = 3/8; scipy's "mirror" is the reflection that does not repeat the edge."""
    for axis in (2, 3):
        x = convolve1d(x, np.array([1, 4, 6, 4, 1]) / 16, axis=axis, mode="mirror")
    return x


def is_laplacian(levels: Levels) -> None:
    """Each level is what blurring and halving lost; the last is the small image; sums give the image back."""
    x = images(2, 64).double()
    found, expected, small = levels(x), [], x.numpy()
    for _ in range(2):
        finer, small = small, smoothed(small)[..., ::2, ::2]
        up = np.zeros_like(finer)
        up[..., ::2, ::2] = 4 * small
        expected.append(finer - smoothed(up))
    expected.append(small)
    assert [level.shape[-1] for level in found] == [64, 32, 16]
    for level, known in zip(found, expected, strict=True):
        assert np.abs(level.numpy() - known).max() < 1e-10


def test_pyramid() -> None:
    is_laplacian(pyramid)


@pytest.mark.parametrize(
    "mutant",
    [
        lambda x: [x, x[..., ::2, ::2], x[..., ::4, ::4]],
        lambda x: [*pyramid(x)[:2], pyramid(x)[2] - pyramid(x)[2].mean()],
        lambda x: [x - torch.nn.functional.interpolate(x[..., ::2, ::2], scale_factor=2), *pyramid(x)[1:]],
        lambda x: [level.flip(3) for level in pyramid(x.flip(3))],  # halves another grid
    ],
)
def test_wrong_pyramids(mutant: Levels) -> None:
    kills(is_laplacian, mutant)


def test_levels_of_other_sizes() -> None:
    """Halved while 16 pixels or more are left and the number is even."""
    for side, expected in ((128, [128, 64, 32, 16]), (48, [48, 24]), (32, [32, 16]), (28, [28]), (8, [8]), (33, [33])):
        assert [level.shape[-1] for level in pyramid(torch.zeros(1, 1, side, side))] == expected
    assert [tuple(level.shape[-2:]) for level in pyramid(torch.zeros(1, 1, 64, 32))] == [(64, 32), (32, 16)]
    assert all(level.abs().max() < 1e-4 for level in pyramid(torch.full((1, 3, 64, 64), 200.0))[:-1])


# Patches


def test_patches_are_cut_out_of_the_levels() -> None:
    """Each is found somewhere in its own image, channels apart; places cover the level evenly."""
    x = images(3, 16, channels=2)
    found = patches(x, per_image=50).levels()[16].view(3, 50, 2, 7, 7)
    places = [[(i, j) for i, j in itertools.product(range(10), repeat=2)] for _ in range(3)]
    for image, cuts in enumerate(found):
        known = torch.stack([x[image, :, i : i + 7, j : j + 7].float() for i, j in places[image]])
        matches = (cuts[:, None] - known).abs().flatten(2).amax(2) == 0
        assert (matches.sum(1) == 1).all()
    many = torch.zeros(10, 10)
    ramp = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)  # the first pixel of a patch tells its place
    corners = patches(ramp, per_image=20_000).levels()[16][:, 0, 0].long()
    for corner, count in zip(*corners.unique(return_counts=True), strict=True):
        many[corner // 16, corner % 16] = count
    assert ((many - 200) ** 2 / 200).sum() < 99 + 6 * (2 * 99) ** 0.5  # chi-square


def test_batches_do_not_matter() -> None:
    x = images()
    whole, parts, ranks = patches(x, seed=3), Patches(seed=3), Patches(seed=3)
    for part in torch.split(x, 5):
        parts.update(part)
    for own in (torch.arange(0, 12, 2), torch.arange(1, 12, 2)):
        ranks.update(x[own], own)
    for height, level in whole.levels().items():
        assert torch.equal(parts.levels()[height], level)
        assert torch.equal(ranks.levels()[height].unique(dim=0), level.unique(dim=0))
        assert not torch.equal(patches(x, seed=4).levels()[height], level)
    assert sliced_distance(whole, ranks) == pytest.approx({32: 0.0, 16: 0.0}, abs=1e-6)


# The distance


def equals_reference(distance: Callable[..., dict[int, float]]) -> None:
    """Karras 2018, sec. 5: normalized by channel, projected, sorted by scipy's 1-D distance, averaged, times 1000."""
    x, y = images(), (images(seed=1) // 2 + torch.arange(32).view(1, 1, 1, 32) * 3).to(torch.uint8)
    one, two = patches(x, per_image=20), patches(y, per_image=20)
    found = distance(one, two, directions=40, seed=7)
    assert list(found) == [32, 16]
    for height, value in found.items():
        sides = []
        for levels in (one.levels(), two.levels()):
            p = levels[height].double().numpy()
            p = (p - p.mean((0, 2), keepdims=True)) / p.std((0, 2), keepdims=True)
            sides.append(p.reshape(len(p), -1))
        draw = generator(key(7, height), "directions")
        towards = torch.cat([torch.randn(147, n, generator=draw) for n in (32, 8)], 1).double().numpy()
        towards /= np.sqrt(np.square(towards).sum(0))
        expected = np.mean([wasserstein_distance(sides[0] @ u, sides[1] @ u) for u in towards.T])
        assert value == pytest.approx(1000 * expected, rel=1e-4)


def test_reference() -> None:
    equals_reference(sliced_distance)


def test_wrong_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    kills(equals_reference, lambda a, b, **options: {h: v / 1000 for h, v in sliced_distance(a, b, **options).items()})
    kills(equals_reference, lambda a, b, **options: sliced_distance(a, b, directions=20, seed=7))
    right = sliced._normalized
    for wrong in (
        lambda p: ((p - p.mean()) / p.std()).flatten(1),  # all channels alike
        lambda p: (p - p.mean((0, 2), keepdim=True)).flatten(1),
        lambda p: ((p - p.mean((1, 2), keepdim=True)) / p.std((1, 2), keepdim=True)).flatten(1),  # each patch
        lambda p: right(p) * 49**0.5,
    ):
        monkeypatch.setattr(sliced, "_normalized", wrong)
        kills(equals_reference, sliced_distance)


def test_identical_sets_and_brightness() -> None:
    """A set is at 0 from itself, and from itself with another contrast and brightness of each channel."""
    x = images() // 2
    one = patches(x)
    assert sliced_distance(one, one) == {32: 0.0, 16: 0.0}
    gain, offset = torch.tensor([1, 2, 1]).view(3, 1, 1), torch.tensor([0, 0, 100]).view(3, 1, 1)
    other = patches((x * gain + offset).to(torch.uint8))
    assert all(value < 0.01 for value in sliced_distance(one, other).values())


def test_a_level_sees_its_own_scale() -> None:
    """Pixels exchanged within a fine checkerboard leave the coarse level alone; another coarse layout does not."""
    coarse = images(32, 4, seed=2).float().repeat_interleave(8, 2).repeat_interleave(8, 3) / 4
    fine = (torch.arange(32)[:, None] + torch.arange(32)) % 2 * 2.0 - 1
    flat = (coarse + 100).to(torch.uint8)
    board = (coarse + 100 + 40 * fine).to(torch.uint8)
    same_scale = sliced_distance(patches(flat), patches(board))
    assert same_scale[32] > 10 * same_scale[16]
    noise = sliced_distance(patches(flat[:16]), patches(flat[16:]))  # of the draw of images
    assert same_scale[32] > 3 * noise[32]


def test_refusals() -> None:
    with pytest.raises(UserError, match="12 on one side"):
        sliced_distance(patches(images()), patches(images(11)))
    with pytest.raises(UserError, match=r"levels \[32, 16\].*levels \[16\]"):
        sliced_distance(patches(images()), patches(images(side=16)))
    with pytest.raises(UserError, match="6x6 pixels are smaller"):
        patches(images(side=6))
    with pytest.raises(ValueError, match="uint8"):
        patches(images().float())
