"""The command ``ganzoo``: a dispatcher that imports only what the chosen command needs.

Nothing here imports torch, so that ``--help``, ``--version`` and mistyped commands answer at once.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from ganzoo.cli.words import did_you_mean
from ganzoo.errors import TrainingError, UserError

#: Name of each command, the module whose ``run(arguments)`` it is, and what it does.
COMMANDS = {
    "fit": ("ganzoo.cli.fit", "Train a model, or go on with a run."),
    "sample": ("ganzoo.cli.sample", "Draw images from a trained model."),
    "project": ("ganzoo.cli.project", "Find the latents whose images are nearest to given ones."),
    "ablate": ("ganzoo.cli.ablate", "Compare variations of a recipe, with the same seeds."),
    "evaluate": ("ganzoo.cli.evaluate", "Score a model by a protocol: FID, KID, IS, precision and recall."),
    "compare": ("ganzoo.cli.compare", "Put the scores of runs beside each other, at equal images and equal time."),
    "validate": ("ganzoo.cli.validate", "Measure a checkpoint as the evaluation of its run does."),
    "diagnose": ("ganzoo.cli.diagnose", "Name what goes wrong in a run."),
    "extractor": ("ganzoo.cli.extractor", "Train a small classifier whose features scores compare."),
    "suggest": ("ganzoo.cli.suggest", "Choose settings of a model by a published rule, and say why."),
    "list": ("ganzoo.cli.listing", "Show models, recipes, data sets and parts."),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code.

    A user's mistake is printed as one sentence: 2 for what was asked, 1 for a run that had to stop.
    """
    # Waiting threads of torch sleep instead of spinning: small networks on busy cores are twice as fast, or far more.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        return _dispatch(list(sys.argv[1:] if arguments is None else arguments))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1 if isinstance(error, TrainingError) else 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.filename is None:
            raise
        reason = (error.strerror or type(error).__name__).lower()
        print(f"error: {error.filename} cannot be used ({reason}): choose another place, or mend it.", file=sys.stderr)
        return 2


def _dispatch(arguments: list[str]) -> int:
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help", "help"):
        print(_help())
        return 0
    if name in ("-V", "--version"):
        from ganzoo import __version__

        print(f"ganzoo {__version__}")
        return 0
    if name not in COMMANDS:
        kind = "option" if name.startswith("-") else "command"
        raise UserError(f"There is no {kind} {name}{did_you_mean(name, COMMANDS, 'see ganzoo --help')}")
    code: int = importlib.import_module(COMMANDS[name][0]).run(rest)
    return code


def _help() -> str:
    lines = [f"  {name:<9} {summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: ganzoo COMMAND ...",
            "",
            "Train, compare, understand and trust generative adversarial networks.",
            "",
            *lines,
            "",
            "Begin with:  ganzoo fit --config quickstart.yaml",
            "More about a command:  ganzoo COMMAND --help",
        ]
    )
