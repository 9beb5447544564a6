"""Recipes: where they are, and how a YAML file is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

import ganzoo
from ganzoo.cli.words import did_you_mean
from ganzoo.errors import UserError


def folder() -> Path:
    """Where the shipped recipes are: inside the installed package, or beside it in a source tree."""
    package = Path(ganzoo.__file__).parent
    return package / "configs" if (package / "configs").is_dir() else package.parent / "configs"


def shipped() -> list[Path]:
    """All shipped recipes and overlays, by name; those in folders last."""
    return sorted(folder().rglob("*.yaml"), key=lambda path: (path.parent != folder(), path))


def name_of(path: Path) -> str:
    """The name of a shipped recipe, as ``--config`` takes it: ``quickstart.yaml``, ``failures/instability.yaml``."""
    return path.relative_to(folder()).as_posix()


def find(name: str) -> Path:
    """The file that a name means: as a path from here, else among the shipped recipes. ``.yaml`` may be left out.

    Raises:
        UserError: Neither exists; the sentence says where it was looked for, and the nearest name.
    """
    spellings = [name, *([] if name.endswith((".yaml", ".yml")) else [f"{name}.yaml"])]
    for spelling in spellings:
        if Path(spelling).is_file():
            return Path(spelling)
    place = f"as {Path(name).absolute()}"
    names = [str(path) for path in Path(name).parent.glob("*.yaml")]
    if not Path(name).is_absolute():
        for spelling in spellings:
            if (folder() / spelling).is_file():
                return folder() / spelling
        place = f"neither {place} nor among ganzoo's recipes"
        names += [known for known in map(name_of, shipped()) if ("/" in known) == ("/" in name)]
    raise UserError(f"There is no config {name}, {place}{did_you_mean(spellings[-1], names, 'see ganzoo list')}")


def load(path: Path) -> dict[str, Any]:
    """The content of a YAML file.

    Raises:
        UserError: It is no YAML, or holds something else than names with values.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "cannot be read"
        raise UserError(f"{path}{line} is no valid YAML ({problem}); mend the line, or the one before it.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as YAML ({error}).") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no settings; a config is made of names with values, such as model: and data:.")
    return content


def summary(path: Path) -> str:
    """The first comment line of a recipe."""
    first = path.read_text(encoding="utf-8").split("\n", 1)[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""
