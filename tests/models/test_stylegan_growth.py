"""StyleGAN while it grows: the two ends of a fade-in, what each pass uses, and runs over boundaries."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganzoo import streams
from ganzoo.cli import main
from ganzoo.config import build
from ganzoo.data import Digits
from ganzoo.errors import UserError
from ganzoo.gan import GAN
from ganzoo.layers.filtered import downsample, upsample
from ganzoo.layers.growth import real_at_level
from ganzoo.layers.modulated import activate
from ganzoo.layers.style_networks import GrowingSynthesisNetwork
from ganzoo.models import DCGAN, StyleGAN
from ganzoo.models.stylegan import GrowingStyleGANDiscriminator, GrowingStyleGANGenerator
from ganzoo.parts import Part, Turn
from ganzoo.penalties import R1, PathLength
from ganzoo.tricks import Growing, Packing
from tests.common import fit, flat, normal_batches, quiet_trainer
from tests.mutants import kills
from tests.test_resume import same

CPU = torch.device("cpu")
SKIPS = {"generator_architecture": "skip", "discriminator_architecture": "skip"}
BATCH = 16
#: Stable for 3 batches, faded in over 4; the levels begin at 48, 160 and 272 images.
QUICK = {"stabilize_kimg": 0.048, "fade_kimg": 0.064}
LATENTS = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANZOO_CACHE", str(tmp_path / "cache"))


def tiny(growth: Growing | None, size: int = 16, **options) -> StyleGAN:
    """Networks of three levels in which noise acts."""
    torch.manual_seed(3)
    small = {"channel_base": 64, "latent_dim": 6, "style_dim": 8, "mapping_layers": 2, "group": 2}
    gan = StyleGAN(size, 1, growth=growth, **{**small, **options})
    for name, p in gan.named_parameters():
        if name.endswith("strength"):
            p.data.fill_(0.5)
        elif name.endswith("bias"):
            p.data.normal_()
    gan.step_seconds = 0.0
    return gan


def at(network: nn.Module, level: int, alpha: float = 1.0) -> nn.Module:
    network.set_level(level, alpha)
    return network


def drawn(function: Callable[[], Tensor], num: int = 4) -> Tensor:
    """What a function gives inside a turn's stream, whose noise and mixing do not change."""
    with streams.stream(5, start=0, num=num, total=num, device=CPU):
        return function()


def generator_of(cls: type, synthesis: type = GrowingSynthesisNetwork) -> nn.Module:
    generator = tiny(Growing(), mixing=0.0).generator
    generator.__class__, generator.synthesis.__class__ = cls, synthesis
    return generator


def discriminator_of(cls: type) -> nn.Module:
    discriminator = tiny(Growing()).discriminator
    discriminator.__class__ = cls
    return discriminator


# ---------------------------------------------------------------------- the two ends of a fade-in


def check_generator(synthesis: type) -> None:
    """At 0 the lower level's image, upsampled; at 1 plus the level's own, and a straight line between."""
    generator = generator_of(GrowingStyleGANGenerator, synthesis)
    for level in (1, 2):
        old = upsample(drawn(lambda level=level: at(generator, level - 1)(LATENTS)))
        found = {a: drawn(lambda a=a, level=level: at(generator, level, a)(LATENTS)) for a in (0.0, 0.3, 1.0)}
        assert found[1.0].shape == (4, 1, 4 << level, 4 << level)
        assert torch.equal(found[0.0], old)
        own: list[Tensor] = []
        hook = generator.synthesis.blocks[level].rgb.register_forward_hook(lambda m, x, y, own=own: own.append(y))
        drawn(lambda level=level: at(generator, level)(LATENTS))
        hook.remove()
        assert own[0].abs().max() > 0.1
        for alpha, images in found.items():
            assert torch.allclose(images, old + alpha * own[0], atol=1e-5)


def check_discriminator(cls: type) -> None:
    """At 0 the lower level's logits of the filtered image; between, its first features plus a share of the block's."""
    discriminator = discriminator_of(cls)
    b, stems = discriminator.blocks, [discriminator.stem, *discriminator.stems]
    for level in (1, 2):
        images = torch.randn(4, 1, 4 << level, 4 << level)
        before = at(discriminator, level - 1)(downsample(images))
        assert torch.equal(at(discriminator, level, 0.0)(images), before)
        for alpha in (0.3, 1.0):
            x, smaller, share = activate(stems[2 - level](images)), images, alpha
            for k in range(2 - level, 2):
                smaller = downsample(smaller)
                x, share = share * b[k](x) + activate(stems[k + 1](smaller)), 1.0
            logits = at(discriminator, level, alpha)(images)
            with mock.patch.object(discriminator, "features", lambda _, x=x: x):
                assert torch.allclose(logits, discriminator(images), atol=1e-5)
        assert (logits - before).abs().max() > 1e-3


class PixelsRepeated(GrowingSynthesisNetwork):
    """Enlarges the old image another way than the skips do."""

    def forward(self, w, noise=None):
        def repeat(x: Tensor) -> Tensor:
            return F.interpolate(x, scale_factor=2)

        with mock.patch("ganzoo.layers.style_networks.upsample", repeat):
            return super().forward(w, noise)


class NeverFades(GrowingSynthesisNetwork):
    def forward(self, w, noise=None):
        with mock.patch.object(self, "alpha", 1.0):
            return super().forward(w, noise)


class Rooted(GrowingSynthesisNetwork):
    """A mistake that both ends miss."""

    def forward(self, w, noise=None):
        with mock.patch.object(self, "alpha", math.sqrt(self.alpha)):
            return super().forward(w, noise)


class RootedCritic(GrowingStyleGANDiscriminator):
    def features(self, images):
        with mock.patch.object(self, "alpha", math.sqrt(self.alpha)):
            return super().features(images)


class EachBlockFades(GrowingStyleGANDiscriminator):
    def features(self, images):
        for block in self.blocks:
            block.register_forward_hook(lambda m, x, y: y * self.alpha)
        with mock.patch.object(self, "alpha", 1.0 if self.level else self.alpha):
            return super().features(images)


class MeansOfPixels(GrowingStyleGANDiscriminator):
    def features(self, images):
        with mock.patch("ganzoo.models.stylegan.downsample", lambda x: F.avg_pool2d(x, 2)):
            return super().features(images)


def test_fading() -> None:
    check_generator(GrowingSynthesisNetwork)
    for wrong in (PixelsRepeated, NeverFades, Rooted):
        kills(check_generator, wrong)
    check_discriminator(GrowingStyleGANDiscriminator)
    for wrong in (RootedCritic, EachBlockFades, MeansOfPixels):
        kills(check_discriminator, wrong)


def test_grown_networks_are_those_without_growth_bit_for_bit() -> None:
    """With the same weights, in training and in evaluation mode, with labels, mixing, noise and gradients."""
    grown, fixed = tiny(Growing(), num_classes=3, label_layers=1), tiny(None, num_classes=3, label_layers=1, **SKIPS)
    labels, images = torch.tensor([0, 2, 1, 1]), torch.randn(4, 1, 16, 16)
    for name in ("generator", "discriminator"):
        new, old = at(getattr(grown, name), 2).state_dict(), getattr(fixed, name).state_dict()
        assert set(new) - set(old) == {"_extra_state"}
        assert all(torch.equal(new[key], tensor) for key, tensor in old.items())  # the same draws, too
    assert not any("_extra_state" in key for key in fixed.state_dict())
    for mode in (True, False):
        for gan in (grown, fixed):
            gan.train(mode)
        found = [drawn(lambda gan=gan: gan.generator(LATENTS, labels)) for gan in (grown, fixed)]
        assert torch.equal(*found)
        assert torch.equal(grown.discriminator(images, labels), fixed.discriminator(images, labels))
    gradients = []
    for gan in (grown, fixed):
        gan.train()
        drawn(lambda gan=gan: gan.discriminator(gan.generator(LATENTS, labels), labels)).sum().backward()
        gradients.append([p.grad for p in [*gan.generator.parameters(), *gan.discriminator.parameters()]])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def check_real(cls: type) -> None:
    """A fade-in begins with what the level below shows, enlarged by the generator's own filter."""
    generator, images = generator_of(cls), torch.randn(3, 1, 16, 16)
    now = images.view(3, 1, 8, 2, 8, 2).mean(dim=(3, 5))
    low = upsample(now.view(3, 1, 4, 2, 4, 2).mean(dim=(3, 5)))
    for alpha in (0.0, 0.25, 1.0):
        shown = real_at_level(images, at(generator, 1, alpha))
        assert torch.allclose(shown, (1 - alpha) * low + alpha * now, atol=1e-6)


class RepeatsPixels(GrowingStyleGANGenerator):
    def enlarged(self, images):
        return F.interpolate(images, scale_factor=2)


def test_real_images_are_blended_as_generated_ones_are() -> None:
    check_real(GrowingStyleGANGenerator)
    kills(check_real, RepeatsPixels)


# ---------------------------------------------------------------------- what a pass uses


def check_rest(cls: type, other: type) -> None:
    """At each level the levels above have no gradient, and are what rests; all else has one."""
    for level in (0, 1, 2):
        generator, discriminator = at(generator_of(cls), level, 0.5), at(discriminator_of(other), level, 0.5)
        discriminator(generator(LATENTS)).square().sum().backward()
        for network in (generator, discriminator):
            idle = {p for p in network.parameters() if p.grad is None}
            assert idle == set(network.dormant())
            assert all(p.grad.abs().sum() > 0 for p in network.parameters() if p not in idle)
        blocks = [*generator.synthesis.blocks[level + 1 :], *discriminator.blocks[: 2 - level]]
        stems = [discriminator.stem, *discriminator.stems][: 2 - level]
        rests = {p for module in (*blocks, *stems) for p in module.parameters()}
        assert rests == {*generator.dormant(), *discriminator.dormant()}


class NobodyRests(GrowingStyleGANGenerator):
    def dormant(self):
        return []


class OldStemRests(GrowingStyleGANDiscriminator):
    """As in a network whose image enters at one level alone."""

    def dormant(self):
        return [*super().dormant(), *(p for stem in self.stems[self.above :] for p in stem.parameters())]


class StemsStay(GrowingStyleGANDiscriminator):
    def dormant(self):
        return list(self.blocks[: self.above].parameters())


def test_levels_above_have_no_gradient() -> None:
    check_rest(GrowingStyleGANGenerator, GrowingStyleGANDiscriminator)
    kills(lambda cls: check_rest(cls, GrowingStyleGANDiscriminator), NobodyRests)
    for wrong in (OldStemRests, StemsStay):
        kills(lambda cls: check_rest(GrowingStyleGANGenerator, cls), wrong)


def check_mixing(cls: type) -> None:
    """Where styles change over, with a probability of 1, is each layer in use but the first, and no other."""
    generator = generator_of(cls)
    generator.mapping.mixing = 1.0
    for level in (0, 1, 2):
        at(generator, level)
        with streams.stream(7, start=0, num=200, total=200, device=CPU):
            w = generator.mapping(torch.randn(200, 6))
        assert w.shape == (200, 2 * level + 2, 8)
        changes = [int((one[1:] != one[:-1]).any(dim=1).nonzero()) for one in w]  # exactly one
        assert set(changes) == set(range(2 * level + 1))


class AllStyles(GrowingStyleGANGenerator):
    """Styles of layers that are not in use, too."""

    def set_level(self, level, alpha=1.0):
        super().set_level(level, alpha)
        self.mapping.num_styles = 6


def test_styles_are_mixed_among_the_layers_in_use() -> None:
    check_mixing(GrowingStyleGANGenerator)
    kills(check_mixing, AllStyles)


def check_path_length(cls: type) -> None:
    """|J^T y| with noise of variance 1 / r^2 for images of r pixels, and a mean over the styles in use."""
    gan = tiny(Growing())
    gan.generator.__class__, penalty = cls, PathLength(fraction=1.0)
    gan.generator.mapping.mixing = 0.0
    for level, alpha in ((0, 1.0), (1, 0.4), (1, 1.0), (2, 1.0)):
        at(gan.generator, level, alpha)
        size, turn = 4 << level, Turn(gan, "generator", 0, 0.0, latents=LATENTS)
        length = drawn(lambda turn=turn: penalty.lengths(turn))

        def by_hand(size: int = size, level: int = level) -> Tensor:
            w = gan.generator.mapping.style(LATENTS).detach()[:, None].repeat(1, 2 * level + 2, 1).requires_grad_()
            images = gan.generator.synthesis(w)
            assert images.shape[2:] == (size, size)
            y = streams.randn(4, 1, size, size, purpose="y", device=CPU) / size
            (slope,) = torch.autograd.grad((images * y).sum(), w)
            return slope.square().sum(dim=2).mean(dim=1).sqrt()

        with streams.stream(5, start=0, num=4, total=4, device=CPU), streams.thinned(1, "path length"):
            assert torch.allclose(length, by_hand(), rtol=1e-4)


class FullSize(GrowingStyleGANGenerator):
    """As if training made images of the full size at every level."""

    def set_level(self, level, alpha=1.0):
        super().set_level(level, alpha)
        self.synthesis.training = False


def test_path_length_has_the_scale_of_the_level() -> None:
    check_path_length(GrowingStyleGANGenerator)
    for wrong in (FullSize, AllStyles):
        kills(check_path_length, wrong)


def test_the_cutoff_counts_layers_in_use() -> None:
    """Beyond them it is all of them."""
    generator = at(generator_of(GrowingStyleGANGenerator), 1).eval()
    generator.mapping.mean_style.normal_()
    generator.synthesis.noise = "fixed"
    w, mean = generator.mapping(LATENTS), generator.mapping.mean_style
    assert w.shape == (4, 4, 8)
    for cutoff, num in ((None, 4), (0, 0), (3, 3), (5, 4)):
        mixed = torch.cat([0.5 * (w + mean)[:, :num], w[:, num:]], dim=1)
        found = generator.truncated(LATENTS, None, 0.5, cutoff)
        assert torch.allclose(found, generator.synthesis(mixed), atol=1e-5)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_in_evaluation_images_have_the_full_size(level: int) -> None:
    """Pixels are repeated, and averaged again; noise is that of the levels in use."""
    gan = tiny(Growing(), mixing=0.0)
    generator, discriminator = (at(network, level, 0.5) for network in (gan.generator, gan.discriminator))
    images = drawn(lambda: generator(LATENTS))
    logits = discriminator(images)
    gan.eval()
    whole = drawn(lambda: generator(LATENTS))
    assert torch.equal(whole, F.interpolate(images, scale_factor=4 >> level))
    assert torch.allclose(discriminator(whole), logits, atol=1e-5)
    assert gan.sample(2, averaged=False).shape == (2, 1, 16, 16)
    with streams.numbered(range(4), 1, device=CPU) as source:
        generator(LATENTS)
    layers = {"noise.0", *(f"noise.{k}{up}" for k in range(1, level + 1) for up in ("", ".up"))}
    assert {name.partition("/")[2] for name in source.generators} == layers


# ---------------------------------------------------------------------- runs


class Watch(Part):
    """Keeps what each turn of the discriminator saw, and the shapes that R1 and path length worked on."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple] = []

    def after_step(self, turn: Turn) -> None:
        if turn.player == "discriminator":
            networks = turn.gan.generator, turn.gan.discriminator, turn.gan.generator_ema
            levels = {(network.level, network.alpha) for network in networks}
            known = [set(optimizer.optimizer.state) for optimizer in turn.gan.player_optimizers.values()]
            rest = [not seen & set(network.dormant()) for seen, network in zip(known, networks, strict=False)]
            self.seen.append((levels, turn.real.shape[2], turn.fake.shape[2], all(rest)))


def both() -> list:
    return [R1(1.0, every=2), PathLength(1.0, every=2)]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_run_over_two_boundaries(precision: str) -> None:
    """Levels, sizes and who is known to the optimizers in each turn; every level is trained, and built again."""
    watch = Watch()
    gan, fresh = tiny(Growing(**QUICK), parts=[watch], penalties=both()), tiny(Growing())
    fit(gan, normal_batches(BATCH, 1, 16, 16), max_steps=12, precision=precision)
    expected = []
    for images in range(0, 12 * BATCH, BATCH):
        level = 0 if images < 48 else 1 if images < 160 else 2
        alpha = {0: 1.0, 1: min(1, (images - 48) / 64), 2: min(1, (images - 160) / 64)}[level]
        expected.append(({(level, alpha)}, 4 << level, 4 << level, True))
    assert watch.seen == expected
    for name in ("generator", "discriminator"):
        assert flat(getattr(gan, name)).isfinite().all()
        for (key, now), then in zip(
            getattr(gan, name).named_parameters(), getattr(fresh, name).parameters(), strict=True
        ):
            assert not torch.equal(now, then), key
    config = gan.config()
    config["init_args"]["parts"] = []
    again = build(config)
    assert again.config() == config
    state = {
        key.replace("parts.2.", "parts.1.").replace("parts.3.", "parts.2."): v for key, v in gan.state_dict().items()
    }
    again.load_state_dict(state)
    assert (again.generator.level, again.generator.alpha) == (2, 1 / 4)
    assert again.generator_ema.mapping.num_styles == 6
    assert torch.equal(again.sample(2), gan.sample(2))


def test_packs_enter_at_every_level() -> None:
    """Each layer that sees the image takes the channels of two."""
    gan = tiny(Growing(0.016, fade_kimg=0.016), parts=[Packing()], penalties=both())
    discriminator = gan.discriminator
    assert [stem.in_channels for stem in (discriminator.stem, *discriminator.stems)] == [2, 2, 2]
    before = flat(discriminator)
    fit(gan, normal_batches(BATCH, 1, 16, 16), max_steps=6)
    assert discriminator.level == 2 and flat(discriminator).isfinite().all()
    assert not torch.equal(flat(discriminator), before)


def test_levels_above_rest_in_the_average() -> None:
    gan, fresh = tiny(Growing(1.0), penalties=both()), tiny(Growing(1.0), penalties=both())
    fit(gan, normal_batches(BATCH, 1, 16, 16), max_steps=3)
    for name in ("generator", "discriminator", "generator_ema"):
        now, then = getattr(gan, name), getattr(fresh, name)
        assert all(torch.equal(a, b) for a, b in zip(now.dormant(), then.dormant(), strict=True))
        rests = {id(p) for p in now.dormant()}
        assert 0 < len(rests) < len(list(now.parameters()))
        pairs = zip(now.parameters(), then.parameters(), strict=True)
        assert all(not torch.equal(a, b) for a, b in pairs if id(a) not in rests)


def stopped_at(folder: Path, steps: int, start: Path | None = None, spoil=None) -> dict:
    growth = Growing(**QUICK, batch_size={4: 24, 8: 16, 16: 8}, lr={8: 2.0})
    gan = tiny(growth, penalties=both())
    if spoil is not None:
        spoil(gan)
    trainer = quiet_trainer(max_steps=steps)
    torch.manual_seed(4 if start is None else 99)  # another state of the global generator must not matter
    trainer.fit(gan, Digits(image_size=16, batch_size=BATCH), ckpt_path=start, weights_only=True)
    path = folder / f"{steps}-{start is not None}.ckpt"
    trainer.save_checkpoint(path)
    return {"path": path, **torch.load(path, weights_only=True)}


def check_resume(folder: Path, stop: int, spoil=None) -> None:
    whole, parts = stopped_at(folder, 13), stopped_at(folder, 13, stopped_at(folder, stop)["path"], spoil)
    for key in ("state_dict", "optimizer_states", "ganzoo"):
        same(whole[key], parts[key], key)


#: Turns before: 2 at 4x4 (48 images), 4 of fading in (112), 3 at 8x8 (160), then a fade-in.
@pytest.mark.slow
@pytest.mark.parametrize("stop", [2, 4, 9, 11])
def test_resume_is_bitwise_inside_a_fade_in_and_at_a_boundary(tmp_path: Path, stop: int) -> None:
    check_resume(tmp_path, stop)


@pytest.mark.slow
def test_a_resume_at_a_boundary_needs_the_level(tmp_path: Path) -> None:
    def forget(gan: GAN) -> None:
        for network in gan.tricks[0].networks:
            network.set_extra_state = lambda state: None

    kills(lambda spoil: check_resume(tmp_path, 4, spoil), forget)


# ---------------------------------------------------------------------- what is said, what is refused


@pytest.mark.parametrize("options", [{"generator_architecture": "plain"}, {"discriminator_architecture": "residual"}])
def test_other_architectures_are_refused(options) -> None:
    with pytest.raises(UserError, match=f"{next(iter(options))} {next(iter(options.values()))}.* set both to skip"):
        tiny(Growing(), **options)


def test_the_architecture_without_growth_is_the_paper_s() -> None:
    assert tiny(None).discriminator.blocks[0].skip is not None and not len(tiny(None).discriminator.stems)


def test_sizes() -> None:
    """From what the networks begin with, such as 6x6, or any level above it."""
    assert tiny(Growing(start_resolution=6), 24).generator.resolution == 6
    assert tiny(Growing(start_resolution=8), 16).generator.resolution == 8
    with pytest.raises(UserError, match="resolutions 6, 12, 24"):
        tiny(Growing(), 24)
    with pytest.raises(UserError, match="not square"):
        tiny(Growing(), (16, 24))


def test_the_part_alone_is_told_where_it_fits() -> None:
    for refused in (lambda: tiny(None, parts=[Growing()], **SKIPS), lambda: DCGAN(16, 1, width=4, parts=[Growing()])):
        with pytest.raises(UserError, match=r"no levels: use .*ProgressiveGAN, or StyleGAN with its own option growth"):
            refused()


TINY = (
    "--model StyleGAN --model.latent_dim 4 --model.style_dim 8 --model.channel_base 32 --model.mapping_layers 1 "
    "--data Digits --data.image_size 16 --data.batch_size 16 --samples.num 1 --samples.gif false --run_dir run"
).split()


def test_one_option_of_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It begins at 4x4; samples of its checkpoint have the full size. With its own numbers it ends inside a fade-in."""
    monkeypatch.chdir(tmp_path)
    short = ["--model.total_kimg", "0.08"]
    with pytest.warns(UserWarning, match="full resolution, 16, from 3200 kimg on"):
        assert main(["fit", *TINY, "--model.growth", "Growing", *short]) == 0
    (tmp_path / "run").rename(tmp_path / "first")
    growth = ["--model.growth.stabilize_kimg", "0.032", "--model.growth.fade_kimg", "0.064"]
    with pytest.warns(UserWarning, match="full resolution, 16, from"):
        assert main(["fit", *TINY, "--model.growth", "Growing", *growth, *short]) == 0
    for run, block in (("first", 4), ("run", 2)):
        assert main(["sample", run, "--num", "2", "--out", f"{run}.npy"]) == 0
        images = np.load(f"{run}.npy")
        assert images.shape == (2, 1, 16, 16)
        assert np.array_equal(images, images[:, :, ::block, ::block].repeat(block, 2).repeat(block, 3))
    assert "level" in (tmp_path / "run" / "metrics.csv").read_text().splitlines()[0]
