"""The benchmarks compare like with like: the bare loop is the same training, and FLOPs are counted right."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.speed import __main__ as speed
from benchmarks.speed import overhead
from benchmarks.speed.bare import BareLoop
from ganzoo import streams
from ganzoo.gan import GAN
from ganzoo.models import DCGAN, MLPGAN
from ganzoo.parts import Penalty, Turn
from ganzoo.penalties import R1
from ganzoo.plan import Play
from tests.common import fit, flat, normal_batches


class SameLatents(BareLoop):
    """Draws what the trainer's loop draws in each turn."""

    def __init__(self, gan: GAN, seed: int) -> None:
        super().__init__(gan)
        self.seed, self.turns = seed, {"discriminator": 0, "generator": 0}

    def _latents(self, real: Tensor) -> Tensor:
        turn = "discriminator" if torch.is_grad_enabled() is False else "generator"
        number = self.turns[turn]
        self.turns[turn] += 1
        with streams.stream(self.seed, turn, number, start=0, num=len(real), total=len(real), device=real.device):
            return self.gan.latents.draw(len(real), self.gan.generator.latent_dim, real.device)


@pytest.mark.parametrize("d", [1, 3])
def test_the_bare_loop_trains_as_the_trainer_does(d: int) -> None:
    """Same latents, same batches: bitwise the same networks and averages."""

    def make() -> MLPGAN:
        torch.manual_seed(1)
        return MLPGAN(num_layers=1, hidden=16, total_kimg=5 * d * 8 / 1000, play=Play(d, 1))

    trained, by_hand = make(), make()
    fit(trained, normal_batches(8, 2))
    loop = SameLatents(by_hand, trained.seed)
    loop.run(iter(normal_batches(8, 2)), 5)
    assert trained.clock.g_turns == 5
    for name in ("generator", "discriminator", "generator_ema"):
        assert torch.equal(flat(getattr(trained, name)), flat(getattr(by_hand, name))), name
    assert not torch.equal(flat(by_hand.generator), flat(make().generator))


class MeanLogit(Penalty):
    """A term without a product of matrices."""

    def value(self, turn: Turn) -> Tensor:
        assert turn.fake_logits is not None
        return turn.fake_logits.mean()


@pytest.mark.parametrize("every", [1, 3])
def test_flops_of_a_cycle(every: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One hidden layer of h units, latents of z and data of x components, a batch of n: products of matrices only.

    Of the generator, z h + h x multiply-adds forward; of the discriminator, x h + h. Backward, each layer takes once as
    much for its weights and once for its input, where they need a gradient. The D turn: G forward, D forward and
    backward for real and fake, without a gradient of the input. The G turn: G forward; D forward and backward for the
    input only; G backward, without a gradient of the latents.
    """
    monkeypatch.setattr(speed, "ceiling", lambda device: speed.Clocks(1.0, 1.0))
    h, z, x, n = 16, 3, 5, 4
    options = ["--model", "MLPGAN", f"--model.hidden={h}", "--model.num_layers=1", f"--model.latent_dim={z}"]
    cli = speed.parse(None, [x], [*options, f"--data.batch_size={n}", "--trainer.accelerator=cpu"])
    cli.model.tricks.append(MeanLogit(every=every))
    row = speed.measure(cli, rounds=2, steps=3)
    generator, discriminator = z * h + h * x, x * h + h
    d_turn = generator + 2 * (2 * discriminator + h)
    g_turn = generator + 2 * discriminator + generator + h * x
    assert row["gflop_per_image"] == pytest.approx(2 * (d_turn + g_turn) / 1e9, rel=1e-4)
    assert (row["batch"], row["cycles_per_round"], row["d_per_g"]) == (n, 3, 1)
    assert row["generator_parameters"] == generator + h + x


def test_lazy_penalties_are_weighted_by_their_intervals() -> None:
    gan = DCGAN(8, 1, width=4, discriminator_norm="none", penalties=[R1(every=4), R1(every=6)])
    assert speed.lazy_period(gan) == 12


def test_the_overhead_pairs_equal_numbers_of_cycles(tmp_path: Path) -> None:
    case = overhead.Case(lambda: MLPGAN(num_layers=1, hidden=8), (8, 2))
    gan = case.make()
    interleave = overhead.Interleave(BareLoop(gan), case.shape)
    overhead.fit(case, 2.0, [interleave])
    assert len(interleave.pairs) > 2
    assert all(fit.cpu > 0 and bare.cpu > 0 for bare, fit in interleave.pairs)
    assert interleave.loop.images >= 8 * len(interleave.pairs)
