"""``--data CLASS --data.NAME VALUE`` and ``--config FILE`` of commands that need data but no model."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ganzoo.cli import recipes, trust
from ganzoo.cli.arguments import Request, next_value
from ganzoo.errors import UserError

if TYPE_CHECKING:
    from ganzoo.data import GANDataModule


def split(arguments: Sequence[str], groups: Sequence[str] = ("data",)) -> tuple[list[str], dict[str, Request]]:
    """Sort a command line: what is left, and for each group of options what describes its data.

    ``--config`` (its section ``data``) and ``--import`` belong to the first group.

    Args:
        arguments: The command line.
        groups: Names of options: ``--NAME CLASS``, ``--NAME.OPTION VALUE``. Of all but the first one, ``--NAME VALUE``
            is left to the command.

    Raises:
        UserError: For a value that is missing, and a config that does not exist.
    """
    found = {name: Request() for name in groups}
    first, left, words = found[groups[0]], list[str](), list(arguments)
    while words:
        word = words.pop(0)
        name, separator, value = word.partition("=")
        group = name.removeprefix("--").partition(".")[0].removesuffix("+")
        ours = name.startswith("--") and group in found and ("." in name or group == groups[0])
        if not ours and name not in ("--config", "-c", "--import"):
            left.append(word)
            continue
        if not separator:
            value = next_value(name, words)
        if ours:
            found[group].arguments += [f"{name}={value}"]
        elif name == "--import":
            first.imports.append(value)
        else:
            first.configs.append(recipes.find(value))
    return left, found


def check(request: Request) -> None:
    """Refuse at once what can be seen without torch.

    Raises:
        UserError: For a config that holds no data, or names a class that is not trusted.
    """
    for path in request.configs:
        content = recipes.load(path)
        trust.check(content, str(path), request.imports)
        if not isinstance(content.get("data"), dict):
            raise UserError(f"{path} has no section data: give a recipe that says its data, or --data CLASS.")


def build(request: Request, command: str) -> GANDataModule:
    """The data that a request describes.

    Raises:
        UserError: For what is not accepted, in one sentence.
    """
    parser, config = _parse(request, command)
    try:
        data: GANDataModule = parser.instantiate(config)["data"]
    except ValueError as error:  # the parser wraps what a constructor raises
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, UserError):
            cause = cause.__cause__
        raise cause or error from error
    return data


def changed(request: Request, changes: Request, name: str, command: str) -> GANDataModule:
    """The data of a request with other options, such as another split.

    Args:
        request: What describes the data.
        changes: Options of the group ``name``, which take the place of the request's.
        name: Of that group.
        command: For the messages.
    """
    both = copy.deepcopy(request)
    both.arguments += [f"--data{word.removeprefix(f'--{name}')}" for word in changes.arguments]
    return build(both, command)


def _parse(request: Request, command: str) -> tuple[Any, Any]:
    from ganzoo.cli import explain, quiet
    from ganzoo.cli.parser import ParseError

    quiet.silence()
    trust.import_modules(request.imports)
    trust.restrict_parser(request.imports)
    parser = _parser(command)
    sections = [f"--data={json.dumps(recipes.load(path)['data'])}" for path in request.configs]
    if not sections and not any(word.startswith("--data=") for word in request.arguments):
        raise UserError(f"{command} needs data: give --data ImageFolder --data.path FOLDER, or --config RECIPE.")
    try:
        return parser, parser.parse_args([*sections, *request.arguments])
    except ParseError as error:
        options = [action.dest for action in parser._actions]
        raise UserError(explain.sentence(str(error), request, options)) from error


def _parser(command: str) -> Any:
    from ganzoo.cli.parser import Parser
    from ganzoo.data import GANDataModule

    parser = Parser(prog=command, allow_abbrev=False)
    parser.add_subclass_arguments(GANDataModule, "data", required=True)
    return parser


def title(data: GANDataModule) -> str:
    """The data in words."""
    pictures = getattr(data, "pictures", None)
    return str(getattr(pictures, "title", type(data).__name__))
