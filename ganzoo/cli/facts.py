"""What a model learns from its data, so that it is said once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ganzoo.errors import UserError

#: Each is linked to the model's argument of the same name, if it has one; beside it, what to set instead.
FACTS = {
    "image_size": "set data.image_size",
    "channels": "set data.channels",
    "num_classes": "set data.labels to true or false",
    "shape": "set the options of data",
}


def check_config(content: Mapping[str, Any], source: str) -> None:
    """Refuse a fact that is given to the model in a config, which would be overridden without a word."""
    model = content.get("model")
    if not isinstance(model, Mapping):
        return
    given = {**model, **(model.get("init_args") or {})}
    for name in FACTS:
        if name in given:
            _refuse(f"model.{name} in {source}", name)


def check_options(arguments: Sequence[str]) -> None:
    """Refuse a fact that is given to the model on the command line."""
    for argument in arguments:
        option = argument.partition("=")[0]
        for name in FACTS:
            if option in (f"--model.{name}", f"--model.init_args.{name}"):
                _refuse(option, name)


def _refuse(given: str, name: str) -> None:
    raise UserError(f"{given} cannot be set, as the model's {name} comes from data: leave it out, and {FACTS[name]}.")
