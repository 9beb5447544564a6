"""Pictures of every kind against arrays made by hand."""

from __future__ import annotations

import io
import struct
import zlib
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ganzoo.data.framing import Framing
from ganzoo.errors import UserError


def framing(size: int | tuple[int, int], channels: int = 3, **options: Any) -> Framing:
    height, width = (size, size) if isinstance(size, int) else size
    chosen: dict[str, Any] = {"fit": "crop", "background": "white", "resample": "bicubic"} | options
    return Framing(height, width, channels, **chosen)


def encoded(image: Image.Image, kind: str = "png", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize(("kind", "options"), [("png", {}), ("webp", {"lossless": True}), ("tiff", {}), ("bmp", {})])
def test_pixels_of_the_right_size_are_kept(kind: str, options: dict[str, Any]) -> None:
    array = noise(6, 6, 3)
    assert (framing(6).file(encoded(Image.fromarray(array), kind, **options)) == array.transpose(2, 0, 1)).all()


# What the EXIF standard says a viewer must do with what is stored.
ORIENTATIONS = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_exif_orientation(orientation: int) -> None:
    stored = noise(4, 6, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    shown = ORIENTATIONS[orientation](stored)
    result = framing(shown.shape[:2]).file(encoded(Image.fromarray(stored), exif=exif))
    assert (result == shown.transpose(2, 0, 1)).all()


def test_transparency_over_a_background_in_closed_form() -> None:
    rgba, colour = noise(8, 8, 4), (255, 0, 10)
    rgba[0, 0, 3], rgba[0, 1, 3] = 0, 255
    result = framing(8, background="#ff000a").file(encoded(Image.fromarray(rgba)))
    for y, x, c in np.ndindex(8, 8, 3):
        opacity = Fraction(int(rgba[y, x, 3]), 255)
        assert result[c, y, x] == round(opacity * int(rgba[y, x, c]) + (1 - opacity) * colour[c])
    assert tuple(result[:, 0, 0]) == colour
    assert (result[:, 0, 1] == rgba[0, 1, :3]).all()


def test_transparency_is_kept_with_four_channels() -> None:
    rgba = noise(4, 4, 4)
    assert (framing(4, 4).file(encoded(Image.fromarray(rgba))) == rgba.transpose(2, 0, 1)).all()
    opaque = framing(4, 4).file(encoded(Image.fromarray(rgba[..., :3])))
    assert (opaque[3] == 255).all()


def test_the_colour_of_invisible_pixels_does_not_bleed() -> None:
    blue, invisible_red = (0, 0, 255, 255), (255, 0, 0, 0)
    rgba = np.tile(np.array([blue, invisible_red], np.uint8), (4, 2, 1))  # columns alternate
    kept = framing(2, 4, resample="bilinear").file(encoded(Image.fromarray(rgba)))
    assert (kept[0] == 0).all() and (kept[2] >= 254).all()
    blended = framing(2, background="black", resample="bilinear").file(encoded(Image.fromarray(rgba)))
    assert (blended[0] == 0).all()


def test_palettes_with_and_without_transparency() -> None:
    image = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "L")
    image = Image.frombytes("P", (2, 2), image.tobytes())
    image.putpalette([10, 20, 30, 200, 100, 50])
    first, second = [10, 20, 30], [200, 100, 50]
    opaque = framing(2).file(encoded(image)).transpose(1, 2, 0).tolist()
    assert opaque == [[first, second], [second, first]]
    clear = framing(2, background="#010203").file(encoded(image, transparency=1)).transpose(1, 2, 0).tolist()
    assert clear == [[first, [1, 2, 3]], [[1, 2, 3], first]]
    gif = framing(2, background="#010203").file(encoded(image, "gif", transparency=1)).transpose(1, 2, 0).tolist()
    assert gif == clear


def test_a_transparent_colour_of_an_rgb_picture() -> None:
    array = np.array([[[9, 9, 9], [8, 8, 8]]], np.uint8)
    result = framing((1, 2), background="red").file(encoded(Image.fromarray(array), transparency=(9, 9, 9)))
    assert result[:, 0].T.tolist() == [[255, 0, 0], [8, 8, 8]]


def test_gray_of_16_bits_is_scaled() -> None:
    levels = np.array([[0, 128, 129, 257], [32767, 32768, 65406, 65535]], np.uint16)
    expected = [[round(Fraction(int(v), 257)) for v in row] for row in levels]
    for kind in ("png", "tiff"):
        result = framing((2, 4), 1).file(encoded(Image.fromarray(levels), kind))
        assert result.tolist() == [expected]


def test_colour_of_16_bits_is_right_within_a_level() -> None:
    levels = np.random.default_rng(0).integers(0, 65536, (5, 5, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in levels)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 5, 5, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    result = framing(5).file(png).transpose(1, 2, 0)
    assert np.abs(result - levels.astype(float) / 257).max() <= 1


def test_pixels_without_a_known_range_are_a_fault() -> None:
    with pytest.raises(ValueError, match="range"):
        framing(2).file(encoded(Image.fromarray(np.ones((2, 2), np.float32)), "tiff"))
    with pytest.raises(ValueError, match="16 bits"):
        framing(2).file(encoded(Image.fromarray(np.full((2, 2), 70_000, np.int32)), "tiff"))


def test_gray_and_colour() -> None:
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert (framing(16).file(encoded(Image.fromarray(gray))) == gray).all()
    assert (framing(16, 1).file(encoded(Image.fromarray(gray))) == gray).all()
    colour = noise(4, 4, 3)
    luma = colour @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
    assert np.abs(framing(4, 1).file(encoded(Image.fromarray(colour)))[0] - luma).max() <= 1
    black_and_white = Image.fromarray(np.array([[True, False]]))
    assert framing((1, 2), 1).file(encoded(black_and_white)).tolist() == [[[255, 0]]]


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (2, 2), colour) for colour in ("#ff0000", "#0000ff")]
    for kind, options in (("gif", {}), ("webp", {"lossless": True}), ("png", {})):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert framing(2).file(data)[:, 0, 0].tolist() == [255, 0, 0]


def test_crop_takes_the_middle() -> None:
    wide, tall = noise(4, 8, 3), noise(7, 4, 3)
    assert (framing(4).image(Image.fromarray(wide)) == wide[:, 2:6].transpose(2, 0, 1)).all()
    assert (framing(4).image(Image.fromarray(tall)) == tall[1:5].transpose(2, 0, 1)).all()
    assert (framing((2, 8)).image(Image.fromarray(wide)) == wide[1:3].transpose(2, 0, 1)).all()


def test_crop_scales_the_shorter_side() -> None:
    small = noise(3, 5, 3)
    result = framing(3, resample="nearest").image(Image.fromarray(small.repeat(2, 0).repeat(2, 1)))
    assert (result == small[:, 1:4].transpose(2, 0, 1)).all()


def test_pad_keeps_all_of_the_picture() -> None:
    wide = noise(4, 8, 3)
    result = framing(8, fit="pad", background="#102030").image(Image.fromarray(wide)).transpose(1, 2, 0)
    assert (result[2:6] == wide).all()
    assert (result[[0, 1, 6, 7]] == (0x10, 0x20, 0x30)).all()
    clear = framing(8, 4, fit="pad").image(Image.fromarray(wide))
    assert (clear[:, :2] == 0).all() and (clear[3, 2:6] == 255).all()
    gray = framing(8, 1, fit="pad", background="white").image(Image.fromarray(wide[..., 0]))
    assert (gray[0, :2] == 255).all() and (gray[0, 2:6] == wide[..., 0]).all()


def test_stretch_fills_the_frame() -> None:
    wide = noise(2, 4, 3)
    result = framing(4, fit="stretch", resample="nearest").image(Image.fromarray(wide))
    assert (result == wide.repeat(2, 0).transpose(2, 0, 1)).all()


def test_shrinking_is_antialiased() -> None:
    checks = np.indices((8, 8)).sum(0).astype(np.uint8) % 2 * 255  # a point sample would be black or white
    assert np.abs(framing(4, 1, resample="bilinear").image(Image.fromarray(checks)) - 127.5).max() < 3


def test_arrays_are_framed_like_files() -> None:
    block = noise(3, 6, 8, 3)
    for target in (framing((6, 8)), framing(4), framing(4, 1)):
        expected = np.stack([target.file(encoded(Image.fromarray(x))) for x in block])
        assert (target.arrays(block) == expected).all()


def test_wrong_options_are_refused() -> None:
    with pytest.raises(UserError, match="channels is 2"):
        framing(4, 2)
    with pytest.raises(UserError, match="'nocolour' is no colour"):
        framing(4, background="nocolour")
    with pytest.raises(UserError, match="image_size is 0x4"):
        framing((0, 4))
