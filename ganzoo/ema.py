"""The exponential moving average of the generator's weights, with its half-life in images."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from ganzoo.config import Configurable
from ganzoo.errors import UserError


class EMA(Configurable):
    """Average of the generator over the last images (Karras 2018, 2020): smoother samples at no risk."""

    def __init__(self, half_life_kimg: float = 10.0, *, rampup: float | None = 0.05, start_kimg: float = 0.0) -> None:
        """
        Args:
            half_life_kimg: Thousands of images after which the weight of an old state has halved.
            rampup: Early on, the half-life is at most this share of the images seen so far; none: constant.
            start_kimg: Up to here the average is the current state (Brock 2019).
        """
        if half_life_kimg < 0 or (rampup is not None and rampup <= 0) or not start_kimg >= 0:
            raise UserError(
                f"The EMA has half_life_kimg {half_life_kimg}, rampup {rampup} and start_kimg {start_kimg}; give a "
                "half-life and a start of 0 or more and a rampup above 0, or none."
            )
        self.half_life_kimg, self.rampup, self.start_kimg = half_life_kimg, rampup, start_kimg

    def decay(self, images: int, images_seen: int) -> float:
        """Weight of the old average after ``images`` more, when ``images_seen`` were seen in all."""
        if images_seen <= self.start_kimg * 1000:
            return 0.0
        half_life = self.half_life_kimg * 1000
        if self.rampup is not None:
            half_life = min(half_life, images_seen * self.rampup)
        return float(0.5 ** (images / max(half_life, 1e-8)))


def averaged_copy(network: nn.Module) -> nn.Module:
    """A copy that is never trained: in evaluation mode, without gradients."""
    return copy.deepcopy(network).eval().requires_grad_(False)


class Follower:
    """An averaged copy and the network that it follows, with their tensors listed once, which is slow."""

    def __init__(self, average: nn.Module, network: nn.Module, dormant: Collection[nn.Parameter] = ()) -> None:
        pairs = zip(average.parameters(), network.parameters(), strict=True)
        active = [(old, now) for old, now in pairs if now not in dormant]
        self._average, self._current = [old for old, _ in active], [now for _, now in active]
        self._buffers = list(zip(average.buffers(), network.buffers(), strict=True))

    def follow(self, decay: float) -> None:
        """Move the parameters by one step of the recursion; buffers are copied."""
        update_average(self._average, self._current, decay)
        for buffer, now in self._buffers:
            buffer.copy_(now)


@torch.no_grad()
def update_average(average: Sequence[Tensor], current: Sequence[Tensor], decay: float) -> None:
    """``average = decay * average + (1 - decay) * current`` for all tensors at once."""
    torch._foreach_lerp_(list(average), list(current), 1.0 - decay)
