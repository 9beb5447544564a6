"""``--init-from``: the weights that a new run begins with, and what its config.yaml says about them.

A run that is resumed never looks at them again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganzoo import checkpoint, files
from ganzoo.errors import UserError
from ganzoo.transfer import start_from

if TYPE_CHECKING:
    from ganzoo.cli.parser import FitCLI
    from ganzoo.gan import GAN


def settle(cli: FitCLI) -> None:
    """Write into the settings which file a run begins with: where it is, and the hash of its content.

    Raises:
        UserError: There is no such file, or it is not the one that a config.yaml was written for.
    """
    given = cli.request.init_from or cli.config["init_from"]
    if cli.request.resume or given is None:
        return
    known: Mapping[str, Any] = given if isinstance(given, Mapping) else {"path": given}
    if "path" not in known:
        raise UserError("init_from says no path: write init_from: FILE, or give --init-from.")
    file = checkpoint.find(Path(known["path"]).expanduser()).absolute()
    content = files.sha256(file)
    if known.get("sha256", content) != content:
        raise UserError(
            f"{file} is not the file that init_from was written for, whose content was another one (SHA-256 "
            f"{known['sha256'][:12]}..., now {content[:12]}...): give --init-from {file} to begin with it as it is."
        )
    cli.config["init_from"] = {"path": str(file), "sha256": content}


def load(cli: FitCLI) -> None:
    """Begin with those weights, and note what was loaded.

    Raises:
        UserError: They do not fit the model.
    """
    if cli.request.resume:
        return
    gan: GAN = cli.model
    start = cli.config["init_from"]
    if start is not None:
        cli.notes += start_from(gan, start["path"]).lines()
        if gan.ema is not None and gan.ema.rampup is not None:
            cli.notes.append(
                f"       The average follows the weights fast at first (model.ema.rampup {gan.ema.rampup:g}): add "
                "--model.ema.rampup null to begin with the loaded one."
            )
    elif not all(p.requires_grad for p in gan.discriminator.parameters()):
        cli.notes.append("Layers of the discriminator are frozen with random weights: give --init-from RUN.")
