"""What the papers report, in the order modes, high-quality share, reverse KL.

Second-hand: the papers' own pages were not at hand. A row that is not ``confirmed`` has one source only; neither the
authors' repositories, which have their tables as pictures, nor a search of stored pages had a second one.
"""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """A row of a published table: means over that paper's runs."""

    modes: float
    high_quality: float  #: in [0, 1]
    reverse_kl: float | None
    source: str
    confirmed: bool = True


_PACGAN = "PacGAN, table 1"
_VEEGAN = "VEEGAN, table 1"

PUBLISHED = {
    ("grid", "gan"): Published(17.3, 0.948, 0.70, _PACGAN),
    ("grid", "pacgan2"): Published(23.8, 0.913, 0.13, _PACGAN),
    ("grid", "pacgan3"): Published(24.6, 0.942, 0.06, _PACGAN, confirmed=False),
    ("grid", "pacgan4"): Published(24.8, 0.936, 0.04, _PACGAN),
    ("grid", "unrolled"): Published(23.6, 0.16, None, _VEEGAN, confirmed=False),
    ("ring", "gan"): Published(6.3, 0.982, 0.45, _PACGAN),
    ("ring", "pacgan2"): Published(7.9, 0.956, 0.07, _PACGAN),
    ("ring", "pacgan3"): Published(7.8, 0.977, 0.10, _PACGAN, confirmed=False),
    ("ring", "pacgan4"): Published(7.8, 0.959, 0.07, _PACGAN, confirmed=False),
    ("ring", "unrolled"): Published(7.6, 0.356, None, _VEEGAN, confirmed=False),
}
