"""``--device`` of commands that compute without a Trainer."""

from __future__ import annotations

import torch

from ganzoo.errors import UserError


def device(name: str) -> torch.device:
    """The device of that name; auto: a GPU if there is one.

    Raises:
        UserError: This machine does not have it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(name)
        torch.zeros(1, device=found)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device was {name}, which this machine does not have: leave it out, or give cpu.") from error
    return found
