"""Every part remembers how it was built, so that a checkpoint can rebuild it from plain data.

A configuration is a dictionary ``{"class_path": "ganzoo.losses.Hinge", "init_args": {"margin": 1.0}}`` of
JSON types only. It is what YAML files, checkpoints and run records hold. Building one imports nothing but
ganzoo and the modules that the user named: a checkpoint from a stranger cannot run code.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ganzoo.errors import UserError

Config = dict[str, Any]


class Configurable:
    """Base of everything that a recipe can name: models, data, losses, penalties, schedules, callbacks.

    The arguments of the constructor are kept, so :meth:`config` can give them back.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        self = super().__new__(cls)
        self.__dict__["_init_call"] = (args, kwargs)
        return self

    def config(self) -> Config:
        """``class_path`` and ``init_args`` (defaults included) as plain data."""
        args, kwargs = self.__dict__["_init_call"]
        return {"class_path": class_path(type(self)), "init_args": _init_args(type(self), args, kwargs)}


def class_path(cls: type) -> str:
    """The full dotted name of a class."""
    return f"{cls.__module__}.{cls.__qualname__}"


def _init_args(cls: type, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Config:
    """The arguments by name: those that were given, and the defaults of the class's own signature."""
    parameters = list(inspect.signature(cls).parameters.values())
    positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    found = dict(zip(positional, args, strict=False)) | dict(kwargs)
    for p in parameters:
        if p.default is not p.empty:
            found.setdefault(p.name, p.default)
    return {name: encode(value) for name, value in found.items()}


def encode(value: Any) -> Any:
    """Plain data for a constructor's argument. Raises TypeError for what has no plain form."""
    if isinstance(value, Configurable):
        return value.config()
    if value is None or isinstance(value, bool):
        return value
    for plain in (int, float, str):  # exactly these: a checkpoint refuses their sub-classes, such as numpy's numbers
        if isinstance(value, plain):
            return plain(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping) and "class_path" in value:
        return build(value).config()  # with the defaults that it leaves out
    if isinstance(value, Mapping):
        return {str(k): encode(v) for k, v in value.items()}
    if isinstance(value, Sequence | set | frozenset):
        return [encode(v) for v in value]
    raise TypeError(f"{type(value).__name__} has no plain form, so it cannot be kept in a checkpoint")


def default(cls: type[Configurable], **init_args: Any) -> Any:
    """A part as the default of an argument: plain data, so that no object is shared between two models.

    The receiver turns it into an object of its own with :func:`build`.
    """
    return {"class_path": class_path(cls), "init_args": {k: encode(v) for k, v in init_args.items()}}


def build(config: Any, modules: Sequence[str] = ()) -> Any:
    """The object that ``config`` describes; the inverse of :func:`encode`.

    Args:
        config: Plain data; each dictionary with a ``class_path`` becomes an object.
        modules: Names of the user's own modules that may be imported besides ganzoo.

    Raises:
        UserError: For a class outside of ganzoo and ``modules``, before anything is imported.
    """
    if isinstance(config, Mapping):
        if "class_path" not in config:
            return {k: build(v, modules) for k, v in config.items()}
        cls = resolve(config["class_path"], modules)
        return cls(**{k: build(v, modules) for k, v in (config.get("init_args") or {}).items()})
    if isinstance(config, list | tuple):
        return [build(v, modules) for v in config]
    return config


def resolve(path: str, modules: Sequence[str] = ()) -> type[Configurable]:
    """The part named by ``path``, if it belongs to ganzoo, to one of ``modules``, or is loaded already.

    Raises:
        UserError: For anything else; nothing is imported in that case.
    """
    module, _, name = str(path).rpartition(".")
    if module not in sys.modules and not any(f"{module}.".startswith(f"{root}.") for root in ("ganzoo", *modules)):
        raise UserError(
            f"The class {path!r} belongs neither to ganzoo nor to a module that you named; "
            "if you trust it, name its module with --import."
        )
    try:
        place = sys.modules.get(module) or importlib.import_module(module)
        # Only ganzoo's own modules may answer by a function, which could import something.
        found = getattr(place, name, None) if module.split(".")[0] == "ganzoo" else vars(place).get(name)
    except ImportError as error:
        raise UserError(f"The class {path!r} does not exist in this version of ganzoo ({error}).") from error
    if not (isinstance(found, type) and issubclass(found, Configurable)):
        raise UserError(f"{path!r} is no part that a recipe can name.")
    return found
