"""Terms that are added to the loss of one player."""

from ganzoo.penalties.gradient import R1, R2, WassersteinGradientPenalty

__all__ = ["R1", "R2", "WassersteinGradientPenalty"]
