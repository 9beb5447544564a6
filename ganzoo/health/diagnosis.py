"""The classic failures by name, read from the rows of a run's log.

Each rule looks at medians over the second half of the rows, so that the start of a run and a single outlier do not
count. The bounds are rules of thumb: they were set on runs made to fail and on their cures (``configs/failures``), and
a finding always shows the number that it rests on.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Row = Mapping[str, float]

#: The discriminator always knows: the share of pairs that it orders rightly.
SEPARATED = 0.99
#: The generator's loss teaches nothing: the mean slope over a logit.
SATURATED = 0.05
#: Fakes are closer together than real samples by this factor.
COLLAPSED = 0.5
#: A gradient norm this many times its median is a spike.
SPIKE = 10.0
#: Logits beyond this are far outside of where losses bend.
EXPLODED = 50.0


@dataclass(frozen=True)
class Finding:
    """A failure that a run shows."""

    name: str
    evidence: str  #: what was measured, and what a healthy run shows
    cures: str


def diagnose(rows: Sequence[Row]) -> list[Finding]:
    """The failures that the rows of a log show, the most telling first; none for a run that looks healthy.

    Args:
        rows: Values by column, in order of time, as in ``metrics.csv``. Columns ``health/`` come from
            :class:`ganzoo.health.signals.Signals`; what is missing is not judged.
    """
    late = Late(rows)
    return [finding for rule in _RULES if (finding := rule(late)) is not None]


class Late:
    """The second half of the rows, by column."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows[len(rows) // 2 :]

    def values(self, column: str) -> list[float]:
        """All values of a column, in order of time; empty if there is none."""
        return [row[column] for row in self.rows if column in row]

    def median(self, column: str) -> float:
        """The median of a column; NaN, which compares as false with everything, if there is none."""
        values = self.values(column)
        return statistics.median(values) if values else math.nan


def _vanishing_gradient(late: Late) -> Finding | None:
    separation, signal = late.median("health/separation"), late.median("health/signal")
    if not (separation >= SEPARATED and signal <= SATURATED):
        return None
    return Finding(
        "vanishing generator gradient",
        f"the discriminator orders {separation:.1%} of real and fake pairs rightly, and a fake's logit moves the "
        f"generator's loss by only {signal:.2g} (a healthy game: below 99 %, and 0.3 to 1)",
        "the NonSaturating loss, or Wasserstein with its gradient penalty; InstanceNoise where the gap is small",
    )


def _mode_collapse(late: Late) -> Finding | None:
    diversity = late.median("health/diversity")
    if not diversity <= COLLAPSED:
        return None
    return Finding(
        "mode collapse",
        f"fakes are {diversity:.2f} times as far apart as real samples (a healthy game: about 1)",
        "Relativistic with R1 and R2, Wasserstein with its gradient penalty, MinibatchStdDev, Packing or Unrolled",
    )


def _instability(late: Late) -> Finding | None:
    reasons = []
    for side, player in (("g", "generator"), ("d", "discriminator")):
        norms = late.values(f"health/gradient_{side}")
        middle = statistics.median(norms) if norms else 0.0
        if middle > 0 and max(norms) >= SPIKE * middle:
            reasons.append(f"the {player}'s gradient norm reached {max(norms):.3g}, with a median of {middle:.3g}")
    reasons += [
        f"logits of {side} data are around {logit:.3g} (a healthy game: within 10)"
        for side in ("real", "fake")
        if abs(logit := late.median(f"logits/{side}")) >= EXPLODED
    ]
    if not reasons:
        return None
    return Finding(
        "instability",
        " and ".join(reasons),
        "a lower learning rate, R1, discriminator_norm spectral, a slower generator (TTUR) or beta1 0",
    )


_RULES: tuple[Callable[[Late], Finding | None], ...] = (_vanishing_gradient, _mode_collapse, _instability)
