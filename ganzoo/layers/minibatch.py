"""What a discriminator sees of the other samples: minibatch standard deviation and minibatch discrimination.

The minibatch is what one pass sees: one rank's micro-batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ganzoo.errors import UserError
from ganzoo.precision import at_least_float32, full_precision


class ComparesSamples(nn.Module):
    """Base of layers that look at the samples of a minibatch together, and may not take any number of them."""

    def check(self, num: int) -> None:
        """Refuse a minibatch of so many samples, if it cannot be taken.

        Raises:
            UserError: In that case.
        """


class MinibatchStdDevLayer(ComparesSamples):
    """Appends the mean standard deviation over groups of samples as further channels (Karras 2018, sec. 3).

    With groups as in Karras 2020: of N samples, i, i + N/group, i + 2N/group, ... are a group. The variance is the
    biased one; the statistic is sqrt(variance + 1e-8), averaged over channels and positions.
    """

    eps = 1e-8

    def __init__(self, group: int | None = 4, *, num_channels: int = 1) -> None:
        """
        Args:
            group: Samples per group; none: the whole minibatch.
            num_channels: Statistics to append, each over as many of the channels, which it must divide.
        """
        super().__init__()
        if (group is not None and group < 1) or num_channels < 1:
            raise UserError(
                f"Minibatch standard deviation was given group {group} and num_channels {num_channels}; both are 1 or "
                "more, and no group means the whole minibatch."
            )
        self.group, self.num_channels = group, num_channels

    @property
    def strided_group(self) -> int:
        """See :func:`ganzoo.layers.coupling.sample_group`."""
        return self.group or 0

    def check(self, num: int) -> None:
        if self.group and num % self.group:
            raise UserError(
                f"Minibatch standard deviation has groups of {self.group}, but was given a batch of {num}: choose a "
                "batch size per device and micro-batch that is a multiple of group, or another group."
            )

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C) or (N, C, H, W), N a multiple of ``group``; returns C + num_channels channels."""
        num, group = len(x), self.group or len(x)
        self.check(num)
        if x.shape[1] % self.num_channels:
            raise UserError(
                f"Minibatch standard deviation cannot share {x.shape[1]} channels among {self.num_channels} "
                "statistics: choose a num_channels that divides them."
            )
        grouped = at_least_float32(x).reshape(group, num // group, self.num_channels, -1)
        deviations = (grouped - grouped.mean(dim=0)).square().mean(dim=0).add(self.eps).sqrt()
        statistics = deviations.mean(dim=2).repeat(group, 1)  # (N, num_channels)
        return append(x, statistics)


class MinibatchDiscriminationLayer(nn.Module):
    """Appends to each sample how close the minibatch is to it (Salimans 2016, sec. 3.2).

    With M = f(x) T of shape (N, B, C): o(x_i)_b = sum_j exp(-|M_ib - M_jb|_1), in [1, N], or with ``average`` a share
    1/N of it. As in the paper's formula, j runs over all samples of the minibatch, i itself included: its 1 is a
    constant, which the bias of the layer behind can take away.
    """

    def __init__(self, inputs: int, *, num_kernels: int = 100, kernel_dim: int = 5, average: bool = False) -> None:
        """
        Args:
            inputs: A, the features of one sample.
            num_kernels: B, the statistics to append.
            kernel_dim: C, the dimensions in which samples are compared.
            average: Divide the paper's sum by the number of samples, so that it does not grow with the batch.
        """
        super().__init__()
        if min(inputs, num_kernels, kernel_dim) < 1:
            raise UserError(
                f"Minibatch discrimination was given num_kernels {num_kernels} and kernel_dim {kernel_dim}; both are 1 "
                "or more."
            )
        self.average = average
        # For features of unit variance, each component of M has unit variance, too.
        self.weight = nn.Parameter(torch.randn(inputs, num_kernels, kernel_dim) / inputs**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C) or (N, C, H, W) with ``inputs`` features; returns C + num_kernels channels."""
        with full_precision(x.device):
            m = torch.tensordot(at_least_float32(x).flatten(1), self.weight, dims=1)  # (N, B, C)
            distances = (m[:, None] - m[None]).abs().sum(dim=3)  # (N, N, B)
            closeness = torch.exp(-distances)
            return append(x, closeness.mean(dim=1) if self.average else closeness.sum(dim=1))


def append(x: Tensor, statistics: Tensor) -> Tensor:
    """x (N, C, ...) with the numbers (N, K) as K further channels, constant over positions."""
    channels = statistics.to(x.dtype).view(*statistics.shape, *[1] * (x.dim() - 2))
    joint = torch.cat([x, channels.expand(-1, -1, *x.shape[2:])], dim=1)
    is_last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return joint.contiguous(memory_format=torch.channels_last) if is_last else joint
