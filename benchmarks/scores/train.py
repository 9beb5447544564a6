"""One method on one target, all seeds at once, resumable at every cycle."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.scores.draws import Batch, Draws
from benchmarks.scores.methods import Method
from benchmarks.scores.networks import StackedDiscriminator, StackedGenerator
from benchmarks.scores.protocol import Protocol, Target
from benchmarks.scores.second import gradient_of
from ganzoo.files import atomic
from ganzoo.metrics.distribution import high_quality_share, modes_captured, reverse_kl
from ganzoo.optim import Adam

Network = StackedGenerator | StackedDiscriminator
_TINY = 1e-16  #: below this second moment an unrolled step has no gradient through the root


class Run:
    """Training of all seeds of one method. Both players move at once, on the same fakes, as in PacGAN's code."""

    def __init__(
        self,
        protocol: Protocol,
        method: Method,
        target: Target,
        seeds: Sequence[int],
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        self.protocol, self.method, self.target, self.seeds = protocol, method, target, list(seeds)
        self.draws = Draws(protocol, target, self.seeds, packing=method.packing, device=device)
        self.generator = StackedGenerator(protocol, self.seeds, packing=method.packing, device=device)
        self.discriminator = StackedDiscriminator(
            protocol, self.seeds, packing=method.packing, group=method.group, copies=method.copies, device=device
        )
        adam = Adam(protocol.lr, (protocol.beta1, protocol.beta2))
        self.optimizers = {"g": adam([self.generator.parameters]), "d": adam([self.discriminator.parameters])}
        self.cycle, self.cpu_seconds, self.wall_seconds = 0, 0.0, 0.0
        self.curve: list[dict[str, Any]] = []
        self.latents = self.draws.scored()

    def go(self, seconds: float = math.inf, checkpoint: Path | None = None, *, every: float = 60.0) -> bool:
        """Train to the end or for so many seconds, with a checkpoint each ``every`` seconds; whether it has ended."""
        start = saved = time.perf_counter()
        wall, cpu = start - self.wall_seconds, time.process_time() - self.cpu_seconds
        while self.cycle < self.protocol.cycles and time.perf_counter() - start < seconds:
            self.step()
            self.wall_seconds, self.cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
            if self.cycle % self.protocol.score_every == 0:
                self.curve.append({"cycle": self.cycle, **self.score()})
            if checkpoint and time.perf_counter() - saved > every:
                self.save(checkpoint)
                saved = time.perf_counter()
        if checkpoint:
            self.save(checkpoint)
        return self.cycle >= self.protocol.cycles

    def step(self) -> None:
        """One cycle: the turns of the discriminators, in the last of which the generator moves, too."""
        judge = self._look_ahead if self.method.unroll else self._by_graph if self.method.group else self._by_hand
        for turn in range(self.method.turns):
            batch, last = self.draws.batch(self.cycle * self.method.turns + turn), turn == self.method.turns - 1
            fake = self._packs(self.generator(batch.latents, record=last))
            gradient, slope = judge(batch, fake)
            if last:
                self._update(self.generator, self.generator.pull(slope.reshape(len(self.seeds), 2, -1)))
            self._update(self.discriminator, gradient)
        self.cycle += 1

    def _by_hand(self, batch: Batch, fake: Tensor) -> tuple[Tensor, Tensor]:
        """The discriminator's gradient, and that of the generator's loss in the fake packs, in one way back."""
        copies, num = self.method.copies, fake.shape[2]
        packs = torch.cat([batch.real, fake], dim=2).repeat(copies, 1, 1)
        logits = self.discriminator.judge(packs).requires_grad_()
        loss, real_logits, fake_logits = self._adversarial(*self._by_seed(logits).tensor_split([num], 1))
        (weights,) = torch.autograd.grad(loss, logits, retain_graph=True)
        gradient, slope = self.discriminator.pull(weights, last=num)
        if self.method.penalty:
            term = self.method.penalty(self._logits, batch.real, fake, batch.share)
            gradient += torch.autograd.grad(term, self.discriminator.parameters)[0]
        given = real_logits if self.method.loss.needs_real else None
        (weights,) = torch.autograd.grad(self._of_generator(given, fake_logits), logits)
        slope *= weights[:, None, -num:]
        return gradient, slope if copies == 1 else slope.view(copies, *fake.shape).sum(0)

    def _by_graph(self, batch: Batch, fake: Tensor) -> tuple[Tensor, Tensor]:
        """The same by autograd, for a discriminator that compares the packs of a batch."""
        fake.requires_grad_()
        loss, real_logits, fake_logits = self._adversarial(self._logits(batch.real), self._logits(fake))
        (gradient,) = torch.autograd.grad(loss, self.discriminator.parameters, retain_graph=True)
        given = real_logits if self.method.loss.needs_real else None
        return gradient, torch.autograd.grad(self._of_generator(given, fake_logits), fake)[0]

    def _look_ahead(self, batch: Batch, fake: Tensor) -> tuple[Tensor, Tensor]:
        """The same, but the generator's loss is by the discriminator some steps ahead (Metz 2017, eq. 7)."""
        adam, num = _Ahead(self.optimizers["d"], self.discriminator.parameters), fake.shape[2]
        packs = torch.cat([batch.real, fake.requires_grad_()], dim=2).repeat(self.method.copies, 1, 1)

        def loss(logits: Tensor) -> Tensor:
            return self._adversarial(*self._by_seed(logits).tensor_split([num], 1))[0]

        parameters, gradient = self.discriminator.parameters.detach(), torch.empty(0)
        for k in range(self.method.unroll):
            ahead = gradient_of(loss, self.discriminator, parameters, packs)
            gradient = ahead.detach() if k == 0 else gradient
            parameters = adam.step(parameters, ahead)
        loss_g = self.method.loss
        looks_at_real = loss_g.needs_real or loss_g.zero_sum  # real logits depend on the generator by now
        real_logits = self._logits(batch.real, parameters) if looks_at_real else None
        return gradient, torch.autograd.grad(self._of_generator(real_logits, self._logits(fake, parameters)), fake)[0]

    def _adversarial(self, real_logits: Tensor, fake_logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sum over seeds of each discriminator's loss, and the logits again."""
        return self.method.loss.discriminator(real_logits, fake_logits) * len(self.seeds), real_logits, fake_logits

    def _of_generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        """Sum over seeds of each generator's loss."""
        return self.method.loss.generator(fake_logits, real_logits) * len(self.seeds)

    def _update(self, network: Network, gradient: Tensor) -> None:
        network.parameters.grad = gradient
        self.optimizers["g" if network is self.generator else "d"].step()

    def _logits(self, packs: Tensor, parameters: Tensor | None = None) -> Tensor:
        """(S, N), or (S, N, copies) of several discriminators."""
        return self._by_seed(self.discriminator(packs.repeat(self.method.copies, 1, 1), parameters))

    def _by_seed(self, logits: Tensor) -> Tensor:
        """(copies * S, N) to (S, N), or to (S, N, copies) of several discriminators."""
        copies = self.method.copies
        return logits if copies == 1 else logits.view(copies, len(self.seeds), -1).permute(1, 2, 0)

    def _packs(self, points: Tensor) -> Tensor:
        """(S, 2, P * B) to (S, 2 P, B)."""
        return points.view(len(self.seeds), -1, self.protocol.batch)

    def samples(self) -> Tensor:
        """The points that are scored, (S, num_samples, 2)."""
        return self.generator.sample(self.latents).transpose(1, 2).cpu()

    def score(self) -> dict[str, list[float]]:
        """Each score, a number per seed."""
        means, std = self.target.centres(), self.target.std
        scores = [
            {
                "modes": modes_captured(points, means, std),
                "high_quality": high_quality_share(points, means, std),
                "reverse_kl": reverse_kl(points, means, std, within=3.0),
                "reverse_kl_all": reverse_kl(points, means, std),
            }
            for points in self.samples()
        ]
        return {name: [s[name] for s in scores] for name in scores[0]}

    def save(self, path: Path) -> None:
        """Write all state; at any time the file is the old or the new one."""
        with atomic(path) as file:
            torch.save(self.state(), file)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint."""
        state = torch.load(path, weights_only=True)
        with torch.no_grad():
            for name, tensor in self._tensors().items():
                tensor.copy_(state["tensors"][name])
        for player, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][player])
        self.cycle, self.curve = state["cycle"], state["curve"]
        self.cpu_seconds, self.wall_seconds = state["seconds"]

    def state(self) -> dict[str, Any]:
        """Everything that a resumed run needs; batches are keyed by their number, so they need nothing."""
        return {
            "tensors": {name: tensor.detach() for name, tensor in self._tensors().items()},
            "optimizers": {player: optimizer.state_dict() for player, optimizer in self.optimizers.items()},
            "cycle": self.cycle,
            "curve": self.curve,
            "seconds": (self.cpu_seconds, self.wall_seconds),
        }

    def _tensors(self) -> dict[str, Tensor]:
        g = self.generator
        return {"g": g.parameters, "d": self.discriminator.parameters, "mean": g.mean, "var": g.var}


class _Ahead:
    """Further steps of an Adam as functions that can be differentiated; its own state stays as it is."""

    def __init__(self, optimizer: torch.optim.Optimizer, parameters: Tensor) -> None:
        state, self.options = optimizer.state[parameters], optimizer.param_groups[0]
        zeros = torch.zeros_like(parameters)
        self.first, self.second = state.get("exp_avg", zeros), state.get("exp_avg_sq", zeros)
        self.time = int(state.get("step", 0))

    def step(self, parameters: Tensor, gradient: Tensor) -> Tensor:
        """The parameters after one more step (Kingma and Ba 2015, algorithm 1)."""
        (beta1, beta2), self.time = self.options["betas"], self.time + 1
        self.first = self.first.lerp(gradient, 1 - beta1)
        self.second = self.second.lerp(gradient.square(), 1 - beta2)
        root = (self.second / (1 - beta2**self.time)).clamp(min=_TINY).sqrt() + self.options["eps"]
        step: Tensor = self.first / root * (self.options["lr"] / (1 - beta1**self.time))
        return parameters - step
