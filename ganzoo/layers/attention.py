"""Self-attention over the positions of a feature map: SAGAN, Zhang 2019, arXiv 1805.08318, section 3."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganzoo.errors import UserError
from ganzoo.precision import at_least_float32


class SelfAttentionLayer(nn.Module):
    """y = gamma o + x, where each position of o is a mean of values over all positions (equations 1 to 3).

    gamma starts at zero, so the layer starts as the identity. Queries and keys have C/8 channels; values have C/2, as
    in the authors' code (C/8 in the paper).
    """

    def __init__(self, channels: int, *, pool: bool = False) -> None:
        """
        Args:
            channels: C, the channels of the feature map.
            pool: Halve the resolution of keys and values by their maximum, as in the authors' code and in BigGAN: a
                quarter of the memory.
        """
        super().__init__()
        if channels < 1:
            raise UserError(f"Self-attention over {channels} channels was asked for; there must be 1 or more.")
        narrow, wide = max(channels // 8, 1), max(channels // 2, 1)
        self.pool = pool
        self.query = nn.Conv2d(channels, narrow, 1, bias=False)  # g
        self.key = nn.Conv2d(channels, narrow, 1, bias=False)  # f
        self.value = nn.Conv2d(channels, wide, 1, bias=False)  # h
        self.out = nn.Conv2d(wide, channels, 1, bias=False)  # v
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W); returns the same shape."""
        values = self._pooled(self.value(x)).flatten(2)  # (N, C/2, M)
        attended = values @ self.attention(x).transpose(1, 2).to(values.dtype)  # (N, C/2, HW)
        o = self.out(attended.view(*attended.shape[:2], *x.shape[2:]))  # (N, C, H, W)
        return torch.add(x, self.gamma * o)

    def attention(self, x: Tensor) -> Tensor:
        """Weights (N, HW, M) in float32: row j says how much each of the M positions counts at j; its sum is 1."""
        queries, keys = self.query(x).flatten(2), self._pooled(self.key(x)).flatten(2)
        return torch.softmax(at_least_float32(queries.transpose(1, 2) @ keys), dim=2)

    def _pooled(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, 2) if self.pool else x
