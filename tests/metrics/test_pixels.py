"""Ways of pixels into a network, against programs that share nothing with ours: loops, Pillow, torch-fidelity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from ganzoo.errors import UserError
from ganzoo.metrics import pixels
from ganzoo.metrics.pixels import quantize, resize
from tests.mutants import kills

Resizer = Callable[[Tensor, int, Any], Tensor]


@pytest.fixture(scope="module")
def images() -> Tensor:
    """16 random images, half of them smooth, 32x32."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.randint(0, 256, (16, 3, 32, 32), generator=generator, dtype=torch.uint8)
    smooth = torch.nn.functional.avg_pool2d(noise[:8].float(), 5, 1, 2)
    noise[:8] = ((smooth - smooth.amin()) / (smooth.amax() - smooth.amin()) * 255).to(torch.uint8)
    return noise


class TestQuantize:
    """Each rounding, value by value in plain Python."""

    @pytest.fixture
    def samples(self) -> Tensor:
        """16 random images with the borders between levels, both ends and values beyond them."""
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(16, 3, 4, 4, generator=generator) * 2.2 - 1.1
        borders = torch.tensor(
            [-1, 1, 0, -1.5, 1.5, 0.999, -0.999, 1 / 255, 2 / 255, -1 / 255, 1 - 1 / 255, -1 + 1 / 255]
        )
        x[0].view(-1)[: len(borders)] = borders
        return x

    @staticmethod
    def naive(mode: str, value: float, low: float, high: float) -> int:
        """What a protocol's program does to one number, in float32 as it is there."""
        x, f = np.float32(value), np.float32
        if mode == "round":
            level = round(float((x + f(1)) * f(127.5)))  # Python rounds halves to even, as IEEE does
        elif mode == "nvidia":
            level = int(np.floor(x * f(127.5) + f(128)))
        elif mode == "studiogan":
            level = int(np.floor(f(255) * ((x + f(1)) / f(2)) + f(0.5)))
        else:
            level = int(np.floor(((x - f(low)) / f(high - low + 1e-5)) * f(255) + f(0.5)))
        return min(max(level, 0), 255)

    @pytest.mark.parametrize("mode", pixels.QUANTIZATIONS)
    def test_each_value(self, samples: Tensor, mode: Any) -> None:
        low, high = float(samples.min()), float(samples.max())

        def check(function: Callable[..., Tensor]) -> None:
            levels = function(samples, mode)
            assert levels.dtype == torch.uint8
            assert levels.flatten().tolist() == [self.naive(mode, v, low, high) for v in samples.flatten().tolist()]

        check(quantize)
        kills(check, lambda x, mode: ((x + 1) * 127.5).clamp(0, 255).to(torch.uint8))  # the usual mistake: no rounding

    def test_modes_agree_between_borders(self) -> None:
        """Floor of x 127.5 + 128 is rounding: what is published differs on borders between levels alone."""
        x = torch.rand(10_000, generator=torch.Generator().manual_seed(3)) * 2 - 1
        x = x[((x + 1) * 127.5 % 1 - 0.5).abs() > 1e-3]
        assert torch.equal(quantize(x, "nvidia"), quantize(x, "round"))
        assert torch.equal(quantize(x, "studiogan"), quantize(x, "round"))
        border = torch.tensor([-1 + 1 / 255])  # half a level
        assert [quantize(border, mode).item() for mode in ("round", "nvidia", "studiogan")] == [0, 1, 1]

    def test_extremes_of_the_set(self) -> None:
        """Batches that are given the set's extremes equal the set; a batch's own would not."""
        x = torch.randn(16, 3, 4, 4).clamp(-3, 3) / 4
        whole = quantize(x, "min-max")
        low, high = float(x.min()), float(x.max())
        parts = [quantize(part, "min-max", extremes=(low, high)) for part in x.split(5)]
        assert torch.equal(torch.cat(parts), whole)
        assert not torch.equal(torch.cat([quantize(part, "min-max") for part in x.split(5)]), whole)
        assert whole.min() == 0 and whole.max() == 255

    def test_bytes_stay(self, images: Tensor) -> None:
        assert quantize(images, "nvidia") is images

    def test_levels_come_back(self) -> None:
        """Data that were bytes are the same bytes again, in all modes but the set's own."""
        levels = torch.arange(256, dtype=torch.uint8)
        for mode in ("round", "nvidia", "studiogan"):
            assert torch.equal(quantize(levels.float() / 127.5 - 1, mode), levels)

    @pytest.mark.parametrize(
        ("images", "message"),
        [
            (torch.tensor([0.0, 255.0]), r"reach 255, so they are not of the range -1 to 1 .* divide by 127\.5"),
            (torch.tensor([float("nan")]), r"reach nan"),
            (torch.tensor([float("inf")]), r"reach inf"),
            (torch.tensor([0, 255]), r"are int64; give uint8 of the range 0 to 255, or floats of the range -1 to 1"),
        ],
    )
    def test_wrong_range(self, images: Tensor, message: str) -> None:
        with pytest.raises(UserError, match=message):
            quantize(images)

    def test_unknown_mode(self) -> None:
        with pytest.raises(UserError, match=r"no quantization 'floor'; choose one of round, nvidia, studiogan"):
            quantize(torch.zeros(1), "floor")  # type: ignore[arg-type]


def tf1_loop(image: np.ndarray, size: int) -> np.ndarray:
    """TensorFlow 1's ResizeBilinear with align_corners and half_pixel_centers off: one pixel at a time, in float32."""
    image = image.astype(np.float32)
    height, width = image.shape
    out = np.empty((size, size), np.float32)
    for i in range(size):
        y = np.float32(i) * np.float32(height / size)
        y0 = int(y)
        y1 = min(y0 + 1, height - 1)
        for j in range(size):
            x = np.float32(j) * np.float32(width / size)
            x0 = int(x)
            x1 = min(x0 + 1, width - 1)
            top = image[y0, x0] + (image[y0, x1] - image[y0, x0]) * (x - np.float32(x0))
            bottom = image[y1, x0] + (image[y1, x1] - image[y1, x0]) * (x - np.float32(x0))
            out[i, j] = top + (bottom - top) * (y - np.float32(y0))
    return out


def pillow(image: np.ndarray, size: int, filter_: Image.Resampling) -> np.ndarray:
    return np.asarray(Image.fromarray(image.astype(np.float32), mode="F").resize((size, size), filter_))


def planes(images: Tensor, function: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    """A function of one plane, for each plane of each image."""
    done = [torch.tensor(function(plane.numpy().astype(np.float64))) for plane in images.flatten(0, 1)]
    return torch.stack(done).unflatten(0, images.shape[:2])


class TestResize:
    """Each filter on 16 random images."""

    @pytest.mark.parametrize("size", [20, 37])
    def test_tensorflow_1(self, images: Tensor, size: int) -> None:
        expected = planes(images, lambda plane: tf1_loop(plane, size))

        def check(function: Resizer) -> None:
            assert torch.equal(function(images, size, "tf1-bilinear"), expected)

        check(resize)
        half_pixel = lambda x, size, _: torch.nn.functional.interpolate(x.float(), (size, size), mode="bilinear")  # noqa: E731
        kills(check, half_pixel)
        kills(check, lambda x, size, _: resize(x, size, "pil-bilinear-float"))

    @pytest.mark.parametrize("shape", [(7, 9), (32, 32), (299, 299), (320, 200), (700, 650)])
    def test_bits_of_torch_fidelity(self, shape: tuple[int, int]) -> None:
        """Both sides of the branch for many rows, and images that are not square."""
        x = torch.randint(0, 256, (2, 3, *shape), dtype=torch.uint8)
        expected = interpolate_bilinear_2d_like_tensorflow1x(x.float(), size=(299, 299), align_corners=False)
        assert torch.equal(resize(x, 299, "tf1-bilinear"), expected)

    @pytest.mark.parametrize("size", [20, 299])
    @pytest.mark.parametrize(
        ("mode", "filter_"),
        [("clean", Image.Resampling.BICUBIC), ("pil-bilinear-float", Image.Resampling.BILINEAR)],
    )
    def test_pillow(self, images: Tensor, mode: Any, filter_: Image.Resampling, size: int) -> None:
        """To the last bit; clean-fid clamps the overshoot of its filter, a bilinear one has none."""
        expected = planes(images, lambda plane: pillow(plane, size, filter_))
        if mode == "clean":
            assert expected.max() > 255 or expected.min() < 0 or size == 20
            expected = expected.clamp(0, 255)

        def check(function: Resizer) -> None:
            assert torch.equal(function(images, size, mode), expected)

        check(resize)
        kills(
            check, lambda x, size, mode: resize(x, size, mode).round()
        )  # bytes again, as a picture file would have it

    @pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
    @pytest.mark.parametrize("size", [20, 299])
    def test_on_other_devices(self, images: Tensor, mode: str, size: int) -> None:
        """Where Pillow cannot compute, the same filter is within 4e-5 of its 255 levels."""

        def check(dtype: torch.dtype) -> None:
            x = pixels._like_pillow(images if dtype == torch.float64 else _Single(images), size, mode)
            assert (x - pixels._pillow(images, size, mode)).abs().max() < 4e-5

        check(torch.float64)
        if size == 299:
            kills(check, torch.float32)  # what is gained by the wider type

    def test_clean_fid(self, images: Tensor) -> None:
        """The package's own resizer, where it is installed: `pip install --no-deps clean-fid`."""
        package = pytest.importorskip("cleanfid.resize")
        resizer = package.build_resizer("clean")
        expected = [torch.from_numpy(resizer(image.permute(1, 2, 0).numpy())).permute(2, 0, 1) for image in images]
        assert torch.equal(resize(images, 299, "clean"), torch.stack(expected))

    def test_none(self, images: Tensor) -> None:
        assert torch.equal(resize(images, 32, "none"), images.float())
        with pytest.raises(UserError, match=r"have 32x32 pixels and are not to be resized, but .* takes 299x299"):
            resize(images, 299, "none")

    def test_unknown(self, images: Tensor) -> None:
        with pytest.raises(UserError, match=r"no way to resize called 'lanczos'; choose one of tf1-bilinear, clean"):
            resize(images, 299, "lanczos")  # type: ignore[arg-type]

    def test_constant_images_stay(self) -> None:
        """Any filter's weights sum to 1."""
        x = torch.full((1, 3, 11, 13), 77, dtype=torch.uint8)
        for mode in ("tf1-bilinear", "clean", "pil-bilinear-float"):
            assert torch.equal(resize(x, 29, mode), torch.full((1, 3, 29, 29), 77.0))


class _Single:
    """Images whose wider type is no wider."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def double(self) -> Tensor:
        return self.images.float()
