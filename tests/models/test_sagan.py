"""SAGAN: counts, initial weights, conditioning, spectral norm in both networks, and R1 through its attention."""

import math

import pytest
import torch
from torch import nn

from ganzoo.errors import UserError
from ganzoo.layers.attention import SelfAttentionLayer
from ganzoo.layers.spectral import is_spectral
from ganzoo.models import SAGAN
from ganzoo.optim import Adam
from ganzoo.parts import Turn
from ganzoo.penalties import R1
from ganzoo.tricks import AuxiliaryClassifier
from tests.common import Endless, fit
from tests.mutants import kills

LABELS = torch.arange(4)


def small(size: int = 32, num_classes: int = 4, **options) -> SAGAN:
    widths = {"generator_width": 8, "generator_max_width": 16, "discriminator_width": 8, "discriminator_max_width": 16}
    return SAGAN(size, num_classes=num_classes, latent_dim=6, **{**widths, **options})


def labelled(size: int = 32, channels: int = 3) -> Endless:
    return Endless(lambda k: (torch.randn(4, channels, size, size), LABELS))


def conv(inputs: int, outputs: int, kernel: int) -> int:
    return inputs * outputs * kernel**2 + outputs


def attention(channels: int) -> int:
    return 2 * channels * (channels // 8) + 2 * channels * (channels // 2) + 1


def test_counts_of_the_named_reference() -> None:
    """4.39M and 1.08M: StudioGAN's SAGAN for CIFAR-10, layer by layer."""
    with torch.device("meta"):
        gan = SAGAN(32, num_classes=10)
    norm = 10 * 256 * 2
    block = 2 * conv(256, 256, 3) + conv(256, 256, 1) + 2 * norm
    generator = 128 * 256 * 16 + 256 * 16 + 3 * block + attention(256) + 2 * 256 + conv(256, 3, 3)
    assert sum(p.numel() for p in gan.generator.parameters()) == generator == 4_386_308
    first = conv(3, 128, 3) + conv(128, 128, 3) + conv(3, 128, 1)
    others = 3 * 2 * conv(128, 128, 3) + conv(128, 128, 1)  # one of them halves the resolution
    discriminator = first + others + attention(128) + 128 + 1 + 10 * 128
    assert sum(p.numel() for p in gan.discriminator.parameters()) == discriminator == 1_075_586


def test_the_paper_s_sizes_at_128() -> None:
    """1024 channels at 4x4 to 64 at 128x128 and back, attention at 32x32, as in the authors' code."""
    widths = {f"{p}_{w}": n for p in ("generator", "discriminator") for w, n in (("width", 64), ("max_width", 1024))}
    with torch.device("meta"):
        gan = SAGAN(128, num_classes=1000, discriminator_bottom=4, **widths)
    assert [b.conv2.out_channels for b in gan.generator.blocks] == [1024, 512, 256, 128, 64]
    assert [b.conv2.out_channels for b in gan.discriminator.blocks] == [64, 128, 256, 512, 1024, 1024]
    channels = []
    for network in (gan.generator, gan.discriminator):
        (layer,) = [m for m in network.modules() if isinstance(m, SelfAttentionLayer)]
        channels.append(layer.query.in_channels)
    assert channels == [256, 128]
    total = sum(p.numel() for network in (gan.generator, gan.discriminator) for p in network.parameters())
    assert round(total / 1e6, 1) == 81.5  # table 1 of Brock 2019, whose first row is this model


@pytest.mark.parametrize(
    ("size", "asked", "expected"),
    [
        (32, None, 16),
        (48, None, 24),
        (64, None, 32),
        (80, None, 20),
        (128, None, 32),
        (32, 8, 8),
        (64, 16, 16),
        (32, 0, None),
    ],
)
def test_attention_is_where_it_was_asked_for(size: int, asked: int | None, expected: int | None) -> None:
    gan = small(size, attention_resolution=asked)
    seen = []
    for network in (gan.generator, gan.discriminator):
        for module in network.modules():
            if isinstance(module, SelfAttentionLayer):
                module.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[2]))
    images = gan.generator(torch.randn(4, 6), LABELS)
    assert images.shape == (4, 3, size, size)
    assert images.abs().max() <= 1
    assert gan.discriminator(images, LABELS).shape == (4,)
    assert seen == ([expected] * 2 if expected else [])


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(UserError, match=r"resolution 32, but both networks have .* 16, 8: choose"):
        small(32, attention_resolution=32)
    with pytest.raises(UserError, match="4, 5, 6 or 7 times a power of two"):
        small(36)
    with pytest.raises(UserError, match="latent_dim 0"):
        SAGAN(latent_dim=0)


@pytest.mark.parametrize("init", ["xavier", "orthogonal"])
def test_initial_weights(init: str) -> None:
    torch.manual_seed(0)
    gan = SAGAN(32, num_classes=10, init=init)
    for network in (gan.generator, gan.discriminator):
        for name, module in network.named_modules():
            if isinstance(module, SelfAttentionLayer):
                assert module.gamma == 0
            if not isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
                continue
            weight = module.parametrizations.weight.original.detach()
            if getattr(module, "bias", None) is not None:
                assert module.bias.abs().max() == 0
            if init == "orthogonal":
                matrix = weight.flatten(1)
                matrix = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
                assert torch.allclose(matrix @ matrix.T, torch.eye(len(matrix)), atol=1e-4), name
            elif weight.numel() > 10_000 and weight.dim() > 1 and not isinstance(module, nn.Embedding):
                area = weight[0, 0].numel()
                gain = math.sqrt(2) if ".conv" in name else 1.0
                expected = gain * math.sqrt(2 / (area * (weight.shape[0] + weight.shape[1])))
                assert weight.std().item() == pytest.approx(expected, rel=0.03), name


def test_every_weight_is_spectrally_normalized_and_stays_so() -> None:
    gan = small(generator_optimizer=Adam(1e-2), discriminator_optimizer=Adam(1e-2))
    fit(gan, labelled(), max_steps=5)
    for network in (gan.generator, gan.discriminator):
        network.train()
        layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.Embedding)]
        assert len(layers) > 10 and all(is_spectral(layer) for layer in layers)
        for layer in layers:
            for _ in range(60):
                weight = layer.weight  # each look is one step of the power iteration
            assert torch.linalg.svdvals(weight.flatten(1))[0].item() == pytest.approx(1.0, abs=1e-2)


@pytest.mark.parametrize("num_classes", [0, 4])
def test_gradient_reaches_every_parameter(num_classes: int) -> None:
    gan = small(num_classes=num_classes)
    labels = LABELS if num_classes else None
    for network in (gan.generator, gan.discriminator):  # attention starts as the identity
        for module in network.modules():
            if isinstance(module, SelfAttentionLayer):
                nn.init.constant_(module.gamma, 0.5)
    gan.discriminator(gan.generator(torch.randn(4, 6), labels), labels).square().sum().backward()
    for player in gan.players.values():
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in player.parameters if p.dim() > 1)


def test_samples_differ_by_label_alone() -> None:
    gan = small()
    for module in gan.generator_ema.modules():  # gains and biases of all classes are equal at first
        if isinstance(getattr(module, "gain", None), nn.Parameter):
            nn.init.normal_(module.gain, 1.0)
    a, b, c = (gan.sample(1, labels=[n]) for n in (0, 1, 0))
    assert torch.equal(a, c)
    assert not torch.equal(a, b)
    gan.eval()
    real = torch.randn(2, 3, 32, 32)
    logits = [gan.discriminator(real, torch.full((2,), label)) for label in (0, 1, 0)]
    assert torch.equal(logits[0], logits[2])
    assert not torch.equal(logits[0], logits[1])


def test_without_projection_the_discriminator_ignores_labels_and_a_classifier_may_take_its_place() -> None:
    gan = small(projection=False, parts=[AuxiliaryClassifier()])
    gan.eval()
    real = torch.randn(4, 3, 32, 32)
    assert torch.equal(gan.discriminator(real, LABELS), gan.discriminator(real, LABELS.flip(0)))
    assert gan.tricks[0].head.in_features == 16 and is_spectral(gan.tricks[0].head)
    gan.train()
    before = gan.generator.blocks[0].norm1.gain.clone()
    fit(gan, labelled(), max_steps=2)
    assert not torch.equal(gan.generator.blocks[0].norm1.gain, before)


def check_r1(forward) -> None:
    """gamma/2 E|grad D|^2 and its derivative with respect to a weight of the attention, in float64.

    The reference takes each sample's gradient alone, and the attention as a loop over the positions.
    """
    torch.manual_seed(0)
    gan = small(16, num_classes=0, attention_resolution=8, discriminator_bottom=4, penalties=[R1(gamma=3.0)]).double()
    network = gan.discriminator.eval()
    (layer,) = [m for m in network.modules() if isinstance(m, SelfAttentionLayer)]
    nn.init.constant_(layer.gamma, 0.8)
    layer.forward = lambda x: forward(layer, x)
    data = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    turn = Turn(gan, "discriminator", 0, 0.0, real=data.requires_grad_())
    turn.real_logits = network(data)
    term = gan.tricks[0](turn)
    weights = [layer.query.parametrizations.weight.original, layer.gamma]
    found = torch.autograd.grad(term, weights, materialize_grads=True)

    layer.forward = lambda x: loop(layer, x)
    norms = []
    for n in range(3):
        one = data[n : n + 1].detach().requires_grad_()
        (gradient,) = torch.autograd.grad(network(one).sum(), one, create_graph=True)
        norms.append(gradient.square().sum())
    wanted = 3.0 / 2 * sum(norms) / 3
    assert torch.allclose(term.double(), wanted, rtol=1e-5)
    for a, b in zip(found, torch.autograd.grad(wanted, weights), strict=True):
        assert b.abs().max() > 0
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-9)


def test_r1_through_the_attention_against_a_loop_over_samples() -> None:
    forward = SelfAttentionLayer.forward
    check_r1(forward)
    kills(check_r1, lambda layer, x: loop(layer, x, scale=0.5))
    kills(check_r1, lambda layer, x: x + (forward(layer, x) - x).detach())  # no second derivative through it
    kills(check_r1, lambda layer, x: forward(layer, x.detach()) - x.detach() + x)


def loop(layer: SelfAttentionLayer, x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    """Equations 1 to 3 for one position after the other, keys and values pooled."""
    q, k, v, out = (m.weight[:, :, 0, 0] for m in (layer.query, layer.key, layer.value, layer.out))
    flat = x.flatten(2)
    pool = nn.functional.max_pool2d
    keys, values = (pool(torch.einsum("oc,nchw->nohw", w, x), 2).flatten(2) for w in (k, v))
    columns = []
    for position in range(flat.shape[2]):
        scores = torch.einsum("no,nom->nm", flat[:, :, position] @ q.T, scale * keys).exp()
        shares = scores / scores.sum(1, keepdim=True)
        columns.append(torch.einsum("nm,nom->no", shares, values) @ out.T)
    return x + layer.gamma * torch.stack(columns, dim=2).view_as(x)
