"""Weights & Biases on the clock of images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import lightning.pytorch.loggers as lightning_loggers
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

from ganzoo import files
from ganzoo.config import Configurable

if TYPE_CHECKING:
    from wandb import Run

X_AXIS = "progress/kimg"


class WandbLogger(Configurable, lightning_loggers.WandbLogger):
    """Weights & Biases, with kimg as the x axis of everything; a resumed run goes on under the same id."""

    def __init__(
        self,
        project: str = "ganzoo",
        *,
        name: str | None = None,
        entity: str | None = None,
        group: str | None = None,
        tags: list[str] | None = None,
        notes: str | None = None,
        offline: bool = False,
        save_dir: str = ".",
    ) -> None:
        """
        Args:
            project: Project on the server.
            name: Name of the run; none: made up by the server.
            entity: User or team; none: your own.
            group: Group of runs, such as the seeds of one recipe.
            tags: Tags of the run.
            notes: A longer description.
            offline: Only write to the run directory; ``wandb sync`` uploads later.
            save_dir: Folder for the files; the run directory when started by ``ganzoo fit``.
        """
        super().__init__(
            project=project,
            name=name,
            entity=entity,
            group=group,
            tags=tags,
            notes=notes,
            offline=offline,
            save_dir=save_dir,
        )
        self._wandb_init.pop("anonymous")  # Lightning's; wandb warns of it even when it is not set
        self._kimg = 0.0
        self.use_directory(save_dir)

    def use_directory(self, folder: str | Path) -> None:
        """Write into ``folder`` and go on with the run whose id is kept there, if there is one."""
        self._id_file = Path(folder) / "wandb-id.txt"
        if self._id_file.is_file():
            self._id = self._wandb_init["id"] = self._id_file.read_text().strip()
        self._save_dir = self._wandb_init["dir"] = str(folder)

    @property
    @rank_zero_experiment
    def experiment(self) -> Run:
        """The run, begun at the first look."""
        if self._experiment is None:
            Path(self._save_dir or ".").mkdir(parents=True, exist_ok=True)  # or wandb would use another place
            run: Run = super().experiment
            run.define_metric(X_AXIS)
            run.define_metric("*", step_metric=X_AXIS)
            with files.atomic(self._id_file, "w") as file:
                file.write(run.id + "\n")
        return self._experiment  # type: ignore[return-value]  # Lightning sets it in its own property

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write a row. ``step`` is not used: W&B counts its own, and kimg is the axis, kept for rows without it."""
        self._kimg = metrics.get(X_AXIS, self._kimg)
        super().log_metrics({**metrics, X_AXIS: self._kimg})

    @rank_zero_only
    def log_picture(self, key: str, picture: Image.Image, images: int) -> None:
        """Write a picture at the time of ``images`` images."""
        import wandb

        self._kimg = images / 1000
        self.experiment.log({key: wandb.Image(picture), X_AXIS: self._kimg})

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the run; without this the next one of the same process would be written into it."""
        if self._experiment is not None:
            self._experiment.finish(exit_code=0 if status == "success" else 1)
            self._experiment = None
