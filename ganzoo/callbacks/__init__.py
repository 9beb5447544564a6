"""What happens around the turns: logs, sample grids, checkpoints, the progress bar, and how a run is stopped."""

from ganzoo.callbacks.checkpoint import Checkpoint
from ganzoo.callbacks.compiled import Compile
from ganzoo.callbacks.evaluate import Evaluate
from ganzoo.callbacks.graphs import CaptureGraphs
from ganzoo.callbacks.log import Log
from ganzoo.callbacks.memory import explain_out_of_memory
from ganzoo.callbacks.progress import Progress
from ganzoo.callbacks.samples import Samples
from ganzoo.callbacks.stop import GracefulStop

__all__ = [
    "CaptureGraphs",
    "Checkpoint",
    "Compile",
    "Evaluate",
    "GracefulStop",
    "Log",
    "Progress",
    "Samples",
    "explain_out_of_memory",
]
