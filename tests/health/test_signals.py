"""Signals of a game's health by loops, closed forms and scikit-learn."""

from __future__ import annotations

import itertools

import pytest
import torch
from sklearn.metrics import roc_auc_score

from ganzoo.config import build
from ganzoo.gan import GAN
from ganzoo.health.signals import Signals, diversity, gradient_norm, separation, signal
from ganzoo.losses import D2GAN, AdversarialLoss, Hinge, NonSaturating, Saturating, Wasserstein
from ganzoo.models import DCGAN, MLPGAN
from ganzoo.parts import Part, Turn
from ganzoo.tricks import DualDiscriminator
from tests.common import Critic, fit, flat, normal_batches
from tests.mutants import kills


def check_separation(function) -> None:
    g = torch.Generator().manual_seed(0)
    real, fake = torch.randint(-3, 5, (7,), generator=g).float(), torch.randint(-4, 3, (9,), generator=g).float()
    labels = [1] * 7 + [0] * 9
    assert function(real, fake).item() == pytest.approx(roc_auc_score(labels, torch.cat([real, fake]).numpy()))
    assert function(torch.ones(3), torch.zeros(2)).item() == 1.0
    assert function(torch.zeros(3), torch.ones(2)).item() == 0.0
    assert function(torch.ones(3), torch.ones(2)).item() == 0.5


def test_separation_is_the_area_under_the_roc_curve() -> None:
    check_separation(separation)
    kills(check_separation, lambda real, fake: (real[:, None] > fake[None, :]).float().mean())  # ties
    kills(check_separation, lambda real, fake: ((real > 0).float().mean() + (fake < 0).float().mean()) / 2)


def check_diversity(function) -> None:
    g = torch.Generator().manual_seed(0)
    fake, real = torch.randn(5, 2, 3, generator=g), torch.randn(8, 2, 3, generator=g)

    def mean(x):
        pairs = list(itertools.combinations(x.double(), 2))
        return sum((a - b).square().sum().sqrt() for a, b in pairs) / len(pairs)

    assert function(fake, real).item() == pytest.approx((mean(fake) / mean(real)).item(), rel=1e-5)
    assert function(torch.ones(4, 3) * 7, real).item() == 0.0
    near = 1e3 + 1e-3 * torch.randn(16, 2, generator=g).double()
    assert function(near.float() * 0 + 1e3, near).item() == 0.0
    assert function(2 * real + 5, real).item() == pytest.approx(2.0, rel=1e-5)


def test_diversity_is_a_ratio_of_mean_distances() -> None:
    check_diversity(diversity)
    kills(check_diversity, lambda fake, real: torch.cdist(fake.flatten(1), fake.flatten(1)).mean() / real.std())
    kills(check_diversity, lambda fake, real: fake.std() / real.std())


@pytest.mark.parametrize(
    ("loss", "slope"),
    [
        (NonSaturating(), lambda logits: torch.sigmoid(-logits)),
        (Saturating(), torch.sigmoid),
        (Hinge(), torch.ones_like),
        (Wasserstein(), torch.ones_like),
    ],
)
def test_the_signal_is_the_slope_of_the_loss(loss: AdversarialLoss, slope) -> None:
    logits = torch.tensor([-20.0, -3.0, 0.5, 4.0])
    turn = Turn(GAN(MLPGAN().generator, Critic(2), loss=loss), "generator", 0, 0.0, judged_fake=logits)
    assert signal(turn).item() == pytest.approx(slope(logits).mean().item(), rel=1e-5)


def test_the_signal_is_that_of_the_logits_that_the_loss_is_given() -> None:
    """Two discriminators, named before or behind it: the slopes of -softplus(a) and of log softplus(b)."""
    seen = []

    class Look(Part):
        players = ("generator",)

        def logits(self, turn: Turn, real, fake):
            a, b = fake.detach().double().unbind(-1)
            slope = a.sigmoid().mean() + 0.5 * (b.sigmoid() / torch.nn.functional.softplus(b)).mean()
            seen.append(slope.item())
            return real, fake

    for parts in ([Signals(1), DualDiscriminator(), Look()], [DualDiscriminator(), Look(), Signals(1)]):
        gan = MLPGAN(hidden=8, loss=D2GAN(beta=0.5), parts=parts)
        fit(gan, normal_batches(8, 2), max_steps=3)
        assert gan.meter.values()["health/signal"] == pytest.approx(seen, rel=1e-5)
        assert len(seen) == 3
        seen.clear()


def test_the_norm_is_of_all_gradients_together() -> None:
    a, b, c = (torch.nn.Parameter(torch.zeros(2)) for _ in range(3))
    a.grad, b.grad = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0])
    assert gradient_norm([a, b, c]).item() == pytest.approx(5.0)
    assert gradient_norm([c]).item() == 0.0


class Gradients(Part):
    """What the norms must be, by hand, and the samples of each turn."""

    def __init__(self) -> None:
        super().__init__()
        self.__dict__["seen"] = {"generator": [], "discriminator": []}

    def after_backward(self, turn: Turn) -> None:
        network = turn.gan.generator if turn.player == "generator" else turn.gan.discriminator
        norm = torch.cat([p.grad.flatten().double() for p in network.parameters()]).norm().item()
        self.__dict__["seen"][turn.player].append(norm)


@pytest.mark.parametrize("make", [lambda **o: MLPGAN(hidden=8, **o), lambda **o: DCGAN(8, 1, width=4, **o)])
def test_in_a_run_it_changes_nothing_and_measures_each_so_many_th_turn(make) -> None:
    def trained(*parts: Part) -> GAN:
        torch.manual_seed(0)
        gan = make(parts=[build(part.config(), ["tests"]) for part in parts])
        fit(gan, normal_batches(8, *((2,) if isinstance(gan, MLPGAN) else (1, 8, 8))), max_steps=5)
        return gan

    watched = trained(Signals(every=2), Gradients())
    assert torch.equal(flat(trained(Gradients())), flat(watched))
    values = watched.meter.values()
    for name in ("separation", "diversity", "signal", "gradient_g", "gradient_d"):
        assert len(values[f"health/{name}"]) == 3, name  # turns 0, 2 and 4
    seen = watched.tricks[1].__dict__["seen"]
    assert values["health/gradient_g"] == pytest.approx(seen["generator"][::2], rel=1e-5)
    assert values["health/gradient_d"] == pytest.approx(seen["discriminator"][::2], rel=1e-5)


def test_in_half_precision_too() -> None:
    gan = MLPGAN(hidden=8, parts=[Signals(every=1)])
    fit(gan, normal_batches(8, 2), max_steps=2, precision="bf16-mixed")
    assert 0 < gan.meter.means()["health/signal"] <= 1
