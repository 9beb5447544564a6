"""Who moves when: the ratio of turns, stages of a run, and the clock that counts images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ganzoo.config import Configurable
from ganzoo.errors import UserError


class Play(Configurable):
    """How many turns each player takes per cycle, and for how long."""

    def __init__(self, d: int = 1, g: int = 1, *, kimg: float | None = None, shared: bool = False) -> None:
        """
        Args:
            d: Discriminator turns per cycle, each on a fresh real batch.
            g: Generator turns per cycle.
            kimg: Length of the stage in thousands of real images (of generated images where ``d`` is 0); none: to the
                end of the run.
            shared: Whether the generator's first turn goes back through the fakes that the discriminator's last one
                saw, instead of through new ones: a pass of the generator less per cycle, and another algorithm.
        """
        if d < 0 or g < 0 or d + g == 0:
            raise UserError(f"A cycle of {d} discriminator and {g} generator turns was asked for; at least one is due.")
        if kimg is not None and not kimg > 0:
            raise UserError(f"A stage of {kimg} kimg was asked for; its length must be above 0.")
        if shared and not (d and g):
            raise UserError(
                f"A pass was to be shared by both players' turns, but a cycle has {d} of the discriminator and {g} of "
                "the generator: leave shared out."
            )
        self.d, self.g, self.kimg, self.shared = d, g, kimg, shared


@dataclass
class Clock:
    """What a run has done so far, over all ranks; every field is part of the checkpoint."""

    images: int = 0  #: real images that discriminator turns consumed: the time of every schedule
    drawn: int = 0  #: images taken from the data's stream, which may be more where a generator turn needs real data
    cycles: int = 0
    d_turns: int = 0
    g_turns: int = 0
    stage: int = 0  #: index of the current stage of the plan
    stage_images: int = 0  #: images in the current stage (generated ones where it has no discriminator turn)
    previous: int = 0  #: ``images`` when the last cycle began, so that a callback sees which marks were crossed

    @property
    def kimg(self) -> float:
        return self.images / 1000

    def crossed(self, every_kimg: float) -> bool:
        """Whether the last cycle reached or passed a multiple of ``every_kimg``."""
        every = every_kimg * 1000
        return every > 0 and int(self.images // every) > int(self.previous // every)

    def state(self) -> dict[str, int]:
        return asdict(self)

    def load(self, state: dict[str, Any]) -> None:
        for name in asdict(self):
            setattr(self, name, int(state[name]))


class Plan:
    """The stages of a run in order; the last one lasts to the end."""

    def __init__(self, stages: Sequence[Play], play: Play) -> None:
        for number, stage in enumerate(stages):
            if stage.kimg is None:
                raise UserError(f"Stage {number} of the plan has no kimg, so the ones after it would never begin.")
        if play.kimg is not None:
            raise UserError("The play that lasts to the end of the run has a kimg; leave it out, or move it to stages.")
        self.plays = [*stages, play]

    def current(self, clock: Clock) -> Play:
        return self.plays[clock.stage]

    def end_cycle(self, clock: Clock, real_images: int, generated_images: int) -> None:
        """Move the clock by one cycle, and to the next stage when this one has its images."""
        play = self.current(clock)
        clock.previous = clock.images
        clock.images += real_images
        clock.cycles += 1
        clock.stage_images += real_images if play.d else generated_images
        if play.kimg is not None and clock.stage_images >= play.kimg * 1000:
            clock.stage += 1
            clock.stage_images = 0

    def check_ends(self, total_kimg: float | None, max_steps: int, has_other_stop: bool) -> None:
        """Refuse a plan that could never end.

        Args:
            total_kimg: Budget of real images, or none.
            max_steps: Budget of generator updates, or -1.
            has_other_stop: Whether a time limit or a number of epochs ends the run.
        """
        if max_steps == 0:
            raise UserError("max_steps was 0, but a run takes one step or more; -1 is for no such limit.")
        last = self.plays[-1]
        by_images = total_kimg is not None and last.d > 0
        by_steps = max_steps >= 0 and last.g > 0
        if not (by_images or by_steps or has_other_stop):
            given = f"total_kimg is {total_kimg}, max_steps is {max_steps}, and the last play is d={last.d}, g={last.g}"
            raise UserError(
                f"This run would never end ({given}): set model.total_kimg with discriminator turns, or "
                "trainer.max_steps with generator turns."
            )
