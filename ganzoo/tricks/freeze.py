"""Fine-tuning with the discriminator's first layers held still."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ganzoo.errors import UserError
from ganzoo.layers.surgery import WEIGHTED
from ganzoo.parts import Part, PlayerName
from ganzoo.replay import evaluating
from ganzoo.tricks.networks import calls, example

if TYPE_CHECKING:
    from ganzoo.gan import GAN


class FreezeD(Part):
    """The discriminator's first layers keep the weights that they begin with, for fine-tuning on small data.

    Mo, Cho and Shin 2020, arXiv 2002.10964: the layers near the image know features that other images share, so only
    the later ones are trained. It belongs to ``ganzoo fit --init-from``; without that, random layers are kept.

    Layers are linear ones and convolutions, in the order in which the image reaches them: those that it never reaches,
    such as an embedding of labels, do not count. With a layer rests what lies between it and the next one, such as
    the scales of a normalization. Frozen are parameters: batch normalization goes on with the batch's statistics and
    their running means, and spectral normalization with its vectors. Gradients pass through, to the generator and to
    penalties on the data. Layers that a later part puts in are trained.
    """

    players: tuple[PlayerName, ...] = ()

    def __init__(self, num_layers: int = 1) -> None:
        """
        Args:
            num_layers: How many layers are frozen, counted from the image; at least one is left to be trained.
        """
        super().__init__()
        if num_layers < 0:
            raise UserError(f"FreezeD was to freeze {num_layers} layers; give 0 or more.")
        self.num_layers = num_layers

    def rebuild(self, gan: GAN) -> None:
        for p in first_parameters(gan, self.num_layers):
            p.requires_grad = False


def first_parameters(gan: GAN, num_layers: int) -> list[nn.Parameter]:
    """The parameters of the discriminator that the image meets before its layer number ``num_layers``, from 0.

    Raises:
        UserError: When that would be all.
    """
    network = gan.discriminator
    reached = modules_that_see_the_data(gan)
    layers = [module for module in reached if isinstance(module, WEIGHTED)]
    if num_layers >= len(layers):
        raise UserError(
            f"FreezeD was to freeze {num_layers} layers, but {type(network).__name__} has {len(layers)}, of which one "
            f"must be trained: set num_layers to {max(len(layers) - 1, 0)} or less."
        )
    inside = set(layers[num_layers].modules())  # what computes its weight runs before it has ended
    before = [module for module in reached[: reached.index(layers[num_layers])] if module not in inside]
    return list(dict.fromkeys(p for module in before for p in module.parameters()))


def modules_that_see_the_data(gan: GAN) -> list[nn.Module]:
    """The discriminator's modules whose output depends on the data, in the order in which they first give one."""
    network = gan.discriminator
    calls(gan, network, "FreezeD")  # refuses what cannot be judged
    labels, (_, data) = example(gan, network)
    # With constants for parameters, only what depends on the data has a gradient.
    constants = {name: p.detach() for name, p in network.named_parameters()}
    ended: dict[nn.Module, None] = {}

    def note(module: nn.Module, given: Any, output: Any) -> None:
        outputs = output if isinstance(output, tuple | list) else [output]
        if any(isinstance(x, Tensor) and x.requires_grad for x in outputs):
            ended.setdefault(module)

    hooks = [module.register_forward_hook(note) for module in network.modules()]
    try:
        with evaluating(network), torch.enable_grad(), torch.random.fork_rng(devices=[]):
            functional_call(network, constants, (data.detach().requires_grad_().clone(), labels))
    finally:
        for hook in hooks:
            hook.remove()
    return list(ended)
