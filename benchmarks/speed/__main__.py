"""The commands: of recipes, or one of those that :mod:`benchmarks.speed.recipes` names at its end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module

COMMANDS = ("peers", "levers", "gpu", "results")


def main(arguments: Sequence[str]) -> None:
    name = arguments[0] if arguments and arguments[0] in COMMANDS else ""
    run: Callable[[Sequence[str]], None] = import_module(f"benchmarks.speed.{name or 'recipes'}").main
    run(arguments[1:] if name else arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
