"""Virtual batch normalization: Salimans 2016, arXiv 1606.03498, section 3.5."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ganzoo import joint
from ganzoo.errors import UserError
from ganzoo.precision import at_least_float32


class VirtualBatchNormLayer(nn.Module):
    """Normalizes a sample by the statistics of a fixed reference batch and of the sample itself, and nothing else.

    Of a reference batch of n, the sample has the weight 1/(n+1). The reference batch itself is normalized by its own
    statistics. It runs through the network before each batch, with the weights as they are: see
    :class:`ReferenceBatch`.
    """

    def __init__(self, num_features: int, *, eps: float = 1e-5) -> None:
        """
        Args:
            num_features: Channels.
            eps: Added to the variance.
        """
        super().__init__()
        self.eps = eps
        self.weight, self.bias = nn.Parameter(torch.ones(num_features)), nn.Parameter(torch.zeros(num_features))
        self.collecting = False  #: whether the batch that comes is the reference
        self.moments: list[tuple[Tensor, Tensor, int]] | None = None  #: of the reference, one for each call in a pass

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, num_features, ...); returns the same shape."""
        if self.moments is None:
            raise UserError(
                "A layer of virtual batch normalization was called by itself: call its whole network, which runs the "
                "reference batch first."
            )
        h = at_least_float32(x)
        places = list(range(2, x.dim()))
        if self.collecting:
            mean, variance = _moments(h, [0, *places])
            self.moments.append((mean.flatten(), variance.flatten(), len(x)))
        else:
            mean, variance = _moments(h, places)
            if self.moments:
                mean, variance = self._mixed(mean, variance, *self.moments.pop(0))
        shape = [1, -1, *[1] * len(places)]
        normalized = (h - mean) * torch.rsqrt(variance + self.eps)
        return (normalized * self.weight.view(shape) + self.bias.view(shape)).to(x.dtype)

    @staticmethod
    def _mixed(mean: Tensor, variance: Tensor, old: Tensor, old_variance: Tensor, num: int) -> tuple[Tensor, Tensor]:
        """Moments of the mixture of the reference, with weight num/(num+1), and each sample."""
        share = 1 / (num + 1)
        shape = [1, -1, *[1] * (mean.dim() - 2)]
        old, old_variance = old.view(shape), old_variance.view(shape)
        joint = (1 - share) * old_variance + share * variance + share * (1 - share) * (mean - old).square()
        return (1 - share) * old + share * mean, joint


def _moments(x: Tensor, dims: list[int]) -> tuple[Tensor, Tensor]:
    """Mean and biased variance over ``dims``, kept; of a single number: itself and 0."""
    if not dims:
        return x, torch.zeros_like(x)
    mean = x.mean(dims, keepdim=True)
    return mean, (x - mean).square().mean(dims, keepdim=True)


class ReferenceBatch(nn.Module):
    """Holds the reference batch of a network and runs it before each of the network's batches.

    While it is empty, each sample is normalized by itself alone: the formula at n = 0.
    """

    bits: Tensor
    labels: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.keep_next = 0  #: while empty, take so many samples of the first rank's next batch
        # As bits, since float buffers are averaged over ranks in each turn, which would not leave them as they are.
        self.register_buffer("bits", torch.empty(0, dtype=torch.int32))
        self.register_buffer("labels", torch.empty(0, dtype=torch.int64))

    def fill(self, data: Tensor, labels: Tensor | None) -> None:
        """Set the reference batch: the first process's data (n, ...), and labels (n,) of a conditional network."""
        self.bits = joint.first(data).float().contiguous().clone().view(torch.int32)
        self.labels = self.labels.to(data.device) if labels is None else joint.first(labels).clone()

    @property
    def data(self) -> Tensor:
        """The reference batch, (n, ...), float32."""
        return self.bits.view(torch.float32)

    @property
    def is_empty(self) -> bool:
        """Whether there is none yet."""
        return len(self.bits) == 0

    def attach(self, network: nn.Module) -> None:
        """Become a part of the network, and act whenever it is called."""
        network.reference = self
        network.register_forward_pre_hook(self._before)
        network.register_forward_hook(self._after, always_call=True)

    def _before(self, network: nn.Module, inputs: Any) -> None:
        if self.keep_next and self.is_empty:
            labels = inputs[1] if len(inputs) > 1 else None
            self.fill(inputs[0][: self.keep_next], None if labels is None else labels[: self.keep_next])
        layers = _layers(network)
        for layer in layers:
            layer.collecting, layer.moments = True, []
        if not self.is_empty:
            labels = self.labels if len(self.labels) else None
            network.forward(*(self.data.to(inputs[0].dtype), labels)[: len(inputs)])
        for layer in layers:
            layer.collecting = False

    def _after(self, network: nn.Module, inputs: Any, output: Any) -> None:
        for layer in _layers(network):
            layer.collecting, layer.moments = False, None

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        """The discriminator's is empty when the model is built: take the shape that was saved."""
        for name in ("bits", "labels"):
            saved, own = state_dict.get(prefix + name), getattr(self, name)
            if saved is not None and saved.shape != own.shape:
                setattr(self, name, own.new_empty(saved.shape))
        super()._load_from_state_dict(state_dict, prefix, *args)


def virtual(norm: _BatchNorm) -> VirtualBatchNormLayer:
    """The virtual counterpart of a batch normalization, with its scale and shift."""
    layer = VirtualBatchNormLayer(norm.num_features, eps=norm.eps)
    if norm.affine:
        with torch.no_grad():
            layer.weight.copy_(norm.weight)
            layer.bias.copy_(norm.bias)
    return layer


def _layers(network: nn.Module) -> list[VirtualBatchNormLayer]:
    return [module for module in network.modules() if isinstance(module, VirtualBatchNormLayer)]
