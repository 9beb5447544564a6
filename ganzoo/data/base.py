"""The base of all data: endless batches, their place in the stream, and how a batch becomes model input."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import lightning.pytorch as L
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ganzoo.config import Configurable
from ganzoo.data import resident
from ganzoo.data.batch import Batch
from ganzoo.data.loader import Loader, leave_signals_to_the_parent
from ganzoo.data.sampler import EndlessSampler
from ganzoo.errors import UserError

__all__ = ["Batch", "GANDataModule"]


class GANDataModule(Configurable, L.LightningDataModule, ABC):
    """Base of all data modules: a stream of batches without end, and facts that models are built from.

    A subclass gives :attr:`shape`, :attr:`class_names`, :attr:`content_hash`, :attr:`dataset` (a map from an
    array of indices to a :class:`Batch`), :attr:`num` and :meth:`prepare`. Facts are known right after
    construction; nothing is decoded for them.
    """

    def __init__(
        self,
        *,
        batch_size: int = 64,
        num_workers: int = 0,
        labels: bool = False,
        on_device: bool | Literal["auto"] = "auto",
    ) -> None:
        """
        Args:
            batch_size: Images per step, over all devices and accumulation.
            num_workers: Loader processes; 0 for one thread, which is faster as long as the cache fits into memory.
            labels: Whether batches carry classes, for conditional models.
            on_device: Whether all images live on the device, where batches are then made without a loader; auto: on a
                GPU, if they take at most a quarter of its free memory.
        """
        super().__init__()
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}; give a positive number.")
        if num_workers < 0:
            raise UserError(f"num_workers is {num_workers}; give 0 to load in this process, or how many others.")
        self.batch_size, self.num_workers, self.labels = batch_size, num_workers, labels
        self.on_device: bool | Literal["auto"] = on_device
        self._start = 0

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Of one example: (C, H, W) or (d,)."""

    @property
    @abstractmethod
    def class_names(self) -> list[str]:
        """Names of all classes, in the order of their numbers; empty if there are none."""

    @property
    @abstractmethod
    def num(self) -> int | None:
        """Number of examples; None for a source without end."""

    @property
    @abstractmethod
    def content_hash(self) -> str:
        """SHA-256 of the examples and their labels."""

    @property
    @abstractmethod
    def dataset(self) -> Dataset[Batch]:
        """A map from an array of indices to a :class:`Batch`."""

    @abstractmethod
    def prepare(self, batch: Batch, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """Model input and labels of a batch, on the device."""

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 unless ``labels`` was asked for."""
        return len(self.class_names) if self.labels else 0

    @property
    def class_counts(self) -> list[int]:
        """Number of examples of each class, which labels of samples can follow; empty without labels, or unknown."""
        return []

    def setup(self, stage: str | None = None) -> None:
        """Before training: have the model refuse what it could not take in its first turn."""
        trainer = self.trainer
        check = getattr(getattr(trainer, "lightning_module", None), "check_data", None)
        if stage == "fit" and check is not None:
            check(self.shape, self.batch_size, getattr(trainer, "world_size", 1))

    @property
    def later_sizes(self) -> Sequence[tuple[int, int]]:
        """Pairs (place, size): joint batches from this place of the stream on have that size, if the model says so."""
        return getattr(getattr(self.trainer, "lightning_module", None), "batch_sizes", ())

    def train_dataloader(self) -> Loader | resident.ResidentLoader:
        """Micro-batches of this process, in the order of the stream, without end.

        World size, rank and device come from the trainer; ``accumulate``, ``seed`` and ``batch_sizes`` from its model.
        """
        trainer = self.trainer
        module = getattr(trainer, "lightning_module", None)
        sampler = EndlessSampler(
            self.num,
            batch_size=self.batch_size,
            sizes=self.later_sizes,
            world=getattr(trainer, "world_size", 1),
            rank=getattr(trainer, "global_rank", 0),
            accumulate=getattr(module, "accumulate", 1),
            seed=getattr(module, "seed", 0),
        )
        sampler.start = self._start
        if trainer is not None:
            here = resident.settle(self.dataset, sampler, trainer.strategy.root_device, self.on_device)
            if here is not None:
                return here
        # A whole micro-batch is one look-up in the memory map, so this nag of Lightning's is bad advice here.
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        return Loader(
            self.dataset,
            sampler=sampler,
            batch_size=None,
            num_workers=self.num_workers,
            worker_init_fn=leave_signals_to_the_parent,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # else starting the loader would draw from the global one
        )

    def state_dict(self) -> dict[str, Any]:
        """Images drawn from the stream so far, over all processes (what is prefetched does not count), and the hash."""
        clock = getattr(getattr(self.trainer, "lightning_module", None), "clock", None)
        return {"position": int(getattr(clock, "drawn", self._start)), "content_hash": self.content_hash}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the stream was left.

        Raises:
            UserError: The data are not those that the run began with.
        """
        if state_dict["content_hash"] != self.content_hash:
            raise UserError(
                f"The data have changed since the run began (their hash was {state_dict['content_hash'][:12]} and is "
                f"{self.content_hash[:12]}); restore them, or start a new run."
            )
        self._start = state_dict["position"]
