"""The original GAN of multilayer perceptrons: Generative Adversarial Nets.

Goodfellow et al. 2014, arXiv 1406.2661; section 5.

Differences from the paper:
- The paper gives no sizes; the default suits distributions in the plane.
- The generator's hidden layers are rectifiers (the paper mixes them with sigmoids) and its output is linear for
  points, tanh for images, which are in [-1, 1] here.
- The default loss is the non-saturating one (the paper's section 3 recommends it; ``Saturating`` is its equation 1),
  and the default optimizer is Adam instead of momentum.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ganzoo.config import default
from ganzoo.errors import UserError
from ganzoo.gan import GAN, Generator
from ganzoo.layers.dropout import Dropout
from ganzoo.optim import Adam, Optimizer


class MLPGAN(GAN):
    """GAN of multilayer perceptrons (Goodfellow 2014), for points and small images."""

    def __init__(
        self,
        shape: tuple[int, ...] = (2,),
        *,
        num_classes: int = 0,
        latent_dim: int = 2,
        hidden: int = 128,
        num_layers: int = 2,
        discriminator_hidden: int | None = None,
        discriminator_layers: int | None = None,
        pieces: int = 1,
        dropout: float = 0.0,
        generator_norm: Literal["none", "batch"] = "none",
        generator_optimizer: Optimizer = default(Adam, lr=1e-3, betas=(0.5, 0.999)),
        discriminator_optimizer: Optimizer = default(Adam, lr=1e-3, betas=(0.5, 0.999)),
        **recipe: Any,
    ) -> None:
        """
        Args:
            shape: Shape of one sample: (d,) for points, (C, H, W) for images.
            num_classes: Number of classes of a conditional model; 0: unconditional.
            latent_dim: Components of the latent vector.
            hidden: Units of each hidden layer.
            num_layers: Hidden layers of each network.
            discriminator_hidden: Units of each of the discriminator's hidden layers, where they differ.
            discriminator_layers: Hidden layers of the discriminator, where they differ.
            pieces: Linear pieces of the discriminator's maxout units (5 in the paper); 1: leaky rectifiers.
            dropout: Share of the discriminator's hidden units that are dropped (0.5 in the paper).
            generator_norm: Batch normalization in the generator's hidden layers, as in PacGAN (Lin 2018), or none.
            generator_optimizer: Optimizer of the generator.
            discriminator_optimizer: Optimizer of the discriminator.
            recipe: Every option of the training loop.
        """
        d_hidden = hidden if discriminator_hidden is None else discriminator_hidden
        d_layers = num_layers if discriminator_layers is None else discriminator_layers
        if min(num_layers, hidden, d_layers, d_hidden, pieces, latent_dim) < 1:
            raise UserError(
                f"An MLP of {num_layers} and {d_layers} layers, {hidden} and {d_hidden} units, {pieces} pieces and "
                f"latent_dim {latent_dim} was asked for; each is 1 or more."
            )
        shape = tuple(shape)
        super().__init__(
            MLPGenerator(shape, latent_dim, hidden, num_layers, num_classes, generator_norm),
            MLPDiscriminator(shape, d_hidden, d_layers, num_classes, pieces, dropout),
            num_classes=num_classes,
            generator_optimizer=generator_optimizer,
            discriminator_optimizer=discriminator_optimizer,
            **recipe,
        )


class MLPGenerator(Generator):
    """Latents (N, latent_dim) to samples (N, *shape)."""

    def __init__(
        self, shape: tuple[int, ...], latent_dim: int, hidden: int, num_layers: int, num_classes: int, norm: str
    ) -> None:
        super().__init__()
        self.latent_dim, self.num_classes, self.shape = latent_dim, num_classes, shape
        sizes = [latent_dim + num_classes] + [hidden] * num_layers
        layers: list[nn.Module] = []
        for a, b in pairwise(sizes):
            layers += [nn.Linear(a, b), *([nn.BatchNorm1d(b)] if norm == "batch" else []), nn.ReLU()]
        layers += [nn.Linear(hidden, math.prod(shape))]
        if len(shape) > 1:
            layers += [nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        flat: Tensor = self.layers(_with_labels(latents, labels, self.num_classes))
        return flat.view(-1, *self.shape)


class MLPDiscriminator(nn.Module):
    """Samples (N, *shape) to logits (N,)."""

    def __init__(
        self, shape: tuple[int, ...], hidden: int, num_layers: int, num_classes: int, pieces: int, dropout: float
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        sizes = [math.prod(shape) + num_classes] + [hidden] * num_layers
        layers: list[nn.Module] = []
        for a, b in pairwise(sizes):
            layers += [Maxout(a, b, pieces)] if pieces > 1 else [nn.Linear(a, b), nn.LeakyReLU(0.2)]
            layers += [Dropout(dropout)] if dropout else []
        self.layers = nn.Sequential(*layers, nn.Linear(hidden, 1))

    def forward(self, data: Tensor, labels: Tensor | None = None) -> Tensor:
        logits: Tensor = self.layers(_with_labels(data.flatten(1), labels, self.num_classes))
        return logits.squeeze(1)


class Maxout(nn.Module):
    """The largest of several linear maps, unit by unit (Goodfellow 2013)."""

    def __init__(self, inputs: int, outputs: int, pieces: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs * pieces)
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.linear(x)
        return maps.view(len(x), -1, self.pieces).amax(dim=2)


def _with_labels(x: Tensor, labels: Tensor | None, num_classes: int) -> Tensor:
    """x with the label as one-hot columns (Mirza and Osindero 2014)."""
    if num_classes == 0:
        return x
    assert labels is not None
    return torch.cat([x, nn.functional.one_hot(labels, num_classes).to(x.dtype)], dim=1)
