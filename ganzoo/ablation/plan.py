"""What an ablation is made of, and the directory that keeps it: one plan per directory, which may only grow."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from ganzoo import files
from ganzoo.errors import UserError

BASE = "base"  #: name of the runs without a variation


@dataclass(frozen=True)
class Variation:
    """One way to train: the base's settings with some changed."""

    name: str
    given: str  #: its own options, as on the command line of ``ganzoo fit``; empty for the base
    settings: dict[str, Any]  #: all settings by dotted name, without the seed
    config: str = field(default="", compare=False)  #: the YAML file that its runs are started with
    imports: tuple[str, ...] = ()  #: the user's own modules

    @property
    def config_hash(self) -> str:
        """SHA-256 of the settings."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Run:
    """One training: a variation with a seed, in a directory of its own. What is about it lies beside that."""

    variation: str
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        return f"{self.variation} seed {self.seed}"

    @property
    def log(self) -> Path:
        """What the process wrote to the terminal."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def record(self) -> Path:
        """How the run ended; there is none while it has not."""
        return self.folder.with_name(f"{self.folder.name}.json")


@dataclass
class Plan:
    """A base, its variations (the base is the first of them), and the seeds that each of them is run with."""

    base: str  #: the recipe as it was given
    options: list[str]  #: further options of all runs
    variations: list[Variation]
    seeds: list[int]

    def runs(self, out: Path) -> list[Run]:
        """All runs, seed by seed, so that a plan that was stopped holds as many pairs as possible."""
        return [Run(v.name, seed, out / v.name / f"seed-{seed}") for seed in self.seeds for v in self.variations]

    def variation(self, name: str) -> Variation:
        return next(v for v in self.variations if v.name == name)

    def equals(self, other: Plan) -> bool:
        """Whether both ask for the same runs."""
        same_seeds = sorted(self.seeds) == sorted(other.seeds)
        return same_seeds and {v.name: v.settings for v in self.variations} == {
            v.name: v.settings for v in other.variations
        }

    def state(self) -> dict[str, Any]:
        """The plan as plain data; the configs are files of their own."""
        variations = [asdict(v) | {"config_hash": v.config_hash} for v in self.variations]
        for one in variations:
            del one["config"]
        return {"base": self.base, "options": self.options, "seeds": self.seeds, "variations": variations}


def load(out: Path) -> Plan | None:
    """The plan of a directory; none if it holds none.

    Raises:
        UserError: Its file cannot be read.
    """
    path = out / "plan.json"
    if not path.is_file():
        return None
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        variations = [
            Variation(v["name"], v["given"], v["settings"], _config(out, v["name"]), tuple(v["imports"]))
            for v in state["variations"]
        ]
        return Plan(state["base"], state["options"], variations, state["seeds"])
    except (ValueError, KeyError, OSError) as error:
        raise UserError(f"The plan {path} cannot be read ({error}): give another --out.") from error


def save(plan: Plan, out: Path) -> None:
    """Write the configs that the runs are started with, then the plan."""
    for variation in plan.variations:
        path = out / variation.name / "config.yaml"
        if not path.is_file():
            with files.atomic(path, "w", encoding="utf-8") as file:
                file.write(variation.config)
    files.write_json(out / "plan.json", plan.state())


def merge(old: Plan, new: Plan, out: Path) -> Plan:
    """The old plan with the variations and seeds that the new one adds.

    Raises:
        UserError: Settings of a variation that both have are not the same; the sentence names them.
    """
    known = {v.name: v for v in old.variations}
    for variation in new.variations:
        if variation.name in known and (changed := differences(known[variation.name].settings, variation.settings)):
            raise UserError(
                f"{out} holds another plan, in which {variation.name} differs ({changed}): give another --out, or the "
                "options that it was begun with."
            )
    added = [v for v in new.variations if v.name not in known]
    seeds = [*old.seeds, *(seed for seed in new.seeds if seed not in old.seeds)]
    return Plan(old.base, old.options, [*old.variations, *added], seeds)


def differences(old: Mapping[str, Any], new: Mapping[str, Any], most: int = 4) -> str:
    """The settings in which two runs differ, as ``name: before -> after``; empty if there are none."""
    names = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    parts = [f"{name}: {_short(old.get(name))} -> {_short(new.get(name))}" for name in names[:most]]
    return ", ".join([*parts, *([f"and {len(names) - most} more"] if len(names) > most else [])])


def choose_directory(plan: Plan, parent: Path = Path("ablations")) -> Path:
    """A directory for a plan that was given none: that of the very same plan, else the first free ``NAME-N``."""
    stem = Path(plan.base).stem
    for number in count(1):
        out = parent / f"{stem}-{number}"
        try:
            out.mkdir(parents=True)
        except FileExistsError:
            there = load(out)
            if there is None or not there.equals(plan):
                continue
        return out
    raise AssertionError("numbers do not end")


def check_directory(out: Path) -> None:
    """Refuse a directory that holds something else than an ablation.

    Raises:
        UserError: It does, or is a file.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; give a directory.")
    if out.is_dir() and not (out / "plan.json").is_file() and any(path.name != ".lock" for path in out.iterdir()):
        raise UserError(f"The directory {out} is not empty and holds no ablation: give another --out.")


def _config(out: Path, name: str) -> str:
    return (out / name / "config.yaml").read_text(encoding="utf-8")


def _short(value: Any, limit: int = 80) -> str:
    text = str(value)
    return text if len(text) <= limit else f"{text[:limit]}..."
