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

from ganzoo.precision import is_autocast


class Conv2d(nn.Conv2d):
    """:class:`torch.nn.Conv2d` of stride 1, in channels_last."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return conv2d(x, weight, bias, padding=int(self.padding[0]), groups=self.groups)


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, padding: int = 0, groups: int = 1) -> Tensor:
    """:func:`torch.nn.functional.conv2d` of stride 1, in channels_last.

    Args:
        x: (N, C, H, W).
        weight: (O, C / groups, k, k).
        bias: (O,).
        padding: Zeros on each side.
        groups: Groups of channels, each of which is convolved by itself.

    Returns:
        (N, O, H + 2 padding - k + 1, W + 2 padding - k + 1).
    """
    x = x.contiguous(memory_format=torch.channels_last)
    if is_autocast(x.device):  # its casts are torch's; such passes are not differentiated twice
        return F.conv2d(x, weight, bias, 1, padding, 1, groups)
    return _convolved(x, weight, bias, _Step(padding, groups))


def leaky_relu_(x: Tensor, slope: float) -> Tensor:
    """:func:`torch.nn.functional.leaky_relu` with a slope above 0, in the memory of x."""
    y: Tensor = _Rectified.apply(x, slope)
    return y


class _Step(NamedTuple):
    """What a convolution is beside its weight."""

    padding: int
    groups: int


# ---------------------------------------------------------------------- the three operations


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, step: _Step) -> Tensor:
    if not _is_pointwise(x, weight):
        return F.conv2d(x, weight, bias, 1, step.padding, 1, step.groups)
    return _images(F.conv2d(_rows(x), weight, bias, groups=step.groups), len(x))


def _of_input(gradient: Tensor, weight: Tensor, shape: torch.Size, step: _Step) -> Tensor:
    """The gradient of x, of that shape."""
    if not _is_pointwise(gradient, weight):
        return _backward(gradient, _blank(shape, gradient), weight, step, 0)
    rows = _rows(gradient)
    x = _blank(torch.Size([len(rows), shape[1], *rows.shape[2:]]), gradient)
    return _images(_backward(rows, x, weight, step, 0), len(gradient))


def _of_weight(gradient: Tensor, x: Tensor, shape: torch.Size, step: _Step) -> Tensor:
    """The gradient of the weight, of that shape."""
    weight = x.new_empty(shape)
    if _is_pointwise(x, weight):
        gradient, x = _rows(gradient), _rows(x)
    return _backward(gradient, x, weight, step, 1)


def _backward(gradient: Tensor, x: Tensor, weight: Tensor, step: _Step, which: int) -> Tensor:
    padding, mask = [step.padding] * 2, [which == 0, which == 1, False]
    found: Tensor = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, [1, 1], padding, [1, 1], False, [0, 0], step.groups, mask
    )[which]
    return found


def _is_pointwise(x: Tensor, weight: Tensor) -> bool:
    """Whether the convolution is one of single positions, on a CPU.

    There, batches of fewer than 16 images go another, slower way than oneDNN's. Rows of images are images, too.
    """
    return x.device.type == "cpu" and weight.shape[2:] == (1, 1)


def _rows(x: Tensor) -> Tensor:
    """(N, C, H, W) as (N H, C, 1, W), a view in channels_last."""
    x = x.contiguous(memory_format=torch.channels_last)
    return x.permute(0, 2, 3, 1).flatten(0, 1)[:, None].permute(0, 3, 1, 2)


def _images(rows: Tensor, num: int) -> Tensor:
    """The other way."""
    _, channels, _, width = rows.shape
    images = rows.permute(0, 2, 3, 1).reshape(num, -1, width, channels).permute(0, 3, 1, 2)
    return images.data  # which autograd does not take for a view, so that it may be changed


def _blank(shape: torch.Size, like: Tensor) -> Tensor:
    """Never read."""
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


# ---------------------------------------------------------------------- their derivatives


def _convolved(x: Tensor, weight: Tensor, bias: Tensor | None, step: _Step) -> Tensor:
    # The way to the weight is a node of its own, beside the way to x: so a gradient of x alone does not compute it.
    aside = _Aside.apply(_Held(x), weight, bias, step) if torch.is_grad_enabled() and _trains(weight, bias) else None
    y: Tensor = _Convolution.apply(x, weight, bias, aside, step)
    return y


def _trains(weight: Tensor, bias: Tensor | None) -> bool:
    return weight.requires_grad or (bias is not None and bias.requires_grad)


class _Convolution(torch.autograd.Function):
    """Knows the gradient of x; that of the weight comes through ``aside``, whose value is 0."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, aside: Tensor | None, step: _Step) -> Tensor:
        return _forward(x, weight, bias, step)

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
    def forward(held: _Held, weight: Tensor, bias: Tensor | None, step: _Step) -> Tensor:
        x = held.x
        margin = 2 * step.padding + 1
        sides = (side + margin - size for side, size in zip(x.shape[2:], weight.shape[2:], strict=True))
        return x.new_zeros(()).expand(len(x), len(weight), *sides)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        held, weight, _, ctx.step = inputs
        ctx.shape = weight.shape
        ctx.save_for_backward(held.x)  # with its graph: the weight's gradient may be differentiated by it

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor | None, Tensor | None, None]:
        (gradient,), (x,) = gradients, ctx.saved_tensors
        of_weight = _OfWeight.apply(gradient, x, ctx.shape, ctx.step) if ctx.needs_input_grad[1] else None
        return None, of_weight, gradient.sum((0, 2, 3)) if ctx.needs_input_grad[2] else None, None


class _OfInput(torch.autograd.Function):
    """Linear in the gradient of y and in the weight."""

    @staticmethod
    def forward(gradient: Tensor, weight: Tensor, shape: torch.Size, step: _Step) -> Tensor:
        return _of_input(gradient, weight, shape, step)

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
    def forward(gradient: Tensor, x: Tensor, shape: torch.Size, step: _Step) -> Tensor:
        return _of_weight(gradient, x, shape, step)

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
