"""Dropout whose mask belongs to the joint batch."""

from __future__ import annotations

from torch import Tensor, nn

from ganzoo import streams
from ganzoo.errors import UserError


class Dropout(nn.Module):
    """Inverted dropout (Srivastava 2014) with a keyed mask: the same run draws the same one, on any number of ranks."""

    def __init__(self, p: float = 0.5) -> None:
        """
        Args:
            p: Share of activations that are set to zero, in [0, 1).
        """
        super().__init__()
        if not 0 <= p < 1:
            raise UserError(f"The dropout probability was {p}, but it must be in [0, 1).")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, ...); returns the same shape."""
        if not self.training or self.p == 0:
            return x
        keep = streams.rand(x.shape[0], *x.shape[1:], purpose="dropout", device=x.device) >= self.p
        return x * keep / (1 - self.p)
