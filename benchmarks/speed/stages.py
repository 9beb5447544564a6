"""Where the time of a cycle goes: of each player's turn the passes, terms, backward pass and step, and the rest."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as L

from benchmarks.speed.clocks import Clocks, now
from ganzoo.callbacks.base import as_gan
from ganzoo.gan import GAN
from ganzoo.parts import Part

#: Methods of the loop, and what their time is called.
METHODS = {
    "generate": "generator forward",
    "discriminate": "discriminator forward",
    "_backward": "backward",
    "_step": "optimizer",
}


class Stages(L.Callback):
    """Takes the time of every stage of every cycle, each without the stages inside of it.

    On a GPU each boundary waits for the device, so the sum is more than a cycle takes; the shares still tell.
    """

    def __init__(self, num_cycles: int, *, warm: int = 0) -> None:
        """
        Args:
            num_cycles: After so many the fit ends.
            warm: So many before them are not counted.
        """
        self.num_cycles, self.warm = num_cycles, warm
        self.spent: dict[str, list[Clocks]] = defaultdict(list)  #: by stage, one entry per turn or cycle
        self.outside: list[Clocks] = []  #: of each training step, what is not in a cycle; and its cycles
        self._inner: list[Clocks] = []  # of the stages that are open: what was spent in stages inside of each
        self._where = ""
        self._step_begin, self._in_cycles, self._cycles = now(), Clocks(0.0, 0.0), 0

    # ------------------------------------------------------------------ the hooks of a fit

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        gan = as_gan(pl_module)
        self._wrap_cycle(gan)
        for method, stage in METHODS.items():
            self._wrap(gan, method, stage, of_turn=True)
        for part in gan.tricks:
            self._wrap(part, "forward", type(part).__name__, of_turn=True)
        self._wrap(gan, "_update_ema", "average of the generator")
        self._wrap(gan, "_prepare", "data")
        self._wrap_turn(gan)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        end, cycles = now(), as_gan(pl_module).clock.cycles
        done = cycles - self._cycles
        if done and cycles > self.warm:
            self.outside += [((end - self._step_begin) - self._in_cycles).per(done)] * done
        if cycles >= self.num_cycles + self.warm:
            trainer.should_stop = True
        as_gan(pl_module).meter.clear()
        self._step_begin, self._in_cycles, self._cycles = end, Clocks(0.0, 0.0), cycles
        if cycles <= self.warm:
            self.spent.clear()

    # ------------------------------------------------------------------ what was found

    def rows(self, clock: int = 0) -> dict[str, float]:
        """Milliseconds per cycle by stage, in order of size; by CPU time (0) or by the wall clock (1)."""
        cycles = max(len(self.spent["loop"]), 1)
        found = {stage: 1e3 * sum(one[clock] for one in all_) / cycles for stage, all_ in self.spent.items()}
        found["trainer"] = 1e3 * statistics.fmean(one[clock] for one in self.outside) if self.outside else 0.0
        return dict(sorted(found.items(), key=lambda row: -row[1]))

    # ------------------------------------------------------------------ how it is taken

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time inside the block counts for ``name``, save for that of stages within."""
        self._inner.append(Clocks(0.0, 0.0))
        begin = now()
        try:
            yield
        finally:
            whole = now() - begin
            self.spent[name].append(whole - self._inner.pop())
            if self._inner:
                self._inner[-1] = Clocks(*(a + b for a, b in zip(self._inner[-1], whole, strict=True)))

    def _wrap(self, owner: GAN | Part, method: str, name: str, *, of_turn: bool = False) -> None:
        original = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.stage(f"{self._where}: {name}" if of_turn else name):
                return original(*args, **kwargs)

        vars(owner)[method] = timed  # for this fit alone

    def _wrap_turn(self, gan: GAN) -> None:
        original = gan._take_turn

        def timed(name: Any, *args: Any) -> None:
            number = gan.clock.d_turns if name == "discriminator" else gan.clock.g_turns
            intervals = [int(getattr(part, "every", 1)) for part in gan.tricks if name in part.players]
            due = any(every > 1 and number % every == 0 for every in intervals)
            self._where = f"{name}'s turn" + (" with lazy terms" if due else "")
            original(name, *args)

        vars(gan)["_take_turn"] = timed

    def _wrap_cycle(self, gan: GAN) -> None:
        original = gan.cycle

        def timed(loader: Iterator[Any]) -> None:
            begin = now()
            with self.stage("loop"):
                original(self._timed_loader(loader))
            spent = now() - begin
            self._in_cycles = Clocks(*(a + b for a, b in zip(self._in_cycles, spent, strict=True)))

        vars(gan)["cycle"] = timed

    def _timed_loader(self, loader: Iterator[Any]) -> Iterator[Any]:
        while True:
            with self.stage("data"):
                batch = next(loader)
            yield batch


def table(rows: dict[str, float]) -> str:
    """In Markdown."""
    whole = sum(rows.values())
    lines = [f"| {stage} | {ms:.2f} | {100 * ms / whole:.1f} % |" for stage, ms in rows.items()]
    return "\n".join(["| where | ms per cycle | share |", "|---|---|---|", *lines])
