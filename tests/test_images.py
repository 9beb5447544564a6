"""Pictures: bytes, grids and animations, by pixels that are known."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ganzoo.errors import UserError
from ganzoo.images import grid, save_gif, save_png, spaced, to_image, to_uint8


def test_bytes_are_rounded_and_clamped() -> None:
    given = torch.tensor([-1.0, 1.0, -3.0, 3.0, math.inf, -math.inf, math.nan, 0.2 / 127.5, 0.8 / 127.5])
    assert to_uint8(given).tolist() == [0, 255, 0, 255, 255, 0, 0, 128, 128]


def test_every_byte_survives_the_way_there_and_back() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(every.float() / 127.5 - 1), every)
    assert torch.equal(to_uint8(every), every)


def flat_images(*values: tuple[int, ...], size: int = 4) -> torch.Tensor:
    """One image of one colour for each tuple."""
    return torch.tensor(values, dtype=torch.uint8)[:, :, None, None].expand(-1, -1, size, size)


def test_a_grid_goes_by_rows_and_leaves_white_between() -> None:
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (9, 8, 7), (1, 2, 3)]
    picture = grid(flat_images(*colours), columns=3, padding=2, min_size=4)
    assert picture.size == (2 + 3 * 6, 2 + 2 * 6) and picture.mode == "RGB"
    pixels = np.asarray(picture)
    for i, colour in enumerate(colours):
        x, y = 2 + i % 3 * 6, 2 + i // 3 * 6
        assert (pixels[y : y + 4, x : x + 4] == colour).all()
    assert (pixels[8:14, 14:20] == 255).all()  # the cell without a sample
    assert (pixels[:2] == 255).all() and (pixels[6:8] == 255).all() and (pixels[:, 18:] == 255).all()


def test_small_samples_are_enlarged_pixel_by_pixel() -> None:
    sample = torch.arange(16, dtype=torch.uint8).reshape(1, 1, 4, 4) * 16
    pixels = np.asarray(grid(sample, padding=0, min_size=12))
    assert pixels.shape == (12, 12)
    assert (pixels == np.repeat(np.repeat(sample[0, 0].numpy(), 3, 0), 3, 1)).all()
    assert grid(sample, padding=0, min_size=11).size == (8, 8)  # only whole factors
    assert grid(torch.zeros(1, 3, 80, 100), padding=1).size == (102, 82)


def test_a_grid_is_square_unless_told() -> None:
    assert grid(torch.zeros(10, 1, 8, 8), padding=0, min_size=8).size == (32, 24)
    assert grid(torch.zeros(2, 1, 8, 8), padding=0, columns=9, min_size=8).size == (16, 8)


def test_transparency_lies_on_white() -> None:
    picture = grid(flat_images((10, 20, 30, 0), (10, 20, 30, 255), (0, 0, 0, 51)), columns=3, padding=0, min_size=4)
    assert picture.mode == "RGB"
    assert [picture.getpixel((x, 1)) for x in (1, 5, 9)] == [(255, 255, 255), (10, 20, 30), (204, 204, 204)]


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "L"), (3, "RGB"), (4, "RGBA"), (5, "RGB")])
def test_channels_decide_the_kind_of_picture(channels: int, mode: str) -> None:
    image = to_image(torch.arange(channels, dtype=torch.uint8)[:, None, None].expand(-1, 2, 2))
    assert image.mode == mode
    assert image.getpixel((0, 0)) == (0 if mode == "L" else tuple(range(len(mode))))


def test_points_are_no_images() -> None:
    with pytest.raises(UserError, match=r"shape \(5, 2\)"):
        grid(torch.zeros(5, 2))


def save_frames(folder: Path, num: int, size: tuple[int, int] = (40, 30), mode: str = "L") -> list[Path]:
    """Frame k is one shade, with a mark that moves one pixel per frame."""
    paths = []
    for k in range(num):
        image = Image.new(mode, size, (3 * k) if mode == "L" else (3 * k, 0, 255 - k))
        image.putpixel((k % size[0], 5), 255 if mode == "L" else (255, 255, 255))
        paths.append(folder / f"{k:03d}.png")
        save_png(paths[-1], image)
    return paths


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_an_animation_has_the_pixels_of_its_pictures_and_runs_for_ever(tmp_path: Path, mode: str) -> None:
    frames = save_frames(tmp_path, 5, mode=mode)
    save_gif(tmp_path / "a.gif", frames, seconds=0.1, hold_seconds=3)
    with Image.open(tmp_path / "a.gif") as animation:
        assert animation.n_frames == 5 and animation.info["loop"] == 0
        for k, path in enumerate(frames):
            animation.seek(k)
            assert animation.info["duration"] == (3000 if k == 4 else 100)
            expected = np.asarray(Image.open(path).convert("RGB"), dtype=int)
            assert np.abs(np.asarray(animation.convert("RGB"), dtype=int) - expected).max() <= 3


def test_equal_pictures_are_shown_as_long_as_others(tmp_path: Path) -> None:
    path = save_frames(tmp_path, 1)[0]
    save_gif(tmp_path / "a.gif", [path] * 4, seconds=0.1, hold_seconds=1)
    with Image.open(tmp_path / "a.gif") as animation:
        total = 0
        for k in range(animation.n_frames):
            animation.seek(k)
            total += animation.info["duration"]
    assert total == 3 * 100 + 1000


def test_long_and_large_animations_are_bounded(tmp_path: Path) -> None:
    frames = save_frames(tmp_path, 80, size=(300, 100))
    save_gif(tmp_path / "a.gif", frames, num_frames=10, max_side=100)
    with Image.open(tmp_path / "a.gif") as animation:
        assert animation.n_frames == 10 and animation.size == (100, 34)
        first = animation.convert("L").getpixel((50, 20))
        animation.seek(9)
        assert (first, animation.convert("L").getpixel((50, 20))) == (0, 3 * 79)


def test_a_model_that_grew_is_shown_at_its_last_size(tmp_path: Path) -> None:
    small, large = tmp_path / "1.png", tmp_path / "2.png"
    Image.new("L", (10, 10), 7).save(small)
    Image.new("L", (20, 20), 9).save(large)
    save_gif(tmp_path / "a.gif", [small, large])
    with Image.open(tmp_path / "a.gif") as animation:
        assert animation.size == (20, 20) and animation.convert("L").getpixel((19, 19)) == 7


def test_spaced_items_hold_the_first_and_the_last() -> None:
    assert spaced("abc", 3) == ["a", "b", "c"]
    assert spaced("abcdefghi", 3) == ["a", "e", "i"]
