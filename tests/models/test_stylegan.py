"""StyleGAN2: counts by hand, what each style and noise reaches, truncation, the mean style, and its training."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ganzoo import streams
from ganzoo.augment import ADA
from ganzoo.config import build
from ganzoo.data import Digits
from ganzoo.errors import UserError
from ganzoo.latents import Uniform
from ganzoo.layers.filtered import upsample
from ganzoo.layers.modulated import StyledConv
from ganzoo.layers.style_networks import SynthesisNetwork
from ganzoo.models import StyleGAN
from ganzoo.models import stylegan as module
from ganzoo.parts import Turn
from ganzoo.penalties import R1, PathLength
from tests.common import Endless, fit, flat, max_difference, normal_batches, quiet_trainer
from tests.mutants import kills

CPU = torch.device("cpu")
ARCHITECTURES = ["skip", "residual", "plain"]


def tiny(size=16, channels: int = 3, cls=StyleGAN, **options) -> StyleGAN:
    torch.manual_seed(3)
    small = {"channel_base": 128, "latent_dim": 6, "style_dim": 8, "mapping_layers": 2, "label_layers": 2}
    gan = cls(size, channels, **{**small, **options})
    for layer in styled_layers(gan.generator):
        layer.bias.data.normal_()
        if layer.strength is not None:
            layer.strength.data.fill_(0.5)
    return gan


def styled_layers(generator: nn.Module) -> list[StyledConv]:
    return [layer for layer in generator.modules() if isinstance(layer, StyledConv)]


def same_noise(function, num: int) -> Tensor:
    """What a function gives inside a turn's stream, whose noise does not change."""
    with streams.stream(5, start=0, num=num, total=num, device=CPU):
        return function()


# ---------------------------------------------------------------------- counts and shapes


def by_hand(size: int, base: int, most: int, mapping: int, *, channels: int = 3) -> tuple[int, int]:
    """Parameters of both networks with skips and residuals, by the tables of the paper; latents and styles of 512."""

    def width(resolution: int) -> int:
        return min(base // resolution, most)

    def styled(a: int, b: int) -> int:
        return 9 * a * b + b + 1 + 512 * a + a  # weight, bias, strength of noise, and the affine map of the style

    def image(a: int) -> int:
        return a * channels + channels + 512 * a + a

    resolutions = [2**i for i in range(2, size.bit_length())]
    generator = mapping * (512 * 512 + 512) + 16 * width(4) + styled(width(4), width(4)) + image(width(4))
    discriminator = channels * width(size) + width(size)
    for low, high in pairwise(resolutions):
        a, b = width(low), width(high)
        generator += styled(a, b) + styled(b, b) + image(b)
        discriminator += 9 * b * b + b + 9 * b * a + a + b * a
    last = width(4)
    discriminator += 9 * (last + 1) * last + last + 16 * last * last + last + last + 1
    return generator, discriminator


@pytest.mark.parametrize(
    ("size", "base", "most", "mapping", "published"),
    [
        (32, 4096, 256, 2, (5.24e6, 4.61e6)),
        (64, 4096, 512, 2, (12.2e6, 14.0e6)),
        (32, 32768, 512, 2, None),  # for CIFAR-10
        (256, 16384, 512, 8, (24.8e6, 24.0e6)),  # for images of 256 pixels
        (1024, 16384 * 2, 512, 8, (30.4e6, 29.0e6)),  # the paper's
    ],
)
def test_parameters(size, base, most, mapping, published) -> None:
    with torch.device("meta"):
        gan = StyleGAN(size, channel_base=base, channel_max=most, mapping_layers=mapping)
    found = tuple(sum(p.numel() for p in network.parameters()) for network in (gan.generator, gan.discriminator))
    assert found == by_hand(size, base, most, mapping)
    if published:
        assert found == pytest.approx(published, rel=0.005)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("size", "channels"), [(8, 1), (16, 4), ((24, 16), 3), ((16, 64), 2), (20, 3)])
def test_shapes(size, channels, architecture) -> None:
    """Any number of channels and any size that is a small one, doubled."""
    options = {"generator_architecture": architecture, "discriminator_architecture": architecture}
    gan = tiny(size, channels, **options)
    images = gan.generator(torch.randn(4, 6))
    assert images.shape == (4, channels, *((size, size) if isinstance(size, int) else size))
    assert gan.discriminator(images).shape == (4,)
    assert gan.generator.mapping(torch.randn(2, 6)).shape == (2, gan.generator.synthesis.num_styles, 8)


def test_layers_of_an_image_of_1024_pixels() -> None:
    with torch.device("meta"):
        synthesis = StyleGAN(1024).generator.synthesis
    assert synthesis.num_styles == 18 and len(styled_layers(synthesis)) == 17
    assert [conv.conv.weight.shape[0] for conv in styled_layers(synthesis)] == [
        *[512] * 9, *[256] * 2, *[128] * 2, *[64] * 2, *[32] * 2,
    ]  # fmt: skip


@pytest.mark.parametrize("size", [4, 7, 33, (34, 34), (32, 33), 0])
def test_other_sizes_are_refused(size) -> None:
    with pytest.raises(UserError, match="the shorter side is 4 to 15 times a power of two"):
        StyleGAN(size)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"channels": 0}, "channels 0, which must be 1 or more"),
        ({"channel_base": 15}, "channel_base 15, which must be 16 or more"),
        ({"mapping_layers": 0}, "mapping_layers 0"),
        ({"group": -1}, "group -1, which must be 0"),
        ({"mixing": 1.5}, "mixing 1.5"),
        ({"style_decay": 1.0}, "style_decay 1.0"),
        ({"latents": Uniform()}, "mixed with those of normal latents"),
    ],
)
def test_impossible_options_are_refused(options, words) -> None:
    with pytest.raises(UserError, match=words):
        tiny(**{"size": 16, **options})


def test_gradient_reaches_every_parameter() -> None:
    for architecture in ARCHITECTURES:
        options = {"generator_architecture": architecture, "discriminator_architecture": architecture}
        gan = tiny(num_classes=3, **options)
        labels = torch.arange(4) % 3
        gan.discriminator(gan.generator(torch.randn(4, 6), labels), labels).square().sum().backward()
        for player in gan.players.values():
            assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in player.parameters)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_second_derivatives(architecture) -> None:
    """Of logits by images, and of images by styles, as R1 and path length take them; float64."""
    options = {"generator_architecture": architecture, "discriminator_architecture": architecture}
    gan = tiny(8, 1, channel_base=8, style_dim=3, group=2, **options).double()
    x = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    a = torch.randn(2, dtype=torch.float64, requires_grad=True)
    w = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    weight = gan.discriminator.blocks[0].down.weight
    assert torch.autograd.gradgradcheck(
        lambda a, _: gan.discriminator(x + a[0] * x.roll(1, 2) + a[1] * x.roll(1, 3).square()), (a, weight)
    )
    synthesis = gan.generator.synthesis
    assert torch.autograd.gradgradcheck(lambda w: synthesis(w, "fixed")[..., ::4, ::4], w)


# ---------------------------------------------------------------------- styles


def check_where_styles_act(cls, architecture) -> None:
    """Layer k of the synthesis network has style k; the image of a resolution has that of the next layer."""
    generator = tiny(32, generator_architecture=architecture).generator
    generator.synthesis.__class__ = cls
    seen: list[tuple[int, Tensor]] = []  # number of the style that is the last to change it, and an output

    def watch(layer: nn.Module, style: int) -> None:
        layer.register_forward_hook(lambda module, given, output: seen.append((style, output.detach())))

    for k, layer in enumerate(styled_layers(generator)):
        watch(layer, k)
    for level, block in enumerate(generator.synthesis.blocks):
        if block.rgb is not None:
            watch(block.rgb, 2 * level + 1)
    w = torch.randn(2, 8, 8)
    images = generator.synthesis(w, "fixed")
    before = seen[:]
    for first in range(8):
        seen.clear()
        other = w.clone()
        other[:, first:] = torch.randn(2, 8 - first, 8)
        changed = generator.synthesis(other, "fixed")
        for (style, a), (_, b) in zip(before, seen, strict=True):
            assert torch.equal(a, b) == (style < first)
        assert not torch.equal(images, changed)


class OfTheLayerBefore(SynthesisNetwork):
    def forward(self, w, noise=None):
        return super().forward(w if w.dim() == 2 else torch.cat([w[:, :1], w[:, :-1]], dim=1), noise)


class OfTheLayerBehind(SynthesisNetwork):
    def forward(self, w, noise=None):
        return super().forward(w if w.dim() == 2 else torch.cat([w[:, 1:], w[:, -1:]], dim=1), noise)


class TwoOfEachResolution(SynthesisNetwork):
    """The first layer of a resolution has the style of its second one."""

    def forward(self, w, noise=None):
        return super().forward(w[:, [0, *(k + k % 2 for k in range(1, self.num_styles - 1)), -1]], noise)


class ImagesOfTheirLastLayer(SynthesisNetwork):
    """The image of a resolution has the style of its own last layer, and not that of the next one."""

    def __call__(self, w, noise=None):
        hooks = [
            block.rgb.register_forward_pre_hook(lambda layer, given, k=2 * level: (given[0], w[:, k], *given[2:]))
            for level, block in enumerate(self.blocks)
            if block.rgb is not None
        ]
        image = super().__call__(w, noise)
        for hook in hooks:
            hook.remove()
        return image


class TheFirstForAll(SynthesisNetwork):
    def forward(self, w, noise=None):
        return super().forward(w[:, 0], noise)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_style_changes_its_own_layer_and_those_behind_it_alone(architecture) -> None:
    check_where_styles_act(SynthesisNetwork, architecture)
    for wrong in (OfTheLayerBefore, OfTheLayerBehind, TwoOfEachResolution, ImagesOfTheirLastLayer, TheFirstForAll):
        kills(lambda cls: check_where_styles_act(cls, architecture), wrong)


def test_one_style_for_all_layers() -> None:
    generator = tiny().generator
    w = torch.randn(3, 8)
    alike = generator.synthesis(w[:, None].expand(-1, generator.synthesis.num_styles, -1), "off")
    assert torch.equal(generator.synthesis(w, "off"), alike)


def test_the_image_is_a_sum_over_resolutions() -> None:
    """With skips, it is built as equation by equation: upsampled sum, plus what each resolution adds."""
    generator = tiny(16).generator
    seen: list[Tensor] = []
    for block in generator.synthesis.blocks:
        block.rgb.register_forward_hook(lambda module, given, output: seen.append(output))
    image = generator.synthesis(torch.randn(2, 8))
    assert torch.allclose(image, upsample(upsample(seen[0]) + seen[1]) + seen[2], atol=1e-5)


def test_truncation() -> None:
    """At psi 0 every latent gives the image of the mean style; at 1 its own; the cutoff leaves later layers alone."""

    def check(cls) -> None:
        gan = tiny()
        generator = gan.generator.eval()
        generator.__class__ = cls
        generator.mapping.mean_style.normal_()
        generator.synthesis.noise = "fixed"
        z = torch.randn(5, 6)
        mean = generator.synthesis(generator.mapping.mean_style[None])
        assert torch.allclose(generator.truncated(z, None, 0.0, None), mean.expand(5, -1, -1, -1), atol=1e-5)
        assert torch.allclose(generator.truncated(z, None, 1.0, None), generator(z), atol=1e-5)
        w = generator.mapping(z)
        half = 0.5 * w + 0.5 * generator.mapping.mean_style
        assert torch.allclose(generator.truncated(z, None, 0.5, None), generator.synthesis(half), atol=1e-5)
        for cutoff in (0, 2, 6, 9):
            mixed = torch.cat([half[:, :cutoff], w[:, cutoff:]], dim=1)
            assert torch.allclose(generator.truncated(z, None, 0.5, cutoff), generator.synthesis(mixed), atol=1e-5)

    class OfLatents(module.StyleGANGenerator):
        def truncated(self, latents, labels, psi, cutoff=None):
            return self(psi * latents, labels)

    class TheLastLayers(module.StyleGANGenerator):
        def truncated(self, latents, labels, psi, cutoff=None):
            w = self.mapping(latents, labels)
            w = torch.cat([w[:, : cutoff or 0], torch.lerp(self.mapping.mean_style, w[:, cutoff or 0 :], psi)], dim=1)
            return self.synthesis(w)

    check(module.StyleGANGenerator)
    for wrong in (OfLatents, TheLastLayers):
        kills(check, wrong)


def test_truncated_samples() -> None:
    gan = tiny(noise=False, ema=None)
    samples = gan.sample(3, truncation=0.0)
    assert torch.allclose(samples, samples[:1].expand_as(samples), atol=1e-6)
    assert torch.allclose(gan.sample(3, truncation=0.5, cutoff=0), gan.sample(3), atol=1e-6)


# ---------------------------------------------------------------------- noise


def test_noise() -> None:
    """Fixed noise is that of the buffers for all; random noise is each sample's and layer's own; off is none."""
    generator = tiny().generator.eval()
    w = torch.randn(1, 8).expand(3, -1)
    off, fixed = generator.synthesis(w, "off"), generator.synthesis(w, "fixed")
    assert torch.allclose(off[0], off[2], atol=1e-6) and torch.allclose(fixed[0], fixed[2], atol=1e-6)
    assert (off - fixed).abs().max() > 1e-3
    one = same_noise(lambda: generator.synthesis(w), 3)
    assert torch.equal(one, same_noise(lambda: generator.synthesis(w), 3))
    assert len({round(x.abs().sum().item(), 3) for x in one.detach()}) == 3
    drawn = [same_noise(lambda k=k: streams.randn(3, 1, 8, 8, purpose=f"noise.1{k}"), 3) for k in ("", ".up")]
    assert not torch.equal(*drawn)
    generator.synthesis.noise = "fixed"
    assert torch.equal(generator.synthesis(w), fixed)
    assert all(layer.strength is None for layer in styled_layers(tiny(noise=False).generator))


@pytest.mark.parametrize("level", [0, 1, 2])
def test_noise_acts_from_its_layer_on(level) -> None:
    generator = tiny().generator
    layers, w = styled_layers(generator), torch.randn(2, 8)
    seen: list[Tensor] = []
    for layer in layers:
        layer.register_forward_hook(lambda module, given, output: seen.append(output.detach()))
    generator.synthesis(w, "fixed")
    before, moved = seen[:], layers.index(generator.synthesis.blocks[level].conv)
    layers[moved].noise.normal_()
    seen.clear()
    generator.synthesis(w, "fixed")
    assert [torch.equal(a, b) for a, b in zip(before, seen, strict=True)] == [k < moved for k in range(len(layers))]


def test_samples_with_noise_do_not_depend_on_the_batch() -> None:
    gan = tiny(num_classes=3)
    for network in (gan.generator, gan.generator_ema):
        assert all(layer.strength.item() != 0 for layer in styled_layers(network)) == (network is gan.generator)
    whole = gan.sample(7, seed=2, averaged=False)
    assert torch.allclose(gan.sample(7, seed=2, averaged=False, batch_size=2), whole, atol=1e-5)
    assert torch.allclose(
        gan.sample(2, seed=2, averaged=False, first=4), gan.sample(7, seed=2, averaged=False)[4:6], atol=1e-5
    )
    assert not torch.allclose(gan.sample(7, seed=3, averaged=False), whole, atol=1e-3)


# ---------------------------------------------------------------------- the mean style


def mean_after(steps: int, *, cls=module._MeanStyle, **options) -> tuple[Tensor, list[Tensor]]:
    """The mean style after some cycles, and the mean of the styles in each of the generator's turns."""
    gan = tiny(style_decay=0.9, mixing=1.0, penalties=[], ema=None, **options)
    gan.tricks[-1].__class__ = cls
    gan.step_seconds, gan.seed = 0.0, 5
    seen: list[list[Tensor]] = []
    mapping, take = gan.generator.mapping, gan._take_turn
    inside = mapping.style

    def turn(name, *arguments):
        if name == "generator":
            seen.append([])
            mapping.style = lambda *given: seen[-1].append(inside(*given).detach()) or inside(*given)
        take(name, *arguments)
        mapping.style = inside

    gan._take_turn = turn
    fit(gan, normal_batches(8 // gan.accumulate, 3, 16, 16), max_steps=steps)
    return mapping.mean_style.clone(), [torch.stack([w.mean(0) for w in one[::2]]).mean(0) for one in seen]


class WithThoseMixedIn(module._MeanStyle):
    def generated(self, turn):
        self._means.append(self._mapping(turn)(turn.latents)[:, -1].detach().mean(0))


class OncePerMicroBatch(module._MeanStyle):
    def generated(self, turn):
        super().generated(turn)
        self._mapping(turn).mean_style.lerp_(self._means[-1], 1 - self.decay)

    def after_backward(self, turn):
        pass


class InBothTurns(module._MeanStyle):
    def generated(self, turn):
        super().generated(turn)
        super().after_backward(turn)


def check_mean(cls) -> None:
    """Once in each of the generator's turns, towards the mean over the turn, of styles before they are mixed."""
    for accumulate in (1, 2):
        found, means = mean_after(4, cls=cls, accumulate=accumulate)
        expected = torch.zeros_like(found)
        for mean in means:
            expected = 0.9 * expected + 0.1 * mean
        assert len(means) == 4 and found.abs().max() > 0
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-8)


def test_the_mean_style_is_a_moving_average() -> None:
    check_mean(module._MeanStyle)
    for wrong in (WithThoseMixedIn, OncePerMicroBatch, InBothTurns):
        kills(check_mean, wrong)


def test_the_average_generator_has_the_mean_style() -> None:
    gan = tiny()
    fit(gan, normal_batches(8, 3, 16, 16), max_steps=3)
    assert torch.equal(gan.generator_ema.mapping.mean_style, gan.generator.mapping.mean_style)
    assert gan.generator.mapping.mean_style.abs().max() > 0


# ---------------------------------------------------------------------- the discriminator


def test_classes_by_projection() -> None:
    """The inner product of features and a label's vector, divided by the root of their number."""
    gan = tiny(num_classes=3)
    discriminator, x = gan.discriminator, torch.randn(4, 3, 16, 16)
    features: list[Tensor] = []
    discriminator.head.register_forward_hook(lambda module, given, output: features.append(output))
    labels = torch.tensor([0, 1, 2, 1])
    logits = discriminator(x, labels)
    expected = (features[0] * discriminator.label(labels)).sum(1) / math.sqrt(features[0].shape[1])
    assert torch.allclose(logits, expected)
    assert features[0].shape == (4, 32)
    assert not torch.allclose(logits, discriminator(x, labels.roll(1)))


def test_the_group_is_refused_or_left_out() -> None:
    with pytest.raises(UserError, match="groups of 4, but was given a batch of 6"):
        tiny().discriminator(torch.randn(6, 3, 16, 16))
    alone = tiny(group=0).discriminator
    x = torch.randn(6, 3, 16, 16)
    assert torch.allclose(alone(x)[:1], alone(x[:1]), atol=1e-5)
    together = tiny(group=2).discriminator
    assert not torch.allclose(together(x)[:2], together(x[:2]), atol=1e-4)


# ---------------------------------------------------------------------- training


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_training(precision) -> None:
    """With classes and both penalties; what it became can be built again from plain data."""
    gan = tiny(num_classes=3)
    before = flat(gan.generator), flat(gan.discriminator)
    loader = normal_batches(8, 3, 16, 16)
    images = loader.make
    loader.make = lambda k: (images(k), torch.arange(8) % 3)
    fit(gan, loader, max_steps=6, precision=precision)
    for network, then in zip((gan.generator, gan.discriminator), before, strict=True):
        assert flat(network).isfinite().all() and not torch.equal(flat(network), then)
    values = gan.meter.values()
    assert len(values["penalty/r1"]) == 1 and len(values["penalty/path_length"]) == 2
    again = build(gan.config())
    again.load_state_dict(gan.state_dict())
    assert torch.equal(again.sample(3), gan.sample(3))
    assert max_difference(again.state_dict(), gan.state_dict()) == 0


@pytest.mark.slow
def test_path_length_shrinks_its_spread_when_it_is_on() -> None:
    """With nothing but the penalty, lengths come closer to each other than they are without it."""
    found = []
    for weight in (0.0, 20.0):
        penalty = PathLength(weight, every=1, fraction=1.0)
        gan = tiny(8, 1, penalties=[penalty], adversarial_weight=0.0, ema=None, group=0)
        fit(gan, normal_batches(16, 1, 8, 8), max_steps=60)
        torch.manual_seed(0)
        lengths = penalty.lengths(Turn(gan, "generator", 0, 0.0, latents=torch.randn(256, 6)))
        found.append((lengths.std() / lengths.mean()).item())
    assert found[1] < 0.7 * found[0]


def recipe(name: str) -> dict:
    from ganzoo.cli import recipes

    return recipes.load(recipes.find(name))["model"]["init_args"]


def test_the_published_gamma_reaches_the_loss() -> None:
    """0.01 for CIFAR-10, times 1/2, times the lazy interval; here for D(x) = <v, x>."""
    (given,) = [p for p in recipe("stylegan_cifar.yaml")["penalties"] if p["class_path"] == "R1"]
    assert given["init_args"] == {"gamma": 0.01, "every": 16}
    gan = tiny(penalties=[R1(**given["init_args"])])
    v = torch.randn(3 * 16 * 16)
    real = torch.randn(4, 3, 16, 16, requires_grad=True)
    turn = Turn(gan, "discriminator", 0, 0.0, real=real, real_logits=real.flatten(1) @ v)
    assert gan.tricks[0](turn).item() == pytest.approx(16 * 0.01 / 2 * v.square().sum().item(), rel=1e-5)
    turn.number = 1
    assert gan.tricks[0](turn) is None


def moved(interval: int, *, own_step: bool, lr: float, betas: tuple[float, float], cycles: int = 800) -> float:
    """How far Adam goes in a constant direction, in gradients of much noise and a lazy term with another noise."""
    torch.manual_seed(0)
    w = nn.Parameter(torch.zeros(1000, dtype=torch.float64))
    optimizer = torch.optim.Adam([w], lr=lr, betas=betas, eps=1e-12)
    for _ in range(cycles // interval):
        for turn in range(interval):
            w.grad = 0.1 + torch.randn(1000, dtype=torch.float64)
            lazy = interval * (0.05 + 0.3 * torch.randn(1000, dtype=torch.float64))
            if turn == 0 and own_step:
                optimizer.step()
                w.grad = lazy
            elif turn == 0:
                w.grad += lazy
            optimizer.step()
    return w.mean().item()


@pytest.mark.parametrize("interval", [4, pytest.param(16, marks=pytest.mark.slow)])
def test_the_correction_for_lazy_terms(interval) -> None:
    """A term in the turn, with the paper's betas and sqrt(c) times its rate, moves as far as a step of its own with
    the paper's correction; without the root it does not."""
    c = interval / (interval + 1)
    published = moved(interval, own_step=True, lr=1e-3 * c, betas=(0.0, 0.99**c))
    assert moved(interval, own_step=False, lr=1e-3 * math.sqrt(c), betas=(0.0, 0.99)) == pytest.approx(
        published, rel=0.01
    )
    for wrong in (1.0, c):
        other = moved(interval, own_step=False, lr=1e-3 * wrong, betas=(0.0, 0.99))
        assert abs(other / published - 1) > 0.02
    default = tiny(8).config()["init_args"]
    player = "generator_optimizer" if interval == 4 else "discriminator_optimizer"
    assert default[player]["init_args"]["lr"] == pytest.approx(0.0025 * math.sqrt(c), rel=1e-3)


@pytest.mark.slow
def test_augmentation_follows_the_overfit_of_a_few_images() -> None:
    """p rises when the discriminator knows its eight images by heart."""
    gan = tiny(8, 1, parts=[ADA(["blit"], speed_kimg=2.0, interval=2)], penalties=[], group=4)
    images = torch.randn(8, 1, 8, 8)
    fit(gan, Endless(lambda k: images), max_steps=60)
    assert 0.02 < gan.tricks[0].p.item() <= 60 * 8 / 2000


def trained(folder: Path, steps: int, start: Path | None = None, *, every: int = 8) -> Path:
    gan = tiny(8, 1, num_classes=10, parts=[ADA(["blit"], p=0.1, speed_kimg=1.0, interval=2)],
               penalties=[R1(1.0, every=every), PathLength(every=4)])  # fmt: skip
    trainer = quiet_trainer(max_steps=steps)
    trainer.fit(gan, Digits(image_size=8, batch_size=8, labels=True), ckpt_path=start, weights_only=True)
    trainer.save_checkpoint(folder / f"{steps}.ckpt")
    return folder / f"{steps}.ckpt"


def check_resume(folder: Path, stops, steps: int, **options) -> None:
    whole = torch.load(trained(folder, steps, **options).rename(folder / "whole.ckpt"), weights_only=True)
    for stop in stops:
        start = trained(folder, stop, **options)
        resumed = torch.load(trained(folder, steps, start=start, **options), weights_only=True)
        for part in ("state_dict", "optimizer_states"):  # weights, averages, p, mean length; moments
            a, b = (flatten(state[part]) for state in (whole, resumed))
            assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a), (stop, part)
        assert whole["ganzoo"]["clock"] == resumed["ganzoo"]["clock"]


def test_resume_across_lazy_intervals_is_bitwise(tmp_path) -> None:
    check_resume(tmp_path, (3, 6), 10)  # the next lazy terms are some turns away


@pytest.mark.slow
def test_resume_from_every_place_of_the_lazy_intervals_is_bitwise(tmp_path) -> None:
    """As published: R1 in turns 0 and 16, path length in each fourth; a run that stops there, before, and behind."""
    check_resume(tmp_path, range(1, 18), 18, every=16)


def flatten(state, name: str = "") -> dict[str, Tensor]:
    """The tensors in nested containers, by their path."""
    if isinstance(state, Tensor):
        return {name: state}
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list) else ()
    return {key: tensor for k, value in items for key, tensor in flatten(value, f"{name}.{k}").items()}
