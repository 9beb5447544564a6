"""What to say when the memory is full: the batch that failed, and the largest one that fits."""

from __future__ import annotations

import gc
import traceback
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch

from ganzoo.batches import Real
from ganzoo.parts import PlayerName, Turn

if TYPE_CHECKING:
    from ganzoo.gan import GAN

_CPU_SENTENCES = ("not enough memory", "can't allocate memory", "cannot allocate memory")


def explain_out_of_memory(
    error: BaseException, gan: GAN, datamodule: Any, *, device: torch.device | None = None
) -> str | None:
    """One sentence for an error of memory: the batch size that failed and the largest one that fits.

    It is found by trying: a turn of both players with half the batch, a quarter and so on, on made-up data. So the
    model is of no use afterwards, and this is for a run that has ended.

    Args:
        error: What was raised.
        gan: The model.
        datamodule: The data, with ``batch_size`` and ``shape``.
        device: Where it was trained; default: where the model is. (When a fit ends, Lightning moves it to the CPU.)

    Returns:
        None when the error is of another kind.
    """
    if not is_out_of_memory(error):
        return None
    traceback.clear_frames(error.__traceback__)  # they hold the tensors of the turn that failed
    device = device or gan.device
    world = getattr(gan._trainer, "world_size", 1)
    pieces = gan.accumulate * world
    batch_size, option = _batch_size(gan, datamodule)
    size = batch_size // pieces
    gan.to(device)
    while (size := size // 2) >= 1:
        if _fits(gan, size, tuple(datamodule.shape), device):
            break
    failed = f"The memory of {device} is too small for batches of {batch_size} images"
    if pieces > 1:
        failed += f" in {pieces} pieces of {batch_size // pieces}"
    if size < 1:
        return f"{failed}, and for any smaller batch: use a smaller model or smaller images."
    return (
        f"{failed}; {size * pieces} fit: set {option} to {size * pieces}, or keep it and set model.accumulate "
        f"to {batch_size // (size * world)}, which trains alike in more time."
    )


def _batch_size(gan: GAN, datamodule: Any) -> tuple[int, str]:
    """The size of the batch that failed, and what sets it."""
    begun = [size for place, size in gan.batch_sizes if place <= gan.clock.drawn]
    return (begun[-1], "the batch size of this phase") if begun else (datamodule.batch_size, "data.batch_size")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was missing, on a GPU or for the CPU's allocator."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sentence in str(error).lower() for sentence in _CPU_SENTENCES)


def _fits(gan: GAN, size: int, shape: tuple[int, ...], device: torch.device) -> bool:
    """Whether one turn of each player runs with ``size`` samples, besides the state of an Adam-like optimizer."""
    try:
        moments = [torch.empty_like(p) for p in gan.parameters() if p.requires_grad for _ in range(2)]
        for player in ("discriminator", "generator"):
            _dry_turn(gan, player, size, shape, device)
        del moments
        return True
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)
        gc.collect()
        return False
    finally:
        gan.zero_grad(set_to_none=True)
        gan.meter.clear()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _dry_turn(gan: GAN, name: PlayerName, size: int, shape: tuple[int, ...], device: torch.device) -> None:
    """Forward and backward of one turn as the loop does it, on noise; turn 0 has every lazy penalty."""
    opponent = gan.players["generator" if name == "discriminator" else "discriminator"]
    labels = torch.zeros(size, dtype=torch.int64, device=device) if gan.num_classes else None
    real = Real(torch.rand(size, *shape, device=device) * 2 - 1, labels)
    turn = Turn(gan, name, 0, gan.clock.kimg)
    parts = [part for part in gan.tricks if name in part.players]
    trainer = gan._trainer
    with opponent.resting(), opponent.frozen() if name == "generator" else nullcontext():
        for part in parts:
            part.before_turn(turn)
        with trainer.precision_plugin.forward_context() if trainer is not None else nullcontext():
            loss = gan._loss(turn, parts, real, size)
        torch.autograd.backward(loss)
