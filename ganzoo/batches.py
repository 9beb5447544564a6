"""Batches of a cycle, as the data gives them and as the model sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from ganzoo.errors import UserError

if TYPE_CHECKING:
    from ganzoo.loop import Loop


class Real(NamedTuple):
    """A prepared micro-batch of real data."""

    data: Tensor
    labels: Tensor | None


def prepared(gan: Loop, batch: Any) -> Real:
    """Data and labels as the model sees them; the datamodule says how, and plain tensors pass through."""
    if isinstance(batch, Real):  # a generator turn looks at the last discriminator turn's batch
        return batch
    prepare = getattr(getattr(gan.trainer, "datamodule", None), "prepare", None)
    if prepare is not None:
        data, labels = prepare(batch, gan.device)
    else:
        data, labels = batch if isinstance(batch, tuple | list) else (batch, None)
        data, labels = data.to(gan.device), None if labels is None else labels.to(gan.device)
    if gan.num_classes and labels is None:
        raise UserError(
            f"The model is conditional on {gan.num_classes} classes, but the data came without labels: ask the "
            "data for them (data.labels), or set model.num_classes to 0."
        )
    return Real(data, labels if gan.num_classes else None)


def joint_sizes(gan: Loop, batches: list[list[Any]]) -> list[int]:
    """Size of each joint batch of a cycle, over ranks and micro-batches; without data, of the generator's."""
    if not batches:
        size = getattr(getattr(gan.trainer, "datamodule", None), "batch_size", None)
        if size is None:
            raise UserError("A stage without discriminator turns needs a data module that says its batch_size.")
        return [int(size)]
    found = [{len(b[0] if isinstance(b, tuple | list) else b) for b in batch} for batch in batches]
    sizes = set().union(*found)
    if len(sizes) > 1 and (not gan.batch_sizes or any(len(one) > 1 for one in found)):
        raise UserError(f"One cycle was given batches of {sorted(sizes)}: have the loader drop its last, smaller one.")
    return [one.pop() * gan.trainer.world_size * gan.accumulate for one in found]
