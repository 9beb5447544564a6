"""R3GAN: counts by hand, blocks written out, how they start, the filter, conditioning, and the loss of a turn."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganzoo.augment import ADA
from ganzoo.config import build
from ganzoo.errors import UserError
from ganzoo.layers.filtered import downsample, upsample
from ganzoo.losses import Relativistic
from ganzoo.models import R3GAN
from ganzoo.models.r3gan import TAPS, Block, R3GANDiscriminator
from ganzoo.parts import Penalty, Turn
from ganzoo.penalties import R1, R2
from ganzoo.schedules import Cosine, value_at
from tests.common import Endless, fit, flat, normal_batches
from tests.models.test_sngan import built, num
from tests.mutants import kills

SMALL = {"width": 4, "max_width": 8, "group_size": 4, "num_blocks": 1, "latent_dim": 5, "label_dim": 3}


def tiny(size: int = 16, channels: int = 3, *, away: bool = True, **options) -> R3GAN:
    """Small networks whose parameters are all away from where they start, if asked for."""
    torch.manual_seed(3)
    gan = R3GAN(size, channels, **{**SMALL, **options})
    if away:
        for p in gan.parameters():
            if not p.any():
                p.data.normal_(std=0.3)
    return gan


# ---------------------------------------------------------------------- counts and shapes


def by_hand(widths: list[int], *, base: int = 4, blocks: int = 2, classes: int = 0, channels: int = 3) -> list[int]:
    """Parameters of the generator and the discriminator, by the table of layers; from the smallest stage on."""

    def block(width: int) -> int:
        inside = 2 * width
        groups = inside // 16
        return (width * inside + inside) + (groups * 16 * 16 * 9 + inside) + inside * width

    stages = sum(blocks * block(width) for width in widths)
    stages += sum(a * b for a, b in pairwise(widths) if a != b)
    ends = widths[0] * base * base + channels * widths[-1]  # the learned map, and the 1x1 to or from colours
    labels = 64 * classes
    generator = (64 + (64 if classes else 0)) * widths[0] + labels
    discriminator = widths[0] * (64 if classes else 1) + labels
    return [stages + ends + generator, stages + ends + discriminator]


@pytest.mark.parametrize(
    ("size", "classes", "options", "widths", "published"),
    [
        (32, 0, {}, [768] * 4, (20.7, 20.7)),
        (32, 10, {}, [768] * 4, (20.8, 20.7)),
        (256, 0, {"width": 96}, [768, 768, 768, 768, 384, 192, 96], None),  # the paper's widths
    ],
)
def test_parameters(size, classes, options, widths, published) -> None:
    with torch.device("meta"):
        gan = R3GAN(size, num_classes=classes, **options)
    found = [num(gan.generator), num(gan.discriminator)]
    assert found == by_hand(widths, classes=classes)
    assert [stage.width for stage in gan.generator.stages] == widths
    assert [stage.width for stage in gan.discriminator.stages] == widths[::-1]
    if published:
        assert tuple(round(count / 1e6, 1) for count in found) == published


def test_the_published_block() -> None:
    """1,536 channels inside, in 96 groups."""
    with torch.device("meta"):
        block = R3GAN().generator.stages[0][0]
    assert block.spatial.groups == 96
    assert [tuple(m.weight.shape) for m in (block.expand, block.spatial, block.reduce)] == [
        (1536, 768, 1, 1), (1536, 16, 3, 3), (768, 1536, 1, 1),
    ]  # fmt: skip
    assert [m.bias is not None for m in (block.expand, block.spatial, block.reduce)] == [True, True, False]


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize(("size", "channels", "sides"), [(8, 1, [4, 8]), (16, 4, [4, 8, 16]), (20, 3, [5, 10, 20]),
                                                          (48, 3, [6, 12, 24, 48]), (28, 2, [7, 14, 28])])  # fmt: skip
def test_shapes(size, channels, sides, classes) -> None:
    gan = tiny(size, channels, num_classes=classes)
    labels = torch.arange(4) % classes if classes else None
    seen: list[list[int]] = []
    for network in (gan.generator, gan.discriminator):
        seen.append([])
        for stage in network.stages:
            stage.register_forward_hook(lambda m, x, y, to=seen[-1]: to.append(y.shape[-1]))
    images = gan.generator(torch.randn(4, 5), labels)
    assert images.shape == (4, channels, size, size)
    assert gan.discriminator(images, labels).shape == (4,)
    assert seen == [sides, sides[::-1]]


@pytest.mark.parametrize(
    ("size", "options", "words"),
    [
        (33, {}, "size 33 were asked for"),
        (16, {"group_size": 3}, "group_size 3, but a block of 8 channels has 16 inside"),
        (16, {"num_blocks": 0}, "num_blocks 0, which must be 1 or more"),
        (16, {"latent_dim": 0}, "latent_dim 0"),
        (16, {"width": 0}, "each is 1 or more"),
    ],
)
def test_impossible_options_are_refused(size, options, words) -> None:
    with pytest.raises(UserError, match=words):
        tiny(size, **options)


# ---------------------------------------------------------------------- a block


def leaky(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.2 * x)


def written_out(block: Block, x: Tensor) -> Tensor:
    """x + W3 leaky(W2 * leaky(W1 x + b1) + b2), the middle one group by group, output by output, tap by tap."""
    a, b, c = (m.weight for m in (block.expand, block.spatial, block.reduce))
    h = leaky(torch.einsum("oi,nihw->nohw", a[:, :, 0, 0], x) + block.expand.bias[:, None, None])
    padded, mixed = F.pad(h, (1, 1, 1, 1)), torch.zeros_like(h)
    size, (height, width) = b.shape[1], x.shape[2:]
    for o in range(len(b)):
        first = o // size * size  # of the group's inputs: groups of outputs are as large
        for i in range(size):
            for y in range(3):
                for z in range(3):
                    mixed[:, o] += b[o, i, y, z] * padded[:, first + i, y : y + height, z : z + width]
    h = leaky(mixed + block.spatial.bias[:, None, None])
    return x + torch.einsum("oi,nihw->nohw", c[:, :, 0, 0], h)


def check_block(cls) -> None:
    torch.manual_seed(0)
    block = cls(4, 3, 2, 5).double()
    for p in block.parameters():
        p.data.normal_()
    x = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    assert torch.allclose(block(x), written_out(block, x), atol=1e-12)


def test_a_block_is_its_formula() -> None:
    class Bare(Block):
        def forward(self, x):
            return super().forward(x) - x

    class OtherSlope(Block):
        def forward(self, x):
            h = F.leaky_relu(self.expand(x), 0.01)
            return x + self.reduce(F.leaky_relu(self.spatial(h), 0.2))

    class OneRectifier(Block):
        def forward(self, x):
            return x + self.reduce(F.leaky_relu(self.spatial(self.expand(x)), 0.2))

    class RectifierFirst(Block):
        def forward(self, x):
            return super().forward(F.leaky_relu(x, 0.2))

    class OtherGroups(Block):
        def forward(self, x):
            h = F.leaky_relu(self.expand(x), 0.2)
            mixed = h.unflatten(1, (self.spatial.groups, -1)).transpose(1, 2).flatten(1, 2)
            return x + self.reduce(F.leaky_relu(self.spatial(mixed), 0.2))

    check_block(Block)
    for wrong in (Bare, OtherSlope, OneRectifier, RectifierFirst, OtherGroups):
        kills(check_block, wrong)


def check_start(cls) -> None:
    """Identity; He's deviation for a slope of 0.2, with fan-ins of 64 and 9 * 16, times L^(-1/4); biases of 0."""
    torch.manual_seed(0)
    for depth in (1, 8):
        block = cls(64, 2, 16, depth)
        x = torch.randn(2, 64, 5, 5)
        assert torch.equal(block(x), x)
        for layer, inputs in ((block.expand, 64), (block.spatial, 144)):
            expected = math.sqrt(2 / 1.04 / inputs) / math.sqrt(math.sqrt(depth))
            error = expected / math.sqrt(2 * layer.weight.numel())  # of a standard deviation
            assert abs(layer.weight.std().item() - expected) < 4 * error
            assert not layer.bias.any()
        assert not block.reduce.weight.any()


def test_blocks_start_as_the_identity() -> None:
    class AsDeepAsOne(Block):
        def __init__(self, width, expansion, group_size, depth):
            super().__init__(width, expansion, group_size, 1)

    class TwiceScaled(Block):
        def __init__(self, width, expansion, group_size, depth):
            super().__init__(width, expansion, group_size, depth**2)

    class WholeFan(Block):
        def __init__(self, width, expansion, group_size, depth):
            super().__init__(width, expansion, group_size, depth)
            self.spatial.weight.data /= math.sqrt(self.spatial.groups)

    class Drawn(Block):
        def __init__(self, width, expansion, group_size, depth):
            super().__init__(width, expansion, group_size, depth)
            self.reduce.weight.data.normal_(std=0.01)

    check_start(Block)
    for wrong in (AsDeepAsOne, TwiceScaled, WholeFan, Drawn):
        kills(check_start, wrong)


def test_the_depth_is_that_of_the_whole_network() -> None:
    """Of networks with 2 and with 32 blocks the weights are as 2 to 1."""
    narrow = {"width": 32, "max_width": 32, "group_size": 16}
    for name in ("generator", "discriminator"):
        shallow, deep = (getattr(tiny(8, num_blocks=n, away=False, **narrow), name) for n in (1, 16))
        a, b = (network.stages[0][0].expand.weight.std().item() for network in (shallow, deep))
        assert a / b == pytest.approx(2, rel=0.06)


def test_networks_at_the_start() -> None:
    """Without their blocks: the map, scaled and upsampled, to colours; colours, downsampled and summed over the map."""
    gan = tiny(16, width=8, away=False)
    g, d = gan.generator, gan.discriminator
    z, images = torch.randn(3, 5), torch.randn(3, 3, 16, 16)
    x = (z @ g.linear.weight.T)[:, :, None, None] * g.basis
    x = upsample(upsample(x, TAPS), TAPS)
    assert torch.allclose(g(z), torch.einsum("oi,nihw->nohw", g.image.weight[:, :, 0, 0], x), atol=1e-5)
    y = torch.einsum("oi,nihw->nohw", d.image.weight[:, :, 0, 0], images)
    y = downsample(downsample(y, TAPS), TAPS)
    logits = torch.einsum("nihw,ihw,i->n", y, d.basis, d.linear.weight[0])
    assert torch.allclose(d(images), logits, atol=1e-5)


def test_ends_keep_the_variance() -> None:
    """Of the full width: the smallest map, colours of such features, and what the discriminator sums up."""
    gan = R3GAN(8, num_blocks=1, expansion=1)
    g, d = gan.generator, gan.discriminator
    assert (g.linear(torch.randn(500, 64))[:, :, None, None] * g.basis).std().item() == pytest.approx(1, rel=0.05)
    assert g.image(torch.randn(4, 768, 16, 16)).std().item() == pytest.approx(1, rel=0.1)
    sums = (torch.randn(64, 768, 4, 4) * d.basis).sum((2, 3))
    assert sums.std().item() == pytest.approx(1, rel=0.05)
    assert d.linear(torch.randn(2000, 768)).std().item() == pytest.approx(1, rel=0.1)
    assert d.image(torch.randn(4, 3, 16, 16)).std().item() == pytest.approx(1, rel=0.1)


# ---------------------------------------------------------------------- changes of resolution


def at(x: Tensor, i: int, j: int) -> Tensor:
    """x at a position, zero beyond the border."""
    inside = 0 <= i < x.shape[-2] and 0 <= j < x.shape[-1]
    return x[..., i, j] if inside else torch.zeros_like(x[..., 0, 0])


def check_down(function) -> None:
    """Each second place: the weights 1/4, 1/2, 1/4 around it, along either axis."""
    x = torch.randn(2, 3, 6, 8, dtype=torch.float64)
    y = function(x)
    assert y.shape == (2, 3, 3, 4)
    for i in range(3):
        for j in range(4):
            terms = [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)]
            direct = sum((2 - abs(a)) * (2 - abs(b)) / 16 * at(x, 2 * i + a, 2 * j + b) for a, b in terms)
            assert torch.allclose(y[..., i, j], direct, atol=1e-12)


def check_up(function) -> None:
    """Even places keep their value; odd ones are the mean of their neighbours, along either axis."""
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    y = function(x)
    assert y.shape == (2, 3, 10, 8)
    for i in range(10):
        for j in range(8):
            rows, columns = {i // 2, (i + 1) // 2}, {j // 2, (j + 1) // 2}
            direct = sum(at(x, a, b) for a in rows for b in columns) / (len(rows) * len(columns))
            assert torch.allclose(y[..., i, j], direct, atol=1e-12)


def test_filters() -> None:
    check_down(lambda x: downsample(x, TAPS))
    check_up(lambda x: upsample(x, TAPS))
    kills(check_down, lambda x: F.avg_pool2d(x, 2))
    kills(check_down, lambda x: downsample(x))
    kills(check_down, lambda x: downsample(x.flip(2), TAPS).flip(2))
    kills(check_up, lambda x: upsample(x))
    kills(check_up, lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False))
    kills(check_up, lambda x: upsample(x.flip(3), TAPS).flip(3))


def test_downsampling_is_the_adjoint_of_upsampling() -> None:
    x, y = torch.randn(2, 3, 4, 6, dtype=torch.float64), torch.randn(2, 3, 8, 12, dtype=torch.float64)
    assert torch.allclose((upsample(x, TAPS) * y).sum(), 4 * (x * downsample(y, TAPS)).sum())


@pytest.mark.parametrize("function", [upsample, downsample])
def test_derivatives_of_filters(function) -> None:
    x = torch.randn(1, 2, 4, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: function(x, TAPS), x)
    assert torch.autograd.gradgradcheck(lambda x: function(x, TAPS).square(), x)


# ---------------------------------------------------------------------- gradients


@pytest.mark.parametrize("classes", [0, 3])
def test_gradient_reaches_every_parameter(classes) -> None:
    gan = tiny(num_classes=classes)
    labels = torch.arange(4) % 3 if classes else None
    gan.discriminator(gan.generator(torch.randn(4, 5), labels), labels).square().sum().backward()
    for player in gan.players.values():
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in player.parameters)


def test_every_parameter_moves_within_two_turns() -> None:
    """From the start, where the last convolution of a block is zero and so hides what is before it."""
    gan = tiny(away=False, num_classes=2, generator_lr=100.0, discriminator_lr=100.0)
    before = {name: p.clone() for name, p in gan.named_parameters() if "ema" not in name}
    fit(gan, Endless(lambda k: (normal_batches(4, 3, 16, 16).make(k), torch.tensor([0, 1, 0, 1]))), max_steps=2)
    assert all(not torch.equal(p, before[name]) for name, p in gan.named_parameters() if name in before)


def test_second_derivatives() -> None:
    """Of logits by images and weights, as R1 and R2 take them; float64."""
    network = tiny(8, 1, width=2, max_width=4, group_size=2, num_classes=2).discriminator.double()
    x = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    a = torch.randn(2, dtype=torch.float64, requires_grad=True)
    block = network.stages[0][0]
    for weight in (block.expand.weight, block.spatial.weight, block.reduce.weight, network.basis):
        assert torch.autograd.gradgradcheck(
            lambda a, _: network(x + a[0] * x.roll(1, 2) + a[1] * x.roll(1, 3).square(), torch.tensor([0, 1])),
            (a, weight),
        )


# ---------------------------------------------------------------------- classes


def test_a_label_is_all_that_differs() -> None:
    gan = tiny(num_classes=3, channels=1)
    z, images = torch.randn(1, 5).expand(4, -1), torch.randn(1, 1, 16, 16).expand(4, -1, -1, -1)
    labels = torch.tensor([0, 1, 0, 2])
    for outputs in (gan.generator(z, labels), gan.discriminator(images, labels)):
        assert torch.allclose(outputs[0], outputs[2], atol=1e-6)
        assert not torch.allclose(outputs[0], outputs[1], atol=1e-3)
        assert not torch.allclose(outputs[1], outputs[3], atol=1e-3)
    gan.generator.embed.weight.data[2] = gan.generator.embed.weight[1]
    alike = gan.generator(z, labels)
    assert torch.allclose(alike[1], alike[3], atol=1e-6)


def test_projection() -> None:
    """The features' product with the label's embedding over the root of 3, by loops; the wrong ones are missed."""
    gan = tiny(num_classes=4)
    network, images = gan.discriminator, torch.randn(3, 3, 16, 16)
    labels = torch.tensor([3, 0, 3])
    seen: list[Tensor] = []
    network.linear.register_forward_hook(lambda module, given, output: seen.append(output))

    def check(cls) -> None:
        network.__class__ = cls
        logits = network(images, labels)
        for n, label in enumerate(labels):
            product = sum(seen[-1][n, i] * network.embed.weight[label, i] for i in range(3))
            assert logits[n].item() == pytest.approx(product.item() / math.sqrt(3), abs=1e-5)

    class WithoutLabels(R3GANDiscriminator):
        def forward(self, images, labels=None):
            return super().forward(images, torch.zeros_like(labels))

    class Unscaled(R3GANDiscriminator):
        def forward(self, images, labels=None):
            return super().forward(images, labels) * math.sqrt(3)

    check(R3GANDiscriminator)
    for wrong in (WithoutLabels, Unscaled):
        kills(check, wrong)


# ---------------------------------------------------------------------- the recipe


class Compared(Penalty):
    """Last of the penalties: keeps what the turn's loss should be, by its own formulas, and what it is."""

    players = ("discriminator",)

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[float, float]] = []

    def squared(self, turn: Turn, data: Tensor) -> float:
        """Mean over samples of the squared norm of the gradient, sample by sample."""
        norms = []
        for x in data.detach():
            x = x[None].requires_grad_()
            (gradient,) = torch.autograd.grad(turn.gan.discriminator(x).sum(), x)
            norms.append(gradient.square().sum().item())
        return sum(norms) / len(norms)

    def forward(self, turn: Turn) -> None:
        with torch.enable_grad():
            r1, r2 = self.squared(turn, turn.real), self.squared(turn, turn.fake)
        real, fake = (turn.gan.discriminator(x).tolist() for x in (turn.real, turn.fake))
        loss = sum(math.log(1 + math.exp(f - r)) for r, f in zip(real, fake, strict=True)) / len(real)
        gamma = 0.005 + (0.05 - 0.005) * (1 + math.cos(math.pi * min(turn.kimg / 0.016, 1))) / 2
        self.seen.append((turn.logs["total/d"].item(), loss + gamma / 2 * (r1 + r2)))


def check_loss(penalties) -> None:
    """Four turns, in which gamma falls from 0.05 to 0.005 and stays there."""
    gamma = Cosine(0.05, 0.005, to_kimg=0.016)
    compared = Compared()
    gan = tiny(penalties=[*(cls(gamma=gamma) for cls in penalties), compared])
    for p in gan.discriminator.parameters():
        p.data *= 1.5  # so that the penalties weigh enough to be seen
    fit(gan, normal_batches(4, 3, 16, 16), max_steps=6)
    assert len(compared.seen) == 6
    for found, expected in compared.seen:
        assert found == pytest.approx(expected, rel=1e-4)


def test_the_loss_of_a_turn() -> None:
    """softplus(D(fake) - D(real)) + gamma/2 (R1 + R2), from networks alone."""

    class Whole(R1):
        def half_square(self, gradient: Tensor) -> Tensor:
            return 2 * super().half_square(gradient)

    class Late(R2):
        def due(self, turn: Turn) -> bool:
            return turn.number % 2 == 0

    check_loss([R1, R2])
    for wrong in ([R1], [R1, R1], [Whole, R2], [R1, Late]):
        kills(check_loss, wrong)


@pytest.mark.parametrize("recipe", [[], ["r3gan.yaml"]])
def test_published_numbers(recipe) -> None:
    """Of the model's signature and of the recipe; half cosines over 20,000 kimg have the mean value in the middle."""
    gan = built(*recipe) if recipe else R3GAN(8, width=16, max_width=16)
    assert isinstance(gan.loss, Relativistic)
    r1, r2 = (part for part in gan.tricks if isinstance(part, R1 | R2))
    assert (type(r1), type(r2), r1.every, r2.every) == (R1, R2, 1, 1)
    for kimg, gamma, factor in ((0, 0.05, 1), (1e4, 0.0275, 0.625), (2e4, 0.005, 0.25), (1e5, 0.005, 0.25)):
        assert value_at(r1.weight, kimg) == value_at(r2.weight, kimg) == pytest.approx(gamma)
        for player in gan.players.values():
            assert value_at(player.lr_schedule, kimg) * player.optimizer.lr == pytest.approx(2e-4 * factor)
            assert player.optimizer.betas == (0.0, 0.99)
    for seen, half_life in ((2e6, 5e5), (1e7, 2.5e6), (2e7, 5e6), (1e8, 5e6)):
        assert gan.ema.decay(512, int(seen)) == pytest.approx(0.5 ** (512 / half_life))
    assert (gan.plan.plays[-1].d, gan.plan.plays[-1].g) == (1, 1)
    if recipe:
        (ada,) = (part for part in gan.tricks if isinstance(part, ADA))
        assert ada.groups == ("blit", "geometric", "color", "cutout")
        assert [value_at(ada.schedule, kimg) for kimg in (0, 1e4, 2e4)] == pytest.approx([0, 0.275, 0.55])
        assert gan.num_classes == 10
        assert [num(gan.generator), num(gan.discriminator)] == by_hand([768] * 4, classes=10)


def test_penalties_use_the_turn_s_own_pass() -> None:
    """A cycle passes the discriminator four times: in either turn once with real data and once with fakes."""
    gan = tiny()
    passes: list[int] = []
    gan.discriminator.register_forward_hook(lambda module, given, output: passes.append(len(output)))
    fit(gan, normal_batches(4, 3, 16, 16), max_steps=3)
    assert passes == [4] * 12


def test_built_again_from_its_configuration() -> None:
    gan = tiny(num_classes=2)
    again = build(gan.config())
    assert again.config() == gan.config()
    again.load_state_dict(gan.state_dict())
    assert torch.equal(flat(again.generator), flat(gan.generator))
    labels = [0, 1, 1]
    assert torch.equal(again.sample(3, labels=labels), gan.sample(3, labels=labels))


def test_half_precision() -> None:
    """Trains in bfloat16 with finite weights, which are not those of single precision."""
    ends = []
    for precision in ("32-true", "bf16-mixed"):
        gan = tiny(num_classes=2)
        fit(gan, Endless(lambda k: (normal_batches(4, 3, 16, 16).make(k), torch.tensor([0, 1, 0, 1]))), max_steps=2,
            precision=precision)  # fmt: skip
        ends.append(torch.cat([flat(gan.generator), flat(gan.discriminator)]))
        assert gan.generator(torch.randn(2, 5), torch.tensor([0, 1])).dtype == torch.float32
    single, half = ends
    assert half.isfinite().all()
    assert 0 < (single - half).norm() < 0.1 * single.norm()


def test_no_normalization_and_no_statistics() -> None:
    """As in the paper's last configuration: no buffers, nothing in which samples see each other."""
    gan = tiny()
    assert not [*gan.generator.buffers(), *gan.discriminator.buffers()]
    images = torch.randn(5, 3, 16, 16)
    alone = torch.cat([gan.discriminator(x[None]) for x in images])
    assert torch.allclose(gan.discriminator(images), alone, atol=1e-5)
    assert not any(isinstance(m, nn.modules.batchnorm._NormBase | nn.GroupNorm | nn.LayerNorm) for m in gan.modules())
