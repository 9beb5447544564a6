"""Random numbers of a run: each seed draws from generators of its own, in blocks of an epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.scores.protocol import Protocol, Target
from ganzoo import streams


class Batch(NamedTuple):
    """What one turn draws, for all seeds."""

    latents: Tensor  #: (S, Z, P * B)
    real: Tensor  #: (S, 2 P, B): the first coordinates of all points of a pack, then the second ones
    share: Tensor  #: (S, 1, B), uniform: where on the line between real and fake a penalty looks


class Draws:
    """Batches by number. What a seed draws depends on nothing but the seed, so a resumed run draws the same.

    As PacGAN's code: a seed has a fixed set of points; packs are put together once, each place of each pack drawn from
    the set with replacement; an epoch goes through the packs in an order of its own.
    """

    def __init__(
        self,
        protocol: Protocol,
        target: Target,
        seeds: Sequence[int],
        *,
        packing: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        self.protocol, self.seeds, self.packing, self.device = protocol, seeds, packing, torch.device(device)
        self.packs = [self._packs(target, seed) for seed in seeds]
        self.epoch, self.block = -1, self._empty()

    def batch(self, number: int) -> Batch:
        """The batch of this number, counted over the whole run."""
        epoch, place = divmod(number, self.protocol.per_epoch)
        if epoch != self.epoch:
            self.epoch, self.block = epoch, self._draw(epoch)
        return Batch(*(numbers[place] for numbers in self.block))

    def scored(self) -> Tensor:
        """The latents of the samples that are scored, (S, Z, num_samples); always the same ones, as in the paper."""
        shape = (self.protocol.latent_dim, self.protocol.num_samples)
        latents = [torch.randn(*shape, generator=streams.generator("toy", seed, "scored")) for seed in self.seeds]
        return torch.stack(latents).to(self.device)

    def _packs(self, target: Target, seed: int) -> Tensor:
        generator, num = streams.generator("toy", seed, "points"), self.protocol.num_points
        modes = torch.randint(len(target.means), (num,), generator=generator)
        points = target.centres()[modes] + target.std * torch.randn(num, 2, generator=generator)
        if self.packing == 1:
            return points.unsqueeze(1)
        return points[torch.randint(num, (num, self.packing), generator=generator)]  # (num, P, 2)

    def _draw(self, epoch: int) -> Batch:
        drawn = [self._draw_one(seed, packs, epoch) for seed, packs in zip(self.seeds, self.packs, strict=True)]
        return Batch(*(torch.stack(numbers, dim=1).to(self.device) for numbers in zip(*drawn, strict=True)))

    def _draw_one(self, seed: int, packs: Tensor, epoch: int) -> Batch:
        """An epoch of one seed; the number of the batch is the first dimension."""
        generator, p = streams.generator("toy", seed, "epoch", epoch), self.protocol
        order = torch.randperm(p.num_points, generator=generator)[: p.per_epoch * p.batch]
        real = packs[order].view(p.per_epoch, p.batch, self.packing, 2).permute(0, 3, 2, 1)
        return Batch(
            torch.randn(p.per_epoch, p.latent_dim, self.packing * p.batch, generator=generator),
            real.reshape(p.per_epoch, 2 * self.packing, p.batch),
            torch.rand(p.per_epoch, 1, p.batch, generator=generator),
        )

    def _empty(self) -> Batch:
        return Batch(torch.empty(0), torch.empty(0), torch.empty(0))
