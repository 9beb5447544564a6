"""DCGAN: shapes, counts, initial statistics and conditioning."""

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ganzoo.errors import UserError
from ganzoo.models import DCGAN
from tests.common import fit, normal_batches


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [8, 16, 32, 64, 128])
def test_any_power_of_two_and_any_channels(size: int, channels: int) -> None:
    gan = DCGAN(size, channels, width=4)
    images = gan.generator(torch.randn(2, 100))
    assert images.shape == (2, channels, size, size)
    assert images.abs().max() <= 1
    assert gan.discriminator(images).shape == (2,)


@pytest.mark.parametrize("size", [4, 12, 33, (32, 64)])
def test_other_sizes_are_refused(size) -> None:
    with pytest.raises(UserError, match="8, 16, 32, 64"):
        DCGAN(size)


@pytest.mark.parametrize("option", ["width", "max_width", "latent_dim", "channels"])
def test_sizes_below_one_are_refused(option) -> None:
    with pytest.raises(UserError, match=f"{option} 0.*1 or more|1 or more.*{option}"):
        DCGAN(**{"image_size": 16, option: 0})


def test_channels_of_figure_1() -> None:
    with torch.device("meta"):
        gan = DCGAN(64, 3, width=128)
    ups = [m for m in gan.generator.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert [m.out_channels for m in ups] == [1024, 512, 256, 128, 3]
    # 100*1024*16 + 1024*512*16 + 512*256*16 + 256*128*16 + 128*3*16 + 3, and two per normalized channel
    expected = 16 * (100 * 1024 + 1024 * 512 + 512 * 256 + 256 * 128 + 128 * 3) + 3 + 2 * (1024 + 512 + 256 + 128)
    assert sum(p.numel() for p in gan.generator.parameters()) == expected
    # the first layer of the discriminator and its head have a bias, the normalized layers have none
    expected = 16 * (3 * 128 + 128 * 256 + 256 * 512 + 512 * 1024 + 1024) + 128 + 1 + 2 * (256 + 512 + 1024)
    assert sum(p.numel() for p in gan.discriminator.parameters()) == expected


@pytest.mark.parametrize("norm", ["batch", "none", "instance", "layer", "spectral"])
def test_initial_weights_are_those_of_section_4(norm: str) -> None:
    gan = DCGAN(32, 3, width=32, discriminator_norm=norm)
    for network in (gan.generator, gan.discriminator):
        weights = [p for n, p in network.named_parameters() if p.dim() == 4]
        joint = torch.cat([w.flatten() for w in weights])
        assert abs(joint.mean().item()) < 3 * 0.02 / len(joint) ** 0.5
        assert joint.std().item() == pytest.approx(0.02, rel=0.02)
        scales = [m.weight for m in network.modules() if isinstance(m, _BatchNorm | nn.InstanceNorm2d | nn.GroupNorm)]
        if scales:
            joint = torch.cat(scales)
            assert joint.mean().item() == pytest.approx(1.0, abs=0.01)
            assert joint.std().item() == pytest.approx(0.02, rel=0.4)
        assert all(p.abs().max() == 0 for n, p in network.named_parameters() if n.endswith("bias"))


def test_normalization_of_the_discriminator() -> None:
    kinds = {
        norm: {type(m).__name__ for m in DCGAN(16, 1, width=4, discriminator_norm=norm).discriminator.modules()}
        for norm in ("batch", "none", "instance", "layer", "spectral")
    }
    assert "BatchNorm2d" in kinds["batch"]
    assert "InstanceNorm2d" in kinds["instance"]
    assert "GroupNorm" in kinds["layer"]
    assert "SpectralNormalization" in kinds["spectral"]
    assert not {"BatchNorm2d", "InstanceNorm2d", "GroupNorm", "SpectralNormalization"} & kinds["none"]


def test_spectral_norm_holds_after_training() -> None:
    gan = DCGAN(8, 1, width=8, discriminator_norm="spectral")
    fit(gan, normal_batches(8, 1, 8, 8), max_steps=30)
    gan.discriminator.train()
    for _ in range(50):
        gan.discriminator(torch.randn(2, 1, 8, 8))
    for module in gan.discriminator.modules():
        if isinstance(module, nn.Conv2d):
            assert torch.linalg.svdvals(module.weight.flatten(1))[0].item() == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("num_classes", [0, 5])
def test_gradient_reaches_every_parameter(num_classes: int) -> None:
    gan = DCGAN(16, 1, width=4, num_classes=num_classes)
    labels = torch.arange(5) if num_classes else None
    gan.discriminator(gan.generator(torch.randn(5, 100), labels), labels).square().sum().backward()
    for player in gan.players.values():
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in player.parameters if p.dim() > 1)


def test_samples_of_a_conditional_model_differ_by_label_alone() -> None:
    gan = DCGAN(16, 1, width=4, num_classes=3)
    a, b, c = gan.sample(1, labels=[0]), gan.sample(1, labels=[1]), gan.sample(1, labels=[0])
    assert torch.equal(a, c)
    assert not torch.equal(a, b)
    real = torch.randn(2, 1, 16, 16)
    gan.discriminator.eval()
    logits = [gan.discriminator(real, torch.full((2,), label)) for label in (0, 1, 0)]
    assert torch.equal(logits[0], logits[2])
    assert not torch.equal(logits[0], logits[1])
