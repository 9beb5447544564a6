"""BigGAN: counts, chunks of latents, the shared embedding, initial weights, and what sampling asks of it."""

import copy
from itertools import pairwise

import pytest
import torch
from torch import nn

from ganzoo.errors import UserError
from ganzoo.layers.attention import SelfAttentionLayer
from ganzoo.layers.conditional import VectorBatchNorm2d
from ganzoo.layers.spectral import is_spectral
from ganzoo.metrics.generation import Samples
from ganzoo.metrics.protocol import Protocol
from ganzoo.models import BigGAN
from ganzoo.models.biggan import BigGANGenerator
from ganzoo.optim import Adam
from ganzoo.penalties import OrthogonalRegularization
from ganzoo.penalties.weights import rows
from tests.common import Endless, fit
from tests.mutants import kills

LABELS = torch.arange(4)
CIFAR = {
    "latent_dim": 80,
    "generator_width": 384,
    "generator_max_width": 384,
    "discriminator_width": 192,
    "discriminator_max_width": 192,
    "discriminator_bottom": 8,
}


def small(size: int = 32, num_classes: int = 4, **options) -> BigGAN:
    widths = {"generator_width": 8, "generator_max_width": 16, "discriminator_width": 8, "discriminator_max_width": 16}
    return BigGAN(size, num_classes=num_classes, shared_dim=5, **{**widths, **options})


def labelled(size: int = 32) -> Endless:
    return Endless(lambda k: (torch.randn(4, 3, size, size), LABELS))


def conv(inputs: int, outputs: int, kernel: int) -> int:
    return inputs * outputs * kernel**2 + outputs


def attention(channels: int) -> int:
    return 2 * channels * (channels // 8) + 2 * channels * (channels // 2) + 1


def generator_count(widths: list[int], latent_dim: int, classes: int, at: int) -> int:
    """Table 4 (left): first layer, shared embedding, blocks, attention behind the block ``at``, last layers."""
    chunk = latent_dim // len(widths)
    total = chunk * 16 * widths[0] + 16 * widths[0] + classes * 128
    for inputs, outputs in pairwise(widths):
        total += conv(inputs, outputs, 3) + conv(outputs, outputs, 3) + conv(inputs, outputs, 1)
        total += 2 * (chunk + 128) * (inputs + outputs)
    return total + attention(widths[at + 1]) + 2 * widths[-1] + conv(widths[-1], 3, 3)


def discriminator_count(widths: list[int], classes: int, halvings: int, at: int = 0) -> int:
    """Table 4 (right): blocks, attention behind the block ``at``, a linear layer, the embedding of the projection."""
    total = widths[-1] + 1 + classes * widths[-1] + attention(widths[at])
    for number, (inputs, outputs) in enumerate(zip([3, *widths], widths, strict=False)):
        total += conv(inputs, outputs, 3) + conv(outputs, outputs, 3)
        total += conv(inputs, outputs, 1) if number < halvings or inputs != outputs else 0
    return total


def test_counts_at_128_are_those_of_the_original() -> None:
    """The numbers are those that compare_gan's test of its reimplementation demands (resnet_biggan_test.py)."""
    with torch.device("meta"):
        gan = BigGAN(128, num_classes=1000, init="xavier")  # drawn faster
    generator, discriminator = (sum(p.numel() for p in net.parameters()) for net in (gan.generator, gan.discriminator))
    assert generator == generator_count([96 * k for k in (16, 16, 8, 4, 2, 1)], 120, 1000, at=3) == 70_433_988
    assert discriminator == discriminator_count([96 * k for k in (1, 2, 4, 8, 16, 16)], 1000, 5) == 87_982_370
    assert (generator + discriminator) / 1e6 == pytest.approx(158.3, abs=0.2)  # table 1 of the paper


def test_counts_at_64() -> None:
    """With 120 latents these are the numbers at the head of biggan.py in julightzhong10/fastgan, a copy of the authors'
    PyTorch code. Its discriminator classifies, with a bias for each of 1,000 classes, where this one projects.
    """
    widths = {"generator_width": 192, "discriminator_width": 96, "discriminator_bottom": 4}
    with torch.device("meta"):
        gan = BigGAN(64, num_classes=1000, latent_dim=120, attention_resolution=32, init="xavier", **widths)
    found = [sum(p.numel() for p in network.parameters()) for network in (gan.generator, gan.discriminator)]
    assert found == [70_377_348, 45_512_970 - 1000]
    ch = [96 * k for k in (1, 2, 4, 8, 16)]
    assert found == [generator_count([ch[4], *ch[:0:-1]], 120, 1000, at=2), discriminator_count(ch, 1000, 4)]


def test_counts_at_32() -> None:
    """Worked out here from StudioGAN's table of channels; no published count was found."""
    with torch.device("meta"):
        gan = BigGAN(32, num_classes=10, init="xavier", **CIFAR)
    found = [sum(p.numel() for p in network.parameters()) for network in (gan.generator, gan.discriminator)]
    assert found == [generator_count([384] * 4, 80, 10, at=1), discriminator_count([192] * 4, 10, 2)]
    assert found == [9_416_196, 2_415_170]


@pytest.mark.parametrize(
    ("size", "chunks", "attended"), [(32, 4, 16), (48, 4, 24), (64, 5, 32), (80, 5, 40), (128, 6, 64)]
)
@pytest.mark.parametrize("channels", [1, 4])
def test_any_resolution_by_a_rule(size: int, chunks: int, attended: int, channels: int) -> None:
    gan = BigGAN(
        size,
        channels,
        generator_width=4,
        generator_max_width=8,
        discriminator_width=4,
        discriminator_max_width=8,
    )
    seen = []
    for module in gan.modules():
        if isinstance(module, SelfAttentionLayer):
            module.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[2]))
    assert gan.generator.latent_dim == 20 * chunks
    images = gan.generator(torch.randn(2, 20 * chunks))
    assert images.shape == (2, channels, size, size)
    assert gan.discriminator(images).shape == (2,)
    assert seen == [attended, attended]


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(UserError, match=r"latents of 30 components, .* 4 equal chunks .* multiple of 4, such as 80"):
        small(latent_dim=30)
    for latent_dim in (0, -4):
        with pytest.raises(UserError, match=f"latents of {latent_dim} components"):
            small(latent_dim=latent_dim)
    with pytest.raises(UserError, match="resolution 32, but both networks"):
        small(attention_resolution=32)
    with pytest.raises(UserError, match="shared_dim 0"):
        BigGAN(32, shared_dim=0)


def make_generator(cls: type[BigGANGenerator]) -> BigGANGenerator:
    torch.manual_seed(0)
    widths, options = [16, 16, 8, 8], {"channels": 3, "latent_dim": 20, "num_classes": 4, "shared_dim": 5}
    return cls(32, widths, **options, init="orthogonal", behind={}).eval()


def check_chunks(cls: type[BigGANGenerator]) -> None:
    """What a chunk and the label reach: conditions of norms as [embedding of the class, own chunk]."""
    generator = make_generator(cls)
    seen = {}
    for number, block in enumerate(generator.blocks):
        for norm in (block.norm1, block.norm2):
            norm.register_forward_pre_hook(lambda module, args, n=number: seen.setdefault(n, []).append(args[1]))
    first = []
    generator.linear.register_forward_pre_hook(lambda module, args: first.append(args[0]))
    latents = torch.randn(4, 20)
    generator(latents, LABELS)
    assert torch.equal(first[0], latents[:, :5])
    for number in range(3):
        chunk = latents[:, 5 * (number + 1) : 5 * (number + 2)]
        wanted = torch.cat([generator.shared.weight[LABELS], chunk], dim=1)
        assert len(seen[number]) == 2
        assert all(torch.equal(condition, wanted) for condition in seen[number])


class SameChunk(BigGANGenerator):
    """All blocks are given the whole vector's first chunk."""

    def forward(self, latents, labels=None):
        return super().forward(latents[:, :5].repeat(1, 4), labels)


class WrongClass(BigGANGenerator):
    def forward(self, latents, labels=None):
        return super().forward(latents, labels.flip(0))


def test_chunks_of_latents_and_the_shared_embedding_reach_the_blocks() -> None:
    check_chunks(BigGANGenerator)
    kills(check_chunks, SameChunk)
    kills(check_chunks, WrongClass)


def test_gains_and_biases_are_linear_in_the_condition() -> None:
    generator = make_generator(BigGANGenerator)
    norm = generator.blocks[1].norm1
    assert isinstance(norm, VectorBatchNorm2d)
    x, condition = torch.randn(4, 16, 8, 8), torch.randn(4, 10)
    gain, bias = (c.weight for c in (norm.gain, norm.bias))
    normal = (x - norm.norm.running_mean[:, None, None]) / (norm.norm.running_var[:, None, None] + 1e-5).sqrt()
    wanted = normal * (1 + condition @ gain.T)[..., None, None] + (condition @ bias.T)[..., None, None]
    assert torch.allclose(norm(x, condition), wanted, atol=1e-5)


def test_initial_weights_are_orthogonal_and_the_embedding_is_shared_and_not_normalized() -> None:
    torch.manual_seed(0)
    gan = small()
    for network in (gan.generator, gan.discriminator):
        layers = {n: m for n, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.Embedding)}
        for name, module in layers.items():
            assert is_spectral(module) == (name != "shared"), name
            matrix = (module.weight if name == "shared" else module.parametrizations.weight.original).flatten(1)
            matrix = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
            assert torch.allclose(matrix @ matrix.T, torch.eye(len(matrix)), atol=1e-5), name
    assert sum(isinstance(m, nn.Embedding) for m in gan.generator.modules()) == 1


def test_spectral_norm_holds_after_training() -> None:
    gan = small(generator_optimizer=Adam(1e-2), discriminator_optimizer=Adam(1e-2))
    fit(gan, labelled(), max_steps=3)
    for network in (gan.generator, gan.discriminator):
        network.train()
        for layer in (m for m in network.modules() if is_spectral(m)):
            for _ in range(300):  # slow from equal singular values
                weight = layer.weight  # each look is one step of the power iteration
            assert torch.linalg.svdvals(weight.flatten(1))[0].item() == pytest.approx(1.0, abs=1e-2)


@pytest.mark.parametrize("num_classes", [0, 4])
def test_gradient_reaches_every_parameter(num_classes: int) -> None:
    gan = small(num_classes=num_classes)
    labels = LABELS if num_classes else None
    for module in gan.modules():  # attention starts as the identity
        if isinstance(module, SelfAttentionLayer):
            nn.init.constant_(module.gamma, 0.5)
    latents = torch.randn(4, gan.generator.latent_dim)
    gan.discriminator(gan.generator(latents, labels), labels).square().sum().backward()
    for player in gan.players.values():
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in player.parameters if p.dim() > 1)


def test_samples_differ_by_label_alone() -> None:
    gan = small()
    a, b, c = (gan.sample(1, labels=[n]) for n in (0, 1, 0))
    assert torch.equal(a, c)
    assert not torch.equal(a, b)
    gan.eval()
    real = torch.randn(2, 3, 32, 32)
    logits = [gan.discriminator(real, torch.full((2,), label)) for label in (0, 1, 0)]
    assert torch.equal(logits[0], logits[2])
    assert not torch.equal(logits[0], logits[1])


def test_the_paper_s_orthogonal_regularization_sees_the_trained_weights() -> None:
    """beta |W W^T * (1 - I)|^2 (equation 3) over all layers of the generator but the embedding."""
    gan = small(penalties=[OrthogonalRegularization(off_diagonal=True)])
    found = gan.tricks[0].value(type("Turn", (), {"gan": gan, "player": "generator"}))
    wanted = 0.0
    for module in gan.generator.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            matrix = rows(module)
            products = matrix @ matrix.T
            wanted += (products * (1 - torch.eye(len(products)))).square().sum()
    assert torch.allclose(found, torch.as_tensor(wanted))


def test_standing_statistics_take_the_place_of_the_running_ones() -> None:
    """With statistics of another scale the samples are those of the averaged weights under the samples' own moments."""
    gan = small(ema=None)
    spoiled = copy.deepcopy(gan)
    for module in spoiled.generator.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.fill_(100.0)
    options = {"num": 4, "weights": "raw", "labels": "uniform"}
    standing = Protocol(**options, batch_norm="standing", standing_batches=3, standing_size=6)
    running = Protocol(**options, batch_norm="running")

    def drawn(model: BigGAN, protocol: Protocol) -> torch.Tensor:
        return torch.cat(list(Samples(model, protocol)(range(4))))

    assert torch.equal(drawn(gan, standing), drawn(spoiled, standing))
    assert not torch.equal(drawn(gan, running), drawn(spoiled, running))
