"""Parts that change the layers of any model: what they build, what they refuse, and that nothing is lost on the way."""

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ganzoo import checkpoint
from ganzoo.config import build
from ganzoo.errors import UserError
from ganzoo.gan import GAN
from ganzoo.layers.attention import SelfAttentionLayer
from ganzoo.layers.equalized import Equalized
from ganzoo.layers.minibatch import MinibatchDiscriminationLayer, MinibatchStdDevLayer
from ganzoo.layers.norm import PixelNormLayer
from ganzoo.layers.spectral import is_spectral, rules
from ganzoo.layers.surgery import WEIGHTED, last_layer, weighted_layers
from ganzoo.layers.virtual_batch_norm import VirtualBatchNormLayer
from ganzoo.models import DCGAN, MLPGAN
from ganzoo.parts import Part
from ganzoo.penalties import R1
from ganzoo.tricks import (
    DualDiscriminator,
    EqualizedLearningRate,
    MinibatchDiscrimination,
    MinibatchStdDev,
    Packing,
    PixelNorm,
    SelfAttention,
    SpectralNorm,
    VirtualBatchNorm,
)
from tests.common import Endless, fit, normal_batches, quiet_trainer
from tests.mutants import kills

ANYWHERE = {
    "spectral": [SpectralNorm("both")],
    "deviation": [MinibatchStdDev(2)],
    "discrimination": [MinibatchDiscrimination(3, kernel_dim=2)],
    "equalized": [EqualizedLearningRate()],
}
OF_IMAGES = {
    **ANYWHERE,
    "virtual_generator": [VirtualBatchNorm(size=6)],
    "virtual_discriminator": [VirtualBatchNorm("discriminator", size=6)],
    "attention": [SelfAttention(resolution=4)],
    "pixel": [PixelNorm()],
    "together": [
        VirtualBatchNorm(size=6),
        VirtualBatchNorm("discriminator", size=6),
        MinibatchStdDev(2),
        MinibatchDiscrimination(3),
        SelfAttention(resolution=4, pool=True),
        SpectralNorm("both"),
    ],
}
CASES = [("points", name) for name in ANYWHERE] + [("images", name) for name in OF_IMAGES]


def make(kind: str, name: str, **options):
    torch.manual_seed(0)
    parts = [build(part.config()) for part in OF_IMAGES[name]]
    if kind == "points":
        return MLPGAN(hidden=8, parts=parts, **options)
    return DCGAN(16, 1, width=4, num_classes=3 * (name == "together"), parts=parts, **options)


def batches(kind: str, name: str, skip: int = 0) -> Endless:
    plain = normal_batches(8, 2) if kind == "points" else normal_batches(8, 1, 16, 16)
    if name != "together":
        return Endless(lambda k: plain.make(k + skip))
    return Endless(lambda k: (plain.make(k + skip), torch.arange(8) % 3))


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_training_reaches_the_samples_and_the_checkpoint_holds_it(kind, name, tmp_path) -> None:
    gan = make(kind, name)
    before = {n: p.detach().clone() for n, p in gan.named_parameters() if p.requires_grad}
    trainer = fit(gan, batches(kind, name), max_steps=3)
    moved = {n for n, p in gan.named_parameters() if p.requires_grad and not torch.equal(p, before[n])}
    still = {n for n in before if n not in moved}
    assert all(n.endswith("bias") or "attention" in name or name == "together" for n in still), still
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    again = checkpoint.load_model(tmp_path / "a.ckpt")
    assert again.config() == gan.config()
    for averaged in (True, False):
        assert torch.equal(again.sample(5, averaged=averaged), gan.sample(5, averaged=averaged))
    data, labels = torch.randn(4, *gan.sample(1).shape[1:]), torch.arange(4) % 3 if gan.num_classes else None
    assert torch.equal(again.discriminator(data, labels), gan.discriminator.eval()(data, labels))


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_resume_is_exact(kind, name, tmp_path) -> None:
    gans = []
    for steps in (4, 2, 4):
        gan = make(kind, name)
        gan.step_seconds = 0.0  # one cycle per step
        gans.append(gan)
        resumes = len(gans) == 3
        trainer = quiet_trainer(max_steps=steps)
        start = tmp_path / "half.ckpt" if resumes else None
        trainer.fit(gan, batches(kind, name, skip=2 * resumes), ckpt_path=start, weights_only=True)
        trainer.save_checkpoint(tmp_path / "half.ckpt")
    whole, half, resumed = (gan.state_dict() for gan in gans)
    assert gans[2].clock == gans[0].clock
    assert [key for key in whole if not torch.equal(whole[key], resumed[key])] == []
    assert any(not torch.equal(whole[key], half[key]) for key in whole)


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_bf16(kind, name) -> None:
    gan = make(kind, name)
    fit(gan, batches(kind, name), max_steps=2, precision="bf16-mixed")
    assert all(p.isfinite().all() and p.dtype == torch.float32 for p in gan.parameters())
    assert gan.sample(3).dtype == torch.float32


@pytest.mark.parametrize("name", ["deviation", "discrimination", "virtual_discriminator", "attention", "spectral"])
def test_gradient_penalties_reach_through(name) -> None:
    """The slope of |grad D|^2 along a direction of the first weight against its difference quotient."""
    network = make("images", name, **({} if "virtual" in name else {"discriminator_norm": "none"})).discriminator
    if "virtual" in name:
        network.reference.fill(torch.randn(6, 1, 16, 16), None)
    for module in network.modules():
        if isinstance(module, SelfAttentionLayer):
            nn.init.constant_(module.gamma, 0.5)
    network.double().eval()
    data = torch.randn(4, 1, 16, 16, dtype=torch.float64)
    weight = next(p for p in network.parameters() if p.dim() == 4)
    direction = torch.randn_like(weight)

    def value() -> torch.Tensor:
        points = data.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(network(points, None).sum(), points, create_graph=True)
        return gradient.square().sum()

    (slope,) = torch.autograd.grad(value(), weight)
    values = []
    for step in (1e-7, -2e-7):
        with torch.no_grad():
            weight += step * direction
        values.append(value().item())
    assert (slope * direction).sum().item() == pytest.approx((values[0] - values[1]) / 2e-7, rel=1e-4)


# ---------------------------------------------------------------------- spectral normalization


@pytest.mark.parametrize("player", ["discriminator", "generator", "both"])
def test_spectral_normalization_of_every_weight_of_a_player_once(player) -> None:
    gan = DCGAN(16, 1, width=4, num_classes=3, discriminator_norm="spectral", parts=[SpectralNorm(player)] * 2)
    for name in ("discriminator", "generator"):
        layers = [m for m in getattr(gan, name).modules() if isinstance(m, (*WEIGHTED, nn.Embedding))]
        expected = int(name == "discriminator" or player != "discriminator")
        assert {len(rules(layer)) for layer in layers} == {expected}
        assert any(isinstance(layer, nn.Embedding) for layer in layers)


def test_spectral_vectors_rest_in_the_other_players_turn_in_evaluation_and_in_sampling() -> None:
    class Watch(Part):
        def before_turn(self, turn):
            self.__dict__["before"] = vectors(turn.gan)

        def after_step(self, turn):
            now = vectors(turn.gan)
            seen[turn.player].append({side: not same(now[side], self.__dict__["before"][side]) for side in now})

    def vectors(gan):
        return {
            side: [b.clone() for n, b in getattr(gan, side).named_buffers() if n.endswith(("._u", "._v"))]
            for side in ("discriminator", "generator")
        }

    def same(a, b) -> bool:
        assert len(a) == len(b) > 0
        return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))

    seen = {"discriminator": [], "generator": []}
    torch.manual_seed(0)
    gan = DCGAN(16, 1, width=4, parts=[SpectralNorm("both"), Watch()])
    fit(gan, normal_batches(8, 1, 16, 16), max_steps=3)
    for player, other in itertools.permutations(seen):
        assert len(seen[player]) == 3
        assert all(moved[player] and not moved[other] for moved in seen[player])
    before = vectors(gan)
    average = [b.clone() for b in gan.generator_ema.buffers()]
    gan.sample(4)
    gan.sample(4, averaged=False)
    gan.eval()
    gan.discriminator(torch.randn(2, 1, 16, 16))
    assert all(same(before[side], vectors(gan)[side]) for side in before)
    assert same(average, list(gan.generator_ema.buffers()))


# ---------------------------------------------------------------------- minibatch statistics


@pytest.mark.parametrize("norm", ["none", "spectral"])
def test_the_last_layer_is_widened_behind_what_it_had(norm) -> None:
    torch.manual_seed(0)
    plain = DCGAN(16, 1, width=4, discriminator_norm=norm)
    torch.manual_seed(0)
    gan = DCGAN(16, 1, width=4, discriminator_norm=norm, parts=[MinibatchStdDev(2)])
    layer, head = gan.discriminator.head
    assert isinstance(layer, MinibatchStdDevLayer)
    assert is_spectral(head) == (norm == "spectral")
    old, new = plain.discriminator.head, head
    if norm == "spectral":
        old, new = old.parametrizations.weight.original, new.parametrizations.weight.original
    else:
        old, new = old.weight, new.weight
    assert new.shape[1] == old.shape[1] + 1
    assert torch.equal(new[:, :-1], old)
    if norm == "none":  # identical images: what the plain one says, and 1e-4 in the new channel
        x = torch.randn(1, 1, 16, 16).repeat(4, 1, 1, 1)
        expected = plain.discriminator(x) + 1e-4 * new[:, -1].sum()
        assert torch.allclose(gan.discriminator(x), expected, atol=1e-6)


def test_samples_see_each_other_through_minibatch_statistics_only() -> None:
    def couples(*parts: Part) -> bool:
        torch.manual_seed(0)
        d = MLPGAN(hidden=8, parts=list(parts)).discriminator
        with torch.no_grad():
            for p in d.parameters():
                p[p == 0] = 0.1  # weights of sums over the batch begin there
        x = torch.randn(4, 2)
        other = torch.cat([x[:1], 3 * torch.randn(3, 2)])
        return not torch.allclose(d(x)[0], d(other)[0], atol=1e-6)

    assert not couples()
    assert couples(MinibatchStdDev(4))
    assert couples(MinibatchDiscrimination(4))


def test_a_batch_that_does_not_fit_its_groups_is_refused() -> None:
    with pytest.raises(UserError, match="groups of 4, but was given a batch of 6"):
        fit(MLPGAN(hidden=8, parts=[MinibatchStdDev()]), normal_batches(6, 2), max_steps=1)
    with pytest.raises(UserError, match="group -1"):
        MinibatchStdDev(-1)
    with pytest.raises(UserError, match="kernel_dim 0"):
        MinibatchDiscrimination(kernel_dim=0)


@pytest.mark.parametrize("seed", range(4))
def test_the_game_begins_open_with_minibatch_discrimination(seed) -> None:
    """Logits are near zero at first, whatever the batch; where they are 50, nobody learns."""

    def check(cls) -> None:
        for average in (False, True):
            torch.manual_seed(seed)
            parts = [cls(average=average)]
            points, images = MLPGAN(parts=parts), DCGAN(16, 1, width=4, discriminator_norm="none", parts=parts)
            assert points.discriminator(torch.rand(64, 2) * 2 - 1).abs().max() < 5
            assert images.discriminator(torch.rand(64, 1, 16, 16) * 2 - 1).abs().max() < 5

    class WithOtherWeights(MinibatchDiscrimination):
        """The sum's weights in the layer behind are drawn as the others are."""

        def rebuild(self, gan):
            asked, self.average = self.average, True
            super().rebuild(gan)
            self.average = asked
            for layer in gan.discriminator.modules():
                if isinstance(layer, MinibatchDiscriminationLayer):
                    layer.average = asked

    check(MinibatchDiscrimination)
    kills(check, WithOtherWeights)


def test_sums_of_minibatch_discrimination_have_no_say_at_first() -> None:
    """The discriminator is at first the one without it, bit by bit but for the order of a sum; means have a say."""
    x = torch.randn(16, 2)
    discriminators = []
    for parts in ([], [MinibatchDiscrimination()], [MinibatchDiscrimination(average=True)]):
        torch.manual_seed(0)
        discriminators.append(MLPGAN(parts=parts).discriminator)
    plain, sums, means = (discriminator(x) for discriminator in discriminators)
    assert torch.allclose(plain, sums, atol=1e-6)
    assert (plain - means).abs().max() > 0.01


@pytest.mark.parametrize(("norm", "shape"), [("none", (1, 4, 4)), ("spectral", (1, 8, 8))])
def test_minibatch_discrimination_compares_all_features_of_the_last_layer(norm, shape) -> None:
    gan = DCGAN(16, 1, width=4, discriminator_norm=norm, parts=[MinibatchDiscrimination(6, kernel_dim=2)])
    layer, head = gan.discriminator.head
    assert isinstance(layer, MinibatchDiscriminationLayer)
    assert layer.weight.shape == (8 * 4 * 4, 6, 2)
    assert head.in_channels == 8 + 6
    assert any(p is layer.weight for p in gan.players["discriminator"].parameters)
    with pytest.raises(UserError, match="name MinibatchDiscrimination before"):
        DCGAN(16, 1, width=4, parts=[Packing(2), MinibatchDiscrimination()])
    DCGAN(16, 1, width=4, parts=[MinibatchDiscrimination(), Packing(2)])


# ---------------------------------------------------------------------- virtual batch normalization


def check_samples_alone(layer: type[nn.Module]) -> None:
    torch.manual_seed(0)
    gan = DCGAN(16, 1, width=4, num_classes=3, parts=[VirtualBatchNorm(size=6)])
    for network in (gan.generator, gan.generator_ema):
        for module in network.modules():
            if isinstance(module, VirtualBatchNormLayer):
                module.__class__ = layer
    for averaged in (True, False):
        together, alone = (gan.sample(6, batch_size=size, averaged=averaged) for size in (6, 1))
        assert torch.allclose(together, alone, atol=1e-5)
        assert together.std() > 0
    assert torch.allclose(gan.sample(2, first=3), gan.sample(6)[3:5], atol=1e-5)


class OfCurrentBatch(VirtualBatchNormLayer):
    def forward(self, x):
        return nn.functional.batch_norm(x, None, None, self.weight, self.bias, training=True)


def test_a_sample_does_not_depend_on_its_mates() -> None:
    check_samples_alone(VirtualBatchNormLayer)
    kills(check_samples_alone, OfCurrentBatch)


def test_the_generators_reference_is_fixed_when_it_is_built() -> None:
    torch.manual_seed(0)
    gan = DCGAN(16, 1, width=4, num_classes=3, parts=[VirtualBatchNorm(size=6)])
    data, labels = gan.generator.reference.data.clone(), gan.generator.reference.labels.clone()
    assert data.shape == (6, 100)
    assert data.unique(dim=0).shape == (6, 100)
    assert labels.shape == (6,)
    fit(gan, Endless(lambda k: (torch.randn(8, 1, 16, 16), torch.arange(8) % 3)), max_steps=3)
    for network in (gan.generator, gan.generator_ema):
        assert torch.equal(network.reference.data, data)
        assert torch.equal(network.reference.labels, labels)


@pytest.mark.parametrize(("size", "expected"), [(6, 6), (64, 8)])
def test_the_discriminators_reference_is_its_first_real_batch(size, expected) -> None:
    gan = DCGAN(16, 1, width=4, parts=[VirtualBatchNorm("discriminator", size=size)], penalties=[R1(1.0)])
    assert gan.discriminator.reference.is_empty
    loader = normal_batches(8, 1, 16, 16)
    fit(gan, loader, max_steps=3)
    assert torch.equal(gan.discriminator.reference.data, loader.make(0)[:expected])
    x = torch.randn(4, 1, 16, 16)
    together = gan.discriminator(x)
    assert torch.allclose(together, torch.cat([gan.discriminator(one[None]) for one in x]), atol=1e-5)


def test_gradient_penalties_are_allowed_since_no_batch_normalization_is_left() -> None:
    for player in ("discriminator", "generator"):
        parts = [VirtualBatchNorm(player)]
        gan = DCGAN(16, 1, width=4, parts=parts, penalties=[R1()] if player == "discriminator" else [])
        assert not any(isinstance(m, _BatchNorm) for m in getattr(gan, player).modules())
    with pytest.raises(UserError, match="batch normalization"):
        DCGAN(16, 1, width=4, parts=[VirtualBatchNorm("generator")], penalties=[R1()])


def test_reference_of_packs_and_of_a_second_discriminator() -> None:
    loader = normal_batches(8, 1, 16, 16)
    for parts in (
        [VirtualBatchNorm("discriminator", size=3), Packing(2)],
        [Packing(2), VirtualBatchNorm("discriminator", size=3)],
    ):
        gan = DCGAN(16, 1, width=4, parts=parts)
        fit(gan, loader, max_steps=1)
        assert torch.equal(gan.discriminator.reference.data, loader.make(0).reshape(4, 2, 16, 16)[:3])


def test_virtual_batch_normalization_is_refused_where_it_replaces_nothing() -> None:
    with pytest.raises(UserError, match="the generator has none"):
        MLPGAN(parts=[VirtualBatchNorm()])
    with pytest.raises(UserError, match="the discriminator has none"):
        DCGAN(16, 1, width=4, discriminator_norm="none", parts=[VirtualBatchNorm("discriminator")])
    with pytest.raises(UserError, match="size 1"):
        VirtualBatchNorm(size=1)


# ---------------------------------------------------------------------- attention, pixel norm, equalized rates


@pytest.mark.parametrize(("resolution", "channels"), [(4, 8), (8, 4)])
@pytest.mark.parametrize("conditional", [0, 3])
def test_attention_is_behind_the_feature_map_of_its_resolution(resolution, channels, conditional) -> None:
    torch.manual_seed(0)
    plain = DCGAN(16, 1, width=4, num_classes=conditional)
    torch.manual_seed(0)
    gan = DCGAN(16, 1, width=4, num_classes=conditional, parts=[SelfAttention(resolution=resolution)])
    seen = []
    for network in (gan.generator, gan.discriminator):
        (layer,) = [m for m in network.modules() if isinstance(m, SelfAttentionLayer)]
        layer.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    latents, labels = torch.randn(3, 100), torch.arange(3) if conditional else None
    fake = gan.generator(latents, labels)
    logits = gan.discriminator(fake, labels)
    assert seen == [(3, channels, resolution, resolution)] * 2
    # it starts as the identity, and nothing else has changed
    assert torch.equal(fake, plain.generator(latents, labels))
    assert torch.equal(logits, plain.discriminator(fake, labels))


def test_attention_is_not_put_behind_a_layer_that_is_used_twice() -> None:
    """An activation shared by two resolutions would be followed by attention at both."""

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.head = nn.Conv2d(1, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1), nn.Linear(128, 1)
            self.activation = nn.ReLU()

        def forward(self, x, labels=None):
            h = self.activation(self.second(self.activation(self.first(x))))
            return self.head(h.flatten(1)).squeeze(1)

    network = Shared()
    GAN(DCGAN(16, 1, width=4).generator, network, parts=[SelfAttention("discriminator", resolution=8)])
    (layer,) = [m for m in network.modules() if isinstance(m, SelfAttentionLayer)]
    seen = []
    layer.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    network(torch.randn(2, 1, 16, 16))
    assert seen == [(2, 8, 8, 8)]


@pytest.mark.parametrize("num_channels", [1, 2, 4])
def test_minibatch_stddev_appends_as_many_channels_as_it_was_asked_for(num_channels: int) -> None:
    plain = DCGAN(16, 1, width=4)
    gan = DCGAN(16, 1, width=4, parts=[MinibatchStdDev(4, num_channels=num_channels)])
    layer = gan.discriminator.get_submodule(last_layer(gan.discriminator))
    before = plain.discriminator.get_submodule(last_layer(plain.discriminator))
    assert layer.weight.shape[1] == before.weight.shape[1] + num_channels
    assert gan.discriminator(torch.randn(8, 1, 16, 16)).shape == (8,)


def test_attention_is_refused_where_there_is_no_such_place() -> None:
    for resolution in (16, 32, 2):
        with pytest.raises(UserError, match=f"at resolution {resolution}, .*DCGANGenerator have resolution 4, 8:"):
            DCGAN(16, 1, width=4, parts=[SelfAttention(resolution=resolution)])
    with pytest.raises(UserError, match="none that is an image"):
        MLPGAN((1, 8, 8), parts=[SelfAttention("discriminator", resolution=4)])
    with pytest.raises(UserError, match="player was nobody"):
        DCGAN(16, 1, width=4, parts=[SelfAttention("nobody", resolution=4)])


def test_attention_is_spectral_where_the_network_is() -> None:
    gan = DCGAN(16, 1, width=4, discriminator_norm="spectral", parts=[SelfAttention(resolution=4)])
    for network, expected in ((gan.discriminator, True), (gan.generator, False)):
        (layer,) = [m for m in network.modules() if isinstance(m, SelfAttentionLayer)]
        assert {is_spectral(conv) for conv in (layer.query, layer.key, layer.value, layer.out)} == {expected}


def test_pixel_norm_takes_the_place_of_every_normalization() -> None:
    gan = DCGAN(16, 1, width=4, parts=[PixelNorm()])
    norms = [m for m in gan.generator.modules() if isinstance(m, PixelNormLayer)]
    assert len(norms) == 2
    assert not any(isinstance(m, _BatchNorm) for m in gan.generator.modules())
    seen = []
    for norm in norms:
        norm.register_forward_hook(lambda module, inputs, output: seen.append(output.square().mean(1)))
    gan.generator(torch.randn(3, 100))
    assert all(torch.allclose(mean, torch.ones_like(mean), atol=1e-3) for mean in seen)
    assert torch.allclose(gan.sample(4, batch_size=1), gan.sample(4), atol=1e-6)
    with pytest.raises(UserError, match="MLPGenerator has none"):
        MLPGAN(parts=[PixelNorm()])


def test_equalized_rates_of_every_layer() -> None:
    torch.manual_seed(0)
    gan = MLPGAN(hidden=64, num_layers=3, parts=[EqualizedLearningRate("discriminator")])
    layers = list(weighted_layers(gan.discriminator).values())
    scales = [rules(layer)[0].scale for layer in layers]
    assert scales == pytest.approx([1.0, (2 / 64) ** 0.5, (2 / 64) ** 0.5, 1 / 8])
    stored = torch.cat([layer.parametrizations.weight.original.flatten() for layer in layers])
    assert stored.std().item() == pytest.approx(1.0, rel=0.05)
    assert not any(isinstance(m, Equalized) for m in gan.generator.modules())
    with pytest.raises(UserError, match="name it before"):
        DCGAN(16, 1, width=4, discriminator_norm="spectral", parts=[EqualizedLearningRate("discriminator")])
    with pytest.raises(UserError, match="name it before"):
        DCGAN(16, 1, width=4, parts=[EqualizedLearningRate(), MinibatchStdDev()])


# ---------------------------------------------------------------------- copies, options


@pytest.mark.parametrize("name", ["spectral", "deviation", "virtual_discriminator", "attention"])
def test_a_second_discriminator_is_changed_like_the_first(name) -> None:
    torch.manual_seed(0)
    from ganzoo.losses import D2GAN

    parts = [build(part.config()) for part in OF_IMAGES[name]]
    gan = DCGAN(16, 1, width=4, parts=[*parts, DualDiscriminator()], loss=D2GAN())
    twin = gan.tricks[-1].network
    fit(gan, normal_batches(8, 1, 16, 16), max_steps=2)
    kinds = [[type(m).__name__ for m in network.modules()] for network in (gan.discriminator, twin)]
    assert kinds[0] == kinds[1]
    if name == "virtual_discriminator":
        assert torch.equal(twin.reference.data, gan.discriminator.reference.data)
        assert len(twin.reference.data) == 6


@pytest.mark.parametrize("name", OF_IMAGES)
def test_the_average_is_a_copy_of_its_own(name) -> None:
    gan = make("images", name)
    twin = copy.deepcopy(gan.generator_ema)
    latents, labels = torch.randn(3, 100), torch.arange(3) if gan.num_classes else None
    expected = twin(latents, labels)
    assert torch.equal(expected, gan.generator_ema(latents, labels))
    with torch.no_grad():
        for p in gan.generator.parameters():
            p.add_(0.3 * torch.randn_like(p))
    assert torch.equal(expected, gan.generator_ema(latents, labels))


def test_each_is_one_line_of_a_recipe(tmp_path, monkeypatch) -> None:
    from ganzoo.cli.arguments import read
    from ganzoo.cli.parser import FitCLI

    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(
        "model:\n  class_path: DCGAN\n  init_args:\n    width: 4\n    discriminator_norm: none\n    parts:\n"
        "    - class_path: MinibatchStdDev\n    - class_path: SelfAttention\n      init_args: {resolution: 4}\n"
        "    - class_path: VirtualBatchNorm\ndata: {class_path: Digits, init_args: {image_size: 16}}\n"
    )
    cli = FitCLI(read(["--config", "recipe.yaml", "--model.parts+=SpectralNorm", "--model.parts.player=both"]))
    cli.parse()
    cli.build()
    assert [type(part).__name__ for part in cli.model.tricks] == [
        "MinibatchStdDev",
        "SelfAttention",
        "VirtualBatchNorm",
        "SpectralNorm",
    ]
    assert cli.model.tricks[-1].player == "both"
    assert all(is_spectral(layer) for layer in weighted_layers(cli.model.generator).values())
