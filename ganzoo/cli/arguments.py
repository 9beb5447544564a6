"""The options of ``ganzoo fit`` that are about the run rather than the training; the rest goes to the parser.

They are read before anything heavy is imported, so that a wrong name of a file is told at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ganzoo.cli import recipes
from ganzoo.errors import UserError


@dataclass
class Request:
    """What a command line of ``ganzoo fit`` asks for."""

    arguments: list[str] = field(default_factory=list)  #: for the parser; names of recipes have become paths
    configs: list[Path] = field(default_factory=list)
    imports: list[str] = field(default_factory=list)
    run_dir: Path | None = None
    resume: Path | None = None
    allow_changes: bool = False
    init_from: Path | None = None

    @property
    def all_configs(self) -> list[Path]:
        """The files in the order in which they are stacked."""
        return [*([self.resume / "config.yaml"] if self.resume else []), *self.configs]


def read(arguments: list[str]) -> Request:
    """Sort a command line.

    Raises:
        UserError: For a value that is missing, a config that does not exist, and options that exclude each other.
    """
    request, rest = Request(), list(arguments)
    while rest:
        name, separator, value = rest.pop(0).partition("=")
        if name == "--allow_changes":
            request.allow_changes = True
        elif name == "--ckpt_path":
            raise UserError(
                "--ckpt_path is no option of ganzoo fit: to go on with a run give --resume RUN, and to begin a new one "
                "with its weights --init-from RUN."
            )
        elif name not in _MEANING:
            request.arguments.append(f"{name}{separator}{value}")
        else:
            if not separator:
                value = next_value(name, rest, f": {_MEANING[name]}")
            _take(request, name, value)
    if request.resume and request.run_dir:
        raise UserError("--resume goes on in the run's own directory, so --run_dir cannot be given as well.")
    if request.resume and request.init_from:
        raise UserError(
            "--resume goes on with the run's own weights, so --init-from cannot be given as well: leave one out."
        )
    if request.resume:
        request.arguments = ["--config", str(request.resume / "config.yaml"), *request.arguments]
    return request


def next_value(name: str, rest: list[str], meaning: str = "") -> str:
    """Take the value of an option from the words behind it.

    Raises:
        UserError: There is none; ``meaning`` is the end of the sentence.
    """
    if not rest or rest[0].startswith("--"):
        raise UserError(f"{name} needs a value{meaning}.")
    return rest.pop(0)


def _take(request: Request, name: str, value: str) -> None:
    if name in ("--config", "-c"):
        path = recipes.find(value)
        request.configs.append(path)
        request.arguments += ["--config", str(path)]
    elif name == "--import":
        request.imports.append(value)
    elif name == "--run_dir":
        request.run_dir = Path(value)
    elif name in ("--init-from", "--init_from"):
        request.init_from = Path(value)
    else:
        request.resume = _run(Path(value))


def _run(path: Path) -> Path:
    """The directory of a run that can be resumed."""
    if not path.is_dir():
        raise UserError(f"There is no run {path}: --resume takes the directory of a run, such as runs/quickstart-1.")
    if not (path / "config.yaml").is_file():
        raise UserError(f"The directory {path} holds no config.yaml, so it is no run that can be resumed.")
    if not (path / "checkpoints" / "last.ckpt").is_file():
        raise UserError(
            f"The run {path} ended before its first checkpoint; start it anew with --config {path / 'config.yaml'}."
        )
    return path


_MEANING = {
    "--config": "a YAML file, or the name of a recipe (see ganzoo list)",
    "-c": "a YAML file, or the name of a recipe (see ganzoo list)",
    "--import": "the name of a module of yours",
    "--run_dir": "the directory of the new run",
    "--resume": "the directory of a run",
    "--init-from": "the directory of a run, or a .ckpt file",
    "--init_from": "the directory of a run, or a .ckpt file",
}
