"""How far images are from a target: of pixels, or of the features of an extractor, with gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from ganzoo.errors import UserError
from ganzoo.metrics.extractors.base import Extractor

#: Images (N, C, H, W) in [-1, 1] to the distance of each from its target, (N,).
Measure = Callable[[Tensor], Tensor]


class Distance(Protocol):
    """A way to compare images: from targets (N, C, H, W) in [-1, 1], or one for all, to the measure of others."""

    def __call__(self, targets: Tensor) -> Measure:
        """The distance from these targets."""


class Pixels:
    """Mean squared difference of pixels, at the images' size and at halves of it, all with the same weight.

    Each size is the one before, averaged over 2x2 pixels: where edges do not meet yet, the coarse sizes still say where
    to go. Channels are compared as they are, opacity too.
    """

    def __init__(self, scales: int = 4) -> None:
        """
        Args:
            scales: How many sizes, 1 or more; halving ends at a side of one pixel.
        """
        if scales < 1:
            raise UserError(f"Pixels at {scales} sizes were to be compared; give 1 or more.")
        self.scales = scales

    def __call__(self, targets: Tensor) -> Measure:
        """See :class:`Distance`."""

        def measure(images: Tensor) -> Tensor:
            difference = images - targets
            found = [difference.square().flatten(1).mean(dim=1)]
            while len(found) < self.scales and min(difference.shape[2:]) > 1:
                difference = F.avg_pool2d(difference, 2, ceil_mode=True)
                found.append(difference.square().flatten(1).mean(dim=1))
            return torch.stack(found).mean(dim=0)

        return measure

    def facts(self) -> dict[str, Any]:
        """Plain data for a record."""
        return {"kind": "pixels", "scales": self.scales}


class FeatureDistance:
    """Squared distance of feature vectors, as a share of the squared length of the target's.

    The features of ganzoo's extractors are of whole images: they say what is to be seen, and hardly where.
    """

    def __init__(self, extractor: Extractor) -> None:
        """
        Args:
            extractor: On the device of the images; it gives gradients.
        """
        self.extractor = extractor

    def __call__(self, targets: Tensor) -> Measure:
        """See :class:`Distance`.

        Raises:
            UserError: The extractor gives no gradient, as a network that was exported without.
        """
        self._check(targets[:1])
        aims = self._features(targets).detach()
        scale = aims.square().sum(dim=1).clamp_min(1e-12)
        return lambda images: (self._features(images) - aims).square().sum(dim=1) / scale

    def facts(self) -> dict[str, Any]:
        """Plain data for a record."""
        extractor = self.extractor
        return {"kind": "features", "extractor": extractor.name, "weights": extractor.weights_hash}

    def _check(self, images: Tensor) -> None:
        with torch.enable_grad():
            probe = images.detach().clone().requires_grad_()
            features = self._features(probe)
            if features.requires_grad and torch.autograd.grad(features.sum(), probe, allow_unused=True)[0] is not None:
                return
        raise UserError(
            f"The features of {self.extractor.name} have no gradient by which an image could be changed: choose "
            "another extractor, or compare pixels."
        )

    def _features(self, images: Tensor) -> Tensor:
        return self.extractor.differentiable((images + 1) * 127.5).features
