"""Every trick on two devices and in micro-batches: what equals one process with the joint batch, and what does not.

The rows are in ddp_tricks.py; docs/tricks.md says the same to users, and is compared with them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from ganzoo import streams
from ganzoo.errors import UserError
from ganzoo.gan import GAN
from ganzoo.losses import AdversarialLoss
from ganzoo.parts import Part
from ganzoo.penalties import FeatureMatching
from ganzoo.tricks import MinibatchDiscrimination, MinibatchStdDev, Packing, TopK, Unrolled
from tests.common import Endless, fit, max_difference
from tests.ddp_tricks import BATCH, LR, TABLE, model, train
from tests.test_house import parts

ROOT = Path(__file__).resolve().parent.parent
SAME, OTHER = 1e-5, 1e-4  #: largest difference of equal models, smallest of others
State = dict[str, Tensor]

# ---------------------------------------------------------------------- micro-batches, in this process


@cache
def one(name: str) -> State:
    """One process with the whole batch."""
    return train(TABLE[name]).state_dict()


def test_the_table_has_every_trick() -> None:
    """All classes of ganzoo that are a loss, a penalty or another part; besides, some of them together."""
    usable = {
        cls.__name__
        for cls in parts()
        if issubclass(cls, AdversarialLoss | Part) and not (cls.__doc__ or "").startswith("Base of")
    }
    assert usable - {"AdversarialLoss", "Part", "Penalty"} == {name for name in TABLE if "+" not in name}


@pytest.mark.parametrize("name", TABLE)
def test_two_micro_batches(name: str) -> None:
    row = TABLE[name]
    micro = train(row, accumulate=2).state_dict()
    assert all(tensor.isfinite().all() for tensor in micro.values())
    difference = max_difference(one(name), micro)
    assert difference < SAME if row.micro == "joint" else difference > OTHER


@pytest.mark.parametrize("name", TABLE)
def test_each_row_does_something(name: str) -> None:
    """The comparisons would say nothing about a trick that changes nothing."""
    row = TABLE[name]
    plain = train(row, options=dict).state_dict() if row.network else one("NonSaturating")
    networks = {key: tensor for key, tensor in one(name).items() if not key.startswith("parts.")}
    if networks.keys() == plain.keys() and all(plain[key].shape == networks[key].shape for key in plain):
        assert (max_difference(plain, networks) > OTHER) == row.acts


# ---------------------------------------------------------------------- halves, by hand


class ByHand:
    """Cycles with SGD in which each half of the batch has a loss of its own, and the gradients are averaged."""

    def __init__(self, gan: GAN) -> None:
        self.gan = gan

    def run(self, batches: list[Tensor]) -> None:
        for number, real in enumerate(batches):
            for name, loss in (("discriminator", self.d_loss), ("generator", self.g_loss)):
                network: nn.Module = getattr(self.gan, name)
                halves = [loss(half, self.latents(name, number, h), number) for h, half in enumerate(real.chunk(2))]
                grads = torch.autograd.grad(sum(halves) / 2, list(network.parameters()))
                with torch.no_grad():
                    for p, grad in zip(network.parameters(), grads, strict=True):
                        p -= LR * grad

    def latents(self, name: str, number: int, half: int) -> Tensor:
        """The rows that belong to this half of the batch."""
        size = BATCH // 2
        with streams.stream(self.gan.seed, name, number, start=half * size, num=size, total=BATCH, device=self.device):
            return self.gan.latents.draw(size, self.gan.generator.latent_dim, self.device)

    device = torch.device("cpu")

    def judge(self, data: Tensor) -> Tensor:
        return self.gan.discriminator(data)

    def d_loss(self, real: Tensor, latents: Tensor, number: int) -> Tensor:
        fake = self.gan.generator(latents).detach()
        return F.softplus(-self.judge(real)).mean() + F.softplus(self.judge(fake)).mean()

    def g_loss(self, real: Tensor, latents: Tensor, number: int) -> Tensor:
        return F.softplus(-self.judge(self.gan.generator(latents))).mean()


class Packs(ByHand):
    """Neighbours are judged together."""

    def judge(self, data: Tensor) -> Tensor:
        return self.gan.discriminator(torch.cat([data[0::2], data[1::2]], dim=1))


class BestHalf(ByHand):
    """From the second cycle on, the generator learns from the better half of each half."""

    def g_loss(self, real: Tensor, latents: Tensor, number: int) -> Tensor:
        logits = self.judge(self.gan.generator(latents))
        kept = logits.sort(descending=True).values[: 4 if number else 8]
        return F.softplus(-kept).mean()


class OneStepAhead(ByHand):
    """The generator plays against the discriminator after one more step on its own half."""

    def g_loss(self, real: Tensor, latents: Tensor, number: int) -> Tensor:
        fake = self.gan.generator(latents)
        loss = F.softplus(-self.judge(real)).mean() + F.softplus(self.judge(fake)).mean()
        now = dict(self.gan.discriminator.named_parameters())
        grads = torch.autograd.grad(loss, list(now.values()), create_graph=True)
        after = {name: p - LR * grad for (name, p), grad in zip(now.items(), grads, strict=True)}
        return F.softplus(-functional_call(self.gan.discriminator, after, (fake,))).mean()


class Average(ByHand):
    """RaGAN with the means of each half."""

    def compare(self, high: Tensor, low: Tensor) -> Tensor:
        return F.softplus(low.mean() - high).mean() + F.softplus(low - high.mean()).mean()

    def d_loss(self, real: Tensor, latents: Tensor, number: int) -> Tensor:
        return self.compare(self.judge(real), self.judge(self.gan.generator(latents).detach()))

    def g_loss(self, real: Tensor, latents: Tensor, number: int) -> Tensor:
        return self.compare(self.judge(self.gan.generator(latents)), self.judge(real))


class Features(ByHand):
    """Means of what enters the last layer, of each half."""

    def g_loss(self, real: Tensor, latents: Tensor, number: int) -> Tensor:
        fake, features = self.gan.generator(latents), self.gan.discriminator.layers
        apart = features(fake).flatten(1).mean(0) - features(real).flatten(1).mean(0).detach()
        return F.softplus(-self.judge(fake)).mean() + apart.square().sum()


HALVES: dict[str, tuple[Callable[[], dict], type[ByHand]]] = {
    "MinibatchStdDev": (lambda: {"parts": [MinibatchStdDev(4)]}, ByHand),
    "MinibatchDiscrimination": (lambda: {"parts": [MinibatchDiscrimination(4)]}, ByHand),
    "Packing": (lambda: {"parts": [Packing(2)]}, Packs),
    "TopK": (lambda: {"parts": [TopK(0.5, factor=1e-30)]}, BestHalf),
    "Unrolled": (lambda: {"parts": [Unrolled(1)]}, OneStepAhead),
    "RelativisticAverage": (TABLE["RelativisticAverage"].options, Average),
    "FeatureMatching": (lambda: {"penalties": [FeatureMatching(1.0)]}, Features),
}


def after_two_cycles(name: str, reference: type[ByHand]) -> float:
    """Largest difference between two cycles of the loop with two micro-batches, and of halves by hand."""
    options = HALVES[name][0]
    trained, by_hand = (model(options(), accumulate=2) for _ in range(2))
    batches = [torch.randn(BATCH, 1, 16, 16, generator=torch.Generator().manual_seed(k)).clamp(-1, 1) for k in (0, 1)]
    trained.step_seconds = 0.0
    fit(trained, Endless(lambda k: batches[k // 2].chunk(2)[k % 2]), max_steps=2)
    by_hand.seed = trained.seed
    reference(by_hand).run(batches)
    networks = [{k: v for k, v in gan.state_dict().items() if "ema" not in k} for gan in (trained, by_hand)]
    return max_difference(*networks)


@pytest.mark.parametrize("name", HALVES)
def test_what_is_of_each_micro_batch_is_the_mean_over_halves(name: str) -> None:
    """So it is of each rank, too: the test below compares ranks with micro-batches."""
    assert after_two_cycles(name, HALVES[name][1]) < 1e-6


@pytest.mark.parametrize("name", [name for name, (_, reference) in HALVES.items() if reference is not ByHand])
def test_another_reference_misses_it(name: str) -> None:
    if name == "Packing":
        with pytest.raises(RuntimeError, match="channels"):
            after_two_cycles(name, ByHand)
    else:
        assert after_two_cycles(name, ByHand) > OTHER


def test_packs_are_of_one_rank_or_micro_batch() -> None:
    """A joint batch of 12 holds 3 packs of 4, and is refused in two halves of 6."""
    data = Endless(lambda k: torch.randn(12, 1, 16, 16))
    fit(model({"parts": [Packing(4)]}), data, max_steps=1)
    halves = Endless(lambda k: torch.randn(6, 1, 16, 16))
    with pytest.raises(UserError, match="degree 4 was given a micro-batch of 6 samples per rank"):
        fit(model({"parts": [Packing(4)]}, accumulate=2), halves, max_steps=1)


# ---------------------------------------------------------------------- two processes


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, State]]]:
    """What two processes became, by rank: with one micro-batch, with two, and without what the row needs."""
    folder = tmp_path_factory.mktemp("ddp")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GANZOO_CACHE": str(folder / "cache")}
    command = [sys.executable, str(ROOT / "tests" / "ddp_tricks.py"), str(folder)]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLE)
def test_two_processes(name: str, ranks: list[dict[str, dict[str, State]]]) -> None:
    """Both have the same model. It is that of one process; if not, it is that of two micro-batches."""
    row, two = TABLE[name], ranks[0]["two"][name]
    assert max_difference(two, ranks[1]["two"][name]) == 0.0
    difference = max_difference(one(name), two)
    if row.ranks == "joint":
        assert difference < SAME
    else:
        assert difference > OTHER
        assert max_difference(train(row, accumulate=2).state_dict(), two) < SAME


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLE)
def test_two_processes_with_two_micro_batches_each(name: str, ranks: list[dict[str, dict[str, State]]]) -> None:
    row, both = TABLE[name], ranks[0]["both"][name]
    assert max_difference(both, ranks[1]["both"][name]) == 0.0
    difference = max_difference(one(name), both)
    assert difference < SAME if row.micro == "joint" else difference > OTHER


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row.cut is not None])
def test_the_comparison_fails_without_communication(name: str, ranks: list[dict[str, dict[str, State]]]) -> None:
    """Without what the row names: averaged gradients or buffers, joint means, a shared batch, or rows of its own."""
    cut = ranks[0]["cut"][name]
    assert max_difference(one(name), cut) > OTHER or max_difference(cut, ranks[1]["cut"][name]) > OTHER


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ADA", "APA"])
def test_the_probability_has_moved_and_is_the_same(name: str, ranks: list[dict[str, dict[str, State]]]) -> None:
    found = [states[name]["parts.0.p"].item() for states in (ranks[0]["two"], ranks[1]["two"], ranks[0]["both"])]
    assert found == pytest.approx([one(name)["parts.0.p"].item()] * 3, abs=1e-6)
    assert found[0] != 0.5
