"""The generator looks several updates of the discriminator ahead."""

from __future__ import annotations

import copy
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ganzoo.errors import UserError
from ganzoo.layers.spectral import is_spectral
from ganzoo.layers.surgery import weighted_layers
from ganzoo.losses import Wasserstein
from ganzoo.parts import Part, PlayerName, Turn
from ganzoo.precision import full_precision
from ganzoo.schedules import value_at

if TYPE_CHECKING:
    from ganzoo.gan import GAN
    from ganzoo.players import Clip, Player

StandIns = dict[nn.Parameter, Tensor]


class Unrolled(Part):
    """The generator plays against the discriminator that would result from k more updates (Metz 2017, eq. 6 to 8).

    Before the generator's loss, the discriminator takes k steps by its own optimizer, from its current state, with its
    learning rate and clipping. The generator's loss then sees the discriminator of after these steps, and the real one
    is as if nothing had happened: weights, statistics and the optimizer's state. With ``backprop`` the generator's
    gradient goes through the steps, too; a loss in which the players want the opposite (Saturating, Wasserstein, D2GAN)
    then includes its half of real data, which depends on the generator through the steps.

    Each step is on the same samples as the generator's own turn, as in the authors' code: the turn's fakes, and the
    last real batch. Each step minimizes the adversarial loss alone, of the data as the parts change them: no penalty
    such as R1 or a gradient penalty is in it, no other term that a part adds to the discriminator's loss, and no
    clipping of weights. A Wasserstein critic has no other bound, so a look ahead by it is warned of.

    Statistics such as running means and spectral vectors rest. The steps are in float32. Every rank and every
    micro-batch looks ahead by its own samples.
    """

    players: tuple[PlayerName, ...] = ("generator",)
    needs_own_fakes = True

    def __init__(self, steps: int = 5, *, backprop: bool = True) -> None:
        """
        Args:
            steps: The paper's K, the updates to look ahead; 0 is the plain turn.
            backprop: Differentiate through the updates, as the paper does; if not, the discriminator of after the steps
                counts as given, any optimizer will do, and memory does not grow with the steps.
        """
        super().__init__()
        if steps < 0:
            raise UserError(f"Unrolled was to look {steps} steps ahead; give 0 or more.")
        self.steps, self.backprop, self.needs_real = steps, backprop, steps > 0

    def setup(self, gan: GAN) -> None:
        bounded = all(is_spectral(layer) for layer in weighted_layers(gan.discriminator).values())
        if self.steps and isinstance(gan.loss, Wasserstein) and not bounded:
            warnings.warn(
                "Unrolled looks ahead by the adversarial loss alone, but a Wasserstein critic without its penalty or "
                "clipping has no bound: set loss to NonSaturating, add the part SpectralNorm, or leave Unrolled out.",
                stacklevel=2,
            )
        if not (self.steps and self.backprop):
            return
        optimizer = gan.players["discriminator"].optimizer([nn.Parameter(torch.zeros(1))])
        if update_of(optimizer) is None:
            raise UserError(
                f"Unrolled cannot differentiate through {type(optimizer).__name__} as it is set: use Adam, RMSprop or "
                "SGD in their plain forms as the discriminator's optimizer, or backprop: false."
            )

    def before_turn(self, turn: Turn) -> None:
        turn.judge_real = turn.judge_real or (self.steps > 0 and self.backprop and turn.gan.loss.zero_sum)

    def generated(self, turn: Turn) -> None:
        if self.steps == 0:
            return
        player = turn.gan.players["discriminator"]
        optimizer = turn.gan.player_optimizers["discriminator"].optimizer
        turn.stand_ins = {}
        with full_precision(turn.gan.device), torch.enable_grad():
            look_ahead = differentiable_steps if self.backprop else borrowed_steps
            turn.stand_ins = look_ahead(turn, player, optimizer, self.steps)

    def after_backward(self, turn: Turn) -> None:
        turn.stand_ins = {}


def differentiable_steps(turn: Turn, player: Player, optimizer: torch.optim.Optimizer, steps: int) -> StandIns:
    """What the parameters would be after so many steps, as differentiable functions of the turn's fakes."""
    update, fake = update_of(optimizer), turn.fake
    assert update is not None and fake is not None
    groups = {p: group for group in optimizer.param_groups for p in group["params"]}
    now: StandIns = {p: p.detach().requires_grad_() for p in groups}
    state = {p: dict(optimizer.state.get(p, {})) for p in groups}
    for _ in range(steps):
        loss = discriminator_loss(turn, fake, now)
        given = torch.autograd.grad(loss, list(now.values()), create_graph=True, allow_unused=True)
        used = {p: grad for p, grad in zip(now, given, strict=True) if grad is not None}
        for p, grad in zip(used, clipped(list(used.values()), player.clip), strict=True):
            now[p], state[p] = update(now[p], grad, state[p], groups[p])
    return now


def borrowed_steps(turn: Turn, player: Player, optimizer: torch.optim.Optimizer, steps: int) -> StandIns:
    """What the parameters would be after so many steps of the real optimizer, as constants."""
    assert turn.fake is not None
    fake = turn.fake.detach()
    with borrowed(optimizer) as parameters:
        for _ in range(steps):
            now: StandIns = {p: p.detach().requires_grad_() for p in parameters}
            loss = discriminator_loss(turn, fake, now)
            given = torch.autograd.grad(loss, list(now.values()), allow_unused=True)
            for p, grad in zip(parameters, given, strict=True):
                p.grad = grad
            if player.clip is not None:
                player.clip(parameters)
            optimizer.step()
        return {p: p.detach() for p in parameters}


def discriminator_loss(turn: Turn, fake: Tensor, stand_ins: StandIns) -> Tensor:
    """The discriminator's adversarial loss on the turn's samples, with other values of its parameters."""
    gan, real = turn.gan, turn.real
    assert real is not None
    own = Turn(gan, "discriminator", gan.clock.d_turns, turn.kimg, stand_ins=stand_ins)
    own.real, own.real_labels = real, turn.real_labels
    own.latents, own.fake, own.fake_labels = turn.latents, fake, turn.fake_labels
    own.real_logits = own.discriminate(real, own.real_labels)
    own.fake_logits = own.discriminate(fake, own.fake_labels)
    judged: tuple[Tensor | None, Tensor] = own.real_logits, own.fake_logits
    for part in gan.tricks:
        if "discriminator" in part.players:
            judged = part.logits(own, *judged)
    real_logits, fake_logits = judged
    assert real_logits is not None
    return gan.loss.discriminator(real_logits, fake_logits) * value_at(gan.adversarial_weight, turn.kimg)


@contextmanager
def borrowed(optimizer: torch.optim.Optimizer) -> Iterator[list[nn.Parameter]]:
    """Inside, the optimizer and its parameters may move: they are copies, and the originals come back untouched."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    originals = [(p, p.data, p.grad) for p in parameters]
    state, settings = optimizer.state, [dict(group) for group in optimizer.param_groups]
    try:
        optimizer.state = defaultdict(dict, {p: copy.deepcopy(kept) for p, kept in state.items()})
        for p in parameters:
            p.data = p.data.clone()
        yield parameters
    finally:
        optimizer.state = state
        for p, data, grad in originals:
            p.data, p.grad = data, grad
        for group, before in zip(optimizer.param_groups, settings, strict=True):
            group.clear()
            group.update(before)


def clipped(grads: Sequence[Tensor], clip: Clip | None) -> Sequence[Tensor]:
    """What :class:`ganzoo.players.Clip` makes of the gradients, as a differentiable function."""
    if clip is None or not grads:
        return grads
    if clip.value is not None:
        grads = [grad.clamp(-clip.value, clip.value) for grad in grads]
    if clip.norm is not None:
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(grad) for grad in grads]))
        factor = (clip.norm / (norm + 1e-6)).clamp(max=1.0)
        grads = [grad * factor for grad in grads]
    return grads


class Update:
    """One step of an optimizer for one parameter, without changing anything in place, so that it has a gradient."""

    kind: type[torch.optim.Optimizer]
    refused: tuple[str, ...] = ("maximize",)  #: settings that it does not know

    def __call__(
        self, p: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> tuple[Tensor, dict[str, Any]]:
        """The parameter and the optimizer's state of it after the step."""
        if group["weight_decay"]:
            grad = grad + group["weight_decay"] * p
        direction, state = self.direction(grad, state, group)
        return p - group["lr"] * direction, state

    def direction(self, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """What is subtracted, before the learning rate, and the new state."""
        raise NotImplementedError


class _SGD(Update):
    kind = torch.optim.SGD
    refused = ("maximize", "nesterov", "dampening")

    def direction(self, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        before = state.get("momentum_buffer")
        if before is not None:
            grad = group["momentum"] * before + grad
        return grad, {"momentum_buffer": grad if group["momentum"] else None}


class _RMSprop(Update):
    kind = torch.optim.RMSprop
    refused = ("maximize", "centered")

    def direction(self, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        alpha, momentum = group["alpha"], group["momentum"]
        square = alpha * state.get("square_avg", 0.0) + (1 - alpha) * grad.square()
        direction = grad / (_root(square) + group["eps"])
        if momentum:
            direction = momentum * state.get("momentum_buffer", 0.0) + direction
        return direction, {"square_avg": square, "momentum_buffer": direction}


class _Adam(Update):
    kind = torch.optim.Adam
    refused = ("maximize", "amsgrad", "decoupled_weight_decay")

    def direction(self, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        beta1, beta2 = group["betas"]
        step = torch.as_tensor(state.get("step", 0.0)).double() + 1  # a tensor stays one: the device need not wait
        first = beta1 * state.get("exp_avg", 0.0) + (1 - beta1) * grad
        second = beta2 * state.get("exp_avg_sq", 0.0) + (1 - beta2) * grad.square()
        scale = _root(second) / (1 - beta2**step).sqrt() + group["eps"]
        return first / (1 - beta1**step) / scale, {"step": step, "exp_avg": first, "exp_avg_sq": second}


def update_of(optimizer: torch.optim.Optimizer) -> Update | None:
    """The differentiable step of an optimizer; none where there is no such."""
    for update in (_SGD(), _RMSprop(), _Adam()):
        if isinstance(optimizer, update.kind):
            unknown = any(group.get(name) for group in optimizer.param_groups for name in update.refused)
            return None if unknown else update
    return None


def _root(square: Tensor) -> Tensor:
    """The square root, with the gradient 0 at 0: where no gradient ever arrived, none goes back."""
    positive = square > 0
    return torch.where(positive, square, 1.0).sqrt() * positive
