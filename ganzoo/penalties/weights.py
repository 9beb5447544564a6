"""Conditions on the weights of a player, whatever its data: orthogonality, slowness, boundedness."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ganzoo.errors import UserError
from ganzoo.layers.spectral import TRANSPOSED, is_spectral, rules
from ganzoo.layers.surgery import weighted_layers
from ganzoo.losses import Wasserstein
from ganzoo.parts import Part, Penalty, PlayerName, Turn
from ganzoo.schedules import Schedule

if TYPE_CHECKING:
    from ganzoo.gan import GAN
    from ganzoo.loop import Loop


class OrthogonalRegularization(Penalty):
    """Sum over layers of |W W^T - I|_F^2, one row of W per output (Brock 2017; BigGAN, Brock 2019, eq. 2 and 3).

    W is the weight that the optimizer trains, before any normalization of it, of each linear and convolutional layer;
    biases and embeddings are left alone. Zero for orthonormal rows, which a layer with more outputs than inputs to
    each of them cannot have.
    """

    capturable = True

    def __init__(
        self,
        weight: float | Schedule = 1e-4,
        *,
        player: PlayerName = "generator",
        off_diagonal: bool = False,
        every: int = 1,
    ) -> None:
        """
        Args:
            weight: The papers' beta.
            player: Whose network it is.
            off_diagonal: Leave out the diagonal, so that rows are orthogonal but of any length, as in BigGAN.
            every: Apply it on each so many-th turn, with as many times the weight.
        """
        super().__init__(weight, every=every)
        self.players, self.off_diagonal = (player,), off_diagonal

    def setup(self, gan: GAN) -> None:
        if not weighted_layers(_network(gan, self.players[0])):
            raise UserError(
                f"OrthogonalRegularization found no linear or convolutional layer in the {self.players[0]}."
            )

    def value(self, turn: Turn) -> Tensor:
        layers = weighted_layers(_network(turn.gan, turn.player)).values()
        return torch.stack([self.excess(rows(layer)) for layer in layers]).sum()

    def excess(self, matrix: Tensor) -> Tensor:
        """|W W^T - I|_F^2 of a matrix (outputs, inputs), or of its part beside the diagonal."""
        products = matrix @ matrix.T
        if self.off_diagonal:
            return products.square().sum() - products.diagonal().square().sum()
        return (products - torch.eye(len(products), device=products.device)).square().sum()


class HistoricalAveraging(Penalty):
    """|theta - mean of theta over past turns|^2, for all trained parameters of a player (Salimans 2016, sec. 3.2).

    The mean is over the values after each turn of the player so far, the current one included, and counts as a
    constant: no gradient flows into it. So the penalty is zero in the first two turns.
    """

    capturable = True

    mean: Tensor
    count: Tensor

    def __init__(self, weight: float | Schedule = 1.0, *, player: PlayerName = "generator", every: int = 1) -> None:
        """
        Args:
            weight: Factor of the squared distance.
            player: Whose parameters they are; name the penalty twice for both.
            every: Apply it on each so many-th turn, with as many times the weight; the mean moves in every turn.
        """
        super().__init__(weight, every=every)
        self.players, self.owner = (player,), player

    def setup(self, gan: GAN) -> None:
        num = sum(p.numel() for p in gan.players[self.owner].trained)
        self.register_buffer("mean", torch.zeros(num))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def value(self, turn: Turn) -> Tensor:
        # A product with 0 or 1, since to ask the device whether there is a mean would wait for it.
        return (_parameters(turn) - self.mean).square().sum() * (self.count > 0)

    @torch.no_grad()
    def after_step(self, turn: Turn) -> None:
        self.count += 1
        self.mean.lerp_(_parameters(turn), 1 / self.count)


class WeightClipping(Part):
    """Clamps the discriminator's parameters to [-bound, bound] after each of its steps (WGAN, Arjovsky 2017, alg. 1).

    All trained ones: biases, scales of normalizations and those of parts that the discriminator's optimizer trains,
    too. It belongs to ``Wasserstein``; the paper has RMSprop with a learning rate of 5e-5 and five discriminator turns.
    """

    players: tuple[PlayerName, ...] = ("discriminator",)
    capturable = True

    def __init__(self, bound: float = 0.01) -> None:
        """
        Args:
            bound: The paper's c.
        """
        super().__init__()
        if not bound > 0:
            raise UserError(f"The clipping bound was {bound}, but must be above 0.")
        self.bound = bound

    def setup(self, gan: GAN) -> None:
        if not isinstance(gan.loss, Wasserstein):
            warnings.warn(
                f"WeightClipping bounds the slope of a Wasserstein critic, but the loss is {type(gan.loss).__name__}: "
                "set loss to Wasserstein, or leave the clipping out.",
                stacklevel=2,
            )
        if any(is_spectral(module) for module in gan.discriminator.modules()):
            warnings.warn(
                "WeightClipping does nothing useful with spectral normalization in the discriminator, which divides by "
                "the clipped weights' norm: leave out one of the two.",
                stacklevel=2,
            )

    @torch.no_grad()
    def after_step(self, turn: Turn) -> None:
        parameters: list[Tensor] = [*turn.gan.players["discriminator"].trained]
        torch._foreach_clamp_min_(parameters, -self.bound)
        torch._foreach_clamp_max_(parameters, self.bound)


def rows(layer: nn.Module) -> Tensor:
    """The trained weight of a linear or convolutional layer as a matrix with one row per output channel."""
    weight = layer.parametrizations["weight"].original if rules(layer) else layer.weight  # type: ignore[index,union-attr]  # by name
    assert isinstance(weight, Tensor)
    if isinstance(layer, TRANSPOSED):  # (inputs, outputs / groups, ...), the inputs in groups
        grouped = weight.reshape(layer.groups, -1, *weight.shape[1:])
        weight = grouped.transpose(1, 2).flatten(0, 1)
    return weight.flatten(1)


def _network(gan: GAN | Loop, player: PlayerName) -> nn.Module:
    return gan.generator if player == "generator" else gan.discriminator


def _parameters(turn: Turn) -> Tensor:
    """All trained parameters of the turn's player as one vector."""
    return torch.cat([p.flatten() for p in turn.gan.players[turn.player].trained])
