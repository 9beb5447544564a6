"""Tricks written outside of the package, used by class path, with no edit of the loop: six kinds of hooks."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from ganzoo.config import build
from ganzoo.gan import GAN
from ganzoo.losses import Wasserstein
from ganzoo.models import MLPGAN
from ganzoo.models.mlp import MLPDiscriminator
from ganzoo.optim import SGD
from ganzoo.parts import Part, Penalty, Turn
from tests.common import fit, flat, normal_batches


class Clipping(Part):
    """Weight clipping (Arjovsky 2017)."""

    players = ("discriminator",)

    def __init__(self, bound: float = 0.01) -> None:
        super().__init__()
        self.bound = bound

    def after_step(self, turn: Turn) -> None:
        for p in turn.gan.discriminator.parameters():
            p.data.clamp_(-self.bound, self.bound)


class BestFakes(Part):
    """The generator learns from its k best fakes (Sinha 2020)."""

    players = ("generator",)

    def __init__(self, k: int = 3) -> None:
        super().__init__()
        self.k = k

    def logits(self, turn: Turn, real, fake):
        turn.fake.retain_grad()
        self.__dict__["last"] = (turn.fake, fake)
        return real, fake.topk(self.k).values


class Packs(Part):
    """The discriminator judges several samples at once (PacGAN, Lin 2018)."""

    def __init__(self, degree: int = 2) -> None:
        super().__init__()
        self.degree = degree

    def rebuild(self, gan: GAN) -> None:
        gan.discriminator = MLPDiscriminator((2 * self.degree,), 8, 1, 0, 1, 0.0)

    def inputs(self, turn: Turn, data, labels):
        return data.reshape(len(data) // self.degree, self.degree * data.shape[1]), labels


class SecondDiscriminator(Part):
    """One more discriminator with parameters of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Linear(2, 1)

    def forward(self, turn: Turn):
        if turn.player == "discriminator":
            return self.network(turn.fake).mean() - self.network(turn.real).mean()
        return -self.network(turn.fake).mean()


class AuxiliaryHead(Part):
    """A classifier beside the discriminator, here of the sign of the first coordinate."""

    players = ("discriminator",)

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2, 2)

    def forward(self, turn: Turn):
        return nn.functional.cross_entropy(self.head(turn.real), (turn.real[:, 0] > 0).long())


class LookAhead(Part):
    """The generator looks k discriminator updates ahead; the real one is put back (Metz 2017, first order)."""

    players = ("generator",)

    def __init__(self, k: int = 0) -> None:
        super().__init__()
        self.k = k

    def before_turn(self, turn: Turn) -> None:
        gan = turn.gan
        self.__dict__["kept"] = copy.deepcopy(gan.discriminator.state_dict())
        self.__dict__["before"] = flat(gan.discriminator)
        for step in range(self.k):
            torch.manual_seed(step)
            data = torch.randn(8, 2)
            fake = gan.generator(torch.randn(8, 2)).detach()
            loss = gan.loss.discriminator(gan.discriminator(data), gan.discriminator(fake))
            grads = torch.autograd.grad(loss, list(gan.discriminator.parameters()))
            for p, g in zip(gan.discriminator.parameters(), grads, strict=True):
                p.data -= 0.5 * g

    def after_step(self, turn: Turn) -> None:
        turn.gan.discriminator.load_state_dict(self.__dict__["kept"])
        assert torch.equal(flat(turn.gan.discriminator), self.__dict__["before"])


class MeanPenalty(Penalty):
    """|E D(fake)|^2 on each so many-th turn of the discriminator."""

    players = ("discriminator",)

    def value(self, turn: Turn):
        turn.__dict__.setdefault("used", []).append(turn.number)
        self.__dict__.setdefault("turns", []).append(turn.number)
        return turn.fake_logits.mean().square()


def model(*parts: Part, seed: int = 0, **options) -> MLPGAN:
    torch.manual_seed(seed)
    rates = {"generator_optimizer": SGD(0.1), "discriminator_optimizer": SGD(0.1)}
    return MLPGAN(hidden=8, parts=[build(part.config(), ["tests"]) for part in parts], **{**rates, **options})


def train(gan: GAN, cycles: int = 4) -> GAN:
    torch.manual_seed(7)
    fit(gan, normal_batches(8, 2), max_steps=cycles)
    return gan


def test_weights_are_within_the_clip_range_after_every_d_turn() -> None:
    class Check(Part):
        players = ("discriminator",)

        def after_step(self, turn: Turn) -> None:
            largest.append(max(p.abs().max().item() for p in turn.gan.discriminator.parameters()))

    largest: list[float] = []
    torch.manual_seed(0)
    train(MLPGAN(hidden=8, loss=Wasserstein(), parts=[Clipping(0.01), Check()]))
    assert largest == pytest.approx([0.01] * 4, abs=1e-8)


def test_top_k_sends_no_gradient_to_unselected_samples() -> None:
    gan = train(model(BestFakes(3)), cycles=1)
    fake, logits = gan.tricks[0].__dict__["last"]
    selected = set(logits.topk(3).indices.tolist())
    moved = {i for i in range(8) if fake.grad[i].abs().sum() > 0}
    assert moved == selected


def test_packing_shows_disjoint_groups_to_the_discriminator() -> None:
    gan = model(Packs(4))
    shapes = []
    gan.discriminator.register_forward_pre_hook(lambda module, args: shapes.append(tuple(args[0].shape)))
    train(gan, cycles=1)
    assert set(shapes) == {(2, 8)}


def test_parameters_of_a_part_move_in_its_owners_turn_only() -> None:
    gan = model(SecondDiscriminator(), AuxiliaryHead())
    before = flat(gan.parts)
    states = []

    class Watch(Part):
        def before_turn(self, turn: Turn) -> None:
            self.__dict__["at"] = flat(turn.gan.parts)

        def after_step(self, turn: Turn) -> None:
            states.append((turn.player, torch.equal(self.__dict__["at"], flat(turn.gan.parts))))

    gan.tricks.append(Watch())
    train(gan)
    assert not torch.equal(flat(gan.parts), before)
    assert states == [("discriminator", False), ("generator", True)] * 4
    assert any(k.startswith("parts.0.network") for k in gan.state_dict())


def test_a_second_discriminator_changes_what_the_generator_learns() -> None:
    assert not torch.equal(flat(train(model()).generator), flat(train(model(SecondDiscriminator())).generator))


def test_unrolling_by_no_step_is_the_plain_run_and_by_two_is_not() -> None:
    plain, none, two = (flat(train(gan).generator) for gan in (model(), model(LookAhead(0)), model(LookAhead(2))))
    assert torch.equal(plain, none)
    assert not torch.allclose(plain, two)


def test_a_lazy_penalty_applies_on_each_so_many_th_turn_with_its_weight_times_as_much() -> None:
    lazy = train(model(), cycles=0 + 1)
    gan = model(seed=0, penalties=[MeanPenalty(2.0, every=3)])
    penalty = gan.tricks[0]
    train(gan, cycles=7)
    assert penalty.__dict__["turns"] == [0, 3, 6]
    turn = Turn(lazy, "discriminator", 3, 0.0, fake_logits=torch.tensor([1.0, 3.0]))
    assert penalty(turn).item() == pytest.approx(4.0 * 2.0 * 3)
    assert penalty(Turn(lazy, "discriminator", 4, 0.0, fake_logits=torch.tensor([1.0, 3.0]))) is None


def test_adversarial_weight_of_zero_leaves_the_terms_of_parts() -> None:
    class Pull(Part):
        players = ("generator",)

        def forward(self, turn: Turn):
            return turn.fake.square().mean()

    torch.manual_seed(0)
    gan = MLPGAN(hidden=8, parts=[Pull()], adversarial_weight=0.0, generator_optimizer=SGD(0.5))
    before = flat(gan.discriminator)
    size = gan.sample(100, averaged=False).square().mean()
    train(gan, cycles=60)
    assert torch.equal(flat(gan.discriminator), before)
    assert gan.sample(100, averaged=False).square().mean() < size / 10


@pytest.mark.parametrize("file", ["loop.py", "gan.py"])
def test_the_loop_names_no_trick(file: str) -> None:
    from pathlib import Path

    import ganzoo.gan

    source = (Path(ganzoo.gan.__file__).parent / file).read_text().lower()
    words = ["stylegan", "wgan", "dcgan", "unroll", "packing", "topk", "top-k", "wasserstein", "hinge", "r1"]
    found = [w for w in [*words, "path_length", "auxiliary"] if w in source.replace("such as r1", "")]
    assert found == []
