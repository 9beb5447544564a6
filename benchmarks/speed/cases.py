"""Models of stated shapes whose cycles are timed, built without the command line."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.speed.noise import Noise, NoiseImages
from ganzoo.ablation.timing import Subject
from ganzoo.data import GANDataModule
from ganzoo.gan import GAN
from ganzoo.models import DCGAN, MLPGAN, R3GAN, SAGAN, SNGAN, ProgressiveGAN, StyleGAN
from ganzoo.penalties import R1, PathLength
from ganzoo.plan import Play

#: The trainer's word for a device.
ACCELERATORS = {"auto": "auto", "cpu": "cpu", "cuda": "gpu"}


IMAGE_BYTES = 2**24  #: of all images that are resident, about


@dataclass(frozen=True)
class Case:
    """A model, and batches of what it is trained on."""

    about: str
    make: Callable[[], GAN]
    batch: int
    shape: tuple[int, ...] = (3, 32, 32)
    classes: int = 0

    def subject(self, device: str = "auto", precision: Any = "32-true", *, resident: bool = False) -> Subject:
        """Fresh; on batches as the model sees data, or on uint8 images that are ``resident`` on the device."""
        given: dict[str, Any] = {"classes": self.classes, "batch_size": self.batch}
        data: GANDataModule = Noise(list(self.shape), **given)
        if resident:
            num = max(4 * self.batch, IMAGE_BYTES // math.prod(self.shape))
            data = NoiseImages(list(self.shape), num=num, on_device=True, **given)
        return Subject(self.make(), data, {"accelerator": ACCELERATORS[device], "precision": precision})


def dcgan(d: int = 1, width: int = 128) -> GAN:
    return DCGAN(32, 3, width=width, latent_dim=128, play=Play(d))


def stylegan(size: int, *, channel_max: int, path_length: bool, **options: Any) -> GAN:
    penalties = [R1(every=16), *([PathLength(every=4)] if path_length else [])]
    options = {"channel_base": 4096, "mapping_layers": 2, **options}
    return StyleGAN(size, 3, channel_max=channel_max, penalties=penalties, **options)


def progressive() -> GAN:
    return ProgressiveGAN(32, 3, channel_base=4096, channel_max=128, growth=None)


CASES = {
    "mlp": Case("two layers of 64, points", lambda: MLPGAN(num_layers=1, hidden=64), 64, (2,)),
    "dcgan-32-narrow": Case("DCGAN, width 16", lambda: dcgan(width=16), 64),
    "dcgan-32": Case("DCGAN, width 128", dcgan, 64),
    "dcgan-32-d2": Case("DCGAN, width 128, 2 turns of the discriminator", lambda: dcgan(2), 64),
    "sngan-32": Case("SN-ResNet", lambda: SNGAN(play=Play(1)), 64),
    "sngan-32-b16": Case("SN-ResNet", lambda: SNGAN(play=Play(1)), 16),
    "sngan-32-d5": Case("SN-ResNet, 5 turns of the discriminator", SNGAN, 64),
    "sagan-32": Case("SAGAN, 10 classes", lambda: SAGAN(num_classes=10), 64, classes=10),
    "sagan-32-d5": Case(
        "SAGAN, 10 classes, 5 turns of the discriminator", lambda: SAGAN(num_classes=10, play=Play(5)), 64, classes=10
    ),
    "progressive-32": Case("ProgressiveGAN at 32x32, a quarter of the paper's widths", progressive, 16),
    "r3gan-32-narrow": Case("R3GAN, width 256, R1 and R2 in each turn", lambda: R3GAN(width=256, max_width=256), 4),
    "r3gan-32": Case("R3GAN, R1 and R2 in each turn", R3GAN, 4),
    "r3gan-32-b64": Case("R3GAN, R1 and R2 in each turn", R3GAN, 64),
    "stylegan-32": Case(
        "StyleGAN, R1 every 16", lambda: stylegan(32, channel_max=256, path_length=False, mixing=0.0), 16
    ),
    "stylegan-64": Case(
        "StyleGAN, R1 every 16, path length every 4",
        lambda: stylegan(64, channel_max=512, path_length=True),
        8,
        (3, 64, 64),
    ),
    "stylegan-256": Case(
        "StyleGAN as stylegan_256.yaml, R1 every 16, path length every 4",
        lambda: stylegan(
            256, channel_max=512, path_length=True, channel_base=16384, mapping_layers=8, group=8, clamp=256.0
        ),
        32,
        (3, 256, 256),
    ),
}

#: Small enough for tests; together they have every lever.
TINY = {
    "dcgan": Case("DCGAN", lambda: DCGAN(16, 3, width=4, latent_dim=8), 4, (3, 16, 16)),
    "sngan": Case(
        "SN-ResNet",
        lambda: SNGAN(
            generator_width=4,
            generator_max_width=4,
            discriminator_width=4,
            discriminator_max_width=4,
            latent_dim=8,
            play=Play(1),
        ),
        4,
    ),
    "stylegan": Case(
        "StyleGAN",
        lambda: stylegan(
            16, channel_max=8, path_length=True, channel_base=64, latent_dim=8, style_dim=8, group=2, mixing=0.0
        ),
        4,
        (3, 16, 16),
    ),
    "r3gan": Case("R3GAN", lambda: R3GAN(8, 3, width=16, max_width=16, num_blocks=1, latent_dim=8), 4, (3, 8, 8)),
}
