"""Terms that are added to the loss of one player."""

from ganzoo.penalties.consistency import BalancedConsistency, Consistency, LatentConsistency
from ganzoo.penalties.features import FeatureMatching
from ganzoo.penalties.gradient import R1, R2, WassersteinGradientPenalty
from ganzoo.penalties.lecam import LeCam
from ganzoo.penalties.weights import HistoricalAveraging, OrthogonalRegularization, WeightClipping

__all__ = [
    "R1",
    "R2",
    "BalancedConsistency",
    "Consistency",
    "FeatureMatching",
    "HistoricalAveraging",
    "LatentConsistency",
    "LeCam",
    "OrthogonalRegularization",
    "WassersteinGradientPenalty",
    "WeightClipping",
]
