"""The inception score (Salimans 2016, sec. 4): the exponential of the information that a sample gives on its class."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ganzoo.errors import UserError

_ROWS = 4096  #: as many are in float64 at a time


class InceptionScore(NamedTuple):
    """Between 1 (all predictions are the same) and the number of classes."""

    mean: float  #: over splits
    std: float  #: over splits, divided by their number as published


def inception_score(
    logits: Tensor, *, splits: int = 10, shuffle: bool = True, generator: np.random.RandomState | None = None
) -> InceptionScore:
    """exp(mean KL(p(class | sample) || p(class))) in each split, where p(class) is the split's own mean.

    Args:
        logits: Of a classifier, (N, K).
        splits: Parts of nearly equal size.
        shuffle: Draw which samples are in which split, as torch-fidelity does; otherwise splits are runs of samples.
        generator: Of the draw; None: numpy's ``RandomState(2020)``, torch-fidelity's default.

    Raises:
        UserError: When there are fewer samples than splits.
    """
    num = len(logits)
    if not 1 <= splits <= num:
        raise UserError(
            f"The inception score of {num} samples in {splits} splits was asked for: a split needs one sample or more, "
            "so take fewer splits, or more samples."
        )
    order = (generator or np.random.RandomState(2020)).permutation(num) if shuffle else np.arange(num)
    rows = torch.from_numpy(order).to(logits.device)
    scores = [_score(logits, rows[i * num // splits : (i + 1) * num // splits]) for i in range(splits)]
    return InceptionScore(float(np.mean(scores)), float(np.std(scores)))


def _score(logits: Tensor, rows: Tensor) -> float:
    """The mutual information is the entropy of the mean prediction less the mean entropy of predictions."""
    mean = torch.zeros(logits.shape[1], dtype=torch.float64, device=logits.device)
    entropy = torch.zeros((), dtype=torch.float64, device=logits.device)
    for block in torch.split(rows, _ROWS):
        predictions = logits[block].double().softmax(1)
        mean += predictions.sum(0) / len(rows)
        entropy += torch.special.entr(predictions).sum() / len(rows)
    return float((torch.special.entr(mean).sum() - entropy).exp())
