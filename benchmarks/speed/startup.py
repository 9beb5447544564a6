"""What passes before the first cycle of ``ganzoo fit``: ``python -m benchmarks.speed.startup --pairs 5``.

Each pair starts two processes, one after the other: a Python that imports ``lightning.pytorch`` and nothing else, and
``ganzoo fit`` on a recipe whose data are in the cache. Times are from the start of the process: CPU time of all its
threads, which a busy machine changes least, and of the wall. ``added`` is the median over pairs of the first cycle's
begin minus the plain import; the aim is 2 s.

    python -m benchmarks.speed.startup --pairs 5 --json startup.json
    python -m benchmarks.speed.startup --imports          # which packages the time of importing goes to
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

AIM = 2.0  # seconds beside the plain import
PLAIN = "import sys, time; import lightning.pytorch; print(time.process_time(), time.monotonic() - float(sys.argv[1]))"
Marks = dict[str, tuple[float, float]]  # CPU and wall time since the start of the process, by what is done then


def main(arguments: Sequence[str]) -> None:
    options = _options(arguments)
    if options.child is not None:
        trained(options.recipe, options.child)
    with tempfile.TemporaryDirectory() as folder:
        marked(options.recipe, Path(folder))  # fills the cache of images, and Python's of compiled modules
        if options.imports:
            for name, ms in imports(options.recipe, Path(folder)).most_common(20):
                print(f"{ms:8.0f} ms  {name}")
            return
        pairs = [(plain(), marked(options.recipe, Path(folder))) for _ in range(options.pairs)]
    found = summary(pairs)
    print(table(found))
    if options.json:
        import torch

        from benchmarks.speed.rows import record  # it imports torch
        from ganzoo.files import write_json

        write_json(options.json, record(torch.device("cpu"), [{"recipe": options.recipe, **found}]))


def plain() -> tuple[float, float]:
    """CPU and wall time of a process that imports Lightning."""
    cpu, wall = _run(["-c", PLAIN, repr(time.monotonic())]).stdout.split()
    return float(cpu), float(wall)


def marked(recipe: str, folder: Path) -> Marks:
    """The marks of a process that trains a recipe's first cycle."""
    done = _run(["-m", __spec__.name, "--recipe", recipe, "--child", repr(time.monotonic())], folder)
    return {name: (cpu, wall) for name, (cpu, wall) in json.loads(done.stdout.splitlines()[-1]).items()}


def imports(recipe: str, folder: Path) -> Counter[str]:
    """Milliseconds that each top-level package takes to be imported until the first cycle, without what it imports."""
    arguments = ["-X", "importtime", "-m", __spec__.name, "--recipe", recipe, "--child", repr(time.monotonic())]
    total: Counter[str] = Counter()
    for line in _run(arguments, folder).stderr.splitlines():
        if line.startswith("import time:") and line.count("|") == 2:
            own, _, name = line.removeprefix("import time:").split("|")
            if own.strip().isdecimal():
                total[name.strip().partition(".")[0]] += int(own) / 1e3  # type: ignore[assignment]  # counts may be floats
    return total


def _run(arguments: list[str], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its modules compiled
    done = subprocess.run([sys.executable, *arguments], env=environment, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return done


ROOT = Path(__file__).resolve().parents[2]


def trained(recipe: str, start: str) -> NoReturn:
    """In a process of its own: the command ``ganzoo fit``, and when it has done what; ends with the first cycle."""
    marks: Marks = {}

    def mark(name: str) -> None:
        marks[name] = time.process_time(), time.monotonic() - float(start)

    mark("Python")
    from ganzoo.cli import importing
    from ganzoo.cli import main as command

    with importing.uncollected():  # as the command does
        import torch  # noqa: F401  # so that what it takes is known by itself

        mark("import torch")
        import lightning.pytorch  # noqa: F401

        mark("import lightning.pytorch")
        from ganzoo.cli import parser, training
        from ganzoo.gan import GAN
    mark("import ganzoo")
    for owner, name, meaning in (
        (training, "_parse", "settings parsed"),
        (parser.FitCLI, "build", "data and model built"),
        (training, "_trainer", "trainer built"),
        (training, "_open_run", "run directory made"),
        (GAN, "on_train_start", "fit set up"),
    ):
        _after(owner, name, lambda meaning=meaning: mark(meaning))
    cycle = GAN.cycle

    def first(self: GAN, loader: Any) -> None:
        mark("first cycle begins")
        cycle(self, loader)
        mark("first cycle done")
        print(f"\n{json.dumps(marks)}", flush=True)
        os._exit(0)

    setattr(GAN, "cycle", first)  # noqa: B010  # to be told when it is called
    code = command(["fit", "--config", recipe, "--run_dir", tempfile.mkdtemp(dir=".")])
    raise SystemExit(f"ganzoo fit ended with {code} before its first cycle.")


def _after(owner: Any, name: str, function: Any) -> None:
    """Have a function called whenever a method or function of ``owner`` returns."""
    original = getattr(owner, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        function()
        return result

    setattr(owner, name, wrapped)


def summary(pairs: Sequence[tuple[tuple[float, float], Marks]]) -> dict[str, Any]:
    """Medians in seconds, by both clocks.

    Args:
        pairs: The plain import, and the marks of a fit.
    """
    found: dict[str, Any] = {"num_pairs": len(pairs), "aim_s": AIM}
    begins = "first cycle begins"
    for clock, name in enumerate(("cpu", "wall")):
        found |= {
            f"{name}_import_s": _median(one[clock] for one, _ in pairs),
            f"{name}_first_cycle_s": _median(marks[begins][clock] for _, marks in pairs),
            f"{name}_added_s": _median(marks[begins][clock] - one[clock] for one, marks in pairs),
            f"{name}_ratio": _median(marks[begins][clock] / one[clock] for one, marks in pairs),
        }
    names = list(pairs[0][1])
    found["stages"] = {
        name: [_median(marks[name][c] - (marks[before][c] if before else 0.0) for _, marks in pairs) for c in (0, 1)]
        for before, name in zip([None, *names], names, strict=False)
    }
    return found


def _median(values: Any) -> float:
    return round(float(statistics.median(values)), 3)


def table(found: dict[str, Any]) -> str:
    """As Markdown."""
    lines = ["| until | CPU time | wall time |", "|---|---|---|"]
    lines += [f"| {name} | {cpu:.2f} s | {wall:.2f} s |" for name, (cpu, wall) in found["stages"].items()]
    for title, key in (
        ("`import lightning.pytorch` alone", "import"),
        ("first cycle begins", "first_cycle"),
        ("**added**", "added"),
    ):
        lines.append(f"| {title} | {found[f'cpu_{key}_s']:.2f} s | {found[f'wall_{key}_s']:.2f} s |")
    return "\n".join(lines)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="quickstart.yaml")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--imports", action="store_true", help="which packages take how long to import")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
