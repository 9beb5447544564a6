"""The parser of all commands but ``fit``: argparse, whose errors are sentences here."""

from __future__ import annotations

import argparse
from typing import NoReturn

from ganzoo.cli.words import did_you_mean
from ganzoo.errors import UserError


class ToolParser(argparse.ArgumentParser):
    """Refuses with one sentence, and with the nearest valid option."""

    def __init__(self, command: str, description: str) -> None:
        super().__init__(f"ganzoo {command}", description=description, allow_abbrev=False)

        self.instead = dict[str, str]()  #: what is often taken for an option, and how it is given

    def read(self, arguments: list[str]) -> argparse.Namespace:
        """The arguments.

        Raises:
            UserError: One is not accepted.
        """
        found, unknown = self.parse_known_args(arguments)
        if unknown:
            given = unknown[0].partition("=")[0]
            if not given.startswith("-"):
                raise UserError(f"{given!r} was not expected; see {self.prog} --help.")
            if given in self.instead:
                raise UserError(f"There is no option {given}: give {self.instead[given]}.")
            names = [name for action in self._actions for name in action.option_strings]
            raise UserError(f"There is no option {given}{did_you_mean(given, names, f'see {self.prog} --help')}")
        return found

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message.removeprefix('argument ')}; see {self.prog} --help.")
