"""The discriminator judges several samples at once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils import parametrize

from ganzoo.errors import UserError
from ganzoo.layers import surgery
from ganzoo.layers.trace import trace
from ganzoo.parts import Part, Turn
from ganzoo.tricks.networks import example

if TYPE_CHECKING:
    from ganzoo.gan import GAN


class Packing(Part):
    """The discriminator sees packs of samples, joined along the channels, so that it notices missing modes (PacGAN).

    Lin, Khetan, Fanti and Oh 2018, sec. 3. Points (N, d) become (N/m, m d), images (N, C, H, W) become
    (N/m, m C, H, W): sample i is in pack i // m, so that packs are disjoint. The first layer takes m times the
    channels; its further weights are drawn from the same law, and all of them are divided by sqrt(m), which keeps the
    variance of its output. Packs are made of each rank's micro-batch.

    A penalty on the gradient is one on each pack's gradient, as if packs were the samples: R1 is gamma/2 E|grad|^2 over
    packs, and WGAN-GP asks for the norm 1 of a pack. Fakes are chosen, compared and averaged as packs, too.
    """

    capturable = True

    def __init__(self, degree: int = 2) -> None:
        """
        Args:
            degree: The paper's m, the samples in a pack; the micro-batch of each rank must be a multiple of it.
        """
        super().__init__()
        if degree < 1:
            raise UserError(f"A packing degree of {degree} was asked for; a pack holds 1 or more samples.")
        self.degree = degree

    def rebuild(self, gan: GAN) -> None:
        if gan.num_classes:
            raise UserError(
                f"Packing joins samples of several classes, and this model is conditional on {gan.num_classes}: set "
                "model.num_classes to 0, or leave Packing out."
            )
        for name in surgery.first_layers(gan.discriminator):
            layer: Any = gan.discriminator.get_submodule(name)
            channels = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
            wide: Any = surgery.widened(layer, (self.degree - 1) * channels, "Packing")
            if not parametrize.is_parametrized(wide):  # a normalized weight keeps its scale by itself
                with torch.no_grad():
                    wide.weight /= math.sqrt(self.degree)
            surgery.replace(gan.discriminator, name, wide)
        self._refuse_normalized_data(gan)

    def _refuse_normalized_data(self, gan: GAN) -> None:
        """A normalization that sees the data has numbers for each of its channels, and a pack has more of them."""
        if not any(isinstance(module, _NormBase | nn.GroupNorm) for module in gan.discriminator.modules()):
            return
        _, (_, fake) = example(gan, gan.discriminator)
        try:
            trace(gan.discriminator, torch.cat([fake] * self.degree, dim=1))
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"Packing gives the discriminator {self.degree * fake.shape[1]} channels, but a layer of "
                f"{type(gan.discriminator).__name__} normalizes the data's {fake.shape[1]}: set "
                "model.discriminator_norm to none."
            ) from error

    def setup(self, gan: GAN) -> None:
        later = gan.tricks[gan.tricks.index(self) + 1 :]
        for part in later:
            if type(part).inputs is not Part.inputs:
                raise UserError(
                    f"{type(part).__name__} changes single samples, but comes after Packing and would be given packs: "
                    "name Packing after it."
                )

    def input_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        num, rest = divmod(shape[0], self.degree)
        if rest:
            raise UserError(
                f"Packing of degree {self.degree} was given a micro-batch of {shape[0]} samples per rank, which is no "
                f"multiple: choose a batch_size that leaves each rank and micro-batch a multiple of {self.degree}."
            )
        return num, self.degree * shape[1], *shape[2:]

    def inputs(self, turn: Turn, data: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return data.reshape(self.input_shape(tuple(data.shape))), labels
