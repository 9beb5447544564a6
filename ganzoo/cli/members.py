"""Options of one member of a list, by its class: ``--model.penalties.R1.gamma 5``.

The parser knows no names inside of lists, so these options are taken out before it, and laid over what it has read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from ganzoo.cli.arguments import next_value
from ganzoo.errors import UserError

_OPTION = re.compile(r"--([\w.]+)\.([A-Z]\w*)\.([\w.]+)")


@dataclass(frozen=True)
class Change:
    """One option."""

    of: str  #: the list, dotted, as on the command line
    member: str  #: name of the class
    key: str  #: what of it, dotted
    value: str  #: as it was given

    @property
    def option(self) -> str:
        """As on the command line."""
        return f"--{self.of}.{self.member}.{self.key}"


def split(arguments: Sequence[str]) -> tuple[list[str], list[Change]]:
    """The arguments without those of members, and these.

    Raises:
        UserError: One has no value.
    """
    rest, changes, remaining = [], [], list(arguments)
    while remaining:
        argument = remaining.pop(0)
        name, separator, value = argument.partition("=")
        found = _OPTION.fullmatch(name)
        if found is None:
            rest.append(argument)
            continue
        if not separator:
            value = next_value(name, remaining)
        changes.append(Change(found[1], found[2], found[3], value))
    return rest, changes


def apply(content: dict[str, Any], changes: Sequence[Change]) -> None:
    """Change plain settings in place.

    Raises:
        UserError: There is no such list, or no member of that class in it, or there are several.
    """
    for change in changes:
        _set(_member(content, change), change.key.split("."), yaml.safe_load(change.value))


def _member(content: dict[str, Any], change: Change) -> dict[str, Any]:
    members: Any = content
    for name in change.of.split("."):
        members = _inside(members).get(name)
    if not isinstance(members, list):
        raise UserError(f"There is no option {change.option}: {change.of} is no list of this run.")
    names = [str(_class_of(member)).rpartition(".")[2] for member in members]
    if change.member not in names:
        has = f"has {', '.join(names)}" if names else "is empty"
        raise UserError(
            f"{change.option} was given, but {change.of} {has}: append a member by --{change.of}+={change.member}, and "
            f"then give its options as --{change.of}.{change.key}."
        )
    if names.count(change.member) > 1:
        raise UserError(
            f"{change.option} was given, but {change.of} has {names.count(change.member)} of them: write the list in "
            "YAML."
        )
    member: dict[str, Any] = members[names.index(change.member)]
    return member


def _set(member: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    for key in keys[:-1]:
        inside = _inside(member)
        if not isinstance(inside.get(key), dict):
            inside[key] = {}
        member = inside[key]
    _inside(member)[keys[-1]] = value


def _inside(node: Any) -> dict[str, Any]:
    """Where the settings of a node are: of a class, in its init_args."""
    if not isinstance(node, dict):
        return {}
    inside: dict[str, Any] = node.setdefault("init_args", {}) if "class_path" in node else node
    return inside


def _class_of(member: Any) -> Any:
    return member.get("class_path") if isinstance(member, dict) else member
