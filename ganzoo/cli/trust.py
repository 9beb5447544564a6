"""What a config may name: a file from a stranger must not be able to run code.

Class paths resolve to ganzoo, to the parts of Lightning that a Trainer takes, and to modules that the user named on
this command line. Nothing else is imported, whatever a file says about itself.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ganzoo.errors import UserError

#: Modules whose classes every config may name.
ALLOWED = (
    "ganzoo",
    "lightning.pytorch.callbacks",
    "lightning.pytorch.loggers",
    "lightning.pytorch.profilers",
    "lightning.pytorch.strategies",
    "lightning.pytorch.plugins",
    "lightning.fabric.plugins",  # where some of pytorch.plugins are defined
)


def check(content: Mapping[str, Any], source: str, imports: Sequence[str]) -> None:
    """Refuse a config that names anything else, before it is parsed.

    Args:
        content: What the file holds.
        source: Its name, for the sentence.
        imports: Modules that the user named.

    Raises:
        UserError: The sentence says which class or module, and what to do.
    """
    for module in content.get("import") or []:
        if str(module) not in imports:
            raise UserError(f"{source} uses the module {module}: if you trust it, add --import {module}.")
    for path in _class_paths(content):
        if "." in path and not is_allowed(path, imports):
            module = path.rpartition(".")[0]
            raise UserError(
                f"{source} names the class {path}, which belongs neither to ganzoo nor to a module that you named; "
                f"if you trust it, add --import {module}."
            )


def is_allowed(path: str, imports: Sequence[str]) -> bool:
    """Whether a class path lies in an allowed module."""
    return any(f"{path}.".startswith(f"{root}.") for root in (*ALLOWED, *imports))


def import_modules(names: Sequence[str]) -> None:
    """Import the user's modules, also from the current directory.

    Raises:
        UserError: There is no such module.
    """
    if names and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise  # the module is there, but misses one of its own
            hint = f"; did you mean {name.removesuffix('.py')}?" if name.endswith(".py") else ""
            raise UserError(f"There is no module {name}, neither installed nor in {os.getcwd()}{hint}.") from error


def restrict_parser(imports: Sequence[str]) -> None:
    """Have the parser refuse every other import path, also where a plain word is read as one."""
    from jsonargparse import set_parsing_settings

    set_parsing_settings(
        import_path_denylist=["*"],
        import_path_allowlist=[*ALLOWED, *imports],
        instantiate_subclass_spec_in_any=False,
    )


def _class_paths(content: Any) -> Iterator[str]:
    if isinstance(content, Mapping):
        if isinstance(content.get("class_path"), str):
            yield content["class_path"]
        for value in content.values():
            yield from _class_paths(value)
    elif isinstance(content, list | tuple):
        for value in content:
            yield from _class_paths(value)
