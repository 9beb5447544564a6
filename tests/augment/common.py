"""What tests of augmentations share."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor

from ganzoo import streams


def stream(num: int, *, start: int = 0, total: int | None = None, seed: int = 3) -> AbstractContextManager[None]:
    """The random numbers of one pass over the rows from ``start`` of a joint batch."""
    return streams.stream(seed, start=start, num=num, total=total or num, device=torch.device("cpu"))


def images(
    num: int, channels: int = 3, height: int = 8, width: int = 8, *, seed: int = 0, dtype=torch.float32
) -> Tensor:
    """Uniform numbers in [-1, 1]."""
    return torch.rand(num, channels, height, width, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 2 - 1


def second_derivative_is_right(function, data: Tensor) -> None:
    """gradcheck and gradgradcheck of a random function that draws the same numbers at each call."""

    def fixed(x):
        with stream(len(x)):
            return function(x)

    data = data.double().requires_grad_()
    assert torch.autograd.gradcheck(fixed, (data,))
    assert torch.autograd.gradgradcheck(fixed, (data,))
