"""A start from another run's weights: what is copied where, what is told, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ganzoo.augment import ADA, InstanceNoise
from ganzoo.errors import UserError
from ganzoo.gan import GAN
from ganzoo.losses import D2GAN
from ganzoo.models import DCGAN, MLPGAN, ProgressiveGAN
from ganzoo.transfer import start_from
from ganzoo.tricks import DualDiscriminator, FreezeD, Growing
from tests.common import fit, flat, max_difference, normal_batches
from tests.mutants import kills


def model(seed: int, **options) -> DCGAN:
    torch.manual_seed(seed)
    return DCGAN(8, 1, width=4, **options)


class InFront(DCGAN):
    def __init__(self, seed: int, parts=(), **options) -> None:
        torch.manual_seed(seed)
        super().__init__(8, 1, width=4, parts=[InstanceNoise(), InstanceNoise(), *parts], **options)


def saved(gan: GAN, path: Path, shape: tuple[int, ...] = (8, 1, 8, 8)) -> Path:
    """The checkpoint of the model after three cycles: its average is then not its generator."""
    trainer = fit(gan, normal_batches(*shape), max_steps=3)
    trainer.save_checkpoint(path)
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(model(1), tmp_path_factory.mktemp("source") / "source.ckpt")


def state(path: Path, network: str) -> dict[str, torch.Tensor]:
    content = torch.load(path, weights_only=True)["state_dict"]
    return {key.removeprefix(f"{network}."): t for key, t in content.items() if key.startswith(f"{network}.")}


def check_all(source: Path) -> Callable[[Callable[..., object]], None]:
    """Each network has the values of its own in the checkpoint, raw or averaged; nothing else of the run came along."""

    def check(start: Callable[..., object]) -> None:
        gan = model(2)
        start(gan, source)
        for network in ("generator", "discriminator", "generator_ema"):
            assert max_difference(getattr(gan, network).state_dict(), state(source, network)) == 0.0
        assert gan.clock.images == gan.clock.g_turns == gan.clock.cycles == 0
        assert gan.seed == 0 and gan.meter.state()["values"] == {}
        assert [p.requires_grad for p in gan.generator_ema.parameters()] == [False] * 5
        assert all(p.requires_grad for p in gan.generator.parameters())

    return check


def raw_into_the_average(gan, path) -> None:
    start_from(gan, path)
    gan.generator_ema.load_state_dict(gan.generator.state_dict())


def average_into_both(gan, path) -> None:
    start_from(gan, path)
    gan.generator.load_state_dict(gan.generator_ema.state_dict())


def with_its_clock(gan, path) -> None:
    gan.on_load_checkpoint(torch.load(path, weights_only=True))
    start_from(gan, path)


def generator_alone(gan, path) -> None:
    kept = {key: t.clone() for key, t in gan.discriminator.state_dict().items()}
    start_from(gan, path)
    gan.discriminator.load_state_dict(kept)


def test_raw_weights_and_averages_come_to_their_places(source: Path) -> None:
    average, raw = state(source, "generator_ema"), state(source, "generator")
    assert max_difference(average, raw) > 0
    check = check_all(source)
    check(start_from)
    for mutant in (raw_into_the_average, average_into_both, with_its_clock, generator_alone):
        kills(check, mutant)


def test_what_does_not_match_is_told_and_stays_as_it_was(source: Path) -> None:
    """A model with classes: its first layer takes more inputs, and it has embeddings."""
    gan, same = model(3, num_classes=2), model(3, num_classes=2)
    found = start_from(gan, source)
    assert list(found.reshaped) == ["generator.layers.0.weight", "generator_ema.layers.0.weight"]
    assert found.reshaped["generator.layers.0.weight"] == ((100, 4, 4, 4), (200, 4, 4, 4))
    embeds = [f"{network}.embed.weight" for network in ("generator", "discriminator", "generator_ema")]
    assert found.missing == embeds
    assert found.left == []
    untouched = dict(same.state_dict())
    for key, tensor in gan.state_dict().items():
        kept = key in found.missing or key in found.reshaped
        there = torch.load(source, weights_only=True)["state_dict"].get(key)
        assert torch.equal(tensor, untouched[key] if kept else there)
    assert found.lines() == [
        f"Start: {len(found.loaded)} of {len(gan.state_dict())} tensors from {source} (DCGAN at 0.024 kimg)",
        f"       3 not in the checkpoint: {', '.join(embeds)}",
        "       2 of another shape: generator.layers.0.weight (100x4x4x4 there, 200x4x4x4 here), "
        "generator_ema.layers.0.weight (100x4x4x4 there, 200x4x4x4 here)",
    ]


def test_what_is_left_over_is_told_by_its_first_names(source: Path) -> None:
    found = start_from(model(3, ema=None), source)
    averaged = [f"generator_ema.{key}" for key in state(source, "generator_ema")]
    assert found.left == averaged
    assert found.lines()[1] == f"       {len(averaged)} left over: {', '.join(averaged[:3])}, ..."


def test_without_an_average_there_the_average_is_of_the_loaded_weights(tmp_path: Path) -> None:
    source = saved(model(1, ema=None), tmp_path / "raw.ckpt")
    gan = model(2)
    found = start_from(gan, source)
    assert max_difference(gan.generator_ema.state_dict(), state(source, "generator")) == 0.0
    assert found.lines() == [
        f"Start: {len(found.loaded)} of {len(found.loaded)} tensors from {source} (DCGAN at 0.024 kimg); it has no "
        "average, which begins with the generator's weights"
    ]


def test_parts_are_found_by_their_class_and_statistics_stay_behind(tmp_path: Path) -> None:
    """The second discriminator is the part number 1 there and 0 here; p of the augmentation belongs to the old game."""
    ada = {"p": 0.25, "target": None}
    one = model(1, loss=D2GAN(), parts=[ADA(**ada), DualDiscriminator()])
    source = saved(one, tmp_path / "dual.ckpt")
    two = model(2, loss=D2GAN(), parts=[DualDiscriminator(), ADA()])
    found = start_from(two, source)
    assert torch.equal(flat(two.tricks[0].network), flat(one.tricks[1].network))
    assert two.tricks[1].p.item() == 0.0
    assert (found.missing, found.reshaped, found.left) == ([], {}, [])
    plain = model(3, loss=D2GAN(), parts=[DualDiscriminator()])
    without = saved(model(1), tmp_path / "one.ckpt")
    assert start_from(plain, without).missing == [
        key for key in plain.state_dict() if key.startswith("parts.0.network.")
    ]


def test_a_level_belongs_to_the_clock(tmp_path: Path) -> None:
    """The other run ended at its first level; one without growth begins at full size with all of its weights."""
    options = {"channels": 1, "channel_max": 4, "latent_dim": 4, "penalties": []}
    one = ProgressiveGAN(8, growth=Growing(fade_kimg=100), **options)
    source = saved(one, tmp_path / "small.ckpt")
    assert (one.generator.level, one.clock.g_turns) == (0, 3)
    two = ProgressiveGAN(8, growth=None, **options)
    found = start_from(two, source)
    assert (two.generator.level, two.discriminator.level, two.generator_ema.level) == (1, 1, 1)
    assert (found.missing, found.reshaped, found.left) == ([], {}, [])
    assert torch.equal(flat(two.generator), flat(one.generator))
    assert not any("extra" in name for name in found.loaded)


def test_parts_that_a_model_puts_in_front_of_those_of_its_recipe_count(tmp_path: Path) -> None:
    """The model of the checkpoint names three parts, of which its recipe's list has the last one."""
    one = InFront(1, parts=[DualDiscriminator()], loss=D2GAN())
    source = saved(one, tmp_path / "front.ckpt")
    two = model(2, loss=D2GAN(), parts=[DualDiscriminator()])
    start_from(two, source)
    assert torch.equal(flat(two.tricks[0].network), flat(one.tricks[2].network))


def test_what_only_biases_match_is_another_architecture(source: Path, tmp_path: Path) -> None:
    content = torch.load(source, weights_only=True)
    content["state_dict"] = {key: t for key, t in content["state_dict"].items() if t.dim() < 2}
    torch.save(content, tmp_path / "biases.ckpt")
    with pytest.raises(UserError, match="no weight of this DCGAN"):
        start_from(model(2), tmp_path / "biases.ckpt")


def test_a_start_from_nothing_is_refused(source: Path) -> None:
    with pytest.raises(UserError) as refused:
        start_from(MLPGAN(), source)
    assert str(refused.value) == (
        f"Nothing was loaded from {source} (DCGAN at 0.024 kimg): no weight of this MLPGAN has the name and shape "
        "of one there; choose a checkpoint of a MLPGAN with the same options."
    )


def test_random_layers_are_not_frozen(source: Path) -> None:
    torch.manual_seed(0)
    colour = DCGAN(8, 3, width=4, parts=[FreezeD(1)])
    with pytest.raises(UserError) as refused:
        start_from(colour, source)
    assert str(refused.value) == (
        f"discriminator.layers.0.weight is frozen, but {source} (DCGAN at 0.024 kimg) has none of this name and shape, "
        "so that it would stay random: freeze no layers, or choose another checkpoint."
    )
    two = model(2, loss=D2GAN(), parts=[FreezeD(1), DualDiscriminator()])  # whose second one has the flags of the first
    with pytest.raises(UserError, match=r"parts\.1\.network\.layers\.0\.weight is frozen"):
        start_from(two, source)
    gray = model(2, parts=[FreezeD(1)])
    start_from(gray, source)
    assert torch.equal(gray.discriminator.layers[0].weight, state(source, "discriminator")["layers.0.weight"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no checkpoint", "so it was not loaded"),
        ({"state_dict": {}}, "is no checkpoint of ganzoo"),
        ("no weights", "is damaged: it holds no weights"),
        ("code", "holds more than weights and plain data"),
    ],
)
def test_wrong_files_are_refused(content, words: str, source: Path, tmp_path: Path) -> None:
    file = tmp_path / "wrong.ckpt"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content == "no weights":
        whole = torch.load(source, weights_only=True)
        torch.save({**whole, "state_dict": {"generator.layers.0.weight": 3}}, file)
    else:
        torch.save(Path("/") if content == "code" else content, file)
    gan, before = model(2), model(2)
    with pytest.raises(UserError, match=words):
        start_from(gan, file)
    assert max_difference(gan.state_dict(), before.state_dict()) == 0.0
