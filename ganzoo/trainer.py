"""Lightning's Trainer with the defaults that a GAN needs."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import Checkpoint, ProgressBar

from ganzoo import strategy as _registers_gan_ddp  # noqa: F401
from ganzoo.callbacks import Log, Progress
from ganzoo.errors import UserError


class Trainer(L.Trainer):
    """``lightning.pytorch.Trainer`` for GANs: endless epochs, gradients averaged per turn, no validation loop.

    Every argument of Lightning's Trainer is accepted; only defaults differ: there is ganzoo's progress bar, and no
    checkpoint unless :class:`ganzoo.callbacks.Checkpoint` is among the callbacks.
    """

    def __init__(self, *, devices: Any = "auto", strategy: Any = "auto", num_nodes: int = 1, **kwargs: Any) -> None:
        """
        Args:
            devices: Number or list of devices, as in Lightning.
            strategy: ``auto`` and ``ddp`` mean ``gan_ddp`` when there is more than one device.
            num_nodes: Number of machines.
            kwargs: Every other argument of Lightning's Trainer.
        """
        if strategy in ("auto", "ddp") and num_nodes * _num_devices(kwargs.get("accelerator", "auto"), devices) > 1:
            strategy = "gan_ddp"
        for name, value in _DEFAULTS.items():
            if kwargs.get(name) is None:
                kwargs[name] = value
        given = kwargs.get("callbacks") or []
        given = list(given) if isinstance(given, list) else [given]
        if not any(isinstance(callback, Checkpoint) for callback in given):
            kwargs["enable_checkpointing"] = kwargs.get("enable_checkpointing") or False
        if kwargs.get("enable_progress_bar") is None and not any(isinstance(c, ProgressBar) for c in given):
            given.append(Progress())
        # The log comes after the callbacks that measure, so that a row holds what was measured at its mark.
        kwargs["callbacks"] = sorted(given, key=lambda callback: isinstance(callback, Log))
        super().__init__(devices=devices, strategy=strategy, num_nodes=num_nodes, **kwargs)


_DEFAULTS = {
    "max_epochs": -1,  # time is images; data never ends
    "num_sanity_val_steps": 0,
    "inference_mode": False,  # gradients are needed while evaluating (path length, projection)
    "enable_model_summary": False,
    "use_distributed_sampler": False,  # ganzoo's own sampler gives each rank its rows
}


def _num_devices(accelerator: Any, devices: Any) -> int:
    if isinstance(devices, list | tuple):
        return len(devices)
    text = str(devices)
    if text in ("auto", "-1"):
        return max(1, torch.cuda.device_count()) if accelerator in ("auto", "gpu", "cuda") else 1
    if "," in text:
        return len([device for device in text.split(",") if device.strip()])
    if not text.isdecimal():
        raise UserError(f"devices was {devices}, but must be a number, a list of numbers, or auto.")
    return int(text)
