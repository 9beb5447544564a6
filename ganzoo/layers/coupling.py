"""Whether a network looks at each sample alone."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

#: Layers of torch in which samples see each other, or in which the order of a batch decides what is drawn or meant.
_COUPLING = (_BatchNorm, _DropoutNd, nn.RReLU, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)


def is_separable(network: nn.Module) -> bool:
    """Whether each sample's output depends on that sample alone, so that two batches may pass as one.

    A class that defines a ``forward`` says so by ``couples_samples = False``; torch's own layers are known. Whatever
    says nothing, or has hooks, may couple its samples.
    """
    return all(_is_known(module) and not isinstance(module, _COUPLING) for module in network.modules())


def _is_known(module: nn.Module) -> bool:
    if module._forward_hooks or module._forward_pre_hooks:
        return False
    own = next(cls for cls in type(module).__mro__ if "forward" in vars(cls))  # a sub-class speaks for itself
    return own.__module__.startswith("torch.nn.") or vars(own).get("couples_samples", True) is False
