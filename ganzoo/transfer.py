"""A start from another run's weights: what matches by name and shape is copied, and all else stays as it was drawn.

Only weights begin where the other run was: clock, optimizers and the statistics of parts begin anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ganzoo import checkpoint
from ganzoo.config import class_path
from ganzoo.errors import UserError

if TYPE_CHECKING:
    from ganzoo.gan import GAN

NETWORKS = ("generator", "discriminator", "generator_ema")


@dataclass
class Transfer:
    """What a model took from a checkpoint, by the names of its state dictionary."""

    source: str  #: the checkpoint's model and its time
    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  #: of this model, and not in the checkpoint
    reshaped: dict[str, tuple[torch.Size, torch.Size]] = field(default_factory=dict)  #: shapes there and here
    left: list[str] = field(default_factory=list)  #: of the checkpoint, and not in this model
    averaged: bool = True  #: whether the average was in the checkpoint; else it is that of the generator's weights

    def lines(self) -> list[str]:
        """For a reader: how many tensors, and the first names of those that were not loaded."""
        total = len(self.loaded) + len(self.missing) + len(self.reshaped)
        shapes = [f"{name} ({_size(there)} there, {_size(here)} here)" for name, (there, here) in self.reshaped.items()]
        rest = (("not in the checkpoint", self.missing), ("of another shape", shapes), ("left over", self.left))
        without = "" if self.averaged else "; it has no average, which begins with the generator's weights"
        return [
            f"Start: {len(self.loaded)} of {total} tensors from {self.source}{without}",
            *(f"       {len(names)} {what}: {_first(names)}" for what, names in rest if names),
        ]


@torch.no_grad()
def start_from(gan: GAN, path: str | Path) -> Transfer:
    """Copy what matches by name and shape from a run directory or checkpoint into a model that was not trained yet.

    Raw weights go to the generator and the discriminator, averaged ones to the average; where the checkpoint has no
    average, that begins with the generator's weights. Parts that have parameters take their whole state from the part
    of the same class; other parts only have statistics of the other run, which are left there.

    Raises:
        UserError: No parameter matches, a frozen one does not, or the file is no checkpoint.
    """
    content = checkpoint.read(path)
    own, state = content[checkpoint.KEY], content.get("state_dict")
    state = _tensors(state) if isinstance(state, dict) else {}
    if not all(isinstance(tensor, Tensor) for tensor in state.values()) or not state:
        raise UserError(f"{checkpoint.find(path)} is damaged: it holds no weights.")
    name = (own["model"] or {}).get("class_path", "a model").rpartition(".")[2]
    found = Transfer(f"{path} ({name} at {own['clock']['images'] / 1000:g} kimg)")
    found.averaged = gan.generator_ema is None or any(key.startswith("generator_ema.") for key in state)
    prefixes = _prefixes(gan, own.get("parts", []), found.averaged)
    used = set()
    for key, tensor in _tensors(gan.state_dict()).items():
        prefix = next((prefix for prefix in prefixes if key.startswith(prefix)), None)
        if prefix is None:
            continue
        other = f"{prefixes[prefix]}{key.removeprefix(prefix)}"
        used.add(other)
        if other not in state:
            found.missing.append(key)
        elif (given := state[other]).shape != tensor.shape:
            found.reshaped[key] = given.shape, tensor.shape
        else:
            tensor.copy_(given)
            found.loaded.append(key)
    wanted = (*(f"{network}." for network in NETWORKS), *prefixes.values())
    found.left = [key for key in state if key.startswith(wanted) and key not in used]
    _check(gan, found)
    return found


def _tensors(state: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters and buffers: what a module says of itself beside them, such as a level, belongs to the clock."""
    return {key: value for key, value in state.items() if not key.endswith("_extra_state")}


def _prefixes(gan: GAN, parts: Sequence[str], averaged: bool) -> dict[str, str]:
    """How names of this model that can be loaded begin, and how they begin in the checkpoint."""
    found = {f"{network}.": f"{network}." for network in NETWORKS}
    if not averaged:
        found["generator_ema."] = "generator."
    theirs = _numbered(parts)
    for number, key in enumerate(_numbered(class_path(type(part)) for part in gan.tricks)):
        if any(True for _ in gan.tricks[number].parameters()):
            found[f"parts.{number}."] = f"parts.{theirs.index(key) if key in theirs else key[0]}."
    return found


def _numbered(classes: Iterable[str]) -> list[tuple[str, int]]:
    """Each class with how many of it came before."""
    names = list(classes)
    return [(name, names[:place].count(name)) for place, name in enumerate(names)]


def _check(gan: GAN, found: Transfer) -> None:
    """Refuse a start from nothing, and random layers that would never be trained."""
    loaded = set(found.loaded)
    # The bias of a last layer is alike in many models.
    if not any(key in loaded and p.dim() > 1 for key, p in gan.named_parameters()):
        raise UserError(
            f"Nothing was loaded from {found.source}: no weight of this {type(gan).__name__} has the name and shape "
            f"of one there; choose a checkpoint of a {type(gan).__name__} with the same options."
        )
    frozen = [key for key, p in gan.named_parameters() if not p.requires_grad]
    if random := [key for key in frozen if key not in loaded and not key.startswith("generator_ema.")]:
        raise UserError(
            f"{random[0]} is frozen, but {found.source} has none of this name and shape, so that it would stay random: "
            "freeze no layers, or choose another checkpoint."
        )


def _size(shape: torch.Size) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _first(names: list[str], num: int = 3) -> str:
    return ", ".join(names[:num]) + (", ..." if len(names) > num else "")
