"""Normalization of weights and activations for any network: spectral, virtual batch, pixel, equalized learning rate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from ganzoo.errors import UserError
from ganzoo.layers.equalized import EqualizedConv2d, EqualizedLinear, equalized
from ganzoo.layers.norm import PixelNormLayer, normalize_all
from ganzoo.layers.surgery import last_layer, plain, replace, weighted_layers
from ganzoo.layers.virtual_batch_norm import ReferenceBatch, VirtualBatchNormLayer, virtual
from ganzoo.parts import Part, PlayerName, Turn
from ganzoo.tricks.networks import PlayersName, networks

if TYPE_CHECKING:
    from ganzoo.gan import GAN


class SpectralNorm(Part):
    """Divides every weight by its largest singular value (Miyato 2018): a discriminator that cannot be too steep.

    Linear, convolutional, transposed convolutional and embedding layers; those that are normalized already stay as
    they are. One step of the power iteration in each of the network's own turns. Name it behind the parts that add or
    change layers. The paper uses it in place of batch normalization.
    """

    players: tuple[PlayerName, ...] = ()

    def __init__(self, player: PlayersName = "discriminator") -> None:
        """
        Args:
            player: Whose network: discriminator (SNGAN), generator, or both (SAGAN).
        """
        super().__init__()
        self.player = player

    def rebuild(self, gan: GAN) -> None:
        for network in networks(gan, self.player):
            last_layer(network)  # refuses a network without any
            normalize_all(network)


class VirtualBatchNorm(Part):
    """Batch normalization by a fixed reference batch, so that samples do not depend on each other (Salimans 2016).

    Takes the place of every batch normalization in the network, which runs twice: first on the reference batch. The
    generator's is drawn when the model is built; the discriminator's is the first batch that it is shown, a real one
    (of the first rank). Gradient penalties are allowed with it.
    """

    def __init__(self, player: PlayerName = "generator", *, size: int = 64) -> None:
        """
        Args:
            player: Whose network: generator or discriminator.
            size: Samples of the reference batch; the discriminator's has at most those of one micro-batch.
        """
        super().__init__()
        if size < 2:
            raise UserError(f"VirtualBatchNorm was given a reference batch of size {size}; give 2 samples or more.")
        self.player, self.size = player, size
        self.players = ("discriminator",) if player == "discriminator" else ()
        self._asked = False

    def rebuild(self, gan: GAN) -> None:
        (network,) = networks(gan, self.player)
        norms = {name: module for name, module in network.named_modules() if isinstance(module, _BatchNorm)}
        if not norms:
            raise UserError(
                f"VirtualBatchNorm takes the place of batch normalization, of which the {self.player} has none: leave "
                "it out, or choose another player or discriminator_norm."
            )
        for name, norm in norms.items():
            replace(network, name, virtual(norm))
        reference = ReferenceBatch()
        if self.player == "generator":
            device = next(network.parameters()).device
            labels = torch.randint(gan.num_classes, (self.size,), device=device) if gan.num_classes else None
            reference.fill(gan.latents.draw(self.size, gan.generator.latent_dim, device), labels)
        reference.attach(network)

    def before_turn(self, turn: Turn) -> None:
        if not self._asked:
            for module in turn.gan.modules():  # also those of copies, which other parts may have made
                if isinstance(module, ReferenceBatch) and module.is_empty:
                    module.keep_next = self.size
            self._asked = True


class PixelNorm(Part):
    """Pixel normalization in the place of every normalization of the generator's activations (Karras 2018, sec. 4.2).

    It has no parameters: the scale and shift of what it replaces are left out.
    """

    players: tuple[PlayerName, ...] = ()

    def rebuild(self, gan: GAN) -> None:
        kinds = (_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LayerNorm, VirtualBatchNormLayer)
        norms = [name for name, module in gan.generator.named_modules() if isinstance(module, kinds)]
        if not norms:
            raise UserError(
                "PixelNorm takes the place of the generator's normalization layers, but "
                f"{type(gan.generator).__name__} has none: choose another model, or leave it out."
            )
        for name in norms:
            replace(gan.generator, name, PixelNormLayer())


class EqualizedLearningRate(Part):
    """Weights from N(0, 1), scaled by He's constant at run time (Karras 2018, sec. 4.1).

    Linear, convolutional and transposed convolutional layers; the gain is sqrt(2), and 1 in the last layer, which has
    no rectifier behind it. Name it behind the parts that add or widen layers. Learning rates are those of unit
    weights: 0.001 in the paper.
    """

    players: tuple[PlayerName, ...] = ()

    def __init__(self, player: PlayersName = "both") -> None:
        """
        Args:
            player: Whose network: discriminator, generator or both.
        """
        super().__init__()
        self.player = player

    def rebuild(self, gan: GAN) -> None:
        for network in networks(gan, self.player):
            last = last_layer(network)
            for name, layer in weighted_layers(network).items():
                if isinstance(layer, EqualizedConv2d | EqualizedLinear):
                    raise UserError(
                        f"EqualizedLearningRate was given {type(network).__name__}, whose layers have such constants "
                        "of their own: leave it out."
                    )
                plain(layer, "EqualizedLearningRate")
                equalized(layer, 1.0 if name == last else 2**0.5)
