"""``ganzoo fit``: what needs no torch; the rest is in ``training.py``."""

from __future__ import annotations

from ganzoo.cli import arguments, facts, importing, recipes, rundir, trust
from ganzoo.errors import UserError


def run(args: list[str]) -> int:
    """Train, or print help; returns the exit code."""
    if args[-1:] in (["--help"], ["-h"]):
        print(HELP)
        return 0
    if args[-1:] == ["--help=all"] or args[-2:] == ["--help", "all"]:
        request = arguments.Request(["--help"])
    else:
        request = arguments.read(args)
        check(request)
    with importing.uncollected():
        from ganzoo.cli import training

    return training.fit(request)


def check(request: arguments.Request) -> None:
    """Refuse at once what can be seen without torch."""
    rundir.check(request.run_dir)
    if request.init_from is not None and not request.init_from.expanduser().exists():
        raise UserError(f"--init-from {request.init_from} does not exist: give a run directory or a .ckpt file.")
    for path in request.all_configs:
        content = recipes.load(path)
        trust.check(content, str(path), request.imports)
        facts.check_config(content, str(path))
    facts.check_options(request.arguments)


HELP = """\
usage: ganzoo fit --config RECIPE [options]
       ganzoo fit --model CLASS --data CLASS [options]
       ganzoo fit --resume RUN [options]

Train a GAN. A run leaves a directory with config.yaml, metrics.csv, samples/, samples.gif and checkpoints/.

  --config FILE            a YAML file or a recipe (ganzoo list); several are stacked, later ones win
  --model CLASS            such as DCGAN; its options are --model.NAME VALUE
  --data CLASS             such as Digits, or ImageFolder with --data.path FOLDER_OR_ARCHIVE
  --run_dir DIR            directory of the run; default: runs/NAME-N, the first free N
  --resume RUN             go on with a run where it stopped; stop, devices and intervals may be changed
  --allow_changes          let --resume change other settings too, but the seed
  --init-from RUN          a new run that begins with the weights of another one, or of a .ckpt file (fine-tuning)
  --seed N                 seed of everything (0)
  --import MODULE          import a module of yours, so that its classes can be named; may be repeated

  --model.total_kimg K     end after K thousand images (200 if nothing ends the run)
  --trainer.max_steps N    end after N updates of the generator
  --model.loss CLASS       such as Hinge, with --model.loss.margin 1
  --model.penalties+=R1    add a penalty, with --model.penalties.gamma 1
  --model.penalties.R1.gamma 5   change a penalty that the recipe has; likewise parts
  --model.parts+=ADA       add another trick (ganzoo list), with --model.parts.target 0.5
  --model.generator_optimizer.lr 1e-4
  --model.ema.half_life_kimg 10
  --data.batch_size N      images per update, over all devices
  --data.labels true       train on classes
  --samples.every_kimg K   interval of the sample grids; likewise --checkpoint. and --log.
  --trainer.devices N      --trainer.accelerator gpu, --trainer.precision bf16-mixed, ...: as in Lightning

  --print_config           print all settings instead of training
  --model.help CLASS       options of a model; likewise --data.help CLASS
  --help=all               every option

examples:
  ganzoo fit --config quickstart.yaml
  ganzoo fit --config quickstart.yaml --model.total_kimg 20 --run_dir short
  ganzoo fit --config dcgan.yaml --data ImageFolder --data.path pictures.zip
  ganzoo fit --config dcgan.yaml --config wandb.yaml
  ganzoo fit --resume runs/quickstart-1 --model.total_kimg 200
  ganzoo fit --config quickstart.yaml --init-from runs/quickstart-1 --model.parts+=FreezeD"""
