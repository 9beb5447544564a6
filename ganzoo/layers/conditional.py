"""Conditional batch normalization: Dumoulin 2017, arXiv 1610.07629; de Vries 2017, arXiv 1707.00683.

In a GAN: Miyato and Koyama 2018, arXiv 1802.05637 (a gain and a bias for each class); Brock 2019, arXiv 1809.11096,
section 3 and figure 15 (linear maps of a vector).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Norm = Callable[[int], nn.Module]  #: makes the normalization of so many channels


class ConditionalBatchNorm2d(nn.Module):
    """Batch normalization whose gain and bias depend on a condition of each sample: ``forward(x, condition)``.

    It holds a batch normalization without a gain and bias of its own, so that whoever looks for batch normalization
    finds it.
    """

    def __init__(self, num_features: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        """
        Args:
            num_features: Channels.
            eps: Added to the variance.
            momentum: Weight of the newest batch in the running statistics.
        """
        super().__init__()
        self.num_features = num_features
        self.norm = nn.BatchNorm2d(num_features, eps=eps, momentum=momentum, affine=False)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x: (N, num_features, H, W); returns the same shape."""
        h = self.norm(x)
        gain, bias = (t.to(h.dtype)[:, :, None, None] for t in self.affine(condition))
        return torch.addcmul(bias, h, gain)

    def affine(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        """The gain and the bias of each sample, (N, num_features) each."""
        raise NotImplementedError


class ClassBatchNorm2d(ConditionalBatchNorm2d):
    """A gain and a bias for each class, 1 and 0 at first; the condition is labels, int64 (N,).

    They are the factors and shifts of a normalization, not weights of a map: spectral normalization of a network and
    the initialization of its weights leave them alone.
    """

    def __init__(self, num_features: int, num_classes: int) -> None:
        """
        Args:
            num_features: Channels.
            num_classes: Number of classes.
        """
        super().__init__(num_features)
        self.gain = nn.Parameter(torch.ones(num_classes, num_features))
        self.bias = nn.Parameter(torch.zeros(num_classes, num_features))

    def affine(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        return F.embedding(condition, self.gain), F.embedding(condition, self.bias)


class VectorBatchNorm2d(ConditionalBatchNorm2d):
    """The gain is 1 plus a linear map of a vector, the bias another one; the condition is (N, condition_dim).

    The maps are linear layers, which the network's initialization and spectral normalization see.
    """

    def __init__(self, num_features: int, condition_dim: int) -> None:
        """
        Args:
            num_features: Channels.
            condition_dim: Components of the vector.
        """
        super().__init__(num_features)
        self.gain = nn.Linear(condition_dim, num_features, bias=False)
        self.bias = nn.Linear(condition_dim, num_features, bias=False)

    def affine(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        return 1 + self.gain(condition), self.bias(condition)


def normalized(norm: nn.Module, x: Tensor, condition: Tensor | None) -> Tensor:
    """``norm(x, condition)`` for a conditional normalization, ``norm(x)`` for any other module."""
    conditional = isinstance(norm, ConditionalBatchNorm2d)
    output: Tensor = norm(x, condition) if conditional else norm(x)
    return output


def batch_norm(num_classes: int = 0) -> Norm:
    """Plain batch normalization, or for some classes a conditional one: a factory for a network's blocks."""
    if num_classes:
        return lambda channels: ClassBatchNorm2d(channels, num_classes)
    return nn.BatchNorm2d
