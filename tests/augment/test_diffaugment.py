"""DiffAugment against naive loops over its own random numbers, and against the laws that the paper gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ganzoo import streams
from ganzoo.augment import DiffAugment, diffaugment
from ganzoo.augment.base import box
from ganzoo.errors import UserError
from tests.augment.common import images, second_derivative_is_right, stream
from tests.mutants import kills


def check_shift(shifted) -> None:
    """A shift is torch.roll with what came around set to 0; one down and one up again leave the inside."""
    x = images(5, 2, 6, 9)
    down, right = torch.tensor([0, 2, -1, 6, -9]), torch.tensor([0, -3, 4, 0, 1])
    out = shifted(x, down, right)
    for i in range(5):
        d, r = down[i].item(), right[i].item()
        expected = torch.roll(x[i], (d, r), (1, 2))
        for y in range(6):
            for c in range(9):
                if not (0 <= y - d < 6 and 0 <= c - r < 9):
                    expected[:, y, c] = 0
        assert torch.equal(out[i], expected)
    there = torch.full((5,), 2)
    back = shifted(shifted(x, there, there), -there, -there)
    assert torch.equal(back[:, :, :-2, :-2], x[:, :, :-2, :-2])


def test_shift() -> None:
    check_shift(diffaugment.shifted)
    kills(check_shift, lambda x, down, right: diffaugment.shifted(x, -down, -right))
    kills(check_shift, lambda x, down, right: diffaugment.shifted(x, right, down))
    kills(check_shift, lambda x, down, right: diffaugment.shifted(x, down[:1].expand(5), right[:1].expand(5)))
    kills(check_shift, lambda x, down, right: torch.stack([torch.roll(a, (d, r), (1, 2)) for a, d, r in zip(
        x, down.tolist(), right.tolist(), strict=True)]))  # fmt: skip


def check_translation(translation) -> None:
    """The marked pixel of a 16x32 image lands on each place within 2 rows and 4 columns, equally often."""
    num = 3000
    x = torch.zeros(num, 1, 16, 32)
    x[:, :, 8, 16] = 1
    with stream(num):
        out = translation(x)
    _, _, rows, columns = out.nonzero().unbind(1)
    assert len(rows) == num
    counts = np.zeros((5, 9))
    np.add.at(counts, ((rows - 6).numpy(), (columns - 12).numpy()), 1)  # an IndexError beyond the range
    assert chi_square(counts) < 44 + 5 * 88**0.5  # 44 degrees of freedom, variance 88


def chi_square(counts: np.ndarray) -> float:
    expected = counts.mean()
    return float(((counts - expected) ** 2 / expected).sum())


def test_translation_is_uniform_within_an_eighth() -> None:
    check_translation(diffaugment.translation)

    def never_to_the_right(x):
        return diffaugment.shifted(x, *(-streams.randint(2 * b + 1, len(x), purpose="x") // 2 for b in (2, 4)))

    kills(check_translation, never_to_the_right)


def check_cutout(cutout) -> None:
    """The kept share of each pixel is the closed form of an even box around any edge between pixels, 0 to 8 and 12:
    the same from both sides."""
    num, height, width = 20_000, 8, 12
    with stream(num):
        kept = cutout(torch.ones(num, 1, height, width))
    assert set(kept.unique().tolist()) == {0.0, 1.0}
    in_rows = [sum(centre - 2 <= y < centre + 2 for centre in range(9)) / 9 for y in range(height)]
    in_columns = [sum(centre - 3 <= x < centre + 3 for centre in range(13)) / 13 for x in range(width)]
    expected = 1 - np.outer(in_rows, in_columns)
    assert np.allclose(expected, expected[::-1, ::-1])
    assert np.abs(kept.mean((0, 1)).numpy() - expected).max() < 5 * 0.5 / num**0.5
    box = (1 - kept[:, 0]).sum((1, 2))
    inside = (kept[:, 0, 0].sum(1) == width) & (kept[:, 0, -1].sum(1) == width)
    inside &= (kept[:, 0, :, 0].sum(1) == height) & (kept[:, 0, :, -1].sum(1) == height)
    assert inside.any() and (box[inside] == 4 * 6).all()  # half of both sides: a quarter of the area
    assert box.max() == 4 * 6


def test_cutout() -> None:
    check_cutout(diffaugment.cutout)
    kills(check_cutout, lambda x: x * diffaugment.cutout(torch.ones_like(x[:1])))  # one box for the whole batch

    def always_inside(x):
        first = [streams.randint(side - side // 2 + 1, len(x), purpose="x") for side in x.shape[2:]]
        edges = [(start, start + side // 2) for start, side in zip(first, x.shape[2:], strict=True)]
        return x * ~box(*edges, x)

    def around_pixels(x):
        first = [streams.randint(side, len(x), purpose="x") - side // 4 for side in x.shape[2:]]
        edges = [(start, start + side // 2) for start, side in zip(first, x.shape[2:], strict=True)]
        return x * ~box(*edges, x)

    kills(check_cutout, always_inside)
    kills(check_cutout, around_pixels)  # top and left would be cut more often


def check_color(color) -> None:
    """Brightness, saturation and contrast, written out in numpy over the same random numbers."""
    x = images(6)
    with stream(6):
        out = color(x)
    with stream(6):
        draws = streams.rand(6, 3, purpose="diffaugment.color").double().numpy()
    for i, image in enumerate(x.double().numpy()):
        b, s, c = draws[i, 0] - 0.5, 2 * draws[i, 1], draws[i, 2] + 0.5
        y = image + b
        y = y.mean(0) + s * (y - y.mean(0))
        y = y.mean() + c * (y - y.mean())
        assert np.allclose(out[i].numpy(), y, atol=1e-6)


def test_color() -> None:
    check_color(diffaugment.color)

    def mean_over_the_batch(x):
        out = diffaugment.color(x)
        return out - out.mean((1, 2, 3), keepdim=True) + out.mean()

    kills(check_color, mean_over_the_batch)

    def one_draw_for_all(x):
        out = []
        for image in x:
            with stream(6):
                out.append(diffaugment.color(image.expand_as(x))[0])
        return torch.stack(out)

    kills(check_color, one_draw_for_all)


@pytest.mark.parametrize("channels", [1, 2])
def test_gray_images_keep_their_saturation(channels) -> None:
    """One channel of three equal ones: the same brightness and contrast, and the three stay equal."""
    gray = images(6, channels)
    with stream(6):
        out = diffaugment.color(gray)
    with stream(6):
        rgb = diffaugment.color(gray[:, :1].expand(6, 3, 8, 8))
    assert torch.allclose(rgb, out[:, :1].expand(6, 3, 8, 8), atol=1e-6)
    assert torch.equal(out[:, 1:], gray[:, 1:])  # alpha


def test_alpha_is_moved_but_not_coloured() -> None:
    rgba = images(6, 4)
    with stream(6):
        out = DiffAugment(["color"]).augment(rgba)
    with stream(6):
        rgb = DiffAugment(["color"]).augment(rgba[:, :3])
    assert torch.equal(out, torch.cat([rgb, rgba[:, 3:]], 1))
    with stream(6):
        out = DiffAugment(["translation"]).augment(rgba)
    with stream(6):
        assert torch.equal(out[:, 3:], DiffAugment(["translation"]).augment(rgba[:, 3:]))


def test_policies_follow_each_other() -> None:
    x = images(6)
    with stream(6):
        out = DiffAugment(["cutout", "color", "translation"]).augment(x)
    with stream(6):
        assert torch.equal(out, diffaugment.cutout(diffaugment.translation(diffaugment.color(x))))
    assert DiffAugment([]).augment(x) is x


def test_second_derivatives() -> None:
    second_derivative_is_right(DiffAugment().augment, images(2, 3, 3, 4))


def test_two_halves_of_the_joint_batch_equal_the_whole() -> None:
    x = images(8)
    with stream(8):
        whole = DiffAugment().augment(x)
    halves = []
    for start in (0, 4):
        with stream(4, start=start, total=8):
            halves.append(DiffAugment().augment(x[start : start + 4]))
    assert torch.equal(whole, torch.cat(halves))


def test_refusals() -> None:
    with pytest.raises(UserError, match="InstanceNoise"):
        DiffAugment().augment(torch.zeros(4, 2))
    with pytest.raises(UserError, match="6 channels"):
        DiffAugment().augment(images(2, 6))
    assert DiffAugment(["translation", "cutout"]).augment(images(2, 6)).shape == (2, 6, 8, 8)
    for policy in (["colour"], ["color", "color"]):
        with pytest.raises(UserError, match="color, translation, cutout"):
            DiffAugment(policy)
