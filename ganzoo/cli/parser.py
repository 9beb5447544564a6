"""The parser of ``ganzoo fit``: Lightning's, with ganzoo's classes, links and callbacks."""

from __future__ import annotations

import argparse
import copy
import importlib.util
import pkgutil
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import yaml
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from ganzoo import callbacks
from ganzoo.cli import members
from ganzoo.cli.arguments import Request
from ganzoo.cli.facts import FACTS
from ganzoo.data import GANDataModule
from ganzoo.errors import UserError
from ganzoo.gan import GAN
from ganzoo.trainer import Trainer

#: Callbacks with options of their own.
GROUPS = {
    "log": callbacks.Log,
    "samples": callbacks.Samples,
    "checkpoint": callbacks.Checkpoint,
    "progress": callbacks.Progress,
}

#: Where parts are; all of them are loaded, so that their short names resolve.
HOMES = (
    *("models", "data", "losses", "penalties", "tricks", "augment", "health", "laboratory"),
    *("schedules", "optim", "latents", "callbacks", "loggers", "metrics.extractors"),
)

#: Length of a run that was given none.
DEFAULT_KIMG = 200.0


class ParseError(argparse.ArgumentError):
    """What the parser could not accept, in its own many words."""

    def __init__(self, message: str) -> None:
        super().__init__(None, message)


class Parser(LightningArgumentParser):
    """Raises what it cannot accept instead of printing a page.

    Options of a class are handed to a parser of its own; there two things are mended. null comes as Python writes it.
    And of a list of which nothing was said before, the class's default would be lost to what is appended to it.
    """

    def parse_args(  # type: ignore[override]  # argparse has overloads, of which jsonargparse has one
        self, args: Sequence[str] | None = None, namespace: Any = None, **options: Any
    ) -> Any:
        args = None if args is None else [re.sub("=None$", "=null", arg) for arg in args]
        changed = [found[1] for arg in args or [] if (found := re.match(r"--(\w+)\.", arg))]
        return super().parse_args(args, self._with_lists(namespace, changed), **options)

    def parse_object(self, obj: Any, namespace: Any = None, **options: Any) -> Any:
        """What is appended comes as ``{"penalties+": ...}``."""
        appended = [key[:-1] for key in obj.keys() if key.endswith("+")]  # noqa: SIM118  no dict
        return super().parse_object(obj, self._with_lists(namespace, appended), **options)

    def _with_lists(self, namespace: Any, names: list[str]) -> Any:
        """What was said before, with the defaults of those of these options that are lists."""
        missing = {
            action.dest: action.default
            for action in self._actions
            if action.dest in names and isinstance(action.default, list) and action.default
            if namespace is None or action.dest not in namespace
        }
        if not missing:
            return namespace
        before = _namespace(copy.deepcopy(missing))
        if namespace is not None:
            before.update(namespace)
        return before

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise ParseError(message) from ex


def _namespace(value: Any) -> Any:
    """Plain data as jsonargparse keeps them while it reads."""
    made: Any = Namespace  # which has no types
    if isinstance(value, dict):
        return made(**{key: _namespace(one) for key, one in value.items()})
    return [_namespace(one) for one in value] if isinstance(value, list) else value


class FitCLI(LightningCLI):
    """Parses a command line, and builds what it names: ``model``, ``datamodule``, ``trainer``."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.notes: list[str] = []  #: what the user should know when the run begins
        load_parts()
        super().__init__(
            GAN,
            GANDataModule,
            save_config_callback=None,
            trainer_class=Trainer,
            trainer_defaults={
                "max_epochs": -1,
                "num_sanity_val_steps": 0,
                "inference_mode": False,
                "use_distributed_sampler": False,
                "enable_model_summary": False,
            },
            parser_kwargs={
                "allow_abbrev": False,
                "prog": "ganzoo fit",
                "usage": "ganzoo fit [options]",
                "description": "Train a GAN. Options of the run itself (--run_dir, --resume, --import, ...) are in the "
                "short help: ganzoo fit --help.",
            },
            parser_class=Parser,
            subclass_mode_model=True,
            subclass_mode_data=True,
            args=request.arguments,
            run=False,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,  # ganzoo's checkpoints say themselves how to build the model
        )

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--seed", type=int, default=0, help="Seed of all random numbers.")
        parser.add_argument("--import", type=list[str], default=[], help="Modules whose classes the config names.")
        parser.add_argument(
            "--init_from",
            type=str | dict[str, str] | None,
            default=None,
            help="Run or checkpoint whose weights a new run begins with.",
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        for name in FACTS:
            parser.link_arguments("data", f"model.init_args.{name}", self._fact(name), apply_on="instantiate")
        for key, cls in GROUPS.items():
            parser.add_lightning_class_args(cls, key)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Lightning would do everything at once; here each step is a method."""
        self.config: Any = {}

    def _set_seed(self) -> None:
        pass

    def instantiate_classes(self) -> None:
        pass

    def parse(self) -> None:
        """Read the command line and the configs.

        Raises:
            ParseError: For what is not accepted.
        """
        arguments, changes = members.split(self.request.arguments)
        shown = [argument for argument in arguments if argument.startswith("--print_config")] if changes else []
        self.config = self.parser.parse_args([argument for argument in arguments if argument not in shown])
        if changes:
            content = self.resolved()
            members.apply(content, changes)
            self.config = self.parser.parse_object(content)
        if shown:  # the parser would have ended here, before the changes
            print(self.parser.dump(self.config), end="")
            raise SystemExit(0)
        self.config["import"] = list(self.request.imports)
        for key in GROUPS:
            if not hasattr(self.config[key], "keys"):
                raise UserError(
                    f"{key} was {self.config[key]}, but it is a group of settings: see ganzoo fit --help=all."
                )
        self._give_a_stop()

    def build(self) -> None:
        """Make data and model.

        Raises:
            UserError: What a constructor refuses.
        """
        try:
            self.config_init = self.parser.instantiate(self.config)
        except ValueError as error:  # the parser wraps what a link raises
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, UserError):
                cause = cause.__cause__
            raise cause or error from error
        self.datamodule, self.model = self._get(self.config_init, "data"), self._get(self.config_init, "model")

    def resolved(self, config: Any = None) -> dict[str, Any]:
        """All settings as plain data."""
        text = self.parser.dump(self.config if config is None else config, skip_unset=False)
        content: dict[str, Any] = yaml.safe_load(text)
        return content

    def _give_a_stop(self) -> None:
        """Without any YAML a run needs no budget either."""
        model, trainer = self.config["model"]["init_args"], self.config["trainer"]
        if model["total_kimg"] is None and trainer["max_steps"] < 0 and trainer["max_time"] is None:
            model["total_kimg"] = DEFAULT_KIMG
            self.notes.append(f"No end was given, so it is --model.total_kimg {DEFAULT_KIMG:g}.")

    def _fact(self, name: str) -> Callable[[GANDataModule], Any]:
        def compute(data: GANDataModule) -> Any:
            if hasattr(data, name):
                return getattr(data, name)
            model = self.config["model"]["class_path"]
            if name in self.config["model"]["init_args"]:
                raise UserError(
                    f"The model {model.rpartition('.')[2]} needs to know the {name} of its data, and "
                    f"{type(data).__name__} has none: choose another model, such as MLPGAN, or images."
                )
            return None  # the model does not ask for it

        compute.__name__ = name
        return compute


def load_parts() -> None:
    """Import every module that holds parts."""
    for home in HOMES:
        if importlib.util.find_spec(f"ganzoo.{home}"):
            module = importlib.import_module(f"ganzoo.{home}")
            for found in pkgutil.walk_packages(getattr(module, "__path__", ()), f"{module.__name__}."):
                importlib.import_module(found.name)
