"""The auxiliary classifier against cross-entropies and gradients worked out by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ganzoo import loop
from ganzoo.config import build
from ganzoo.errors import UserError
from ganzoo.gan import GAN
from ganzoo.layers.coupling import sample_group
from ganzoo.layers.spectral import is_spectral
from ganzoo.models import DCGAN, MLPGAN, SAGAN
from ganzoo.optim import SGD
from ganzoo.schedules import Linear
from ganzoo.tricks import AuxiliaryClassifier, MinibatchDiscrimination, auxiliary
from tests.common import Endless, fit, max_difference
from tests.mutants import kills
from tests.penalties.fits import Watch, both, gradient, labelled, small

WEIGHT, GENERATOR_WEIGHT, RATE = 0.7, 0.3, 0.5


def play(cls, look, *, fakes: bool = True, steps: int = 1, **options) -> GAN:
    """The classifier alone: the adversarial loss has no weight."""
    part = cls(WEIGHT, generator_weight=GENERATOR_WEIGHT, fakes=fakes)
    gan = small("points", num_classes=3, parts=[part], adversarial_weight=0.0, ema=None, **options)
    watch = Watch(look)
    gan.tricks.append(watch)
    fit(gan, labelled("points"), max_steps=steps)
    return gan


def features(gan: GAN, data: torch.Tensor) -> torch.Tensor:
    """What the last layer of an MLP is given for samples that are all said to be of class 0."""
    zeros = torch.zeros(len(data), 3)
    zeros[:, 0] = 1
    return gan.discriminator.layers[:-1](torch.cat([data, zeros], dim=1))


def cross_entropy(gan: GAN, data: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    head = gan.tricks[0].head
    scores = features(gan, data) @ head.weight.T + head.bias
    chances = scores.exp() / scores.exp().sum(1, keepdim=True)
    return -torch.stack([chances[n, label] for n, label in enumerate(labels)]).log().mean()


def check_gradients(cls, fakes: bool = True) -> None:
    """The gradient of each player's parameters is that of the paper's loss, and the other player has none."""
    seen = []

    def look(turn) -> None:
        gan = turn.gan
        if turn.player == "discriminator":
            parameters = [*gan.discriminator.parameters(), *gan.tricks[0].parameters()]
            loss = cross_entropy(gan, turn.real, turn.real_labels)
            if fakes:
                loss = loss + cross_entropy(gan, turn.fake, turn.fake_labels)
            wanted = torch.autograd.grad(WEIGHT * loss, parameters, allow_unused=True)
            found = [p.grad for p in parameters]
            seen.extend([turn.player, gan.tricks[0].head.weight.grad.clone()])
        else:
            parameters = list(gan.generator.parameters())
            fake = gan.generator(turn.latents, turn.fake_labels)
            wanted = torch.autograd.grad(GENERATOR_WEIGHT * cross_entropy(gan, fake, turn.fake_labels), parameters)
            found = [p.grad for p in parameters]
            seen.append(turn.player)
            assert torch.equal(gan.tricks[0].head.weight.grad, seen[1])  # as the discriminator's turn left it
        for p, a, b in zip(parameters, found, wanted, strict=True):
            assert torch.allclose(*(torch.zeros_like(p) if x is None else x for x in (a, b)), atol=1e-6)
        assert gradient(gan.generator).any() == (turn.player == "generator")

    play(cls, look, fakes=fakes)
    assert (seen[0], seen[2:]) == ("discriminator", ["generator"])


class Cut(AuxiliaryClassifier):
    """The generator is told nothing."""

    def forward(self, turn):
        loss = super().forward(turn)
        return loss.detach() if turn.player == "generator" else loss


class WrongLabels(AuxiliaryClassifier):
    """Fakes are to be recognized as the classes of their neighbours."""

    def forward(self, turn):
        turn.fake_labels = turn.fake_labels.roll(1)
        try:
            return super().forward(turn)
        finally:
            turn.fake_labels = turn.fake_labels.roll(-1)


class Shown(AuxiliaryClassifier):
    """The discriminator sees the label that it is to name."""

    def inputs(self, turn, data, labels):
        return data, labels


class HelpsTheGenerator(AuxiliaryClassifier):
    """The head learns in the generator's turn, which its player then trains."""

    owner = "generator"


class OneWeight(AuxiliaryClassifier):
    def __init__(self, weight=1.0, **options):
        super().__init__(weight, **{**options, "generator_weight": weight})


class NeverFakes(AuxiliaryClassifier):
    def __init__(self, weight=1.0, **options):
        super().__init__(weight, **{**options, "fakes": False})


@pytest.mark.parametrize("fakes", [True, False])
def test_the_gradients_of_both_players(fakes) -> None:
    check_gradients(AuxiliaryClassifier, fakes)


@pytest.mark.parametrize("mutant", [Cut, WrongLabels, Shown, HelpsTheGenerator, OneWeight, NeverFakes])
def test_wrong_ones(mutant) -> None:
    kills(check_gradients, mutant)


def test_one_step_of_the_head_is_the_hand_s() -> None:
    """SGD on the head: W - lr * weight * (softmax - one-hot)^T f / N, on real data and on fakes."""
    steps = []

    def look(turn) -> None:
        if turn.player == "discriminator":
            gan, head = turn.gan, turn.gan.tricks[0].head
            change = torch.zeros_like(head.weight)
            for data, labels in ((turn.real, turn.real_labels), (turn.fake, turn.fake_labels)):
                f = features(gan, data).detach()
                error = F.softmax(head(f), 1).detach() - F.one_hot(labels, 3)
                change += error.T @ f / len(f)
            steps.append(head.weight.detach() - RATE * WEIGHT * change)

    gan = play(AuxiliaryClassifier, look, discriminator_optimizer=SGD(RATE))
    assert torch.allclose(gan.tricks[0].head.weight, steps[0], atol=1e-6)  # and the generator's turn left it alone


def test_weights_may_be_schedules_and_are_checked() -> None:
    scheduled = AuxiliaryClassifier(Linear(1.0, 0.0, to_kimg=1.0), generator_weight=Linear(0.0, 1.0, to_kimg=1.0))
    assert scheduled.config()["init_args"]["weight"]["class_path"].endswith("Linear")
    for options in ({"weight": -1.0}, {"generator_weight": -0.1}):
        with pytest.raises(UserError, match=r"weight of AuxiliaryClassifier was -.*0 or more"):
            AuxiliaryClassifier(**options)


def test_a_generator_learns_its_classes_from_the_classifier() -> None:
    """Three classes at the corners of a triangle; the discriminator judges without labels."""
    corners = torch.tensor([[1.0, 0.0], [-0.5, 0.87], [-0.5, -0.87]])

    def batch(k: int):
        g = torch.Generator().manual_seed(k)
        labels = torch.randint(3, (32,), generator=g)
        return corners[labels] + 0.05 * torch.randn(32, 2, generator=g), labels

    def of_its_class(*parts) -> float:
        torch.manual_seed(0)
        gan = MLPGAN(hidden=32, num_classes=3, parts=[*parts])
        gan.step_seconds = 0.0
        fit(gan, Endless(batch), max_steps=120)
        labels = [n % 3 for n in range(300)]
        nearest = torch.cdist(gan.sample(300, labels=labels), corners).argmin(1)
        return (nearest == torch.tensor(labels)).float().mean().item()

    class Blind(AuxiliaryClassifier):
        def forward(self, turn):
            return super().forward(turn) * 0.0

    assert of_its_class(AuxiliaryClassifier()) > 0.95
    assert of_its_class(Blind()) < 0.7  # the game alone says nothing about labels


@pytest.mark.parametrize("kind", ["points", "images"])
def test_survives(kind) -> None:
    """It trains in 32 bits and in bf16-mixed; a model built from its configuration and state goes on as the first."""

    def run(gan: GAN, **trainer) -> GAN:
        torch.manual_seed(7)
        fit(gan, labelled(kind), max_steps=gan.clock.g_turns + 2, **trainer)
        return gan

    def make() -> GAN:
        return small(kind, num_classes=3, parts=[AuxiliaryClassifier(fakes=False)])

    whole, half = run(make()), run(make(), precision="bf16-mixed")
    assert both(half).isfinite().all()
    assert 0 < (both(whole) - both(half)).abs().max() < 0.1
    again: GAN = build(whole.config())
    again.step_seconds = 0.0
    assert again.config() == whole.config()
    again.load_state_dict(whole.state_dict())
    again.clock.load(whole.clock.state())
    run(whole), run(again)
    assert max_difference(whole.state_dict(), again.state_dict()) == 0.0


@pytest.mark.parametrize("norm", ["none", "spectral"])
def test_a_compiled_discriminator_is_asked_again(norm, monkeypatch) -> None:
    """Its hooks do not run; the pass is made again and gives the same."""

    def run(compiled: bool) -> GAN:
        monkeypatch.setattr(auxiliary, "is_compiled", lambda network: compiled)
        gan = small("images", num_classes=3, parts=[AuxiliaryClassifier()], discriminator_norm=norm)
        fit(gan, labelled("images"), max_steps=3)
        return gan

    assert max_difference(run(False).state_dict(), run(True).state_dict()) < 1e-6


@pytest.mark.parametrize("norm", ["none", "spectral"])
def test_the_head_is_spectral_where_the_discriminator_is(norm) -> None:
    gan = DCGAN(16, 1, width=4, num_classes=3, discriminator_norm=norm, parts=[AuxiliaryClassifier()])
    head = gan.tricks[0].head
    assert (head.in_features, head.out_features) == (8 * 4 * 4, 3)
    assert is_spectral(head) == (norm == "spectral")
    assert {id(p) for p in head.parameters()} <= {id(p) for p in gan.players["discriminator"].trained}


def test_refusals() -> None:
    with pytest.raises(UserError, match="this model is unconditional: ask the data for labels"):
        MLPGAN(parts=[AuxiliaryClassifier()])
    with pytest.raises(UserError, match=r"MLPDiscriminator is given the label.*set hide_labels"):
        MLPGAN(num_classes=3, parts=[AuxiliaryClassifier(hide_labels=False)])
    DCGAN(8, 1, width=4, num_classes=3, parts=[AuxiliaryClassifier(hide_labels=False)])  # a projection behind it
    with pytest.raises(UserError, match="name AuxiliaryClassifier after the parts that change the discriminator"):
        MLPGAN(num_classes=3, parts=[AuxiliaryClassifier(), MinibatchDiscrimination()])
    behind = MLPGAN(num_classes=3, parts=[MinibatchDiscrimination(4), AuxiliaryClassifier()])
    assert behind.tricks[1].head.in_features == 128 + 4

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(2, 1), nn.Linear(2, 1)

        def forward(self, data, labels=None):
            return self.used(data).squeeze(1)

    with pytest.raises(UserError, match="its pass does not use unused"):
        GAN(MLPGAN(num_classes=3).generator, Odd(), num_classes=3, parts=[AuxiliaryClassifier()])


def passing_together(monkeypatch, together: bool) -> tuple[GAN, int]:
    """Two cycles of a model whose discriminator may judge real and fake at once, and how often it was called."""
    monkeypatch.setattr(loop, "sample_group", lambda network: together and sample_group(network))
    torch.manual_seed(0)
    sizes = {f"{player}_{name}": 8 for player in ("generator", "discriminator") for name in ("width", "max_width")}
    gan = SAGAN(
        16,
        1,
        **sizes,
        num_classes=3,
        latent_dim=4,
        discriminator_bottom=4,
        generator_optimizer=SGD(0.1),
        discriminator_optimizer=SGD(0.1),
        parts=[AuxiliaryClassifier()],
    )
    gan.step_seconds, passes, features = 0.0, [], gan.discriminator.features
    gan.discriminator.features = lambda images: passes.append(1) or features(images)
    fit(gan, Endless(lambda k: (torch.randn(6, 1, 16, 16, generator=seeded(k)), torch.arange(6) % 3)), max_steps=2)
    del gan.discriminator.features
    return gan, len(passes)


def test_real_and_fake_may_pass_together(monkeypatch) -> None:
    """One pass of the discriminator for both, of which each cross-entropy takes its rows; as with two passes."""

    def check(rows) -> None:
        monkeypatch.setattr(auxiliary, "_rows_behind", rows)
        (one, few), (two, many) = (passing_together(monkeypatch, together) for together in (True, False))
        assert (few, many) == (2 * (1 + 1), 2 * (2 + 1))
        assert max_difference(one.state_dict(), two.state_dict()) < 1e-5

    check(auxiliary._rows_behind)
    kills(check, lambda logits, features, output: features[: len(logits)])


def seeded(k: int) -> torch.Generator:
    return torch.Generator().manual_seed(k)
