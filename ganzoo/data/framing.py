"""From any picture to uint8 pixels of one shape: orientation, depth, transparency, colour, geometry."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from ganzoo.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

Fit = Literal["crop", "pad", "stretch"]
Resample = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Pixels = npt.NDArray[np.uint8]

MODES = {1: "L", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True)
class Framing:
    """How a picture becomes an array (channels, height, width) of uint8.

    In this order: first frame of an animation, EXIF orientation, 16 bits to 8, transparency over the
    background (kept with 4 channels), colour, geometry. Blending comes before resizing, so no colour of
    invisible pixels bleeds in; with 4 channels, resizing weights the colours by their opacity.
    """

    height: int
    width: int
    channels: int
    fit: Fit
    background: str
    resample: Resample

    def __post_init__(self) -> None:
        if self.channels not in MODES:
            raise UserError(f"channels is {self.channels}; allowed are 1 (gray), 3 (RGB) and 4 (RGB and opacity).")
        if self.height < 1 or self.width < 1:
            raise UserError(f"image_size is {self.height}x{self.width}; give a positive height and width.")
        self.colour()

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width

    def file(self, data: bytes) -> Pixels:
        """The pixels (C, H, W) of an encoded picture. Raises whatever Pillow raises for a damaged one."""
        from PIL import Image

        with Image.open(io.BytesIO(data)) as image:
            image.load()
            return self.image(image)

    def image(self, image: Image) -> Pixels:
        """The pixels (C, H, W) of a Pillow image."""
        from PIL import ImageOps

        image = self._recolour(_eight_bits(ImageOps.exif_transpose(image)))
        pixels = np.asarray(self._reshape(image))
        return np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))

    def arrays(self, block: Pixels) -> Pixels:
        """The pixels (N, C, H, W) of a block of pictures (N, h, w, c), uint8; c is 1, 3 or 4."""
        from PIL import Image

        if block.shape[1:] == (self.height, self.width, self.channels):
            return np.ascontiguousarray(block.transpose(0, 3, 1, 2))
        return np.stack([self.image(Image.fromarray(x[..., 0] if x.shape[-1] == 1 else x)) for x in block])

    def colour(self) -> tuple[int, int, int]:
        """The background as (red, green, blue)."""
        from PIL import ImageColor

        try:
            return ImageColor.getrgb(self.background)[:3]
        except ValueError:
            raise UserError(
                f"The background {self.background!r} is no colour; give a name such as white or a code such as "
                "'#7f7f7f'."
            ) from None

    def _recolour(self, image: Image) -> Image:
        if self.channels == 4:
            return image.convert("RGBA")
        if image.has_transparency_data:
            image = _blend(image.convert("RGBA"), self.colour())
        # Palettes and other colour spaces pass through RGB; gray stays gray, so its levels are kept exactly.
        return image.convert("RGB" if image.mode not in ("1", "L") else "L").convert(MODES[self.channels])

    def _reshape(self, image: Image) -> Image:
        from PIL import Image as module

        method = module.Resampling[self.resample.upper()]
        (w, h), size = image.size, (self.width, self.height)
        if self.fit == "stretch":
            return image.resize(size, method)
        if self.fit == "crop":
            scale = min(w / self.width, h / self.height)
            cut_w, cut_h = max(1, round(self.width * scale)), max(1, round(self.height * scale))
            left, top = (w - cut_w) // 2, (h - cut_h) // 2
            return image.resize(size, method, box=(left, top, left + cut_w, top + cut_h))
        scale = max(w / self.width, h / self.height)
        inner = max(1, round(w / scale)), max(1, round(h / scale))
        canvas = module.new(image.mode, size, self._margin())
        canvas.paste(image.resize(inner, method), ((self.width - inner[0]) // 2, (self.height - inner[1]) // 2))
        return canvas

    def _margin(self) -> int | tuple[int, ...]:
        """What lies around a padded picture: the background, or nothing at all if transparency is kept."""
        from PIL import Image

        if self.channels == 4:
            return 0, 0, 0, 0
        if self.channels == 3:
            return self.colour()
        gray = Image.new("RGB", (1, 1), self.colour()).convert("L").getpixel((0, 0))
        assert isinstance(gray, int)
        return gray


def _eight_bits(image: Image) -> Image:
    """Gray of 16 bits to 8 by rounding x / 257, so 65535 becomes 255. Pillow itself would clip.

    (Colour of 16 bits is cut to 8 by Pillow when it decodes: at most one level lower than rounding.)
    """
    from PIL import Image as module

    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    if not image.mode.startswith("I"):
        return image
    levels = np.asarray(image)
    if levels.min() < 0 or levels.max() > 65535:
        raise ValueError("more than 16 bits per pixel")
    return module.fromarray(((levels.astype(np.uint32) + 128) // 257).astype(np.uint8))


def _blend(image: Image, colour: tuple[int, int, int]) -> Image:
    """opacity * picture + (1 - opacity) * colour, rounded, in gamma space as browsers do."""
    from PIL import Image as module

    pixels = np.asarray(image).astype(np.uint32)
    opacity = pixels[..., 3:]
    blended = pixels[..., :3] * opacity + np.array(colour, np.uint32) * (255 - opacity)
    return module.fromarray(((blended + 127) // 255).astype(np.uint8))
