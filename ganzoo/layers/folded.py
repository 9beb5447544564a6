"""Convolutions behind nearest upsampling and before average pooling, made in one step with fewer products.

Both are exact. Upsampling repeats each value, and pooling adds neighbours, so that of the 9 products of each output
value many share a factor: 4 products with sums of the weights give the same number.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

Upsampling = Literal["nearest", "bilinear"]


class _Resampling(nn.Conv2d):
    """A convolution with a kernel of 1 or 3 that keeps the size, next to a change of resolution by 2.

    Its parameters are those of the plain convolution, whatever way the output is computed.
    """

    def __init__(self, inputs: int, outputs: int, kernel_size: int, *, bias: bool = True) -> None:
        """
        Args:
            inputs: Channels of the input.
            outputs: Channels of the output.
            kernel_size: 1 or 3.
            bias: Whether a number is added to each output channel.
        """
        assert kernel_size in (1, 3)
        super().__init__(inputs, outputs, kernel_size, padding=kernel_size // 2, bias=bias)
        self.folded = True  #: whether to take the short way; the plain one is for comparison

    def plain(self, x: Tensor) -> Tensor:
        """The convolution alone."""
        return super().forward(x)


class UpConv2d(_Resampling):
    """Upsampling by 2, then a convolution: (N, inputs, H, W) to (N, outputs, 2H, 2W).

    Nearest upsampling and a 3x3 convolution are one 4x4 transposed convolution of stride 2: 4/9 of the products. A 1x1
    convolution goes first, on a quarter of the positions, as it commutes with either upsampling.
    """

    couples_samples = False

    def __init__(
        self, inputs: int, outputs: int, kernel_size: int, *, upsampling: Upsampling = "nearest", bias: bool = True
    ) -> None:
        """
        Args:
            inputs: Channels of the input.
            outputs: Channels of the output.
            kernel_size: 1 or 3.
            upsampling: nearest repeats values; bilinear interpolates between the centres of pixels.
            bias: Whether a number is added to each output channel.
        """
        super().__init__(inputs, outputs, kernel_size, bias=bias)
        self.upsampling = upsampling

    def forward(self, x: Tensor) -> Tensor:
        if self.folded and self.kernel_size == (1, 1):
            return upsample(self.plain(x), self.upsampling)
        if self.folded and self.upsampling == "nearest":
            weight = fold(self.weight).flip(2, 3).transpose(0, 1)
            return F.conv_transpose2d(x, weight, self.bias, stride=2, padding=1)
        return self.plain(upsample(x, self.upsampling))


class ConvPool2d(_Resampling):
    """A convolution, then the mean of each 2x2 block: (N, inputs, 2H, 2W) to (N, outputs, H, W).

    With a kernel of 3 they are one 4x4 convolution of stride 2: 4/9 of the products. A 1x1 convolution goes last, on a
    quarter of the positions, as it commutes with the mean.
    """

    couples_samples = False

    def forward(self, x: Tensor) -> Tensor:
        if self.folded and self.kernel_size == (1, 1):
            return self.plain(F.avg_pool2d(x, 2))
        if self.folded:
            return F.conv2d(x, fold(self.weight) / 4, self.bias, stride=2, padding=1)
        return F.avg_pool2d(self.plain(x), 2)


def fold(weight: Tensor) -> Tensor:
    """The sum of a kernel (..., 3, 3) at the four places of a 2x2 block: (..., 4, 4)."""
    wide = F.pad(weight, (1, 1, 1, 1))
    rows = wide[..., :-1, :] + wide[..., 1:, :]
    return rows[..., :-1] + rows[..., 1:]


def upsample(x: Tensor, mode: Upsampling) -> Tensor:
    """x: (N, C, H, W); returns (N, C, 2H, 2W)."""
    return F.interpolate(x, scale_factor=2, mode=mode, align_corners=None if mode == "nearest" else False)


def set_folded(network: nn.Module, on: bool, *, kernels: tuple[int, ...] = (1, 3)) -> None:
    """Have all such convolutions of a network, with kernels of these sizes, take the short way or the plain one."""
    for module in network.modules():
        if isinstance(module, _Resampling) and module.kernel_size[0] in kernels:
            module.folded = on
