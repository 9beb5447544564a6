"""Checkpoints that are whole whenever the process dies, and that never hold a broken model."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import lightning.pytorch as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint as LightningCheckpoint

from ganzoo import checkpoint as content
from ganzoo import files
from ganzoo.callbacks.base import MarkCallback, as_gan, check_finite, images_of, raise_together, run_directory, stamp
from ganzoo.errors import TrainingError, UserError

if TYPE_CHECKING:
    from ganzoo.gan import GAN


class Checkpoint(MarkCallback, LightningCheckpoint):
    """Saves checkpoints/last.ckpt and kimg-*.ckpt at every mark, and last.ckpt at the end or when interrupted.

    With ``monitor``, best.ckpt is the one with the best score so far, of all marks at which it was measured.

    It derives from Lightning's Checkpoint so that it comes after all other callbacks: what they have written at the
    same mark is known to the checkpoint, and a resume repeats nothing.
    """

    def __init__(
        self,
        every_kimg: float = 50.0,
        keep: int | Literal["all"] = "all",
        *,
        monitor: str | None = None,
        mode: Literal["min", "max"] = "min",
    ) -> None:
        """
        Args:
            every_kimg: Interval in thousands of images; 0: only at the end.
            keep: How many of the numbered checkpoints to keep, the newest ones; all: every one.
            monitor: Name of a score in the log, such as eval/fid, whose best checkpoint is kept as best.ckpt.
            mode: Whether the lowest score is the best one (min), or the highest (max).
        """
        if mode not in ("min", "max"):
            raise UserError(f"mode was {mode!r}; give min for scores like fid, max for scores like is.")
        if keep != "all" and (isinstance(keep, str) or keep < 0):
            raise UserError(f"keep was {keep!r}; give the number of checkpoints to keep, 0 or more, or all.")
        self.every_kimg, self.keep = every_kimg, keep
        self.monitor, self.mode = monitor, mode
        self.best: tuple[int, float] | None = None  #: images and score of best.ckpt
        self._saved: int | None = None  # images at the last save of this fit, but for best.ckpt
        self._has_warned = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._saved, self.best, self._has_warned = None, None, False
        if stage != "fit":
            return
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        if trainer.is_global_zero:
            files.remove_leftovers(self._folder(trainer))

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        gan = as_gan(pl_module)
        is_best = self._note_score(gan)  # before anything is saved: a checkpoint knows the best score up to itself
        name = "best.ckpt"
        if gan.clock.crossed(self.every_kimg):
            name = f"kimg-{stamp(gan.clock.images)}.ckpt" if self.keep != 0 else "last.ckpt"
        elif not is_best:
            return
        self._save(trainer, gan, name)
        if trainer.is_global_zero:
            if is_best and name != "best.ckpt":
                self._link(trainer, name, "best.ckpt")
            if name.startswith("kimg-"):
                self._link(trainer, name, "last.ckpt")
                self._delete_old(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        gan = as_gan(pl_module)
        if self._saved != gan.clock.images:
            self._save(trainer, gan, "last.ckpt")

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Let the sentence of a run that had to stop say what is kept."""
        if isinstance(exception, TrainingError):
            exception.args = (f"{exception} {what_is_kept(run_directory(trainer))}",)

    def _save(self, trainer: L.Trainer, gan: GAN, name: str) -> None:
        check_finite(trainer, gan)
        raise_together(trainer, _find_broken_weight(gan))
        error: TrainingError | None = None
        try:
            with files.explained(f"The checkpoint at {gan.clock.kimg:g} kimg"):
                trainer.save_checkpoint(self._folder(trainer) / name, weights_only=False)
        except TrainingError as found:
            error = found
            trainer.strategy.barrier("Trainer.save_checkpoint")  # the other ranks wait for this one there
        raise_together(trainer, error)
        if name != "best.ckpt":
            self._saved = gan.clock.images

    def state_dict(self) -> dict[str, Any]:
        return {} if self.best is None else {"images": self.best[0], "score": self.best[1]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = (state_dict["images"], state_dict["score"]) if state_dict else None

    def _note_score(self, gan: GAN) -> bool:
        """Whether the weights as they are now have the best score so far. All ranks know the same scores."""
        if self.monitor is None or not gan.meter.scores:
            return False
        if self.monitor not in gan.meter.scores and not self._has_warned:
            self._has_warned = True
            known = ", ".join(sorted(gan.meter.scores))
            warnings.warn(
                f"checkpoint.monitor is {self.monitor}, which nobody measures; there are {known}", stacklevel=2
            )
        images, score = gan.meter.scores.get(self.monitor, (-1, 0.0))
        if images != gan.clock.images:
            return False
        better = self.best is None or (score < self.best[1] if self.mode == "min" else score > self.best[1])
        if better:
            self.best = images, score
        return better

    def _link(self, trainer: L.Trainer, name: str, other: str) -> None:
        with files.explained(other):
            files.link(self._folder(trainer) / name, self._folder(trainer) / other)

    def _delete_old(self, trainer: L.Trainer) -> None:
        if isinstance(self.keep, int):
            numbered = sorted(path for path in self._folder(trainer).glob("kimg-*.ckpt") if images_of(path) >= 0)
            for path in numbered[: -self.keep]:
                path.unlink()

    def _folder(self, trainer: L.Trainer) -> Path:
        return run_directory(trainer) / "checkpoints"


def what_is_kept(run: Path) -> str:
    """A sentence on the last good checkpoint of a run directory."""
    last = run / "checkpoints" / "last.ckpt"
    if not last.is_file():
        return "No checkpoint had been written yet."
    kimg = content.read(last)[content.KEY]["clock"]["images"] / 1000
    return f"The last good checkpoint, of {kimg:g} kimg, is kept: {last}."


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes straight to the file's folder, under another name until all of it is on the disk.

    Lightning's own builds the whole file in memory, and then in the system's folder for temporary files, which is
    often small.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Raises OSError when the disk is full, also where torch makes a RuntimeError of it."""
        with files.atomic(path) as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from error
                if "PytorchStreamWriter" in str(error) or "unexpected pos" in str(error):
                    raise OSError(str(error).splitlines()[0]) from error
                raise


def _find_broken_weight(gan: GAN) -> TrainingError | None:
    """An error if a parameter is not finite: a loss that was good can have moved the weights to where none is."""
    parameters = dict(gan.named_parameters())
    finite = torch.stack([torch.isfinite(p).all() for p in parameters.values()]).tolist()
    broken = [name for name, good in zip(parameters, finite, strict=True) if not good]
    if not broken:
        return None
    return TrainingError(
        f"{broken[0]} is not finite at {gan.clock.kimg:g} kimg (generator turn {gan.clock.g_turns}): lower the "
        "learning rate, add a penalty such as R1, or train in 32-bit precision."
    )
