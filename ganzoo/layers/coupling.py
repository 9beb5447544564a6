"""Which samples of a batch a network looks at together."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from ganzoo.replay import has_hooks

#: Layers of torch in which samples see each other, or in which the order of a batch decides what is drawn or meant.
_COUPLING = (_BatchNorm, _DropoutNd, nn.RReLU, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)


def sample_group(network: nn.Module) -> int:
    """The size g of the groups in which samples see each other, so that two batches may pass as one; 0: there is none.

    1: each sample's output depends on that sample alone. Otherwise i, i + N/g, i + 2N/g, ... of N samples are a group.
    A class that defines a ``forward`` says the first by ``couples_samples = False``, the second by a property
    ``strided_group``; torch's own layers are known. Whatever says nothing, or has hooks, may couple any samples.
    """
    if has_hooks(network):
        return 0
    sizes = {_group(module) for module in network.modules()}
    return 0 if 0 in sizes or len(sizes - {1}) > 1 else max(sizes)


def joined(first: Tensor, second: Tensor, group: int) -> Tensor:
    """Two batches of N samples as one of 2 N in which each sample's group is the one that it had."""
    pairs = zip(first.chunk(group), second.chunk(group), strict=True)
    return torch.cat([part for pair in pairs for part in pair])


def parted(joint: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """What :func:`joined` made one."""
    parts = joint.chunk(2 * group)
    return (parts[0], parts[1]) if group == 1 else (torch.cat(parts[::2]), torch.cat(parts[1::2]))


def _group(module: nn.Module) -> int:
    if isinstance(module, _COUPLING):
        return 0
    own = next(cls for cls in type(module).__mro__ if "forward" in vars(cls))  # a sub-class speaks for itself
    if "strided_group" in vars(own):
        return int(cast(Any, module).strided_group)
    return int(own.__module__.startswith("torch.nn.") or vars(own).get("couples_samples", True) is False)
