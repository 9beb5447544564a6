"""PacGAN's two multilayer perceptrons, for several seeds at once.

The seeds are stacked in the first dimension of everything: a layer of all seeds is one batched matrix product, and one
tensor (S, numbers) holds all parameters of a network, so that Adam is one kernel. Samples are the last dimension
(features are rows), so that maxima over pieces and statistics over the batch run along contiguous memory. No operation
crosses seeds: the gradient of a sum over seeds is each seed's own.

Gradients of first order are by hand (``pull``), each written to its place in one tensor: an autograd graph for networks
this small costs as much as their products. The discriminator's ``__call__`` has a graph, for what needs second ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from benchmarks.scores.protocol import Protocol
from ganzoo import streams

EPS = 1e-4  #: of the generator's batch normalization, as in Blocks, which PacGAN's code uses
RETAIN = 0.95  #: share of the running statistics that stays in each cycle


class Layout:
    """Named shapes in one vector per seed."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        self.shapes = shapes
        self.sizes = [math.prod(shape) for shape in shapes.values()]

    def init(self, network: str, seeds: Sequence[int], std: float) -> Tensor:
        """Weights normal, keyed by the seed; gains one; biases zero: (S, numbers)."""
        return torch.stack([self._init(network, seed, std) for seed in seeds])

    def _init(self, network: str, seed: int, std: float) -> Tensor:
        generator = streams.generator("toy", seed, network)
        parts = []
        for name, size in zip(self.shapes, self.sizes, strict=True):
            if name.startswith("w"):
                parts.append(std * torch.randn(size, generator=generator))
            else:
                parts.append(torch.full((size,), float(name.startswith("g"))))
        return torch.cat(parts)

    def split(self, flat: Tensor) -> list[Tensor]:
        """The tensors of all seeds, (S, *shape) each."""
        parts = torch.split_with_sizes(flat, self.sizes, dim=1)
        return [part.view(-1, *shape) for part, shape in zip(parts, self.shapes.values(), strict=True)]


class Stacked:
    """The parameters of one network of all seeds, and their gradient; each by name of its layer, too."""

    def __init__(self, layout: Layout, start: Tensor) -> None:
        self.layout, self.parameters = layout, nn.Parameter(start)
        self.gradient = torch.zeros_like(start)  #: that ``pull`` fills
        self.weights, self.slopes = layout.split(self.parameters.detach()), layout.split(self.gradient)


class StackedGenerator(Stacked):
    """Latents (S, Z, P * B) to points (S, 2, P * B): P batches, each normalized by its own statistics."""

    def __init__(
        self, protocol: Protocol, seeds: Sequence[int], *, packing: int = 1, device: torch.device | str = "cpu"
    ) -> None:
        width, shapes, inputs = protocol.generator_width, dict[str, tuple[int, ...]](), protocol.latent_dim
        for i in range(protocol.generator_layers):
            shapes |= {f"w{i}": (width, inputs), f"g{i}": (width,), f"b{i}": (width,)}
            inputs = width
        layout = Layout(shapes | {"w": (2, width), "b": (2, 1)})
        super().__init__(layout, layout.init("generator", seeds, protocol.init_std).to(device))
        self.packing = packing
        channels = (protocol.generator_layers, len(seeds) * width * packing)
        self.mean, self.var = torch.zeros(channels, device=device), torch.ones(channels, device=device)
        self._tape, self._top = list[tuple[Tensor, ...]](), torch.empty(0)

    @torch.no_grad()
    def __call__(self, latents: Tensor, *, record: bool = True) -> Tensor:
        """Points by the statistics of each batch, which move the running ones if ``record``."""
        *hidden, weight, bias = self.weights
        x, num = latents, self.mean.shape[1]  # a channel is one unit of one seed on one batch of the pack
        self._tape = []
        for i in range(len(self.mean)):
            maps = torch.bmm(hidden[3 * i], x).view(1, num, -1)
            gain, shift, size = self._per_batch(hidden[3 * i + 1]), self._per_batch(hidden[3 * i + 2]), maps.shape[2]
            # A group per channel: the same as batch normalization, by a kernel twice as fast in this layout.
            out, mean, root = torch.native_group_norm(maps, gain, shift, 1, num, size, num, EPS)
            self._tape.append((x, maps, gain, mean, root))
            x = out.relu_().view(len(x), -1, x.shape[2])
        self._top = x
        if record:
            self._record(size)
        return torch.baddbmm(bias, weight, x)

    def _record(self, size: int) -> None:
        mean, root = (torch.cat(stats) for stats in list(zip(*self._tape, strict=True))[3:])
        variance = root.pow_(-2).sub_(EPS).clamp_(min=0).mul_(size / (size - 1))
        self.mean.lerp_(mean, 1 - RETAIN)
        self.var.lerp_(variance, 1 - RETAIN)

    @torch.no_grad()
    def pull(self, gradient: Tensor) -> Tensor:
        """The gradient in the parameters, (S, numbers), for one in the points of the last call."""
        *hidden, weight, bias = self.slopes
        linears, num, top = self.weights[::3], self.mean.shape[1], self._top
        torch.bmm(gradient, top.mT, out=weight)
        torch.sum(gradient, 2, keepdim=True, out=bias)
        for i in reversed(range(len(self.mean))):
            x, maps, gain, mean, root = self._tape.pop()
            slope = torch.bmm(linears[i + 1].mT, gradient)
            slope = torch.ops.aten.threshold_backward(slope, top, 0)  # of the ReLU
            slope, gains, shifts = torch.ops.aten.native_group_norm_backward(
                slope.view_as(maps), maps, mean, root, gain, 1, num, maps.shape[2], num, [True, True, True]
            )
            for given, place in ((gains, hidden[3 * i + 1]), (shifts, hidden[3 * i + 2])):
                torch.sum(given.view(*place.shape, self.packing), 2, out=place)
            gradient, top = slope.view_as(top), x
            torch.bmm(gradient, x.mT, out=hidden[3 * i])
        return self.gradient

    def _per_batch(self, values: Tensor) -> Tensor:
        if self.packing == 1:
            return values.reshape(-1)
        return values.unsqueeze(2).expand(-1, -1, self.packing).reshape(-1)

    @torch.no_grad()
    def sample(self, latents: Tensor) -> Tensor:
        """Points (S, 2, N) for latents (S, Z, N), by the running statistics."""
        *hidden, weight, bias = self.weights
        x, num = latents, len(latents)
        for i in range(len(self.mean)):
            linear, gain, shift = (h.unsqueeze(2) if h.dim() == 2 else h for h in hidden[3 * i : 3 * i + 3])
            mean, var = (s[i].view(num, -1, self.packing).mean(2, keepdim=True) for s in (self.mean, self.var))
            x = torch.bmm(linear, x).sub_(mean).mul_(gain * (var + EPS).rsqrt()).add_(shift).relu_()
        return torch.baddbmm(bias, weight, x)


class StackedDiscriminator(Stacked):
    """Packs (S, 2 P, N) to logits (S, N)."""

    def __init__(
        self,
        protocol: Protocol,
        seeds: Sequence[int],
        *,
        packing: int = 1,
        group: int = 0,
        copies: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        """
        Args:
            protocol: Sizes.
            seeds: Of the stack.
            packing: Points that are judged together.
            group: Samples per group of the minibatch standard deviation before the last layer; 0: none.
            copies: Discriminators per seed; copy c of seed s is at c * S + s of the stack.
            device: Where the parameters are; they are drawn on the CPU.
        """
        width, pieces = protocol.discriminator_width, protocol.pieces
        shapes, inputs = dict[str, tuple[int, ...]](), 2 * packing
        for i in range(protocol.discriminator_layers):
            shapes |= {f"w{i}": (pieces * width, inputs), f"b{i}": (pieces * width, 1)}
            inputs = width
        layout = Layout(shapes | {"w": (1, width + (group > 0)), "b": (1, 1)})
        names = [f"discriminator {copy}" for copy in range(copies)]
        start = torch.cat([layout.init(name, seeds, protocol.init_std) for name in names])
        super().__init__(layout, start.to(device))
        self.width, self.pieces, self.group = width, pieces, group
        self._tape, self._top = list[tuple[Tensor, Tensor]](), torch.empty(0)

    def __call__(self, packs: Tensor, parameters: Tensor | None = None) -> Tensor:
        """Logits with a graph, by the own parameters or by others of the same layout."""
        *hidden, weight, bias = self.layout.split(self.parameters if parameters is None else parameters)
        x = packs
        for linear, shift in zip(hidden[::2], hidden[1::2], strict=True):
            maps = torch.baddbmm(shift, linear, x)
            x = largest(maps.view(len(maps), self.pieces, -1)).view(len(maps), self.width, -1)
        if self.group:
            x = torch.cat([x, minibatch_std(x, self.group)], dim=1)
        return torch.baddbmm(bias, weight, x).squeeze(1)

    @torch.no_grad()
    def judge(self, packs: Tensor) -> Tensor:
        """Logits without a graph; ``pull`` has their gradients. Only where each pack is judged by itself."""
        *hidden, weight, bias = self.weights
        self._top, self._tape = self.climb(packs, hidden)
        return torch.baddbmm(bias, weight, self._top).squeeze(1)

    def climb(self, packs: Tensor, hidden: Sequence[Tensor]) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """What the last layer sees, (S, width, N), by the weights and biases of the ones before it; and a tape.

        The tape has the input of each layer, and which piece won there: as in ``largest``, all that tie.
        """
        x, tape = packs, []
        for linear, shift in zip(hidden[::2], hidden[1::2], strict=True):
            maps = torch.baddbmm(shift, linear, x).view(len(packs), self.pieces, -1)
            top = maps.amax(1, keepdim=True)
            tape.append((x, maps.eq_(top)))
            x = top.view(len(packs), self.width, -1)
        return x, tape

    @torch.no_grad()
    def pull(self, weights: Tensor, *, last: int) -> tuple[Tensor, Tensor]:
        """Gradients of the logits of the last ``judge``, which may be taken once.

        The logit of a pack depends on no other pack. So one way back serves both players: it carries the slope of each
        logit itself, which one player's loss weighs where it enters the parameters, and the other's at the end.

        Args:
            weights: (S, N): the gradient of a loss in the logits.
            last: Number of packs at the end of the batch.

        Returns:
            The gradient of that loss in the parameters, (S, numbers), and the slope of each of the last logits in its
            pack, (S, 2 P, last).
        """
        *places, weight, bias = self.slopes
        linears, each = self.weights[:-2:2], weights.unsqueeze(1)
        torch.bmm(each, self._top.mT, out=weight)
        torch.sum(each, 2, keepdim=True, out=bias)
        slope = self.weights[-2].mT  # the same for all packs, (S, width, 1)
        for i in reversed(range(len(linears))):
            x, won = self._tape.pop()
            stack, pieces, _ = won.shape
            maps = won.view(stack, pieces, self.width, -1).mul_(slope.unsqueeze(1)).view(stack, -1, x.shape[2])
            slope = torch.bmm(linears[i].mT, maps if i else maps[:, :, -last:])
            maps.mul_(each)
            torch.bmm(maps, x.mT, out=places[2 * i])
            torch.sum(maps, 2, keepdim=True, out=places[2 * i + 1])
        return self.gradient, slope


class _Largest(torch.autograd.Function):
    """The maximum over dimension 1, with a gradient that can be differentiated again; 3 kernels in place of 8."""

    @staticmethod
    def forward(ctx: FunctionCtx, maps: Tensor) -> Tensor:
        top = maps.amax(1, keepdim=True)
        ctx.save_for_backward(torch.eq(maps, top, out=torch.empty_like(maps)))
        return top

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:
        winner: Tensor
        (winner,) = ctx.saved_tensors  # type: ignore[attr-defined]  # torch's stubs lack it
        return gradient * winner


def largest(maps: Tensor) -> Tensor:
    """Largest of the pieces, (S, pieces, M) to (S, 1, M). Pieces that tie each take the whole gradient."""
    result: Tensor = _Largest.apply(maps)
    return result


def minibatch_std(x: Tensor, group: int, eps: float = 1e-8) -> Tensor:
    """Standard deviation over the group, averaged over features: (S, F, N) to (S, 1, N) (Karras 2018, sec. 3).

    Sample i is in one group with i + N / group, i + 2 N / group and so on.
    """
    stack, features, num = x.shape
    std = (x.view(stack, features, group, num // group).var(2, correction=0) + eps).sqrt().mean(1, keepdim=True)
    return std.repeat(1, 1, group)
