"""Speed of recipes against what the machine can do: ``python -m benchmarks.speed RECIPE... [-- OPTIONS OF FIT]``.

A cycle is all discriminator turns, the generator's, both optimizers and the EMA, through ``Trainer.fit``, with real
batches in memory as floats; no loading, logging or callbacks. images/s are real images of the discriminator's turns.
FLOPs are 2 per multiply-add, double backward included. The ceiling is the best of a 2048-cube matrix product and a
3x3 convolution of 256 to 256 channels on 32 images of 32x32 in channels_last, in float32, on the same threads, measured
between the rounds of the cycle. Shares and the index are medians over rounds, in CPU time on a CPU (a machine may be
shared), in wall time on a GPU.

    python -m benchmarks.speed quickstart.yaml dcgan.yaml --json out.json
    python -m benchmarks.speed --shape 3 32 32 -- --model DCGAN --model.width 32 --data.batch_size 64
    python -m benchmarks.speed dcgan.yaml --stages                    # where the time of a cycle goes
    python -m benchmarks.speed dcgan.yaml --vs "--model.ema null"     # both by turns: the ratio of a cycle's time
    python -m benchmarks.speed dcgan.yaml --compare out.json          # the index against that of an earlier run
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import shlex
import statistics
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.module_tracker import ModuleTracker

from benchmarks.scores.records import commit, machine
from benchmarks.speed.clocks import Clocks, now, silence
from benchmarks.speed.noise import Noise
from benchmarks.speed.stages import Stages, table
from ganzoo import __version__
from ganzoo.ablation.timing import Subject, compare
from ganzoo.callbacks.base import as_gan
from ganzoo.cli import trust
from ganzoo.cli.arguments import read
from ganzoo.cli.parser import FitCLI
from ganzoo.gan import GAN
from ganzoo.trainer import Trainer


def main() -> None:
    options, rest = _options()
    torch.set_num_threads(options.threads)
    older = {row["recipe"]: row for row in json.loads(options.compare.read_text())["rows"]} if options.compare else {}
    rows = []
    for recipe in options.recipes or [None]:
        row: dict[str, Any] = {"recipe": recipe or shlex.join(rest)}
        if options.vs is not None:
            sides = [subject(parse(recipe, options.shape, [*rest, *more])) for more in ([], shlex.split(options.vs))]
            row |= {"vs": options.vs, **asdict(compare(*sides, seconds=options.seconds))}
        elif options.stages:
            row |= {"stages_ms": stages(subject(parse(recipe, options.shape, rest)))}
            print(table(row["stages_ms"]))
        else:
            row |= measure(parse(recipe, options.shape, rest), options.rounds, options.steps)
        if row["recipe"] in older and "index" in row:
            row["index_ratio"] = round(row["index"] / older[row["recipe"]]["index"], 3)
        rows.append(row)
        print(json.dumps(row), flush=True)
    if options.json:
        device = torch.device("cuda" if rows[-1].get("device") == "cuda" else "cpu")
        versions = {"ganzoo": __version__, "torch": torch.__version__, "lightning": version("lightning")}
        facts = {**versions, "commit": commit(), "machine": machine(device), "rows": rows}
        options.json.write_text(json.dumps(facts, indent=1) + "\n")


def _options() -> tuple[argparse.Namespace, list[str]]:
    """Ours, and those of ``ganzoo fit`` behind ``--``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", metavar="RECIPE")
    parser.add_argument("--shape", nargs="+", type=int, help="of the data, in place of the recipe's own")
    parser.add_argument("--steps", type=int, help="cycles per round; default: a second, with all lazy penalties")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--stages", action="store_true", help="where the time of a cycle goes, instead of its speed")
    parser.add_argument(
        "--vs", metavar="OPTIONS", help="options of fit: the time of a cycle with them over that without"
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="of --vs")
    parser.add_argument("--compare", type=Path, metavar="OLD", help="a --json of before, on a machine of this kind")
    given = sys.argv[1:]
    at = given.index("--") if "--" in given else len(given)
    return parser.parse_args(given[:at]), given[at + 1 :]


def parse(recipe: str | None, shape: list[int] | None, rest: list[str]) -> FitCLI:
    """Model and data as ``ganzoo fit`` would build them."""
    arguments = ["--config", recipe] if recipe else []
    if shape:
        arguments += ["--import", "benchmarks.speed.noise", "--data", "Noise", f"--data.shape={shape}"]
    request = read([*arguments, *rest])
    trust.import_modules(request.imports)
    trust.restrict_parser(request.imports)
    cli = FitCLI(request)
    silence()
    cli.parse()
    cli.build()
    return cli


def subject(cli: FitCLI) -> Subject:
    """The recipe's model in its last stage, without an end, on data of its shape from memory."""
    gan, data, settings = cli.model, cli.datamodule, cli.config["trainer"]
    gan.plan.plays = gan.plan.plays[-1:]
    gan.total_kimg = None
    noise = Noise(list(data.shape), classes=data.num_classes, batch_size=data.batch_size)
    return Subject(gan, noise, {name: settings[name] for name in ("accelerator", "precision")})


def fit(subject: Subject, callback: L.Callback) -> Trainer:
    """Train until the callback ends it."""
    trainer = Trainer(
        **subject.trainer,
        devices=1,
        max_steps=10**9,  # never reached; without a budget the model would refuse
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(subject.gan, datamodule=subject.data)
    return trainer


def stages(subject: Subject, num_cycles: int = 48) -> dict[str, float]:
    """Milliseconds per cycle by stage, over whole intervals of lazy terms."""
    period = lazy_period(subject.gan)
    taken = Stages(period * math.ceil(num_cycles / period), warm=period * math.ceil(3 / period))
    trainer = fit(subject, taken)
    return {name: round(ms, 3) for name, ms in taken.rows(_clock(trainer)).items()}


def _clock(trainer: L.Trainer) -> int:
    """Which of the clocks counts: CPU time on a CPU, which may be shared."""
    return 0 if trainer.strategy.root_device.type == "cpu" else 1


def measure(cli: FitCLI, rounds: int, steps: int | None) -> dict[str, Any]:
    """One row of the table."""
    about = subject(cli)
    gan, data = about.gan, about.data
    meter = Rounds(data.batch_size * gan.plan.plays[0].d, rounds, steps or 0, lazy_period(gan))
    trainer = fit(about, meter)
    clock = _clock(trainer)
    images = meter.images_per_cycle
    speeds = [images / cycle_.wall for cycle_, _ in meter.rounds]
    rates = [meter.flop_per_cycle / cycle_[clock] for cycle_, _ in meter.rounds]
    ceilings = [ceiling[clock] for _, ceiling in meter.rounds]
    share = statistics.median(rate / ceiling for rate, ceiling in zip(rates, ceilings, strict=True))
    flop_per_image = meter.flop_per_cycle / images
    return {
        "model": type(gan).__name__,
        "device": trainer.strategy.root_device.type,
        "threads": torch.get_num_threads(),
        "generator_parameters": sum(p.numel() for p in gan.generator.parameters()),
        "discriminator_parameters": sum(p.numel() for p in gan.discriminator.parameters()),
        "batch": data.batch_size,
        "d_per_g": gan.plan.plays[0].d / max(gan.plan.plays[0].g, 1),
        "cycles_per_round": meter.num_cycles,
        "gflop_per_image": float(f"{flop_per_image / 1e9:.5g}"),
        "ms_per_cycle": round(1e3 * images / statistics.median(speeds), 3),
        "images_per_second": round(statistics.median(speeds), 2),
        "ceiling_gflops": round(statistics.median(ceilings) / 1e9, 2),
        "share_of_ceiling": round(share, 4),
        "index": round(1e12 * share / flop_per_image, 2),  # images/s per TFLOP/s of the ceiling
        "peak_memory_mb": round(_peak_memory(trainer.strategy.root_device) / 2**20),
    }


class Rounds(L.Callback):
    """Times rounds of whole cycles, and the ceiling after each; the first round counts FLOPs."""

    def __init__(self, images_per_cycle: int, num_rounds: int, num_cycles: int, period: int) -> None:
        self.images_per_cycle, self.num_rounds, self.period = images_per_cycle, num_rounds, period
        self.num_cycles = num_cycles  #: per round; found in the second round if it is 0
        self.rounds: list[tuple[Clocks, Clocks]] = []  #: seconds per cycle, and FLOP/s of the ceiling by both clocks
        self.flop_per_cycle = 0.0
        self._counter: FlopCounterMode | None = None
        self._begin, self._since, self._warm = now(), 0, False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        as_gan(pl_module).add_mark(self.images_per_cycle * self.period / 1000)  # a step ends where a period does

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        end, cycles = now(), as_gan(pl_module).clock.cycles
        done = cycles - self._since
        if not cycles:
            self._counter = FlopCounterMode(display=False)
            self._counter.mod_tracker = NoTracker()
            self._counter.__enter__()  # type: ignore[no-untyped-call]  # torch's
            return
        if done % self.period:
            return
        if self._counter is not None:
            self._counter.__exit__(None, None, None)  # type: ignore[no-untyped-call]  # torch's
            self.flop_per_cycle, self._counter = self._counter.get_total_flops() / done, None
        elif not self._warm:  # the counter has slowed down the first round
            self._warm = True
            wanted = self.num_cycles or 1.0 / (end - self._begin).per(done).wall
            self.num_cycles = self.period * math.ceil(wanted / self.period)
        elif done < self.num_cycles:
            return
        else:
            self.rounds.append(((end - self._begin).per(done), ceiling(pl_module.device)))
            trainer.should_stop = len(self.rounds) >= self.num_rounds
        self._begin, self._since = now(), cycles


class NoTracker(ModuleTracker):
    """Of modules, whose hooks do not allow ``autograd.grad``; all FLOPs are counted together."""

    def __enter__(self) -> NoTracker:
        return self

    def __exit__(self, *args: object) -> None:
        pass


def _peak_memory(device: torch.device) -> int:
    """Bytes: of tensors on a GPU, else of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@torch.no_grad()
def ceiling(device: torch.device) -> Clocks:
    """FLOP/s, by both clocks, of the better one of two dense operations in float32."""
    a, b = torch.randn(2, 2048, 2048, device=device)
    images = torch.randn(32, 256, 32, 32, device=device).to(memory_format=torch.channels_last)
    weight = torch.randn(256, 256, 3, 3, device=device).to(memory_format=torch.channels_last)
    best = Clocks(0.0, 0.0)
    repeats = 1 if device.type == "cpu" else 50
    for flop, function in (
        (2 * 2048**3, lambda: a @ b),
        (2 * 32 * 32 * 32 * 256 * 256 * 9, lambda: torch.conv2d(images, weight, padding=1)),
    ):
        function()
        begin = now()
        for _ in range(repeats):
            function()
        seconds = now() - begin
        best = Clocks(*(max(old, flop * repeats / spent) for old, spent in zip(best, seconds, strict=True)))
    return best


def lazy_period(gan: GAN) -> int:
    """Cycles after which every lazy penalty has had its turn equally often."""
    return math.lcm(*(int(getattr(part, "every", 1)) for part in gan.tricks))


if __name__ == "__main__":
    main()
