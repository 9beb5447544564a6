"""Minibatch standard deviation and minibatch discrimination for any discriminator, in front of its last layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from ganzoo.layers.minibatch import MinibatchDiscriminationLayer, MinibatchStdDevLayer
from ganzoo.layers.surgery import last_layer, replace, widened
from ganzoo.parts import Part, PlayerName
from ganzoo.tricks.networks import last_input

if TYPE_CHECKING:
    from ganzoo.gan import GAN


class MinibatchStdDev(Part):
    """Shows the discriminator how much samples of a group differ, against mode collapse (Karras 2018, sec. 3).

    The batch that one pass sees must be a multiple of ``group``: it is a rank's micro-batch, so the statistic is per
    rank. May be combined with every gradient penalty.
    """

    players: tuple[PlayerName, ...] = ()

    def __init__(self, group: int | None = 4, *, num_channels: int = 1) -> None:
        """
        Args:
            group: Samples per group; none: all that one pass sees.
            num_channels: Statistics to append, each over as many of the channels.
        """
        super().__init__()
        MinibatchStdDevLayer(group, num_channels=num_channels)  # refuses wrong numbers before there is a network
        self.group, self.num_channels = group, num_channels

    def rebuild(self, gan: GAN) -> None:
        layer = MinibatchStdDevLayer(self.group, num_channels=self.num_channels)
        _put_before_last(gan.discriminator, layer, self.num_channels, "MinibatchStdDev")


class MinibatchDiscrimination(Part):
    """Shows the discriminator how close other samples of the batch are to each (Salimans 2016, sec. 3.2).

    It appends sums over all samples of one rank's micro-batch, the sample itself included: the statistic is per rank.
    At the start, where all samples are alike, these are near the batch size in all channels, so their weights in the
    layer behind begin at zero: with others the first logits would be tens or hundreds, and nobody would learn.
    May be combined with every gradient penalty.
    """

    players: tuple[PlayerName, ...] = ()

    def __init__(self, num_kernels: int = 100, *, kernel_dim: int = 5, average: bool = False) -> None:
        """
        Args:
            num_kernels: B in the paper, the statistics to append.
            kernel_dim: C in the paper, the dimensions in which samples are compared.
            average: Append means instead of the paper's sums. They do not grow with the batch size, nor does what one
                step of the optimizer makes of them: each moves logits by sums of 64 as far as 64 steps by means.
        """
        super().__init__()
        MinibatchDiscriminationLayer(1, num_kernels=num_kernels, kernel_dim=kernel_dim)
        self.num_kernels, self.kernel_dim, self.average = num_kernels, kernel_dim, average

    def rebuild(self, gan: GAN) -> None:
        what = "MinibatchDiscrimination"
        inputs = last_input(gan, what)
        layer = MinibatchDiscriminationLayer(
            inputs, num_kernels=self.num_kernels, kernel_dim=self.kernel_dim, average=self.average
        )
        _put_before_last(gan.discriminator, layer, self.num_kernels, what, zero=not self.average)


def _put_before_last(discriminator: nn.Module, layer: nn.Module, extra: int, what: str, *, zero: bool = False) -> None:
    """Put a layer that appends ``extra`` channels in front of the last one, which is widened."""
    name = last_layer(discriminator)
    wide = widened(discriminator.get_submodule(name), extra, what, zero=zero)
    replace(discriminator, name, nn.Sequential(layer, wide))
