"""Consistency regularization: what should not change a sample's meaning should not change its logit.

Each is a mean over samples (and over the elements of what is compared). Gradients flow through both sides, as in the
papers. The discriminator sees both sides as it sees everything, through the parts that change its input, and with the
same random numbers and statistics, so that only the change in question makes a difference. The pass for the changed
side moves no statistic.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ganzoo import streams
from ganzoo.config import build
from ganzoo.errors import UserError
from ganzoo.parts import Penalty, PlayerName, Turn
from ganzoo.replay import Snapshot, untouched
from ganzoo.schedules import Schedule


class _Augmented(Penalty):
    """|D(x) - D(T(x))|^2, with T a small shift and a flip of images, or small noise."""

    players: tuple[PlayerName, ...] = ("discriminator",)

    def __init__(self, weight: float | Schedule, *, shift: int, flip: bool, noise: float, every: int) -> None:
        super().__init__(weight, every=every)
        if shift < 0 or not noise >= 0:
            raise UserError(
                f"{type(self).__name__} was given shift {shift} and noise {noise}; the one is a number of pixels, the "
                "other a standard deviation, both 0 or more."
            )
        self.shift, self.flip, self.noise = shift, flip, noise

    def input_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if self.shift or self.flip:
            self._check_images(torch.empty(shape, device="meta"))
        return shape

    def before_turn(self, turn: Turn) -> None:
        turn.record |= self.due(turn)

    def of_real(self, turn: Turn) -> Tensor:
        """E|D(x) - D(T(x))|^2 on real data."""
        assert turn.real is not None
        return self.inconsistency(turn, turn.real, turn.real_labels, turn.real_logits, turn.before_real)

    def of_fakes(self, turn: Turn) -> Tensor:
        """The same on fakes."""
        assert turn.fake is not None
        return self.inconsistency(turn, turn.fake, turn.fake_labels, turn.fake_logits, turn.before_fake)

    def inconsistency(
        self, turn: Turn, data: Tensor, labels: Tensor | None, logits: Tensor | None, moment: Snapshot | None
    ) -> Tensor:
        """E|D(x) - D(T(x))|^2 where D(x) are the turn's own ``logits``, whose pass came after ``moment``."""
        data = data.detach()
        if logits is None or not turn.full_precision:
            logits = _judged(turn, data, labels, moment)
        return (logits - _judged(turn, self.transformed(data), labels, moment)).square().mean()

    def transformed(self, data: Tensor) -> Tensor:
        """T(x), of the shape of x."""
        if self.shift or self.flip:
            self._check_images(data)
            data = shifted_and_flipped(data, self.shift, self.flip)
        if self.noise:
            data = data + self.noise * _noise_like(data)
        return data

    def _check_images(self, data: Tensor) -> None:
        if data.dim() != 4:
            raise UserError(
                f"{type(self).__name__} shifts and flips images, but a sample has the shape {tuple(data.shape[1:])}: "
                "set shift to 0 and flip to false, and noise to a fraction of the data's own scale, such as 0.05."
            )
        if self.shift >= min(data.shape[2:]):
            raise UserError(
                f"{type(self).__name__} was to shift images of {data.shape[2]}x{data.shape[3]} by up to {self.shift} "
                "pixels; give fewer than the image has."
            )


class Consistency(_Augmented):
    """weight E|D(x) - D(T(x))|^2 on real data, with a random shift and flip T (CR-GAN, Zhang 2020, alg. 1)."""

    capturable = True

    def __init__(
        self,
        weight: float | Schedule = 10.0,
        *,
        shift: int = 4,
        flip: bool = True,
        noise: float = 0.0,
        every: int = 1,
    ) -> None:
        """
        Args:
            weight: The paper's lambda.
            shift: Largest shift of an image along each axis, in pixels; borders are mirrored.
            flip: Mirror half of the images left to right.
            noise: Standard deviation of Gaussian noise, for data that are no images.
            every: Apply it on each so many-th turn, with as many times the weight.
        """
        super().__init__(weight, shift=shift, flip=flip, noise=noise, every=every)

    def value(self, turn: Turn) -> Tensor:
        return self.of_real(turn)


class BalancedConsistency(_Augmented):
    """weight E|D(x) - D(T(x))|^2 on real data and on fakes, each with its weight (bCR-GAN, Zhao 2020, alg. 1)."""

    capturable = True

    def __init__(
        self,
        real_weight: float | Schedule = 10.0,
        *,
        fake_weight: float | Schedule = 10.0,
        shift: int = 4,
        flip: bool = True,
        noise: float = 0.0,
        every: int = 1,
    ) -> None:
        """
        Args:
            real_weight: The paper's lambda_real.
            fake_weight: The paper's lambda_fake.
            shift: Largest shift of an image along each axis, in pixels; borders are mirrored.
            flip: Mirror half of the images left to right.
            noise: Standard deviation of Gaussian noise, for data that are no images.
            every: Apply it on each so many-th turn, with as many times the weight.
        """
        super().__init__(real_weight, shift=shift, flip=flip, noise=noise, every=every)
        self.fake_weight = _checked(self, fake_weight)

    def forward(self, turn: Turn) -> Tensor | None:
        if not self.due(turn):
            return None
        real = _term(self, turn, "_real", self.of_real(turn), self.weight)
        return real + _term(self, turn, "_fake", self.of_fakes(turn), self.fake_weight)


class LatentConsistency(Penalty):
    """D judges G(z) and G(z + dz) alike, while G makes them differ (zCR-GAN, Zhao 2020, alg. 2).

    In the discriminator's turn weight E|D(G(z)) - D(G(z + dz))|^2, in the generator's
    -generator_weight E|G(z) - G(z + dz)|^2, with dz ~ N(0, sigma^2 I). The second has no lower bound where the
    generator's output has none, as for points. Noise inside of the generator differs between its two passes.
    """

    capturable = True

    def __init__(
        self,
        weight: float | Schedule = 5.0,
        *,
        generator_weight: float | Schedule = 0.5,
        sigma: float = 0.05,
        every: int = 1,
    ) -> None:
        """
        Args:
            weight: The paper's lambda_dis; up to 20 is in use where networks are as large as BigGAN's.
            generator_weight: The paper's lambda_gen.
            sigma: Standard deviation of the change of the latents; the paper's sigma_noise, whose best value depends on
                the model.
            every: Apply it on each so many-th turn of each player, with as many times the weight.
        """
        super().__init__(weight, every=every)
        if not sigma > 0:
            raise UserError(f"LatentConsistency was given sigma {sigma}, but latents change by a noise above 0.")
        self.generator_weight, self.sigma = _checked(self, generator_weight), sigma

    def before_turn(self, turn: Turn) -> None:
        turn.record |= self.due(turn)

    def forward(self, turn: Turn) -> Tensor | None:
        if not self.due(turn):
            return None
        if turn.player == "discriminator":
            return _term(self, turn, "_d", self.indifference(turn), self.weight)
        return _term(self, turn, "_g", -self.diversity(turn), self.generator_weight)

    def indifference(self, turn: Turn) -> Tensor:
        """E|D(G(z)) - D(G(z + dz))|^2; fakes have no graph."""
        assert turn.latents is not None
        logits = turn.fake_logits
        with torch.no_grad():
            if logits is None or not turn.full_precision:  # both sides from passes of one precision
                fake, logits = turn.generate(turn.latents, turn.fake_labels), None
            moved = turn.generate(self.moved(turn.latents), turn.fake_labels)
        if logits is None:
            logits = _judged(turn, fake, turn.fake_labels, turn.before_fake)
        return (logits - _judged(turn, moved, turn.fake_labels, turn.before_fake)).square().mean()

    def diversity(self, turn: Turn) -> Tensor:
        """E|G(z) - G(z + dz)|^2, the mean also over the components of a sample."""
        assert turn.latents is not None
        fake, moved = turn.fake, self.moved(turn.latents)
        with untouched(turn.gan.generator):
            if fake is None or not turn.full_precision:
                fake = turn.generate(turn.latents, turn.fake_labels)
            return (fake - turn.generate(moved, turn.fake_labels)).square().mean()

    def moved(self, latents: Tensor) -> Tensor:
        """z + dz, of the shape of z."""
        return latents + self.sigma * _noise_like(latents)


def shifted_and_flipped(images: Tensor, shift: int, flip: bool) -> Tensor:
    """Each image moved by its own whole number of pixels along both axes, and half of them mirrored left to right.

    Args:
        images: (N, C, H, W).
        shift: Largest shift in pixels, below H and W; what enters from outside is the image mirrored at its border
            pixel.
        flip: Whether to mirror.
    """
    n, channels, height, width = images.shape
    rows = torch.arange(height, device=images.device).expand(n, height)
    columns = torch.arange(width, device=images.device).expand(n, width)
    if flip:
        coin = streams.randint(2, n, purpose="consistency flip", device=images.device)[:, None]
        columns = torch.where(coin == 1, columns.flip(1), columns)
    if shift:
        rows = _reflected(rows + _offsets(n, shift, images.device), height)
        columns = _reflected(columns + _offsets(n, shift, images.device), width)
    sample = torch.arange(n, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[:, None, None]
    return images[sample, channel, rows[:, None, :, None], columns[:, None, None, :]]


def _offsets(num: int, shift: int, device: torch.device) -> Tensor:
    return streams.randint(2 * shift + 1, num, purpose="consistency shift", device=device)[:, None] - shift


def _reflected(index: Tensor, size: int) -> Tensor:
    """Places mirrored at 0 and at size - 1."""
    return size - 1 - (size - 1 - index.abs()).abs()


def _noise_like(x: Tensor) -> Tensor:
    return streams.randn(len(x), *x.shape[1:], purpose="consistency noise", device=x.device)


def _judged(turn: Turn, data: Tensor, labels: Tensor | None, moment: Snapshot | None) -> Tensor:
    """Logits of a pass that draws and normalizes as the one after ``moment`` did, if it was recorded."""
    with moment.restored() if moment else untouched(turn.gan.discriminator):
        return turn.discriminate(data, labels)


def _term(penalty: Penalty, turn: Turn, suffix: str, value: Tensor, weight: float | Schedule) -> Tensor:
    """One of several terms of a penalty, logged before its weight."""
    turn.logs[f"penalty/{penalty.log_name}{suffix}"] = value.detach()
    return value * turn.value_of(weight, penalty.every)


def _checked(penalty: Penalty, weight: float | Schedule) -> float | Schedule:
    """A second weight, under the first one's rule."""
    if not isinstance(weight, Schedule | Mapping) and not weight >= 0:
        raise UserError(f"A weight of {type(penalty).__name__} was {weight}, but a penalty's weight is 0 or more.")
    built: float | Schedule = build(weight)
    return built
