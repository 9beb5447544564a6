"""Values as functions of kimg: learning rates, penalty weights, noise levels, growth.

Wherever an argument is typed ``float | Schedule``, a number means that value for the whole run.
"""

from __future__ import annotations

import bisect
import math
from itertools import pairwise

from ganzoo.config import Configurable
from ganzoo.errors import UserError


class Schedule(Configurable):
    """A float of kimg (thousands of real images that discriminator turns consumed)."""

    def __call__(self, kimg: float) -> float:
        raise NotImplementedError(f"{type(self).__name__} must define __call__(kimg).")


class Constant(Schedule):
    """The same value throughout."""

    def __init__(self, value: float = 1.0) -> None:
        """
        Args:
            value: The value.
        """
        self.value = value

    def __call__(self, kimg: float) -> float:
        return self.value


class _Ramp(Schedule):
    """From one value to another over a stretch of kimg, constant before and after."""

    def __init__(self, start: float = 1.0, end: float = 0.0, *, to_kimg: float, from_kimg: float = 0.0) -> None:
        """
        Args:
            start: Value up to ``from_kimg``.
            end: Value from ``to_kimg`` on.
            to_kimg: Where the ramp ends.
            from_kimg: Where the ramp begins.
        """
        if not 0 <= from_kimg < to_kimg:
            raise UserError(f"A schedule was to run from {from_kimg} to {to_kimg} kimg; it needs 0 <= from < to.")
        self.start, self.end, self.from_kimg, self.to_kimg = start, end, from_kimg, to_kimg

    def fraction(self, kimg: float) -> float:
        """How much of the stretch lies behind, from 0 to 1."""
        return min(1.0, max(0.0, (kimg - self.from_kimg) / (self.to_kimg - self.from_kimg)))


class Linear(_Ramp):
    """A straight line between two values, constant before and after."""

    def __call__(self, kimg: float) -> float:
        return self.start + (self.end - self.start) * self.fraction(kimg)


class Cosine(_Ramp):
    """Half a cosine between two values, constant before and after (Loshchilov and Hutter 2017, without restarts)."""

    def __call__(self, kimg: float) -> float:
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * self.fraction(kimg))) / 2


class Exponential(Schedule):
    """Halves every ``half_life_kimg``."""

    def __init__(self, start: float = 1.0, *, half_life_kimg: float) -> None:
        """
        Args:
            start: Value at 0 kimg.
            half_life_kimg: Thousands of images after which half of the value is left.
        """
        if half_life_kimg <= 0:
            raise UserError(f"half_life_kimg was {half_life_kimg}, but a half-life is a positive number of kimg.")
        self.start, self.half_life_kimg = start, half_life_kimg

    def __call__(self, kimg: float) -> float:
        return float(self.start * 0.5 ** (kimg / self.half_life_kimg))


class Piecewise(Schedule):
    """Values at given kimg, straight lines between them (or steps)."""

    def __init__(self, points: list[tuple[float, float]], *, steps: bool = False) -> None:
        """
        Args:
            points: Pairs (kimg, value) in rising order of kimg.
            steps: Keep each value until the next point instead of drawing a line to it.
        """
        self.kimgs = [float(kimg) for kimg, _ in points]
        self.values = [float(value) for _, value in points]
        self.steps = steps
        if not points or any(a >= b for a, b in pairwise(self.kimgs)):
            raise UserError(f"The points of a Piecewise schedule were at {self.kimgs} kimg; give one or more, rising.")

    def __call__(self, kimg: float) -> float:
        after = bisect.bisect_right(self.kimgs, kimg)
        if after == 0:
            return self.values[0]
        if after == len(self.kimgs) or self.steps:
            return self.values[after - 1]
        left, right = self.kimgs[after - 1], self.kimgs[after]
        fraction = (kimg - left) / (right - left)
        return self.values[after - 1] + (self.values[after] - self.values[after - 1]) * fraction


def value_at(schedule: float | Schedule, kimg: float) -> float:
    """The value of a number or of a schedule at ``kimg``."""
    return schedule(kimg) if isinstance(schedule, Schedule) else float(schedule)
