"""Where a name or value stands in what the user gave: on the command line or in a config."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from ganzoo.cli import recipes
from ganzoo.cli.arguments import Request
from ganzoo.config import Configurable


@dataclass
class Place:
    """A key that the user wrote."""

    path: str  #: as on the command line: dotted, without init_args
    source: str  #: `` in FILE``, or nothing for the command line
    owner: type | None  #: the class whose argument it was meant to be
    others: tuple[str, ...] = ()  #: further names that are allowed there


class Places:
    """All keys of a request."""

    def __init__(self, request: Request) -> None:
        self.options = [argument.partition("=") for argument in request.arguments]
        self.configs = [(f" in {path}", recipes.load(path)) for path in request.all_configs]

    def find(self, key: str, value: str | None = None) -> Place | None:
        """The last place where ``key`` is a name or its last part: first on the command line, then in configs.

        Args:
            key: The name.
            value: What the setting was, as an error quotes it; if there is a place with that value, it is meant.
        """
        found = list(self._named(key))
        meant = [place for place, given in found if value is not None and value in (given, str(_loaded(given)))]
        return next(iter([*meant, *(place for place, _ in found)]), None)

    def path(self, key: str) -> str:
        """The full name of a setting."""
        place = self.find(key)
        return place.path if place else key

    def where(self, key: str, value: str | None = None) -> str:
        """The full name of a setting, and the file if it is in one; arguments as those of :meth:`find`."""
        place = self.find(key, value)
        return f"{place.path}{place.source}" if place else key

    def naming(self, value: str) -> str:
        """Which setting has a value, in brackets, or nothing."""
        for option, given in self.given():
            if given == value:
                return f" ({option})"
        for source, content in reversed(self.configs):
            for path, _, _, given in _walk(content):
                if given == value:
                    return f" ({path.removesuffix('.class_path')}{source})"
        return ""

    def beside_class_path(self) -> str:
        """The name of a setting that is beside class_path, where only init_args may be."""
        for source, content in reversed(self.configs):
            for path, owner, others, _ in _walk(content):
                if owner and others and path.split(".")[-1] not in others:
                    return f"{path}{source}"
        return "A setting"

    def members(self, path: str, key: str) -> list[str]:
        """Short names of the classes in a list of the configs that have such an option."""
        listed = [
            str(value).rpartition(".")[2]
            for _, content in self.configs
            for found, _, _, value in _walk(content)
            if found == f"{path}.class_path"
        ]
        return [name for name in dict.fromkeys(listed) if (cls := class_named(name)) and key in option_names(cls)]

    def without_value(self, group: str) -> str:
        """The option of a group that is followed by no value."""
        for i, (option, separator, _) in enumerate(self.options):
            after = self.options[i + 1][0] if i + 1 < len(self.options) else "--"
            if option.startswith(group) and not separator and after.startswith("--"):
                return option
        return group

    def given(self) -> Iterator[tuple[str, str]]:
        """Names and values of the command line, the last one first."""
        for i, (option, separator, value) in reversed(list(enumerate(self.options))):
            if option.startswith("--"):
                after = "".join(self.options[i + 1]) if i + 1 < len(self.options) else ""
                yield _plain(option), value if separator else after

    def _named(self, key: str) -> Iterator[tuple[Place, Any]]:
        """All places where ``key`` is a name or its last part, with the values there."""
        for path, given in self.given():
            if key in (path, path.split(".")[-1]):
                yield Place(path, "", self._class_at(path.rpartition(".")[0])), given
        for source, content in reversed(self.configs):
            for path, owner, others, given in _walk(content):
                if key in (path, path.split(".")[-1]):
                    yield Place(path, source, class_named(owner) if owner else None, others), given

    def _class_at(self, path: str) -> type | None:
        """The class that the user chose for a setting, or its default; a member of a list has its class for a name."""
        for option, given in self.given():
            if option == path:
                return class_named(given)
        for _, content in reversed(self.configs):
            for found, _, _, value in _walk(content):
                if found == f"{path}.class_path" or (found == path and isinstance(value, str)):
                    return class_named(str(value))
        parent, _, name = path.rpartition(".")
        if name[:1].isupper():
            return class_named(name)
        owner = self._class_at(parent) if parent else None
        default = _defaults(owner).get(name) if owner else None
        return class_named(default["class_path"]) if isinstance(default, Mapping) and "class_path" in default else None


def class_names(base: type = Configurable) -> list[str]:
    """Names of all loaded classes of a kind that a config can name."""
    known = (cls for cls in _subclasses(Configurable) if issubclass(cls, base))
    return [cls.__name__ for cls in known if not cls.__name__.startswith("_")]


def class_named(name: str) -> type | None:
    """The loaded class of a name or class path."""
    short = name.rpartition(".")[2]
    return next((cls for cls in _subclasses(Configurable) if cls.__name__ == short), None)


def option_names(cls: type) -> list[str]:
    """Arguments of a constructor, with those that it hands on to its bases by ``**``."""
    return list(_defaults(cls))


def _defaults(cls: type) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for base in cls.__mro__:
        if "__init__" in vars(base):
            parameters = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
            for p in parameters:
                if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY):
                    found.setdefault(p.name, p.default)
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                break
    return found


def _subclasses(cls: type) -> Iterator[type]:
    children: list[type] = cls.__subclasses__()
    for child in children:
        yield child
        yield from _subclasses(child)


def _plain(option: str) -> str:
    return option.lstrip("-").rstrip("+").replace(".init_args", "")


def _loaded(given: Any) -> Any:
    """What a value on the command line is read as."""
    try:
        return yaml.safe_load(given) if isinstance(given, str) else given
    except yaml.YAMLError:
        return given


def _walk(content: Any, prefix: str = "", owner: str = "") -> Iterator[tuple[str, str, tuple[str, ...], Any]]:
    """All keys: (path, class whose argument it is, other allowed keys, value)."""
    if isinstance(content, list | tuple):
        for item in content:
            yield from _walk(item, prefix)
    if not isinstance(content, Mapping):
        return
    is_class = isinstance(content.get("class_path"), str)
    others = ("class_path", "init_args") if is_class else ()
    for key, value in content.items():
        if key == "init_args":
            yield from _walk(value, prefix, str(content.get("class_path", "")))
        else:
            path = f"{prefix}.{key}".strip(".").rstrip("+")
            yield path, str(content["class_path"]) if is_class else owner, others, value
            yield from _walk(value, path)
