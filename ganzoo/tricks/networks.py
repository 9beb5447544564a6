"""What the parts share that change the layers of networks: which networks, and what passes through them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from ganzoo.errors import UserError
from ganzoo.layers.minibatch import MinibatchStdDevLayer
from ganzoo.layers.trace import Call, trace

if TYPE_CHECKING:
    from ganzoo.gan import GAN

PlayersName = Literal["discriminator", "generator", "both"]


def networks(gan: GAN, player: PlayersName) -> list[nn.Module]:
    """The networks that an option ``player`` means.

    Raises:
        UserError: When it means none.
    """
    found: dict[str, list[nn.Module]] = {
        "generator": [gan.generator],
        "discriminator": [gan.discriminator],
        "both": [gan.generator, gan.discriminator],
    }
    if player not in found:
        raise UserError(f"player was {player}, but must be one of {', '.join(found)}.")
    return found[player]


def calls(gan: GAN, network: nn.Module, what: str) -> list[Call]:
    """The calls of a network's modules in one pass, for the shape of data that the generator makes.

    Raises:
        UserError: When another part changed what the network takes; ``what`` is the part that asks.
    """
    groups = [m.group for m in network.modules() if isinstance(m, MinibatchStdDevLayer) and m.group]
    num = 2 * math.lcm(*groups)
    labels = torch.zeros(num, dtype=torch.int64) if gan.num_classes else None
    latents = torch.zeros(num, gan.generator.latent_dim)
    generator_calls, fake = trace(gan.generator, latents, labels)
    if network is gan.generator:
        return generator_calls
    assert isinstance(fake, Tensor)
    try:
        return trace(network, fake, labels)[0]
    except RuntimeError as error:
        raise UserError(
            f"{what} looks at what passes through the discriminator, which takes other data than the generator makes: "
            f"name {what} before the part that changes what the discriminator is shown."
        ) from error
