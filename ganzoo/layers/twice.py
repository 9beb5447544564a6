"""Convolutions and leaky rectifiers whose derivatives of every order are as fast as their first.

A penalty on a gradient is differentiated through a backward pass. torch's derivative of the backward pass of a
convolution is made for any derivative at once: it turns batch and channels round, group by group, and copies. But a
convolution y = w * x is linear in x and in w, so that each of its derivatives is one of three operations again: the
convolution of x by w, the gradient of x from those of y and w, or the gradient of w from those of y and x.

A rectifier's second derivative is 0. torch writes these zeros down, and takes them on through the network.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganzoo.layers.operations import Step, forward, of_input, of_weight, of_weight_and_bias, plain
from ganzoo.precision import is_autocast


class Conv2d(nn.Conv2d):
    """:class:`torch.nn.Conv2d` in channels_last, with equal strides and padding along both sides."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return conv2d(
            x, weight, bias, stride=int(self.stride[0]), padding=int(self.padding[0]), groups=int(self.groups)
        )


def conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, stride: int = 1, padding: int = 0, groups: int = 1
) -> Tensor:
    """:func:`torch.nn.functional.conv2d` in channels_last.

    Args:
        x: (N, C, H, W).
        weight: (O, C / groups, k, k).
        bias: (O,).
        stride: Rows and columns from one output to the next.
        padding: Zeros on each side.
        groups: Groups of channels, each of which is convolved by itself.

    Returns:
        (N, O, (H + 2 padding - k) // stride + 1, (W + 2 padding - k) // stride + 1).
    """
    return _any(x, weight, bias, Step(padding, groups, stride))


def conv_transpose2d(x: Tensor, weight: Tensor, *, stride: int = 1) -> Tensor:
    """:func:`torch.nn.functional.conv_transpose2d` in channels_last.

    Args:
        x: (N, C, H, W).
        weight: (C, O, k, k).
        stride: Rows and columns from where one input goes to where the next one does.

    Returns:
        (N, O, stride (H - 1) + k, stride (W - 1) + k).
    """
    return _any(x, weight, None, Step(stride=stride, transposed=True))


def _any(x: Tensor, weight: Tensor, bias: Tensor | None, step: Step) -> Tensor:
    x = x.contiguous(memory_format=torch.channels_last)
    if is_autocast(x.device):  # its casts are torch's; such passes are not differentiated twice
        return plain(x, weight, bias, step)
    return _convolved(x, weight, bias, step)


def leaky_relu_(x: Tensor, slope: float) -> Tensor:
    """:func:`torch.nn.functional.leaky_relu` with a slope above 0, in the memory of x."""
    y: Tensor = _Rectified.apply(x, slope)
    return y


def _convolved(x: Tensor, weight: Tensor, bias: Tensor | None, step: Step) -> Tensor:
    # The way to the weight is a node of its own, beside the way to x: so a gradient of x alone does not compute it.
    aside = _Aside.apply(_Held(x), weight, bias, step) if torch.is_grad_enabled() and _trains(weight, bias) else None
    y: Tensor = _Convolution.apply(x, weight, bias, aside, step)
    return y


def _trains(weight: Tensor, bias: Tensor | None) -> bool:
    return weight.requires_grad or (bias is not None and bias.requires_grad)


class _Convolution(torch.autograd.Function):
    """Knows the gradient of x; that of the weight comes through ``aside``, whose value is 0."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, aside: Tensor | None, step: Step) -> Tensor:
        return forward(x, weight, bias, step)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, _, _, ctx.step = inputs
        ctx.shape, ctx.has_aside = x.shape, inputs[3] is not None
        ctx.save_for_backward(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None, Tensor | None, None]:
        (gradient,), (weight,) = gradients, ctx.saved_tensors
        of_x = _OfInput.apply(gradient, weight, ctx.shape, ctx.step) if ctx.needs_input_grad[0] else None
        return of_x, None, None, gradient if ctx.has_aside else None, None


class _Held(NamedTuple):
    """An argument that autograd does not see."""

    x: Tensor


class _Aside(torch.autograd.Function):
    """Zeros that have the weight's and the bias's gradients, and no way to x."""

    @staticmethod
    def forward(held: _Held, weight: Tensor, bias: Tensor | None, step: Step) -> Tensor:
        sides = (step.side(side, weight.shape[-1]) for side in held.x.shape[2:])
        return held.x.new_zeros(()).expand(len(held.x), weight.shape[1 if step.transposed else 0], *sides)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        held, weight, _, ctx.step = inputs
        ctx.shape = weight.shape
        ctx.save_for_backward(held.x)  # with its graph: the weight's gradient may be differentiated by it

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor | None, Tensor | None, None]:
        (gradient,), (x,) = gradients, ctx.saved_tensors
        _, of_weight, of_bias, _ = ctx.needs_input_grad
        if of_weight and of_bias and not torch.is_grad_enabled():
            both = of_weight_and_bias(gradient, x, ctx.shape, ctx.step)
            return None, both[0], both[1], None
        weight = _OfWeight.apply(gradient, x, ctx.shape, ctx.step) if of_weight else None
        return None, weight, gradient.sum((0, 2, 3)) if of_bias else None, None


class _OfInput(torch.autograd.Function):
    """Linear in the gradient of y and in the weight."""

    @staticmethod
    def forward(gradient: Tensor, weight: Tensor, shape: torch.Size, step: Step) -> Tensor:
        return of_input(gradient, weight, shape, step)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        gradient, weight, _, ctx.step = inputs
        ctx.save_for_backward(gradient, weight)

    @staticmethod
    def backward(ctx: Any, *seconds: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (second,), (gradient, weight) = seconds, ctx.saved_tensors
        of_gradient = _convolved(second, weight, None, ctx.step) if ctx.needs_input_grad[0] else None
        of_weight = _OfWeight.apply(gradient, second, weight.shape, ctx.step) if ctx.needs_input_grad[1] else None
        return of_gradient, of_weight, None, None


class _OfWeight(torch.autograd.Function):
    """Linear in the gradient of y and in x."""

    @staticmethod
    def forward(gradient: Tensor, x: Tensor, shape: torch.Size, step: Step) -> Tensor:
        return of_weight(gradient, x, shape, step)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        gradient, x, _, ctx.step = inputs
        ctx.save_for_backward(gradient, x)

    @staticmethod
    def backward(ctx: Any, *seconds: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (second,), (gradient, x) = seconds, ctx.saved_tensors
        of_gradient = _convolved(x, second, None, ctx.step) if ctx.needs_input_grad[0] else None
        of_x = _OfInput.apply(gradient, second, x.shape, ctx.step) if ctx.needs_input_grad[1] else None
        return of_gradient, of_x, None, None


class _Rectified(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float) -> Tensor:
        ctx.mark_dirty(x)
        ctx.slope, y = slope, F.leaky_relu_(x, slope)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        return _OfRectified.apply(gradients[0], y.detach(), ctx.slope), None


class _OfRectified(torch.autograd.Function):
    """The gradient times 1 or the slope; linear, and so its own derivative."""

    @staticmethod
    def forward(gradient: Tensor, y: Tensor, slope: float) -> Tensor:
        found: Tensor = torch.ops.aten.leaky_relu_backward(gradient, y, slope, True)
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, y, ctx.slope = inputs
        ctx.save_for_backward(y)

    @staticmethod
    def backward(ctx: Any, *seconds: Tensor) -> tuple[Tensor, None, None]:
        (y,) = ctx.saved_tensors
        return _OfRectified.apply(seconds[0], y, ctx.slope), None, None
