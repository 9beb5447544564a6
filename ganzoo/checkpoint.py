"""What a checkpoint holds besides Lightning's part, and how one is read without trusting it.

A checkpoint is read with ``weights_only=True``: plain data and tensors, no code. The model inside is named by
class path; such names resolve only to classes of ganzoo and of modules that the user named.
"""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ganzoo import __version__
from ganzoo.config import Config, Configurable, build, class_path
from ganzoo.errors import UserError

if TYPE_CHECKING:
    import lightning.pytorch as L

    from ganzoo.gan import GAN

KEY = "ganzoo"
FORMAT = 3


def header(gan: GAN) -> dict[str, Any]:
    """ganzoo's own entry of a checkpoint: what the state dictionary does not say."""
    return {
        "format": FORMAT,
        "version": __version__,
        "torch": torch.__version__.split("+")[0],
        "model": _config_of(gan),
        "parts": [class_path(type(part)) for part in gan.tricks],
        "data": _config_of(getattr(gan.trainer, "datamodule", None)),
        "class_counts": gan.class_counts,
        "seed": gan.seed,
        "clock": gan.clock.state(),
        "meter": gan.meter.state(),
    }


def restore(gan: GAN, checkpoint: dict[str, Any]) -> None:
    """Set clock, seed, counts of classes and unread scalars as they were when the checkpoint was written."""
    migrate(checkpoint)
    own = checkpoint[KEY]
    gan.seed = own["seed"]
    gan.class_counts = own.get("class_counts") or gan.class_counts  # older checkpoints have none
    gan.clock.load(own["clock"])
    gan.meter.load(own["meter"])


def run_seed(trainer: L.Trainer) -> int:
    """The seed of a run, equal on all ranks: of ``seed_everything``, else of torch's generator."""
    seed = int(os.environ.get("PL_GLOBAL_SEED", torch.initial_seed() % 2**32))
    return int(trainer.strategy.broadcast(seed))


def find(path: str | Path) -> Path:
    """The checkpoint file that a run directory or a path means.

    Raises:
        UserError: When there is none.
    """
    path = Path(path)
    if path.is_dir():
        last = path / "checkpoints" / "last.ckpt"
        if not last.is_file():
            raise UserError(f"{path} holds no checkpoints/last.ckpt: give a run directory or a .ckpt file.")
        return last
    if not path.is_file():
        raise UserError(f"{path} does not exist: give a run directory or a .ckpt file.")
    return path


def read(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU, in the current format.

    Raises:
        UserError: For a file that is none, is damaged, holds code, or is of a newer format.
    """
    file = find(path)
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                if (damaged := archive.testzip()) is not None:  # torch does not look at the checksums
                    raise OSError(f"the checksum of {damaged} is wrong")
        content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{file} holds more than weights and plain data, so it was not loaded.") from error
    except Exception as error:  # a damaged file can make torch's reader fail in any way
        raise UserError(f"{file} is damaged or is no checkpoint ({type(error).__name__} while reading it).") from error
    if not isinstance(content, dict) or KEY not in content:
        raise UserError(f"{file} is no checkpoint of ganzoo: it has no entry {KEY!r}.")
    migrate(content)
    return content


def migrate(content: dict[str, Any]) -> None:
    """Bring an older checkpoint to the current format, in place."""
    own = content.get(KEY)
    if not isinstance(own, dict) or not isinstance(own.get("format"), int):
        raise UserError(f"This checkpoint has no entry {KEY!r}, so it is not one of ganzoo's.")
    if own["format"] < 1 or (not {"clock", "meter", "seed", "model"} <= own.keys() and own["format"] <= FORMAT):
        raise UserError("This checkpoint is damaged: ganzoo's own entry is not whole.")
    if own["format"] > FORMAT:
        raise UserError(
            f"This checkpoint has format {own['format']} (ganzoo {own.get('version')}), and ganzoo {__version__} "
            f"reads up to {FORMAT}: install a newer ganzoo."
        )
    for version in range(own["format"], FORMAT):
        MIGRATIONS[version](content)
        own["format"] = version + 1


def load_model(path: str | Path, modules: Sequence[str] = ()) -> GAN:
    """The model of a run directory or checkpoint with its weights, in evaluation mode.

    Args:
        path: Run directory or checkpoint file.
        modules: Names of the user's own modules whose classes may be used.
    """
    content = read(path)
    config: Config | None = content[KEY]["model"]
    if config is None:
        raise UserError(f"{path} does not say how its model was built, so it can only be loaded by your own code.")
    try:
        gan: GAN = build(config, modules)
        gan.load_state_dict(content["state_dict"])
    except (TypeError, KeyError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} does not fit this version of ganzoo, or is damaged ({reason}).") from error
    restore(gan, content)
    return gan.eval()


def _meter_with_running_numbers(content: dict[str, Any]) -> None:
    """Format 1 kept [values, turns] by name; format 2 also has the order of all values."""
    old: dict[str, list[list[float]]] = content[KEY]["meter"]
    ordered = sorted((turn, name, place) for name, (_, turns) in old.items() for place, turn in enumerate(turns))
    number = {(name, place): count for count, (_, name, place) in enumerate(ordered)}
    content[KEY]["meter"] = {
        "values": {name: values for name, (values, _) in old.items()},
        "turns": {
            name: [(number[name, place], int(turn)) for place, turn in enumerate(turns)]
            for name, (_, turns) in old.items()
        },
    }


def _meter_with_sums(content: dict[str, Any]) -> None:
    """Format 3 also has sums of values that are not kept one by one."""
    meter = content[KEY]["meter"]
    numbers = [count for turns in meter["turns"].values() for count, _ in turns]
    content[KEY]["meter"] = {**meter, "sums": {}, "bad": None, "count": 1 + max(numbers, default=-1)}


#: From format k to k + 1, each changing the dictionary in place.
MIGRATIONS: dict[int, Callable[[dict[str, Any]], None]] = {
    1: _meter_with_running_numbers,
    2: _meter_with_sums,
}


def _config_of(part: Any) -> Config | None:
    try:
        return part.config() if isinstance(part, Configurable) else None
    except TypeError:  # built from networks that have no plain form
        return None
