"""Self-attention for any convolutional network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ganzoo.errors import UserError
from ganzoo.layers.attention import SelfAttentionLayer
from ganzoo.layers.norm import normalize_all
from ganzoo.layers.spectral import is_spectral
from ganzoo.layers.surgery import replace, weighted_layers
from ganzoo.layers.trace import Call
from ganzoo.parts import Part, PlayerName
from ganzoo.tricks.networks import PlayersName, calls, networks

if TYPE_CHECKING:
    from ganzoo.gan import GAN


class SelfAttention(Part):
    """Self-attention over a feature map of a given resolution (SAGAN, Zhang 2019), where details agree over distance.

    It starts as the identity. Its convolutions are spectrally normalized where those of the network are.
    """

    players: tuple[PlayerName, ...] = ()

    def __init__(self, player: PlayersName = "both", *, resolution: int = 32, pool: bool = False) -> None:
        """
        Args:
            player: Whose network gets it: discriminator, generator or both.
            resolution: Height of the feature map behind which it is put; memory grows with the fourth power.
            pool: Halve the resolution of keys and values, as in the authors' code: a quarter of the memory.
        """
        super().__init__()
        self.player, self.resolution, self.pool = player, resolution, pool

    def rebuild(self, gan: GAN) -> None:
        for network in networks(gan, self.player):
            places = _feature_maps(network, calls(gan, network, "SelfAttention"))
            if self.resolution not in places:
                raise UserError(
                    f"SelfAttention was asked for at resolution {self.resolution}, but the feature maps of "
                    f"{type(network).__name__} have {_listed(list(places))}: choose one of these, or another player."
                )
            name, channels = places[self.resolution]
            layer = SelfAttentionLayer(channels, pool=self.pool)
            if any(is_spectral(module) for module in network.modules()):
                normalize_all(layer)
            replace(network, name, _Followed(network.get_submodule(name), layer))


class _Followed(nn.Sequential):
    """A module, which may take more than its input, and what comes behind it."""

    def forward(self, x: Tensor, *more: Any) -> Tensor:
        output: Tensor = self[1](self[0](x, *more))
        return output


def _feature_maps(network: nn.Module, made: list[Call]) -> dict[int, tuple[str, int]]:
    """By resolution: the module that gives the last feature map of it before the last weighted layer, its channels.

    A network in which images and features pass side by side says itself which modules give ``feature_maps``.
    """
    weighted = weighted_layers(network)
    last = max((place for place, call in enumerate(made) if call.name in weighted), default=0)
    names = [call.name for call in made]
    allowed = getattr(network, "feature_maps", names)
    places: dict[int, tuple[str, int]] = {}
    for call in made[:last]:
        if len(call.outputs) == 4 and call.outputs[2] > 1 and call.name in allowed and names.count(call.name) == 1:
            places[call.outputs[2]] = call.name, call.outputs[1]
    return places


def _listed(resolutions: list[int]) -> str:
    return f"resolution {', '.join(map(str, sorted(resolutions)))}" if resolutions else "none that is an image"
