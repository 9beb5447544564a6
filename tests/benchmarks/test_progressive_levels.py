"""The benchmark of levels compares networks that stay where they are told to."""

from __future__ import annotations

import math

import pytest

from benchmarks.speed.progressive import batch_sizes, levels, subject
from ganzoo.models import ProgressiveGAN
from ganzoo.tricks import Growing
from tests.common import quiet_trainer

MODEL = ProgressiveGAN(32, 1, latent_dim=4, channel_base=256, channel_max=8, growth=Growing(0.001, fade_kimg=0.001))


@pytest.mark.parametrize("resolution", [4, 16])
def test_a_subject_stays_at_its_resolution(resolution: int) -> None:
    one = subject(MODEL.config(), [1, 32, 32], 8, resolution)
    quiet_trainer(max_steps=4).fit(one.gan, one.data)
    assert one.gan.clock.images == 32
    assert one.gan.generator.resolution == one.gan.discriminator.resolution == resolution


@pytest.mark.slow
def test_larger_images_take_longer() -> None:
    """All layers of a level have as many channels here, so that each one has about four times the work of the last."""
    rows = levels(MODEL.config(), [1, 32, 32], {4: 8, 8: 8, 16: 8, 32: 4}, 0.1)
    assert [row["resolution"] for row in rows] == [8, 16, 32]
    assert all(math.isfinite(row["cpu"]) and row["base_images"] == 8 for row in rows)
    assert [row["images"] for row in rows] == [8, 8, 4]
    assert [row["per_image"] / row["cpu"] for row in rows] == pytest.approx([1, 1, 2])
    assert rows[-1]["per_image"] > 1.5


def test_batches_are_the_recipe_s() -> None:
    growth = Growing(0.001, fade_kimg=0.001, batch_size={8: 16, 32: 2})
    model = ProgressiveGAN(32, 1, latent_dim=4, channel_base=256, channel_max=8, growth=growth)
    assert batch_sizes(model.config(), 4) == {4: 4, 8: 16, 16: 16, 32: 2}
    assert batch_sizes(MODEL.config(), 4) == dict.fromkeys((4, 8, 16, 32), 4)
