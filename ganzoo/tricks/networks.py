"""What the parts share that change the layers of networks: which networks, and what passes through them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from ganzoo.errors import UserError
from ganzoo.layers.minibatch import MinibatchStdDevLayer
from ganzoo.layers.surgery import last_layer
from ganzoo.layers.trace import Call, features_of, trace

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
    labels, (generator_calls, fake) = example(gan, network)
    if network is gan.generator:
        return generator_calls
    try:
        return trace(network, fake, labels)[0]
    except RuntimeError as error:
        raise UserError(
            f"{what} looks at what passes through the discriminator, which takes other data than the generator makes: "
            f"name {what} before the part that changes what the discriminator is shown."
        ) from error


def last_input(gan: GAN, what: str) -> int:
    """Components of what the discriminator's last layer is given for one sample.

    Raises:
        UserError: When the layer that was registered last takes no part; ``what`` is the part that asks.
    """
    last = last_layer(gan.discriminator)
    seen = {call.name: math.prod(call.inputs[1:]) for call in calls(gan, gan.discriminator, what)}
    if last not in seen:
        raise UserError(
            f"{what} goes in front of the discriminator's last layer, but its pass does not use {last}, which was "
            "registered last: name the layer that gives logits head."
        )
    return seen[last]


def features_tell_labels(gan: GAN) -> bool:
    """Whether what the discriminator's last layer is given for a sample depends on the label that comes with it."""
    labels, (_, fake) = example(gan, gan.discriminator)
    if labels is None or fake.is_meta:
        return False
    with features_of(gan.discriminator, None) as passes:
        for number in range(min(gan.num_classes, 2)):
            trace(gan.discriminator, fake, labels + number)
    first, second = passes[0][0], passes[-1][0]
    return not torch.equal(first, second)


def example(gan: GAN, network: nn.Module) -> tuple[Tensor | None, tuple[list[Call], Tensor]]:
    """Labels, and the calls and the output of the generator for them, as many as ``network`` can judge together."""
    groups = [m.group for m in network.modules() if isinstance(m, MinibatchStdDevLayer) and m.group]
    num = 2 * math.lcm(*groups)
    labels = torch.zeros(num, dtype=torch.int64) if gan.num_classes else None
    return labels, trace(gan.generator, torch.zeros(num, gan.generator.latent_dim), labels)
