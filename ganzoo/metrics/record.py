"""Scores with their protocol, in files that say what was measured, and tables that never mix protocols."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganzoo import __version__, files
from ganzoo.errors import UserError
from ganzoo.metrics.protocol import Protocol, differences

if TYPE_CHECKING:
    from ganzoo.gan import GAN

FORMAT = 1


@dataclass(frozen=True)
class Score:
    """A number, with its spread where the protocol has one."""

    value: float
    std: float | None = None  #: over splits or subsets
    interval: tuple[float, float] | None = None  #: 95 %, over other samples of the two distributions

    def __str__(self) -> str:
        text = f"{self.value:.4g}"
        if self.interval is not None:
            return f"{text} [{self.interval[0]:.4g}, {self.interval[1]:.4g}]"
        return f"{text} ± {self.std:.2g}" if self.std is not None else text


@dataclass(frozen=True)
class Record:
    """What was measured, how, and on what. It has no date: the same measurement gives the same record."""

    subject: str  #: the run, checkpoint or folder, without its place on the disk
    protocol: Protocol
    scores: dict[str, Score]  #: by names that say the extractor
    kimg: float | None = None  #: how long the model had trained
    hashes: dict[str, str] = field(default_factory=dict)  #: of config, checkpoint or images, code
    facts: dict[str, Any] = field(default_factory=dict)  #: plain data: the model's class, its weights, versions

    def state(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "format": FORMAT,
            "subject": self.subject,
            "kimg": self.kimg,
            "scores": {name: asdict(score) for name, score in self.scores.items()},
            "protocol": self.protocol.state(),
            "hashes": self.hashes,
            "facts": self.facts,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Record:
        """The inverse of :meth:`state`.

        Raises:
            UserError: It is no record, of another format, or its protocol was changed.
        """
        if state.get("format") != FORMAT:
            raise UserError(f"It is no score record of format {FORMAT}.")
        try:
            scores = {name: _score(one) for name, one in state["scores"].items()}
            protocol = Protocol.from_state(state["protocol"])
            return cls(state["subject"], protocol, scores, state["kimg"], dict(state["hashes"]), dict(state["facts"]))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise UserError(f"It is no whole score record ({type(error).__name__}: {error}).") from error


def save(records: Sequence[Record], path: str | Path) -> None:
    """Write records as JSON, whole or not at all."""
    files.write_json(path, [record.state() for record in records])


def load(path: str | Path) -> list[Record]:
    """The records of a file.

    Raises:
        UserError: It is missing, or holds something else.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({(error.strerror or '').lower()}): give a record's file.") from error
    except ValueError as error:
        raise UserError(f"{path} is no JSON: give a file that ganzoo evaluate --json wrote.") from error
    if not isinstance(content, list) or not all(isinstance(one, Mapping) for one in content):
        raise UserError(f"{path} holds no score records: give a file that ganzoo evaluate --json wrote.")
    try:
        return [Record.from_state(one) for one in content]
    except UserError as error:
        raise UserError(f"{path} cannot be used: {error}") from error


def compare(records: Sequence[Record]) -> str:
    """A Markdown table of records of one protocol, which is named above it.

    Raises:
        UserError: Their protocols differ; the sentence lists in what.
    """
    if not records:
        raise UserError("There are no records to compare.")
    first = records[0]
    for other in records[1:]:
        if found := differences(first.protocol, other.protocol):
            raise UserError(
                f"{first.subject} and {other.subject} were measured by different protocols ({first.protocol.label} and "
                f"{other.protocol.label}), so their scores cannot be compared: {' '.join(found)}"
            )
    return tables(records)


def tables(records: Sequence[Record]) -> str:
    """A Markdown table for each protocol, which is named above it."""
    groups: dict[str, list[Record]] = {}
    for one in records:
        groups.setdefault(one.protocol.id, []).append(one)
    return "\n\n".join(f"Protocol {group[0].protocol.label}\n\n{table(group)}" for group in groups.values())


def table(records: Sequence[Record]) -> str:
    """A Markdown table, a row per record; of one protocol, which the caller has checked."""
    names = list(dict.fromkeys(name for record in records for name in record.scores))
    lines = ["| | kimg | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    for record in records:
        kimg = "" if record.kimg is None else f"{record.kimg:g}"
        cells = [str(record.scores[name]) if name in record.scores else "" for name in names]
        lines.append(" | ".join([f"| {record.subject}", kimg, *cells]) + " |")
    return "\n".join(lines)


def describe(gan: GAN) -> tuple[dict[str, str], dict[str, Any]]:
    """Hashes and facts of a model and of the code, for its records."""
    hashes, facts = {"code": code_hash()}, {"model": type(gan).__name__, "seed": gan.seed, "ganzoo": __version__}
    facts["has_average"] = gan.generator_ema is not None
    with suppress(TypeError):  # built from networks that have no plain form
        hashes["config"] = hashlib.sha256(json.dumps(gan.config(), sort_keys=True).encode()).hexdigest()
    return hashes, facts


@cache
def code_hash() -> str:
    """SHA-256 of ganzoo's own sources."""
    total, root = hashlib.sha256(), Path(__file__).parents[1]
    for path in sorted(root.rglob("*.py")):
        total.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes())
    return total.hexdigest()


def _score(state: Mapping[str, Any]) -> Score:
    interval = state["interval"]
    return Score(state["value"], state["std"], None if interval is None else (interval[0], interval[1]))
