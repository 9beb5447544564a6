"""The gradient of a discriminator's loss as a function that can be differentiated once more, by hand.

Unrolling (Metz 2017) goes back through the gradients of several updates. With b the vector that comes back to such a
gradient, what leaves is the gradient of the directional derivative of the loss along b (Pearlmutter 1994): tangents of
all layers along b forwards, then one way back through both. Which piece of a maxout unit won is constant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from benchmarks.scores.networks import StackedDiscriminator

Loss = Callable[[Tensor], Tensor]  #: logits (S, N) to a scalar


def gradient_of(loss: Loss, network: StackedDiscriminator, parameters: Tensor, packs: Tensor) -> Tensor:
    """Gradient of the loss of the logits in the parameters (S, numbers), differentiable in these and in the packs.

    Args:
        loss: Of the logits.
        network: Gives layers, and no parameters; one that judges each pack by itself.
        parameters: (S, numbers).
        packs: (S, 2 P, N).
    """
    gradient: Tensor = _Gradient.apply(parameters, packs, loss, network)
    return gradient


class _Gradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, parameters: Tensor, packs: Tensor, loss: Loss, network: StackedDiscriminator) -> Tensor:
        *hidden, weight, bias = ctx.weights = network.layout.split(parameters)
        result = torch.empty_like(parameters)
        *places, weight_place, bias_place = network.layout.split(result)
        (ctx.top, ctx.layers), ctx.network = network.climb(packs, hidden), network
        ctx.logits = torch.baddbmm(bias, weight, ctx.top).squeeze(1).requires_grad_()
        with torch.enable_grad():
            (ctx.weighed,) = torch.autograd.grad(loss(ctx.logits), ctx.logits, create_graph=True)
        each = ctx.weighed.detach().unsqueeze(1)
        torch.bmm(each, ctx.top.mT, out=weight_place)
        torch.sum(each, 2, keepdim=True, out=bias_place)
        slope, ctx.slopes = weight.mT * each, []
        for i in reversed(range(len(ctx.layers))):
            x, won = ctx.layers[i]
            ctx.slopes.append(slope)
            maps = _spread(won, slope)
            torch.bmm(maps, x.mT, out=places[2 * i])
            torch.sum(maps, 2, keepdim=True, out=places[2 * i + 1])
            slope = torch.bmm(hidden[2 * i].mT, maps) if i else slope
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, direction: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        layout = ctx.network.layout
        *hidden, weight, _ = ctx.weights
        *along, weight_along, bias_along = layout.split(direction)
        tangents = _tangents(ctx, hidden, along)
        moved = torch.baddbmm(bias_along, weight_along, ctx.top).baddbmm_(weight, tangents[-1]).squeeze(1)
        curved = torch.zeros_like(moved)  # the loss's second derivative along the way
        if ctx.weighed.requires_grad:
            (curved,) = torch.autograd.grad(ctx.weighed, ctx.logits, moved)
        curved, each = curved.unsqueeze(1), ctx.weighed.detach().unsqueeze(1)
        wanted = ctx.needs_input_grad[0]
        result = torch.empty_like(direction) if wanted else None
        if result is not None:
            *places, weight_place, bias_place = layout.split(result)
            torch.sum(curved, 2, keepdim=True, out=bias_place)
            weight_place.copy_(torch.bmm(curved, ctx.top.mT).baddbmm_(each, tangents[-1].mT))
        back = weight.mT * curved + weight_along.mT * each
        for i in reversed(range(len(ctx.layers))):
            x, won = ctx.layers[i]
            maps, slopes = _spread(won, back), _spread(won, ctx.slopes[-1 - i])
            if result is not None:
                place = torch.bmm(maps, x.mT)
                places[2 * i].copy_(place.baddbmm_(slopes, tangents[i].mT) if i else place)  # packs have no tangent
                torch.sum(maps, 2, keepdim=True, out=places[2 * i + 1])
            back = torch.bmm(hidden[2 * i].mT, maps).baddbmm_(along[2 * i].mT, slopes)
        return result, back, None, None


def _tangents(ctx: Any, hidden: list[Tensor], along: list[Tensor]) -> list[Tensor]:
    """How the inputs of each layer, and of the last one, move when the parameters do; those of the first do not."""
    tangents = [torch.empty(0)]
    for i, (x, won) in enumerate(ctx.layers):
        maps = torch.baddbmm(along[2 * i + 1], along[2 * i], x)
        if i:
            maps.baddbmm_(hidden[2 * i], tangents[i])
        tangents.append(maps.view_as(won).mul_(won).sum(1).view(len(x), ctx.network.width, -1))
    return tangents


def _spread(won: Tensor, slope: Tensor) -> Tensor:
    """What comes back to each unit, (S, width, N), at the pieces that won: (S, pieces * width, N)."""
    return (won * slope.reshape(len(slope), 1, -1)).view(len(slope), -1, slope.shape[2])
