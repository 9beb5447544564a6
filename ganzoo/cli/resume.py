"""Going on with a run: what may change, and whether anything is left to do."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganzoo import checkpoint, files
from ganzoo.cli import explain, rundir
from ganzoo.errors import UserError

if TYPE_CHECKING:
    from ganzoo.cli.parser import FitCLI
    from ganzoo.gan import GAN

#: Settings that do not change what is computed: the stop, where and how fast it runs, and what is written when.
FREE = (
    "import",
    "model.total_kimg",
    "trainer.max_steps",
    "trainer.max_time",
    "trainer.logger",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "trainer.accelerator",
    "trainer.profiler",
    "trainer.enable_progress_bar",
    "data.num_workers",
    "data.on_device",
    "samples.every_kimg",
    "checkpoint.every_kimg",
    "checkpoint.keep",
    "log.every_kimg",
    "progress",
)


def check_weights(gan: GAN, run: Path) -> None:
    """Load the weights of a run whose settings were changed, before anything in its directory is.

    Raises:
        UserError: They are of other networks.
    """
    content = checkpoint.read(run)
    try:
        gan.load_state_dict(content["state_dict"])
    except RuntimeError as error:
        first = [*str(error).splitlines()[1:], str(error)][0]  # behind torch's title, if it has one
        reason = explain.one_line(first.strip().rstrip("."), 150)
        raise UserError(
            f"The weights of the run {run} are not those of the changed model ({reason}): leave out what changes its "
            f"networks, or begin a new run with its weights by --init-from {run}."
        ) from error


def prepare(cli: FitCLI, run: Path) -> str | None:
    """Refuse changes that would make another run of it; returns a sentence when there is nothing left to do.

    Raises:
        UserError: A setting was changed that must not be.
    """
    old, new = flat(_old_config(cli, run)), flat(cli.resolved())
    changed = {key: (old.get(key), new.get(key)) for key in sorted({*old, *new}) if old.get(key) != new.get(key)}
    locked = {key: values for key, values in changed.items() if not _is_free(key)}
    if "seed" in locked and (cli.request.allow_changes or len(locked) == 1):
        raise UserError(
            f"The seed of the run {run} is {old['seed']}, which is part of its state, so a resume cannot change it to "
            f"{new['seed']}: leave --seed out, or start a new run."
        )
    if any(key.partition(".")[0] == "init_from" for key in locked):
        raise UserError(
            f"The run {run} has begun already, so that the weights it began with (init_from) cannot be changed: leave "
            "that out, or start a new run."
        )
    if locked and not cli.request.allow_changes:
        named = ", ".join(f"{key}: {before} -> {after}" for key, (before, after) in locked.items())
        raise UserError(
            f"A resumed run keeps its settings, but these were changed ({named}): leave them out, start a new run, or "
            "add --allow_changes."
        )
    if locked:
        print(f"Changed: {', '.join(locked)}", file=sys.stderr)
    clock = checkpoint.read(run)[checkpoint.KEY]["clock"]
    if _awaits_animation(run, new):
        return None
    total_kimg, max_steps = new.get("model.total_kimg"), new["trainer.max_steps"]
    if total_kimg is not None and clock["images"] >= total_kimg * 1000:
        return f"The run {run} is complete, with {clock['images'] / 1000:g} kimg; to go on, raise --model.total_kimg."
    if 0 <= max_steps <= clock["g_turns"]:
        return f"The run {run} is complete, with {clock['g_turns']} steps; to go on, raise --trainer.max_steps."
    return None


def update_config(cli: FitCLI, run: Path) -> None:
    """Keep what the run now goes on with as config.yaml, and the former one as config-N.yaml."""
    if cli.resolved() == cli.resolved(_parse_old(cli, run)):
        return
    config = run / "config.yaml"
    for number in count(1):
        if rundir.write_new(run / f"config-{number}.yaml", config.read_text(encoding="utf-8")):
            break
    with files.atomic(config, "w", encoding="utf-8") as file:
        file.write(rundir.config_text(cli.resolved()))


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by dotted name, as they are written on the command line."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        name = prefix if key == "init_args" else f"{prefix}.{key}".strip(".")
        found |= flat(value, name) if isinstance(value, Mapping) and value else {name: value}
    return found


def _awaits_animation(run: Path, settings: Mapping[str, Any]) -> bool:
    """Whether the run was killed between its last checkpoint and its last files."""
    given = settings["trainer.callbacks"] or []
    wanted = {"samples": settings["samples.gif"]}
    for one in given if isinstance(given, list) else [given]:
        if isinstance(one, Mapping) and one["class_path"].endswith(".Distribution"):
            wanted["laboratory"] = one["init_args"]["gif"]
    return any(gif and (run / name).is_dir() and not (run / f"{name}.gif").is_file() for name, gif in wanted.items())


def _is_free(key: str) -> bool:
    return any(f"{key}.".startswith(f"{free}.") for free in FREE)


def _old_config(cli: FitCLI, run: Path) -> dict[str, Any]:
    return cli.resolved(_parse_old(cli, run))


def _parse_old(cli: FitCLI, run: Path) -> Any:
    """The run's own config, with defaults of this version for what it does not say."""
    return cli.parser.parse_args(["--config", str(run / "config.yaml")])
