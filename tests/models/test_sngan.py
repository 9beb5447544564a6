"""SNGAN and WGAN-GP: counts by hand, the recipes as built, conditioning, gradients, refusals."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from ganzoo.cli import arguments, trust
from ganzoo.cli.parser import FitCLI
from ganzoo.config import build
from ganzoo.errors import UserError
from ganzoo.gan import GAN
from ganzoo.layers.conditional import ClassBatchNorm2d
from ganzoo.layers.resnet_networks import ResNetDiscriminator
from ganzoo.layers.spectral import is_spectral
from ganzoo.layers.surgery import weighted_layers
from ganzoo.losses import Hinge, Wasserstein
from ganzoo.models import SNGAN, WGANGP
from ganzoo.optim import Adam
from ganzoo.parts import Turn
from ganzoo.penalties import R1, WassersteinGradientPenalty
from tests.common import fit, max_difference, normal_batches
from tests.mutants import kills

MODELS = [SNGAN, WGANGP]
NARROW = {"generator_width": 4, "generator_max_width": 8, "discriminator_width": 4, "discriminator_max_width": 8}


def num(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# ---------------------------------------------------------------------- parameters, by hand from the papers' tables


def conv(inputs: int, outputs: int, kernel: int) -> int:
    return inputs * outputs * kernel**2 + outputs


def generator(widths: list[int], base: int = 4, latent: int = 128, classes: int = 0) -> int:
    """Dense, blocks (two normalizations, two 3x3, a 1x1 shortcut), the last normalization, 3x3 to RGB."""
    affine = 2 * (classes or 1)  # a gain and a bias per channel, and per class
    blocks = sum(
        affine * (a + b) + conv(a, b, 3) + conv(b, b, 3) + conv(a, b, 1) for a, b in itertools.pairwise(widths)
    )
    return (latent + 1) * widths[0] * base**2 + blocks + 2 * widths[-1] + conv(widths[-1], 3, 3)


def discriminator(widths: list[int], halvings: int, classes: int = 0, norms: bool = False) -> int:
    """The first block has its output's channels inside, the others their input's; a 1x1 shortcut where sizes change."""
    a = widths[0]
    total = conv(3, a, 3) + conv(a, a, 3) + conv(3, a, 1) + (2 * (a + 3) if norms else 0)
    for number, (a, b) in enumerate(itertools.pairwise(widths), 1):
        learned = a != b or number < halvings
        total += conv(a, a, 3) + conv(a, b, 3) + (conv(a, b, 1) if learned else 0)
        total += 2 * (2 * a + (a if learned else 0)) if norms else 0
    return total + widths[-1] + 1 + classes * widths[-1]


def built(*recipes: str, options: list[str] = []) -> GAN:  # noqa: B006
    """The model of stacked recipes, without memory for its weights."""
    trust.restrict_parser([])
    cli = FitCLI(arguments.read([*(f"--config={name}" for name in recipes), *options]))
    cli.parse()
    with torch.device("meta"):
        cli.build()
    return cli.model


FULL = {
    # Mimicry's and StudioGAN's SN-ResNet-32, that of speed.md: 4.28M and 1.05M
    ("sngan.yaml",): (generator([256] * 4), discriminator([128] * 4, 2)),
    ("sngan_cond.yaml",): (generator([256] * 4, classes=10), discriminator([128] * 4, 2, classes=10)),
    ("wgan_gp.yaml",): (generator([256] * 4), discriminator([128] * 4, 2)),
    ("wgan_gp_studiogan.yaml",): (generator([256] * 4), discriminator([128] * 4, 2, norms=True)),
    ("dragan.yaml",): (generator([256] * 4), discriminator([128] * 4, 2, norms=True)),
    ("sngan.yaml", "sngan-64.yaml"): (  # Mimicry's sngan_64.py
        generator([1024, 512, 256, 128, 64]),
        discriminator([64, 128, 256, 512, 1024], 5),
    ),
    ("sngan.yaml", "sngan-128.yaml"): (  # table 6 of the paper
        generator([1024, 1024, 512, 256, 128, 64]),
        discriminator([64, 128, 256, 512, 1024, 1024], 5),
    ),
    ("wgan_gp.yaml", "sngan-64.yaml"): (
        generator([1024, 512, 256, 128, 64]),
        discriminator([64, 128, 256, 512, 1024], 5),
    ),
}


@pytest.mark.parametrize("recipes", FULL, ids="+".join)
def test_parameters_of_the_recipes(recipes: tuple[str, ...]) -> None:
    gan = built(*recipes)
    assert (num(gan.generator), num(gan.discriminator)) == FULL[recipes]


def test_the_numbers_that_are_published() -> None:
    assert FULL[("sngan.yaml",)] == (4_276_739, 1_053_825)  # 4.28M and 1.05M
    # 129 * 4096 + 3 (1024 + 2 * 590,080 + 65,792) + 512 + 6,915, and
    # (3,584 + 147,584 + 512) + (2 * 147,584 + 16,512) + 2 * 2 * 147,584 + 129
    assert 129 * 4096 + 3 * (1024 + 2 * 590_080 + 65_792) + 512 + 6_915 == 4_276_739
    assert 151_680 + 311_680 + 590_336 + 129 == 1_053_825


def test_a_norm_more_per_kind_is_in_the_count() -> None:
    """The formula is no copy of the code's: another architecture has another number."""

    def check(norm: str) -> None:
        gan = WGANGP(discriminator_norm=norm, penalties=[], **NARROW)
        assert num(gan.discriminator) == discriminator([4, 8, 8, 8], 2, norms=True)

    check("batch")
    kills(check, "none")
    kills(check, "spectral")


# ---------------------------------------------------------------------- the recipes' settings


def test_signatures_are_the_papers_recipes() -> None:
    for model, loss in ((SNGAN, Hinge), (WGANGP, Wasserstein)):
        gan = model(**NARROW)
        assert type(gan.loss) is loss
        assert (gan.plan.plays[-1].d, gan.plan.plays[-1].g) == (5, 1)
        for player in gan.players.values():
            assert isinstance(player.optimizer, Adam)
            assert (player.optimizer.lr, player.optimizer.betas) == (2e-4, (0.0, 0.9))
    (penalty,) = WGANGP(**NARROW).tricks
    assert isinstance(penalty, WassersteinGradientPenalty)
    assert (penalty.weight, penalty.target, penalty.one_sided) == (10.0, 1.0, False)


def test_budgets_are_100_000_steps() -> None:
    for name in ("sngan", "sngan_cond", "wgan_gp", "wgan_gp_studiogan", "dragan"):
        gan = built(f"{name}.yaml")
        assert gan.total_kimg == 100_000 * gan.plan.plays[-1].d * 64 / 1000
    for name in ("dcgan_cifar", "lsgan"):
        gan = built(f"{name}.yaml")
        assert gan.total_kimg == 200_000 * gan.plan.plays[-1].d * 64 / 1000


def test_batch_norm_in_the_critic_needs_its_recorded_override(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="allow_batch_norm"):
        WGANGP(discriminator_norm="batch", **NARROW)
    with pytest.raises(UserError, match="allow_batch_norm"):
        built("wgan_gp_studiogan.yaml", options=["--model.penalties.allow_batch_norm", "false"])
    assert built("wgan_gp_studiogan.yaml").config()["init_args"]["penalties"][0]["init_args"]["allow_batch_norm"]


def test_where_spectral_normalization_is() -> None:
    sngan, wgan = SNGAN(num_classes=3, **NARROW), WGANGP(**NARROW)
    layers = [*weighted_layers(sngan.discriminator).values(), sngan.discriminator.embed]
    assert all(is_spectral(layer) for layer in layers)
    plain = (sngan.generator, wgan.generator, wgan.discriminator)
    assert not any(is_spectral(layer) for network in plain for layer in weighted_layers(network).values())


# ---------------------------------------------------------------------- what every such model must do


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("classes", [0, 3])
def test_a_gradient_reaches_every_parameter(model, classes: int) -> None:
    torch.manual_seed(0)
    gan = model(num_classes=classes, **NARROW)
    labels = torch.arange(6) % classes if classes else None
    gan.discriminator(gan.generator(torch.randn(6, 128), labels), labels).square().sum().backward()
    silent = [n for n, p in gan.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.abs().sum())]
    # In front of a batch normalization a constant per channel changes nothing: such biases have no gradient at all.
    assert {name.rpartition(".")[2] for name in silent} <= {"bias"}
    for name, p in gan.generator.named_parameters():
        assert p.grad is not None, name


@pytest.mark.parametrize("model", MODELS)
def test_conditional_samples_differ_by_label_and_not_otherwise(model) -> None:
    torch.manual_seed(0)
    gan = model(num_classes=3, **NARROW)
    with torch.no_grad():
        for module in gan.generator.modules():
            if isinstance(module, ClassBatchNorm2d):
                module.gain.normal_(1, 0.3)
                module.bias.normal_(0, 0.3)
    gan.generator_ema.load_state_dict(gan.generator.state_dict())
    zeros, ones = gan.sample(4, labels=[0] * 4), gan.sample(4, labels=[1] * 4)
    assert (zeros - ones).flatten(1).abs().amax(1).min() > 1e-3
    assert torch.equal(zeros, gan.sample(4, labels=[0] * 4))
    mixed = gan.sample(4, labels=[0, 1, 1, 0])
    assert torch.allclose(mixed, torch.stack([zeros[0], ones[1], ones[2], zeros[3]]), atol=1e-6)


@pytest.mark.parametrize("model", MODELS)
def test_the_discriminator_sees_labels_by_the_projection(model) -> None:
    torch.manual_seed(0)
    gan, x = model(num_classes=3, **NARROW).eval(), torch.randn(2, 3, 32, 32)
    a, b = (gan.discriminator(x, torch.full((2,), label)) for label in (0, 1))
    assert (a - b).abs().min() > 1e-6


def check_projection(forward: Callable[[ResNetDiscriminator, torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
    """Miyato and Koyama 2018, figure 14: psi(phi(x)) + y^T V phi(x), psi and V with a largest singular value of 1."""
    torch.manual_seed(0)
    network = SNGAN(num_classes=3, **NARROW).discriminator
    for _ in range(50):  # until the power iteration knows the singular values
        _ = network.head.weight, network.embed.weight
    x, labels, maps = torch.randn(5, 3, 32, 32), torch.tensor([0, 2, 1, 2, 0]), []
    network.blocks[-1].register_forward_hook(lambda module, inputs, output: maps.append(output))
    found = forward(network.eval(), x, labels)
    phi = maps[0].clamp_min(0).flatten(2).sum(dim=2)
    psi, v = (layer.parametrizations.weight.original for layer in (network.head, network.embed))
    psi, v = (matrix / torch.linalg.svdvals(matrix)[0] for matrix in (psi, v))
    wanted = [phi[n] @ psi[0] + network.head.bias[0] + v[label] @ phi[n] for n, label in enumerate(labels)]
    assert torch.allclose(found, torch.stack(wanted), rtol=1e-4, atol=1e-5)


def test_the_projection_is_the_inner_product_of_features_and_embedding() -> None:
    forward = ResNetDiscriminator.forward
    check_projection(forward)
    kills(check_projection, lambda network, x, labels: forward(network, x, labels.flip(0).roll(1)))
    kills(check_projection, lambda network, x, labels: network.head(network.features(x)).squeeze(1))
    kills(check_projection, lambda network, x, labels: forward(network, x, labels) + without_norm(network, x, labels))


def without_norm(network: ResNetDiscriminator, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """What the projection would have more if its embedding were not normalized."""
    raw = network.embed.parametrizations.weight.original
    return ((raw - network.embed.weight)[labels] * network.features(x)).sum(dim=1)


def test_without_a_projection_it_sees_none() -> None:
    gan, x = SNGAN(num_classes=3, projection=False, **NARROW).eval(), torch.randn(2, 3, 32, 32)
    assert gan.discriminator.embed is None
    assert torch.equal(gan.discriminator(x, torch.zeros(2).long()), gan.discriminator(x, torch.ones(2).long()))
    assert isinstance(gan.generator.blocks[0].norm1, ClassBatchNorm2d)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("size", "channels"), [(28, 1), (32, 1), (40, 2), (48, 3), (64, 4)])
@pytest.mark.parametrize("bottom", [None, 4])
def test_sizes_and_channels(model, size: int, channels: int, bottom: int | None) -> None:
    gan = model(size, channels, discriminator_bottom=bottom and size // bottom, **NARROW)
    images = gan.generator(torch.randn(2, 128))
    assert images.shape == (2, channels, size, size)
    assert images.abs().max() <= 1
    assert gan.discriminator(images).shape == (2,)


@pytest.mark.parametrize("model", MODELS)
def test_what_is_refused(model) -> None:
    for options, words in (
        ({"image_size": 33}, "power of two"),
        ({"latent_dim": 0}, "latent_dim 0"),
        ({"channels": 0}, "channels 0"),
        ({"generator_width": 0}, "widths 0 to 8"),
        ({"discriminator_max_width": 0}, "widths 4 to 0"),
        ({"discriminator_bottom": 3}, "16, 8, 4, 2"),
    ):
        with pytest.raises(UserError, match=words):
            model(**{**NARROW, **options})


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_it_trains_and_is_built_again_from_its_configuration(model, precision: str) -> None:
    gan = model(num_classes=0, upsampling="bilinear", init="orthogonal", **NARROW)
    before = {k: v.clone() for k, v in gan.state_dict().items()}
    fit(gan, normal_batches(4, 3, 32, 32), max_steps=2, precision=precision)
    assert max_difference(before, gan.state_dict()) > 0
    assert all(p.isfinite().all() for p in gan.parameters())
    twin = build(gan.config())
    twin.load_state_dict(gan.state_dict())
    assert torch.equal(gan.sample(2), twin.sample(2))


def test_a_gradient_penalty_on_the_residual_critic_is_that_of_finite_differences() -> None:
    """R1's gradient for the weights goes through the folded convolutions twice."""
    torch.manual_seed(0)
    gan = WGANGP(penalties=[], init="orthogonal", **NARROW).double()
    real = torch.randn(2, 3, 32, 32, dtype=torch.float64, requires_grad=True)
    turn = Turn(gan, "discriminator", 0, 0.0, real=real, real_logits=gan.discriminator(real))
    weight = gan.discriminator.blocks[1].conv2.weight
    value = R1(1.0).value(turn)
    (slope,) = torch.autograd.grad(value, weight)
    direction = torch.randn_like(weight)
    values = []
    for step in (1e-5, -1e-5):
        with torch.no_grad():
            weight += step * direction
        logits = gan.discriminator(real)
        values.append(R1(1.0).value(Turn(gan, "discriminator", 0, 0.0, real=real, real_logits=logits)).item())
        with torch.no_grad():
            weight -= step * direction
    assert (slope * direction).sum().item() == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-3)
