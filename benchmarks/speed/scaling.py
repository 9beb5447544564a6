"""What a cycle of a recipe sends and computes: ``python -m benchmarks.speed.scaling RECIPE... [-- OPTIONS OF FIT]``.

Bytes are those of the reductions, one per turn: gradients of the player that moves, its float buffers, and a flag for
each of its tensors (a test counts them in two processes). FLOPs are counted in a real cycle of few images on this
machine, in proportion to the batch. The cost is arithmetic on stated assumptions, not a measurement: a ring among n
devices sends 2 (n - 1) / n times the bytes through each of them, in 2 (n - 1) steps, and nothing runs beside it.

    python -m benchmarks.speed.scaling dcgan.yaml sngan.yaml --devices 8 --bandwidth 200
    python -m benchmarks.speed.scaling stylegan_256.yaml --devices 16 --bandwidth 25 --weak --json out.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.speed.cycles import drive
from benchmarks.speed.recipes import parse, subject
from benchmarks.speed.rows import record, split_options
from ganzoo.ablation.timing import Subject
from ganzoo.files import write_json
from ganzoo.gan import GAN
from ganzoo.players import Player


@dataclass(frozen=True)
class Machine:
    """Assumptions about devices and the wire between them."""

    devices: int
    bandwidth: float  #: bytes per second that one device sends, and receives at the same time
    latency: float  #: seconds of one step of the ring
    flops: float  #: FLOP per second that one device reaches

    def reduction(self, size: float) -> float:
        """Seconds of an all-reduce of so many bytes on a ring (Patarasuk and Yuan 2009)."""
        n = self.devices
        return 2 * (n - 1) * self.latency + sent(size, n) / self.bandwidth


def sent(size: float, devices: int) -> float:
    """Bytes that each device sends in an all-reduce of ``size`` bytes on a ring."""
    return 2 * (devices - 1) / devices * size


def reduced(player: Player) -> int:
    """Bytes that one turn of a player reduces over the devices."""
    parameters = player.active
    numbers = sum(p.numel() for p in parameters) + sum(b.numel() for b in player.float_buffers()) + len(parameters)
    return 4 * numbers


def cycle_reductions(gan: GAN) -> list[int]:
    """Bytes of each reduction of a cycle of the last stage, in their order."""
    play = gan.plan.plays[-1]
    return [reduced(gan.players["discriminator"])] * play.d + [reduced(gan.players["generator"])] * play.g


class Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's
    """Notes what this process gives to each collective operation while the block runs, whoever calls it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.seen: list[tuple[str, int]] = []  #: name of the operation, such as ``allreduce_``, and bytes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        namespace, _, name = func.name().partition("::")
        if namespace == "c10d":
            gathers = name.startswith(("allgather", "gather"))  # what comes back is listed first
            self.seen.append((name, sum(t.numel() * t.element_size() for t in _tensors(args[1 if gathers else 0]))))
        return func(*args, **(kwargs or {}))


def _tensors(given: Any) -> Iterable[Tensor]:
    if isinstance(given, Tensor):
        yield given
    elif isinstance(given, list | tuple):
        for one in given:
            yield from _tensors(one)


def flop_per_cycle(about: Subject, images: int) -> float:
    """Of all devices together, on average over lazy terms: counted with batches of ``images``, times what is missing.

    What does not depend on the batch, such as a spectral norm, is thus counted too often.
    """
    batch = about.data.batch_size
    about.gan.accumulate, about.data.batch_size = 1, min(images, batch)
    return drive(about, lambda cycles: cycles.flop()) * batch / about.data.batch_size


def row(about: Subject, machine: Machine, *, images: int, weak: bool) -> dict[str, Any]:
    """What is counted, and what follows for a machine.

    Args:
        about: A fresh model on data of its shape.
        machine: Assumptions.
        images: Of the batch in which FLOPs are counted.
        weak: Whether each device has the recipe's batch, in place of a share of it.
    """
    gan, batch = about.gan, about.data.batch_size
    sizes = cycle_reductions(gan)
    flop = flop_per_cycle(about, images)
    if weak:
        batch, flop = batch * machine.devices, flop * machine.devices
    computing = flop / machine.devices / machine.flops
    sending = sum(map(machine.reduction, sizes))
    return {
        "model": type(gan).__name__,
        "generator_parameters": sum(p.numel() for p in gan.generator.parameters()),
        "discriminator_parameters": sum(p.numel() for p in gan.discriminator.parameters()),
        "batch": batch,
        "reductions": len(sizes),
        "reduced_mb": round(sum(sizes) / 1e6, 3),
        "sent_mb": round(sent(sum(sizes), machine.devices) / 1e6, 3),
        "gflop": float(f"{flop / 1e9:.4g}"),
        "computing_ms": float(f"{1e3 * computing:.3g}"),
        "sending_ms": float(f"{1e3 * sending:.3g}"),
        "sending_share": round(sending / (sending + computing), 4),
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """As Markdown."""
    titles = ("recipe", "G, D parameters", "batch", "reductions", "sent by each", "computed by all")
    lines = [f"| {' | '.join([*titles, 'computing', 'sending', 'share'])} |", "|---" * 9 + "|"]
    for one in rows:
        cells = [
            f"`{one['recipe']}`",
            ", ".join(f"{one[f'{name}_parameters'] / 1e6:.3g}M" for name in ("generator", "discriminator")),
            *(str(one["batch"]), str(one["reductions"]), f"{one['sent_mb']:.3g} MB", f"{one['gflop']:,.4g} GFLOP"),
            *(f"{one['computing_ms']:.3g} ms", f"{one['sending_ms']:.3g} ms", f"{one['sending_share']:.1%}"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    options, rest = _options(arguments)
    machine = Machine(options.devices, options.bandwidth * 1e9, options.latency * 1e-6, options.tflops * 1e12)
    torch.set_num_threads(options.threads)
    rows = []
    for recipe in options.recipes:
        about = subject(parse(recipe, options.shape, [*rest, "--trainer.accelerator=cpu", "--trainer.precision=32"]))
        rows.append({"recipe": recipe, **row(about, machine, images=options.images, weak=options.weak)})
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    print(table(rows))
    if options.json:
        assumed = {"assumed": machine.__dict__, "weak": options.weak, "flop_counted_with_images": options.images}
        write_json(options.json, record(torch.device("cpu"), rows, **assumed))


def _options(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Ours, and those of ``ganzoo fit`` behind ``--``."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed.scaling",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipes", nargs="+", metavar="RECIPE")
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--bandwidth", type=float, default=200.0, help="GB/s that one device sends (200)")
    parser.add_argument("--latency", type=float, default=10.0, help="microseconds of a step of the ring (10)")
    parser.add_argument("--tflops", type=float, default=50.0, help="TFLOP/s that one device reaches (50)")
    parser.add_argument("--weak", action="store_true", help="the recipe's batch on each device, not shared by them")
    parser.add_argument("--images", type=int, default=16, help="of the batch in which FLOPs are counted (16)")
    parser.add_argument("--shape", nargs="+", type=int, help="of the data, in place of the recipe's own")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    own, rest = split_options(arguments)
    return parser.parse_args(own), rest


if __name__ == "__main__":
    main(sys.argv[1:])
