"""Lightning's remarks that are of no use, or wrong, for a run of ganzoo; everything else is shown."""

from __future__ import annotations

import logging
import os
import warnings

#: Beginnings of warnings that say nothing to act on.
_WARNINGS = (
    r".*dataloader_iter",  # the loop takes its batches itself, by design
    r".*module\(s\) in eval mode",  # the averaged generator
    r".*does not have many workers",
    r".*LeafSpec",
    r".*`isinstance\(treespec, LeafSpec\)`",
    r".*Checkpoint directory .* exists and is not empty",
    r".*`weights_only",
    r".*resuming from a checkpoint saved in the middle of an epoch|.*You're resuming from a checkpoint",
    r".*has no `state_dict`",
)


def silence() -> None:
    """Filter what Lightning prints; to be called when it has been imported, as it sets its levels then."""
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    warnings.formatwarning = _sentence
    for pattern in _WARNINGS:
        warnings.filterwarnings("ignore", pattern)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _sentence(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning as a user reads it, without the place in the code that raised it."""
    return f"warning: {message}\n"
