"""Terms that are added to the loss of one player."""

from ganzoo.penalties.consistency import BalancedConsistency, Consistency, LatentConsistency
from ganzoo.penalties.drift import Drift
from ganzoo.penalties.features import FeatureMatching
from ganzoo.penalties.gradient import DRAGAN, R1, R2, WassersteinGradientPenalty, ZeroCenteredGradientPenalty
from ganzoo.penalties.lecam import LeCam
from ganzoo.penalties.path_length import PathLength
from ganzoo.penalties.weights import HistoricalAveraging, OrthogonalRegularization, WeightClipping

__all__ = [
    "DRAGAN",
    "R1",
    "R2",
    "BalancedConsistency",
    "Consistency",
    "Drift",
    "FeatureMatching",
    "HistoricalAveraging",
    "LatentConsistency",
    "LeCam",
    "OrthogonalRegularization",
    "PathLength",
    "WassersteinGradientPenalty",
    "WeightClipping",
    "ZeroCenteredGradientPenalty",
]
