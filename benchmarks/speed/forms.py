"""Cycles without a lever: plain forms of what ganzoo does faster, put in its place for a while.

Each is a context for a model that is in a fit, and leaves the model as it was, also where a cycle fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganzoo import ema, memory, streams
from ganzoo.gan import GAN
from ganzoo.layers import filtered, operations, pieces, twice
from ganzoo.layers.folded import ConvPool2d, UpConv2d, set_folded
from ganzoo.layers.modulated import ModulatedConv2d, StyledConv
from ganzoo.models.r3gan import R3GANDiscriminator
from ganzoo.penalties import R1, R2
from ganzoo.players import Player

# ---------------------------------------------------------------------- resampling


def has_folds(gan: GAN, kernel: int) -> bool:
    """Whether there are convolutions with such a kernel next to a change of resolution."""
    return any(isinstance(m, UpConv2d | ConvPool2d) and m.kernel_size == (kernel, kernel) for m in gan.modules())


@contextmanager
def unfolded(gan: GAN, kernel: int) -> Iterator[None]:
    """Convolutions with such a kernel next to a change of resolution, one step after the other."""
    networks = gan.generator, gan.discriminator
    for network in networks:
        set_folded(network, False, kernels=(kernel,))
    try:
        yield
    finally:
        for network in networks:
            set_folded(network, True, kernels=(kernel,))


# ---------------------------------------------------------------------- styles


def is_modulated(gan: GAN) -> bool:
    """Whether there are styled layers."""
    return any(isinstance(m, ModulatedConv2d) for m in gan.modules())


@contextmanager
def grouped(gan: GAN) -> Iterator[None]:
    """A grouped convolution with weights for each sample."""
    with mock.patch.object(ModulatedConv2d, "forward", _grouped):
        yield


@contextmanager
def unfused(gan: GAN) -> Iterator[None]:
    """One pass over the features for each operation."""
    with mock.patch.object(StyledConv, "forward", _unfused):
        yield


@contextmanager
def zeros_between(gan: GAN) -> Iterator[None]:
    """Filters as they are written down, in torch's own derivatives and in the usual memory format."""
    with mock.patch.object(filtered, "_filter", _zeros_between):
        yield


# ---------------------------------------------------------------------- penalties on a gradient


def is_in_pieces(gan: GAN) -> bool:
    """Whether the loss may come from a penalty's gradient, as the discriminator is linear in pieces."""
    return isinstance(gan.discriminator, R3GANDiscriminator) and any(isinstance(part, R1 | R2) for part in gan.tricks)


@contextmanager
def two_sweeps(gan: GAN) -> Iterator[None]:
    """The loss goes back through the discriminator's pass, and a penalty through that of its gradient as well."""
    with mock.patch.object(pieces, "unit_for", return_value=None):
        yield


def is_twice(gan: GAN) -> bool:
    """Whether there are convolutions with derivatives of their own."""
    return any(isinstance(m, twice.Conv2d) for m in gan.modules())


@contextmanager
def once(gan: GAN) -> Iterator[None]:
    """torch's own convolutions and leaky rectifiers."""
    with (
        mock.patch.object(twice, "_convolved", operations.plain),
        mock.patch.object(twice._Rectified, "apply", F.leaky_relu_),
    ):
        yield


# ---------------------------------------------------------------------- turns


@contextmanager
def apart(gan: GAN) -> Iterator[None]:
    """Real and fake in two passes."""
    group, gan.judges_in_groups = gan.judges_in_groups, 0
    try:
        yield
    finally:
        gan.judges_in_groups = group


def is_spectral(gan: GAN) -> bool:
    """Whether there is spectral normalization."""
    return any(player._spectral for player in gan.players.values())


@contextmanager
def iterating(gan: GAN) -> Iterator[None]:
    """One step of the power iteration in each pass of the player that moves."""
    with mock.patch.object(Player, "moving", return_value=nullcontext()):
        yield


def may_share(gan: GAN) -> bool:
    """Whether both players take turns, and no part needs fakes of the generator's own."""
    play = gan.plan.current(gan.clock)
    return play.d > 0 < play.g and not play.shared and not any(part.needs_own_fakes for part in gan.tricks)


@contextmanager
def shared(gan: GAN) -> Iterator[None]:
    """The generator goes back through the fakes of the discriminator's last turn."""
    with mock.patch.object(gan.plan.current(gan.clock), "shared", True):
        yield


@contextmanager
def thawed(gan: GAN) -> Iterator[None]:
    """The generator's turn computes gradients of the discriminator's weights, which its next turn drops."""
    with mock.patch.object(Player, "frozen", return_value=nullcontext()):
        yield


@contextmanager
def logged(gan: GAN) -> Iterator[None]:
    """Each scalar of each turn goes through ``self.log``, and Lightning takes them up after each cycle."""
    add, cycle, connector = gan.meter.add, gan.cycle, gan.trainer._logger_connector

    def log_too(name: str, value: Tensor, turn: int) -> None:
        add(name, value, turn)
        gan.log(name, value, on_step=True, on_epoch=False, batch_size=1)

    def cycle_and_take_up(loader: Iterator[Any]) -> None:
        cycle(loader)
        connector.update_train_step_metrics()

    with mock.patch.object(gan.meter, "add", log_too), mock.patch.object(gan, "cycle", cycle_and_take_up):
        yield


# ---------------------------------------------------------------------- optimizers and the average


def has_fused_adam(gan: GAN) -> bool:
    """Whether the optimizers are torch's fused ones."""
    return all(group.get("fused") for one in gan.player_optimizers.values() for group in one.optimizer.param_groups)


@contextmanager
def unfused_adam(gan: GAN) -> Iterator[None]:
    """torch's Adam as it is without options: tensor by tensor on a CPU, in lists of tensors on a GPU."""
    optimizers = [one.optimizer for one in gan.player_optimizers.values()]
    _set_fused(optimizers, None)  # not False, which would have torch leave out its lists, too
    try:
        yield
    finally:
        _set_fused(optimizers, True)


def _set_fused(optimizers: Sequence[torch.optim.Optimizer], fused: bool | None) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["fused"] = fused
        for p, state in optimizer.state.items():  # where each of them looks for the number of steps
            state["step"] = state["step"].to(p.device if fused else "cpu")


@contextmanager
def one_by_one(gan: GAN) -> Iterator[None]:
    """The average moves tensor by tensor."""
    with mock.patch.object(ema, "update_average", _one_by_one):
        yield


@torch.no_grad()
def _one_by_one(average: Sequence[Tensor], current: Sequence[Tensor], decay: float) -> None:
    for old, now in zip(average, current, strict=True):
        old.mul_(decay).add_(now, alpha=1.0 - decay)


# ---------------------------------------------------------------------- memory


def keeps_freed(gan: GAN) -> bool:
    """Whether freed memory is kept for its next use."""
    return gan.device.type == "cpu" and memory.keep_freed()


@contextmanager
def given_back(gan: GAN) -> Iterator[None]:
    """glibc as it is once the largest of its growing thresholds are reached."""
    memory.give_back()
    try:
        yield
    finally:
        memory.keep_freed()


# ---------------------------------------------------------------------- memory formats


def is_channels_last(gan: GAN) -> bool:
    """Whether kernels are in channels_last, or feature maps of styled layers."""
    return is_modulated(gan) or any(map(_is_last, gan.parameters()))


@contextmanager
def contiguous(gan: GAN) -> Iterator[None]:
    """The usual memory format of feature maps and kernels."""
    plain, kernels = Tensor.contiguous, [p for p in gan.parameters() if _is_last(p)]
    turned = [p for p in gan.parameters() if p.dim() == 4 and not _is_last(p) and _is_last(p.transpose(0, 1))]
    _arrange(gan, [*kernels, *turned], _plain)
    try:
        with mock.patch.object(Tensor, "contiguous", lambda x, memory_format=None: plain(x)):
            yield
    finally:
        _arrange(gan, kernels, _last)
        _arrange(gan, turned, filtered.for_up_convolution)


def may_be_channels_last(gan: GAN) -> bool:
    """Whether there are kernels, and all are in the usual memory format."""
    return any(p.dim() == 4 for p in gan.parameters()) and not is_channels_last(gan)


@contextmanager
def channels_last(gan: GAN) -> Iterator[None]:
    """Kernels, and so feature maps, of a model that does not ask for channels_last itself."""
    kernels = [p for p in gan.parameters() if p.dim() == 4 and not _is_last(p)]
    _arrange(gan, kernels, _last)
    try:
        yield
    finally:
        _arrange(gan, kernels, _plain)


def _plain(x: Tensor) -> Tensor:
    return x.contiguous()


def _last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _is_last(x: Tensor) -> bool:
    return x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def _arrange(gan: GAN, kernels: list[nn.Parameter], arranged: Callable[[Tensor], Tensor]) -> None:
    """Kernels, and what optimizers know of them, in one format."""
    for p in kernels:
        p.data = arranged(p.data)
        p.grad = None
    for optimizer in gan.player_optimizers.values():
        for p in kernels:
            state = optimizer.optimizer.state.get(p, {})
            state.update({k: arranged(v) for k, v in state.items() if v.dim() == 4})


# ---------------------------------------------------------------------- plain forms of the styled layers


def _grouped(self: ModulatedConv2d, x: Tensor, style: Tensor, offset: Tensor | None = None) -> Tensor:
    """One group of channels for each sample."""
    num, inputs, height, width = x.shape
    outputs, size = len(self.weight), self.kernel_size
    weight = self.weight * self.scale * self.affine(style)[:, None, :, None, None]  # (N, O, I, k, k)
    if self.demodulate:
        weight = weight * torch.rsqrt(weight.square().sum(dim=(2, 3, 4), keepdim=True) + self.eps)
    weight = weight.contiguous()  # of kernels in other formats torch's derivative of grouped convolutions is wrong
    x = x.reshape(1, num * inputs, height, width)
    if self.up:
        kernels = weight.transpose(1, 2).reshape(num * inputs, outputs, size, size)
        x = filtered.blur(F.conv_transpose2d(x, kernels, stride=2, groups=num), 1, gain=4.0)
    else:
        x = F.conv2d(x, weight.view(num * outputs, inputs, size, size), padding=size // 2, groups=num)
    x = x.view(num, outputs, *x.shape[2:]) * self.gain
    return x if offset is None else x + offset[:, None, None].to(x.dtype)


def _unfused(self: StyledConv, x: Tensor, style: Tensor, noise: Any = "random", name: str = "noise") -> Tensor:
    """With the gain behind the rectifier, and the bound of features behind the gain."""
    gain, self.conv.gain = self.conv.gain, 1.0
    try:
        x = self.conv(x, style)
    finally:
        self.conv.gain = gain
    if self.strength is not None and noise != "off":
        drawn = self.noise
        if noise == "random":
            drawn = streams.randn(len(x), 1, *self.size, purpose=name, device=x.device)
        x = x + (drawn * self.strength).to(x.dtype)
    x = F.leaky_relu(x + self.bias[:, None, None].to(x.dtype), 0.2) * gain
    return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)


def _zeros_between(x: Tensor, kernel: Tensor, step: Any) -> Tensor:
    """Zeros between the values, the filter at every place, then every second value."""
    x, channels, size = x.contiguous(), x.shape[1], len(kernel)
    padding = step.padding
    if step.transposed:
        padding, shape = size - 1 - step.padding, x.shape
        x = F.pad(x[..., None, :, None], (0, 1, 0, 0, 0, 1)).view(*shape[:2], 2 * shape[2], 2 * shape[3])[..., :-1, :-1]
    x = F.conv2d(x, kernel.expand(channels, 1, size, size), padding=padding, groups=channels)
    return x if step.transposed else x[..., :: step.stride, :: step.stride]
