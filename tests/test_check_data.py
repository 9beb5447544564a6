"""What does not fit the data is refused before training: by arithmetic, and with no network having run."""

from __future__ import annotations

from pathlib import Path

import pytest

from ganzoo.augment import ADA, DiffAugment
from ganzoo.data import Digits, Ring
from ganzoo.errors import UserError
from ganzoo.gan import GAN
from ganzoo.models import DCGAN, MLPGAN
from ganzoo.parts import Part
from ganzoo.penalties import Consistency
from ganzoo.tricks import MinibatchStdDev, Packing
from tests.cli.common import TINY, refused
from tests.common import quiet_trainer
from tests.mutants import kills


def points(*parts: Part, **options) -> GAN:
    return MLPGAN(hidden=4, num_layers=1, parts=list(parts), **options)


def check_what_counts(packing: type[Packing]) -> None:
    """batch / (ranks x micro-batches), divided by the packing degree, must be a multiple of the group."""
    for batch in range(4, 65, 4):
        for accumulate in (1, 2):
            for world in (1, 2):
                gan = points(MinibatchStdDev(4), packing(2), accumulate=accumulate)
                micro = batch // (world * accumulate)
                fits = micro % 2 == 0 and micro // 2 % 4 == 0
                if fits:
                    gan.check_data((2,), batch, world)
                else:
                    assert_refused(gan, batch, world, micro)


def assert_refused(gan: GAN, batch: int, world: int, micro: int) -> None:
    """With the numbers."""
    said = ""
    try:
        gan.check_data((2,), batch, world)
    except UserError as error:
        said = str(error)
    assert f"{micro} samples per rank" in said or f"a batch of {micro // 2}" in said


class SamplesForPacks(Packing):
    def input_shape(self, shape):
        super().input_shape(shape)
        return shape


class NotAsked(Packing):
    def input_shape(self, shape):
        return shape[0] // self.degree, *shape[1:]


def test_what_counts_is_the_micro_batch_of_a_rank_in_packs() -> None:
    check_what_counts(Packing)
    kills(check_what_counts, SamplesForPacks)
    kills(check_what_counts, NotAsked)


def test_every_size_that_the_batch_will_have_counts() -> None:
    gan = points(Packing(4))
    gan.batch_sizes = [(1000, 32), (2000, 6)]
    with pytest.raises(UserError, match="degree 4 was given a micro-batch of 6"):
        gan.check_data((2,), 16)
    gan.batch_sizes = [(1000, 32)]
    gan.check_data((2,), 16)


@pytest.mark.parametrize(
    ("part", "shape", "words"),
    [
        (ADA(), (2,), "changes images"),
        (ADA(), (5, 8, 8), "given 5 channels"),
        (DiffAugment(), (2,), "changes images"),
        (DiffAugment(), (5, 8, 8), "given 5 channels"),
        (Consistency(), (2,), "shifts and flips images"),
        (Consistency(shift=8), (1, 8, 8), "images of 8x8 by up to 8"),
    ],
)
def test_augmentations_that_the_data_do_not_fit(part: Part, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(UserError, match=words):
        part.input_shape((16, *shape))
    assert part.input_shape((16, 1, 16, 16)) == (16, 1, 16, 16)


def test_what_needs_no_colours_takes_any_number_of_channels() -> None:
    assert ADA(["blit", "geometric", "cutout"]).input_shape((4, 7, 8, 8)) == (4, 7, 8, 8)
    assert DiffAugment(["translation"]).input_shape((4, 7, 8, 8)) == (4, 7, 8, 8)


@pytest.mark.parametrize(
    ("gan", "data", "words"),
    [
        (points(MinibatchStdDev(8)), Ring(batch_size=12), "groups of 8, but was given a batch of 12"),
        (points(Packing(4), accumulate=2), Ring(batch_size=12), "micro-batch of 6"),
        (points(ADA()), Ring(batch_size=16), r"ADA changes images .* shape \(16, 2\)"),
        (DCGAN(8, 1, width=4, parts=[MinibatchStdDev(8)]), Digits(image_size=8, batch_size=12), "a batch of 12"),
    ],
)
def test_fit_refuses_before_any_network_runs(gan: GAN, data: Ring | Digits, words: str, tmp_path: Path) -> None:
    def run(*_: object) -> None:
        raise AssertionError("a network has run")

    for network in (gan.generator, gan.discriminator):
        network.register_forward_pre_hook(run)
    with pytest.raises(UserError, match=words):
        quiet_trainer(max_steps=1, default_root_dir=str(tmp_path)).fit(gan, datamodule=data)


def test_the_command_line_refuses_before_there_is_a_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def create(*_: object) -> None:
        raise AssertionError("a directory is made")

    monkeypatch.setattr("ganzoo.cli.rundir.create", create)
    options = [*TINY, "--run_dir", str(tmp_path / "run"), "--data.batch_size", "60"]
    text = refused(capsys, "fit", *options, "--model.parts+=MinibatchStdDev", "--model.parts.group", "8")
    assert "groups of 8, but was given a batch of 60" in text
