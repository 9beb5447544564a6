"""Tricks that change the game itself: what is updated, what is judged together, and by whom."""

from ganzoo.tricks.dual import DualDiscriminator
from ganzoo.tricks.packing import Packing
from ganzoo.tricks.topk import TopK
from ganzoo.tricks.unrolled import Unrolled

__all__ = ["DualDiscriminator", "Packing", "TopK", "Unrolled"]
