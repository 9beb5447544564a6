"""``ganzoo list``: what there is to name in a recipe, with one line each.

Sources are parsed, not imported: importing the models would take seconds.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import ganzoo
from ganzoo.cli import recipes
from ganzoo.cli.tools import ToolParser
from ganzoo.cli.words import did_you_mean
from ganzoo.errors import UserError

#: Title of each section and the class whose subclasses it shows.
SECTIONS = {
    "models": "GAN",
    "data sets": "GANDataModule",
    "losses": "AdversarialLoss",
    "penalties": "Penalty",
    "parts": "Part",
    "schedules": "Schedule",
    "optimizers": "Optimizer",
    "latents": "Latents",
}


@dataclass
class Entry:
    """A class in a source file."""

    name: str
    bases: list[str]
    summary: str


def run(arguments: list[str]) -> int:
    """Print the list; returns the exit code."""
    parser = ToolParser("list", "Show models, recipes, data sets and parts, each with one line.")
    parser.add_argument("what", nargs="*", metavar="SECTION", help="such as models or recipes")
    wanted = parser.read(arguments).what
    found = sections()
    names = ", ".join(found)
    for title in wanted:
        if title not in found:
            raise UserError(f"There is no section {title}{did_you_mean(title, found, f'there are {names}')}")
    print("\n\n".join(_text(title, found[title]) for title in wanted or found))
    return 0


def sections() -> dict[str, list[tuple[str, str]]]:
    """Names and summaries by section; empty ones are left out."""
    entries = classes(Path(ganzoo.__file__).parent.rglob("*.py"))
    found = {"recipes": [(recipes.name_of(path), recipes.summary(path)) for path in recipes.shipped()]}
    roots = set(SECTIONS.values())
    for title, root in SECTIONS.items():
        found[title] = sorted(
            (entry.name, entry.summary) for entry in entries.values() if _nearest_root(entry, entries, roots) == root
        )
    ordered = ["models", "recipes", *(title for title in found if title not in ("models", "recipes"))]
    return {title: found[title] for title in ordered if found[title]}


def classes(files: Iterable[Path]) -> dict[str, Entry]:
    """All classes of some files by name, private ones included, as they may be bases."""
    found = {}
    for path in files:
        source = path.read_text(encoding="utf-8")
        if "class " not in source:
            continue
        for node in ast.parse(source).body:
            if isinstance(node, ast.ClassDef):
                bases = [base.id for base in node.bases if isinstance(base, ast.Name)]  # torch.optim.Adam is no Adam
                summary = (ast.get_docstring(node) or "").split("\n", 1)[0].rstrip(".")
                found[node.name] = Entry(node.name, bases, summary)
    return found


def _nearest_root(entry: Entry, entries: dict[str, Entry], roots: set[str]) -> str | None:
    """The section's class from which a class that can be used by name derives."""
    if entry.name in roots or entry.name.startswith("_") or entry.summary.startswith("Base of"):
        return None
    todo = list(entry.bases)
    while todo:
        base = todo.pop(0)
        if base in roots:
            return base
        todo += entries[base].bases if base in entries else []
    return None


def _text(title: str, rows: list[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows)
    return "\n".join([title, *(f"  {name:<{width}}  {summary}" for name, summary in rows)])
