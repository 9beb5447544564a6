"""Progressive growing for any pair of networks with levels: Karras 2018, arXiv 1710.10196, section 2."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from ganzoo.errors import UserError
from ganzoo.layers.growth import Growable, real_at_level
from ganzoo.parts import Part, Turn
from ganzoo.schedules import Schedule, value_at

if TYPE_CHECKING:
    from ganzoo.gan import GAN


@dataclass(frozen=True)
class Phase:
    """A stretch of a run at one level, from ``start`` on; ``fade`` is the length of a fade-in, 0 when it is stable."""

    level: int
    start: int  #: in images
    fade: int = 0

    def alpha(self, images: int) -> float:
        """The new level's share."""
        return min(1.0, (images - self.start) / self.fade) if self.fade else 1.0


class Growing(Part):
    """Trains at a low resolution first and fades in one level after the other (Karras 2018, sec. 2).

    Each level is faded in for ``fade_kimg``, then trained alone for ``stabilize_kimg``, the last one to the end of the
    run. Numbers may depend on the resolution: {4: 16, 256: 14} is 16 from 4x4 on and 14 from 256x256 on, and says
    nothing of what is below its first resolution. Parameters of levels that are not in use have no gradient, no state
    in the optimizer, and no part in averages.
    """

    def __init__(
        self,
        stabilize_kimg: float | dict[int, float] = 800.0,
        *,
        fade_kimg: float | dict[int, float] = 800.0,
        start_resolution: int = 4,
        batch_size: dict[int, int] | None = None,
        lr: dict[int, float] | None = None,
        reset_moments: bool = True,
    ) -> None:
        """
        Args:
            stabilize_kimg: Thousands of images at each resolution, after it was faded in; a table begins at the start's
                resolution or below.
            fade_kimg: Thousands of images of each fade-in, 0: at once; a table begins at the first resolution that is
                faded in or below.
            start_resolution: Resolution at the start.
            batch_size: Images per update, over all devices and accumulation, by resolution; none, and below the first
                resolution of the table: that of the data.
            lr: Factor of both learning rates by resolution; none, and below the first resolution of the table: 1.
            reset_moments: Whether both optimizers forget what they know when a fade-in begins and when it ends, as the
                authors' code does. Without it new layers still begin with none.
        """
        super().__init__()
        self.stabilize_kimg, self.fade_kimg = _table("stabilize_kimg", stabilize_kimg), _table("fade_kimg", fade_kimg)
        self.batch_size = _table("batch_size", batch_size) if batch_size is not None else None
        self.lr = {0: 1.0, **_table("lr", 1.0 if lr is None else lr)}
        self.start_resolution, self.reset_moments = start_resolution, reset_moments
        for name, table in (("stabilize_kimg", self.stabilize_kimg), ("fade_kimg", self.fade_kimg), ("lr", self.lr)):
            if not all(0 <= value < math.inf for value in table.values()):
                raise UserError(f"The {name} of Growing was {table}; each number is 0 or more, and finite.")
        if self.batch_size is not None and not all(size >= 1 for size in self.batch_size.values()):
            raise UserError(f"The batch_size of Growing was {self.batch_size}; each number is 1 or more.")
        self.networks: list[Growable] = []
        self.phases: list[Phase] = []
        self._settled = False
        self._warning: str | None = None  #: for the start of a training

    def setup(self, gan: GAN) -> None:
        self._check(gan)
        self.networks = [module for module in gan.modules() if isinstance(module, Growable)]
        first = self.networks[0]
        resolutions = [first.resolution_of(level) for level in range(first.num_levels)]
        if self.start_resolution not in resolutions:
            raise UserError(
                f"Growing was to start at {self.start_resolution}, but the networks have the resolutions "
                f"{', '.join(map(str, resolutions))}: choose one of them."
            )
        start = resolutions.index(self.start_resolution)
        self.phases = self._plan(resolutions, start)
        whole = self.phases[-1].start / 1000
        if gan.total_kimg is not None and gan.total_kimg <= whole:
            self._warning = (
                f"Growing has the full resolution, {resolutions[-1]}, from {whole:g} kimg on, but the run ends at "
                f"{gan.total_kimg:g}: raise total_kimg, or give growth a smaller stabilize_kimg and fade_kimg."
            )
        for network in self.networks:
            network.set_level(start)
        if self.batch_size is not None:
            sized = [(phase.start, resolutions[phase.level]) for phase in self.phases]
            known = [(at, resolution) for at, resolution in sized if resolution >= min(self.batch_size)]
            gan.batch_sizes = [(at, int(_at(self.batch_size, resolution))) for at, resolution in known]
        for player in gan.players.values():
            player.lr_schedule = _ByPhase(self, resolutions, player.lr_schedule)

    def _check(self, gan: GAN) -> None:
        for network in (gan.generator, gan.discriminator):
            if not isinstance(network, Growable):
                raise UserError(
                    f"Growing fades in one level of both networks after the other, but {type(network).__name__} has no "
                    "levels: use the model ProgressiveGAN, or StyleGAN with its own option growth."
                )
        if sum(isinstance(part, Growing) for part in gan.tricks) > 1:
            raise UserError(
                f"{type(gan).__name__} was given Growing twice, and a run has one plan: leave it out of parts, or set "
                "the model's own growth to null."
            )
        if self.batch_size is not None and any(play.d == 0 for play in gan.plan.plays):
            raise UserError(
                "Growing was given a batch_size, which follows the images that are drawn, but a stage has no "
                "discriminator turns: give it some, or leave batch_size to the data."
            )

    def input_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        network = self.networks[0]
        if shape[2:] != (network.full_resolution, network.full_resolution):
            raise UserError(
                f"Growing ends at {network.full_resolution}x{network.full_resolution}, the size of the networks, but "
                f"the data have the shape {shape[1:]}: give both the same image_size."
            )
        if self._warning is not None:
            warnings.warn(self._warning, stacklevel=2)
            self._warning = None
        start = self.start_resolution
        return (*shape[:2], start, start)

    def before_turn(self, turn: Turn) -> None:
        images = round(turn.kimg * 1000)
        phase = self.phase_at(images)
        before = (self.networks[0].level, self.networks[0].fading)
        for network in self.networks:
            network.set_level(phase.level, phase.alpha(images))
        begins = before != (self.networks[0].level, self.networks[0].fading)
        if begins and self.reset_moments:
            for optimizer in turn.gan.player_optimizers.values():
                optimizer.optimizer.state.clear()
        if begins or not self._settled:
            turn.gan.set_dormant(p for network in self.networks for p in network.dormant())
            self._settled = True

    def prepared(self, turn: Turn, real: Tensor) -> Tensor:
        return real_at_level(real, self.networks[0])

    def facts(self) -> dict[str, float]:
        network = self.networks[0]
        phase = 2 * (network.level - self.phases[0].level) - network.fading
        return {"growth/level": network.level, "growth/alpha": network.alpha, "growth/phase": phase}

    def phase_at(self, images: int) -> Phase:
        """The phase in which a turn is when so many images were seen before."""
        return [phase for phase in self.phases if phase.start <= images][-1]

    def _plan(self, resolutions: list[int], start: int) -> list[Phase]:
        phases, at = [Phase(start, 0)], 0
        if later := resolutions[start + 1 :]:
            _check_covers("stabilize_kimg", self.stabilize_kimg, resolutions[start])
            _check_covers("fade_kimg", self.fade_kimg, later[0])
        for level in range(start + 1, len(resolutions)):
            at += round(1000 * _at(self.stabilize_kimg, resolutions[level - 1]))
            fade = round(1000 * _at(self.fade_kimg, resolutions[level]))
            phases += [Phase(level, at, fade), Phase(level, at + fade)] if fade else [Phase(level, at)]
            at += fade
        return phases


class _ByPhase(Schedule):
    """A schedule times the factor of the present resolution."""

    def __init__(self, growing: Growing, resolutions: list[int], schedule: float | Schedule) -> None:
        self.growing, self.resolutions, self.schedule = growing, resolutions, schedule

    def __call__(self, kimg: float) -> float:
        phase = self.growing.phase_at(round(kimg * 1000))
        return value_at(self.schedule, kimg) * _at(self.growing.lr, self.resolutions[phase.level])


def _table(name: str, given: float | Mapping[int, float] | Mapping[str, float]) -> dict[int, float]:
    """Numbers by the resolution from which on they hold; plain data has its keys as text."""
    if not isinstance(given, Mapping):
        return {0: given}
    table = {int(resolution): value for resolution, value in given.items()}
    if not table:
        raise UserError(f"The {name} of Growing is empty: give a number, or numbers by resolution such as {{4: 1}}.")
    return table


def _at(table: dict[int, float], resolution: int) -> float:
    """The number of a resolution: of the largest one in the table that is not above it."""
    return table[max(known for known in table if known <= resolution)]


def _check_covers(name: str, table: dict[int, float], resolution: int) -> None:
    """Refuse a table that does not say what is needed first."""
    if (first := min(table)) > resolution:
        raise UserError(
            f"The {name} of Growing was {table}, which says nothing below {first}, but the first one needed is for "
            f"{resolution}: add it, such as {{{resolution}: {table[first]:g}, {first}: {table[first]:g}}}."
        )
