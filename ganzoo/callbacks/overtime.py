"""What callbacks that leave something in the run's directory over time share: marks, ends, and what a resume drops."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import lightning.pytorch as L

from ganzoo import files
from ganzoo.callbacks.base import MarkCallback, as_gan, images_of
from ganzoo.callbacks.stop import was_interrupted

if TYPE_CHECKING:
    from ganzoo.gan import GAN

When = Literal["start", "mark", "end"]


class RememberingCallback(MarkCallback):
    """A callback that knows where it last acted at a mark, so that a resume can drop what it made beyond that."""

    _at_mark: int | None = None  # images then; -1 for never

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._at_mark = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        clock = as_gan(pl_module).clock
        if self._at_mark is None:
            self._at_mark = clock.images if clock.cycles else -1

    def state_dict(self) -> dict[str, Any]:
        return {"images": -1 if self._at_mark is None else self._at_mark}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._at_mark = state_dict["images"]


class FilesOverTime(RememberingCallback):
    """A callback that leaves a file ``kimg-*`` in a folder of the run at every mark and at the end.

    After a kill and a resume the files are those of the run that was never stopped.
    """

    suffix: str  #: of the files

    def folder(self, trainer: L.Trainer) -> Path:
        """Where the files are."""
        raise NotImplementedError(f"{type(self).__name__} must define folder(trainer).")

    def act(self, trainer: L.Trainer, gan: GAN, when: When) -> None:
        """Make the file; called on all ranks."""
        raise NotImplementedError(f"{type(self).__name__} must define act(trainer, gan, when).")

    def kept(self, trainer: L.Trainer) -> list[Path]:
        """All of them in order of time."""
        return sorted(path for path in self.folder(trainer).glob(f"kimg-*{self.suffix}") if images_of(path) >= 0)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        assert self._at_mark is not None
        if trainer.is_global_zero:
            files.remove_leftovers(self.folder(trainer))
            for path in self.kept(trainer):
                if images_of(path) > self._at_mark:
                    path.unlink()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        gan = as_gan(pl_module)
        if gan.clock.crossed(self.every_kimg):
            self.act(trainer, gan, "mark")
            self._at_mark = gan.clock.images

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        gan = as_gan(pl_module)
        # What is made between two marks is not noted as of a mark: a resume that moves the end drops it.
        if not was_interrupted(trainer) and gan.clock.images != self._at_mark:
            self.act(trainer, gan, "end")
