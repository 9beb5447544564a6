"""``ganzoo fit`` once Lightning is there: parse, build, train."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import lightning.pytorch as L
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from ganzoo import callbacks
from ganzoo.callbacks.stop import exit_code, was_interrupted
from ganzoo.cli import explain, quiet, resume, rundir, starting, trust
from ganzoo.cli.announce import Announce, set_run_directory
from ganzoo.cli.arguments import Request
from ganzoo.cli.parser import GROUPS, FitCLI, ParseError
from ganzoo.data.sampler import check_divisible
from ganzoo.errors import TrainingError, UserError
from ganzoo.loggers import WandbLogger
from ganzoo.strategy import check_trainer
from ganzoo.trainer import Trainer


def fit(request: Request) -> int:
    """Train what a command line asks for; returns the exit code."""
    cli = _parse(request)
    if request.resume and (complete := resume.prepare(cli, request.resume)):
        print(complete)
        return 0
    seed = cli.config["seed"]
    if not 0 <= seed < 2**32:
        raise UserError(f"seed was {seed}, but must be from 0 to {2**32 - 1}.")
    L.seed_everything(seed, workers=True, verbose=False)
    cli.build()
    if request.resume and request.allow_changes:
        resume.check_weights(cli.model, request.resume)
    starting.load(cli)
    trainer = _trainer(cli)
    with _open_run(cli, trainer):
        _train(cli, trainer)
    return exit_code(trainer)


def prepare(request: Request) -> tuple[FitCLI, Trainer]:
    """Parse and build what a command line asks for, without training it.

    Raises:
        UserError: What ``fit`` would refuse before it trains.
    """
    cli = _parse(request)
    cli.build()
    starting.load(cli)
    return cli, _trainer(cli)


def _parse(request: Request) -> FitCLI:
    quiet.silence()
    trust.import_modules(request.imports)
    trust.restrict_parser(request.imports)
    cli = FitCLI(request)
    try:
        cli.parse()
    except ParseError as error:
        options = [action.dest for action in cli.parser._actions]
        raise UserError(explain.sentence(str(error), request, options)) from error
    starting.settle(cli)
    return cli


def _trainer(cli: FitCLI) -> Trainer:
    config = dict(cli.config_init["trainer"])
    if config["default_root_dir"] is not None:
        raise UserError("trainer.default_root_dir was given, but a run has its own directory: use --run_dir.")
    for name, instead in _INSTEAD.items():
        if config[name] != (1 if name == "accumulate_grad_batches" else None):
            raise UserError(f"trainer.{name} is not for GANs, which have two optimizers: set {instead}.")
    if str(config["strategy"]).startswith(("deepspeed", "fsdp")):
        raise UserError(
            f"The strategy {config['strategy']} cannot train a GAN (no second derivatives, or one optimizer only): "
            "leave trainer.strategy at auto."
        )
    off = {"progress": config["enable_progress_bar"] is False, "checkpoint": config["enable_checkpointing"] is False}
    own = [cli.config_init[key] for key in GROUPS if not off.get(key)]
    config["callbacks"] = [Announce(), *_as_list(config["callbacks"]), *own, callbacks.GracefulStop()]
    if config["logger"] in (None, True):
        config["logger"] = False  # until there is a directory
    try:
        trainer = Trainer(**config)
    except (MisconfigurationException, ValueError) as error:
        raise UserError(f"Lightning refuses these settings of trainer: {explain.one_line(str(error))}") from error
    # All are checked again where they matter; here before a directory is made and other processes start.
    check_trainer(trainer)
    for size in (cli.datamodule.batch_size, *(size for _, size in cli.model.batch_sizes)):
        check_divisible(size, trainer.world_size, cli.model.accumulate)
    cli.model.check_data(cli.datamodule.shape, cli.datamodule.batch_size, trainer.world_size)
    return trainer


def _open_run(cli: FitCLI, trainer: Trainer) -> AbstractContextManager[object]:
    """Make the run's directory with its config.yaml, and hold it inside the block.

    Only the first process does; the others hear of it later.
    """
    held: AbstractContextManager[object] = nullcontext()
    if getattr(rank_zero_only, "rank", 0) == 0:
        run_dir = cli.request.resume
        if run_dir:
            held = rundir.hold(run_dir)
            resume.update_config(cli, run_dir)
        else:
            names = [path.stem for path in cli.request.configs] or [type(cli.model).__name__.lower()]
            run_dir = rundir.create(cli.request.run_dir, names[0], rundir.config_text(cli.resolved()))
            held = rundir.hold(run_dir)
        set_run_directory(trainer, str(run_dir))
        print("".join(f"{note}\n" for note in cli.notes), end="", file=sys.stderr)
    if cli.config["trainer"]["logger"] in (None, True) and importlib.util.find_spec("tensorboard"):
        trainer.loggers = [TensorBoardLogger(trainer.default_root_dir, "tensorboard", "")]
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.use_directory(trainer.default_root_dir)
    return held


def _train(cli: FitCLI, trainer: Trainer) -> None:
    last = cli.request.resume and cli.request.resume / "checkpoints" / "last.ckpt"
    try:
        with _errors_explained(cli, trainer):
            trainer.fit(cli.model, cli.datamodule, ckpt_path=last, weights_only=True)
    except BaseException:
        if not cli.request.resume and cli.model.clock.cycles == 0 and trainer.is_global_zero:
            shutil.rmtree(trainer.default_root_dir)  # made by this process, and nothing was trained
        raise
    if trainer.is_global_zero:
        _say_end(cli, trainer)


@contextmanager
def _errors_explained(cli: FitCLI, trainer: Trainer) -> Iterator[None]:
    """Turn what Lightning and torch raise into sentences, where it is no bug."""
    try:
        yield
    except MisconfigurationException as error:
        raise UserError(explain.one_line(str(error))) from error
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):  # Lightning's way to end, with 1
            raise KeyboardInterrupt from error
        raise
    except Exception as error:
        if type(error).__module__.startswith("wandb"):
            raise UserError(
                f"Weights & Biases refuses ({explain.one_line(str(error), 120)}): run wandb login once, or add "
                "--trainer.logger.offline true."
            ) from error
        if not isinstance(error, RuntimeError | MemoryError):
            raise
        device = trainer.strategy.root_device
        sentence = callbacks.explain_out_of_memory(error, cli.model, cli.datamodule, device=device)
        if sentence is None:
            raise
        raise TrainingError(sentence) from error


def _say_end(cli: FitCLI, trainer: Trainer) -> None:
    run, kimg = trainer.default_root_dir, cli.model.clock.kimg
    if was_interrupted(trainer):
        text = f"Saved and stopped at {kimg:g} kimg."  # the callback has said how to go on
    else:
        more = f", and draw samples with: ganzoo sample {run}" if len(cli.datamodule.shape) == 3 else ""
        text = f"Done at {kimg:g} kimg: see {run}{more}"
    print(text, file=sys.stderr)


_INSTEAD = {
    "gradient_clip_val": "model.generator_clip and model.discriminator_clip",
    "gradient_clip_algorithm": "model.generator_clip and model.discriminator_clip",
    "accumulate_grad_batches": "model.accumulate",
}


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
