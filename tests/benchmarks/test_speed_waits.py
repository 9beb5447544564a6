"""No cycle waits for the device: scalars are read when the log writes a row, and then only.

There may be no GPU here, so what would wait for one is counted: operations whose result Python, or the size of the next
tensor, depends on, and copies to the host. Only on the CPU is such a value at hand. Where there is a GPU, CUDA itself
refuses whatever would wait between two rows.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import lightning.pytorch as L
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.speed import recipes
from benchmarks.speed.noise import Noise
from benchmarks.speed.stages import interval
from ganzoo.ablation.timing import Subject
from ganzoo.callbacks import Log
from ganzoo.cli.recipes import find, load, name_of, shipped, summary
from ganzoo.gan import GAN
from ganzoo.models import MLPGAN
from ganzoo.parts import Part, Turn
from ganzoo.penalties import R1
from tests.common import quiet_trainer
from tests.mutants import kills

RECIPES = [name_of(path) for path in shipped() if not summary(path).startswith("overlay")]
QUICK = ("quickstart.yaml", "ring.yaml")

aten = torch.ops.aten
WAITING = {
    aten._local_scalar_dense,  # item, bool, float, int, and numbers that an operation asks of a tensor
    aten.is_nonzero,
    aten.equal,
    aten.nonzero,
    aten.masked_select,
    aten._unique2,
    aten.unique_dim,
    aten.unique_consecutive,
    aten.repeat_interleave.Tensor,
}
#: These wait for a mask: how many of its values are true is the size of the result.
BY_INDEX = {aten.index, aten.index_put, aten.index_put_}

#: Functions that look at a value only where it is on the host, which they ask first.
ON_THE_HOST = {"adaptive.py:never"}

NUM_CYCLES, PER_ROW = 6, 2


class Waits(TorchDispatchMode):
    """Notes who waits, while a cycle runs and between cycles."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = False
        self.found: list[tuple[bool, str]] = []  #: whether inside of a cycle, and where in the code

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        by_mask = func.overloadpacket in BY_INDEX and any(i is not None and i.dtype == torch.bool for i in args[1])
        if by_mask or func in WAITING or func.overloadpacket in WAITING:
            self.note()
        return func(*args, **(kwargs or {}))

    def note(self) -> None:
        frame: Any = sys._getframe(1)
        while frame is not None and "/ganzoo/" not in frame.f_code.co_filename:
            frame = frame.f_back
        code = frame.f_code if frame is not None else self.note.__code__
        self.found.append((self.inside, f"{Path(code.co_filename).name}:{code.co_name}"))


class Count(L.Callback):
    """Counts in the cycles of a fit."""

    def __init__(self) -> None:
        self.waits, self.stack = Waits(), ExitStack()

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        if trainer.global_step:
            return
        cycle = pl_module.cycle

        def watched(loader: Iterator[Any]) -> None:
            self.waits.inside = True
            cycle(loader)
            self.waits.inside = False

        self.stack.enter_context(mock.patch.object(pl_module, "cycle", watched))
        for name in ("tolist", "cpu", "numpy"):  # no operations where the tensor is on the CPU
            self.stack.enter_context(mock.patch.object(Tensor, name, self._noted(getattr(Tensor, name))))
        self.stack.enter_context(self.waits)

    def _noted(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def noted(x: Tensor, *args: Any, **options: Any) -> Any:
            self.waits.note()
            return method(x, *args, **options)

        return noted

    def on_train_end(self, *_: object) -> None:
        self.stack.close()


class Strict(L.Callback):
    """From the first row of the log on, CUDA fails in a cycle that waits for it.

    The cycles before that row are free: what libraries and ganzoo make once on the device is copied there. Lazy terms
    are due again soon behind it.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        cycle, self.num_strict = pl_module.cycle, 0
        for part in pl_module.tricks:
            if interval(part) > 1:
                part.every = PER_ROW

        def strict(loader: Iterator[Any]) -> None:
            if pl_module.clock.cycles < PER_ROW:
                return cycle(loader)
            torch.cuda.set_sync_debug_mode("error")
            try:
                cycle(loader)
            finally:
                torch.cuda.set_sync_debug_mode("default")
            self.num_strict += 1

        self.patch = mock.patch.object(pl_module, "cycle", strict)
        self.patch.start()

    def on_train_end(self, *_: object) -> None:
        self.patch.stop()

    def on_exception(self, *_: object) -> None:
        self.patch.stop()


def strictly(subject: Subject, folder: Path, **options: Any) -> None:
    """Cycles of a fit, of which CUDA refuses those that wait for it."""
    gan, strict = subject.gan, Strict()
    images = subject.data.batch_size * gan.plan.plays[-1].d
    trainer = quiet_trainer(
        max_steps=NUM_CYCLES * max(gan.plan.plays[-1].g, 1),
        default_root_dir=folder,
        callbacks=[strict, Log(every_kimg=PER_ROW * images / 1000)],
        **options,
    )
    try:
        trainer.fit(gan, datamodule=subject.data)
    except RuntimeError as error:
        if "synchronizing CUDA operation" not in str(error):
            raise
        raise AssertionError("a cycle waited for the device") from error
    assert strict.num_strict == NUM_CYCLES - PER_ROW
    with open(folder / "metrics.csv") as file:
        assert len(list(csv.DictReader(file))) == NUM_CYCLES / PER_ROW


def waits(subject: Subject, folder: Path) -> tuple[list[str], int, int]:
    """Places in cycles that waited, how often something between them did, and how many rows were written."""
    gan, data = subject.gan, subject.data
    images = data.batch_size * gan.plan.plays[-1].d
    counting = Count()
    trainer = quiet_trainer(
        max_steps=NUM_CYCLES * max(gan.plan.plays[-1].g, 1),
        default_root_dir=folder,
        callbacks=[counting, Log(every_kimg=PER_ROW * images / 1000)],
    )
    trainer.fit(gan, datamodule=data)
    found = counting.waits.found
    with open(folder / "metrics.csv") as file:
        rows = len(list(csv.DictReader(file)))
    return [where for inside, where in found if inside], sum(not inside for inside, _ in found), rows


def never_inside(subject: Subject, folder: Path) -> None:
    """No cycle waits, and what waits between cycles are the rows, each once per scalar."""
    inside, outside, rows = waits(subject, folder)
    assert [where for where in inside if where not in ON_THE_HOST] == []
    assert rows == NUM_CYCLES / PER_ROW
    scalars = len((folder / "metrics.csv").read_text().splitlines()[0].split(","))
    assert 0 < outside <= rows * scalars


#: Options that make the networks of a recipe small.
RESNET = [f"--model.{name}_{bound}=8" for name in ("generator", "discriminator") for bound in ("width", "max_width")]
STYLES = [
    "--model.channel_base=256",
    "--model.group=8",
    "--model.channel_max=8",
    "--model.latent_dim=8",
    "--model.style_dim=8",
]
SMALL = {
    "MLPGAN": ["--model.hidden=8"],
    "DCGAN": ["--model.width=4", "--model.max_width=8"],
    "ProgressiveGAN": ["--model.channel_base=256", "--model.channel_max=8"],
    "StyleGAN": [*STYLES, "--model.mapping_layers=2"],
    "R3GAN": ["--model.width=8", "--model.max_width=8", "--model.num_blocks=1", "--model.group_size=4"],
    **dict.fromkeys(("SNGAN", "SAGAN", "WGANGP", "BigGAN"), RESNET),
}


def small(name: str) -> Subject:
    """The recipe's game with small networks, on small batches of noise."""
    content = load(find(name))
    options = ["--trainer.accelerator=cpu", *SMALL[content["model"]["class_path"]]]
    if content["data"]["class_path"] == "ImageFolder":
        Path("pictures").mkdir()
        Image.new("RGB", (8, 8)).save("pictures/1.png")
        options += ["--data.path=pictures"]
    if name == "stylegan_256.yaml":
        options += ["--data.image_size=32"]
    found = recipes.subject(recipes.parse(name, None, [*options, "--data.batch_size=8"]))
    found.trainer.clear()
    return found


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.slow]) for n in RECIPES])
def test_no_cycle_of_a_recipe_waits(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    never_inside(small(name), tmp_path / "run")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("name", RECIPES)
def test_no_cycle_of_a_recipe_waits_for_a_gpu(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    strictly(small(name), tmp_path / "run", accelerator="gpu", devices=1)


class Waiting(Part):
    """Looks at a value in each turn of the discriminator."""

    players = ("discriminator",)
    look: Callable[[Tensor], Any]

    def after_backward(self, turn: Turn) -> None:
        assert turn.fake_logits is not None
        self.look(turn.fake_logits.detach())


def looking(look: Callable[[Tensor], Any]) -> Subject:
    """A small game in which somebody looks at a value."""
    gan: GAN = MLPGAN(num_layers=1, hidden=4)
    part = Waiting()
    part.look = look
    gan.tricks.append(part)
    return Subject(gan, Noise([2], batch_size=8))


LOOKS: dict[str, Callable[[Tensor], Any]] = {
    "item": lambda x: x.mean().item(),
    "bool": lambda x: bool((x > 0).all()),
    "float": lambda x: float(x[0]),
    "tolist": lambda x: x.tolist(),
    "cpu": lambda x: x.cpu(),
    "a selection": lambda x: x[x > 0],
    "a number for an operation": lambda x: torch.arange(0, x[0].abs() + 1),
}


@pytest.mark.parametrize("name", LOOKS)
def test_one_that_waits_is_seen(name: str, tmp_path: Path) -> None:
    def check(look: Callable[[Tensor], Any]) -> None:
        never_inside(looking(look), tmp_path / str(id(look)))

    check(lambda x: x.mean())
    kills(check, LOOKS[name])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("name", LOOKS)
def test_one_that_waits_for_a_gpu_is_seen(name: str, tmp_path: Path) -> None:
    def check(look: Callable[[Tensor], Any]) -> None:
        strictly(looking(look), tmp_path / str(id(look)), accelerator="gpu", devices=1)

    check(lambda x: x.mean())
    kills(check, LOOKS[name])


def test_what_is_strict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cycles between the first row and the last, and neither the rows nor what comes behind the fit; here CUDA's
    mode is a word, and a look at a value in the wrong mode fails as CUDA would."""
    mode, modes, turns = ["default"], [], []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda name: mode.__setitem__(0, name))

    def look(x: Tensor) -> None:
        modes.append(mode[0])

    def wait(x: Tensor) -> None:
        turns.append(mode[0])
        if mode[0] == "error":
            raise RuntimeError("called a synchronizing CUDA operation")

    write = Log.on_train_batch_end

    def noted(self: Log, *args: Any, **options: Any) -> None:
        assert mode == ["default"]
        write(self, *args, **options)

    monkeypatch.setattr(Log, "on_train_batch_end", noted)
    strictly(looking(look), tmp_path / "one")
    assert modes == ["default"] * PER_ROW + ["error"] * (NUM_CYCLES - PER_ROW)
    with pytest.raises(AssertionError, match="a cycle waited for the device"):
        strictly(looking(wait), tmp_path / "two")
    assert turns == ["default"] * PER_ROW + ["error"]
    assert mode == ["default"]


def test_lazy_terms_are_due_in_strict_cycles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda name: None)
    penalty, due = R1(every=16), []
    value = penalty.value
    monkeypatch.setattr(penalty, "value", lambda turn: (due.append(turn.number), value(turn))[1])
    gan = MLPGAN(num_layers=1, hidden=4, penalties=[penalty])
    strictly(Subject(gan, Noise([2], batch_size=8)), tmp_path)
    assert due == [0, 2, 4]
