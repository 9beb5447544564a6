"""Turns as CUDA graphs, by a callback: the run is the same, and the recipe knows nothing of it."""

from __future__ import annotations

import lightning.pytorch as L
from lightning.pytorch.utilities import rank_zero_info

from ganzoo.callbacks.base import as_gan
from ganzoo.config import Configurable


class CaptureGraphs(Configurable, L.Callback):
    """Records turns as CUDA graphs and replays them, so that small networks do not wait for Python.

    Results are those without it, up to the rounding of the learning rate. Where a turn cannot be recorded, turns run as
    usual, and one sentence says why. It is off by default, since it has not been measured on a GPU yet.
    """

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        as_gan(pl_module).wants_graphs = stage == "fit"

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        graphs = as_gan(pl_module).graphs
        if graphs is not None:
            counts = f"{graphs.num_replayed:,} of {graphs.num_turns:,} turns"
            rank_zero_info(f"{counts} were replayed from {graphs.num_graphs} graphs.")

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        gan = as_gan(pl_module)
        gan.wants_graphs, gan.graphs = False, None
