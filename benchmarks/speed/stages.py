"""Where the time of a cycle goes: of each player's turn the passes, terms, backward pass and step, and the rest."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import lightning.pytorch as L

from benchmarks.speed.clocks import Clocks, now
from ganzoo.callbacks.base import as_gan
from ganzoo.gan import GAN
from ganzoo.parts import Part, Penalty

FORWARD, BACKWARD, OPTIMIZER = ("generator forward", "discriminator forward"), "backward", "optimizer"

#: Methods of the loop in a turn, and what their time is called.
METHODS = {"generate": FORWARD[0], "discriminate": FORWARD[1], "_backward": BACKWARD, "_step": OPTIMIZER}

#: Hooks in which a penalty may work on its term, beside ``forward``.
HOOKS = ("before_turn", "prepared", "drawn", "generated", "inputs", "logits", "after_backward", "after_step")


class Stage(NamedTuple):
    """A piece of a cycle."""

    name: str
    player: str = ""  #: whose turn it is a piece of; none: of no turn
    lazy: bool = False  #: whether that is a turn in which a lazy term is due
    part: str = ""  #: the trick or penalty that asked for it

    def __str__(self) -> str:
        turn = f"{self.player}'s turn{' with lazy terms' if self.lazy else ''}: " if self.player else ""
        return f"{turn}{self.name}{f' in {self.part}' if self.part and self.part != self.name else ''}"


def interval(part: Part) -> int:
    """Turns from one on which a part acts to the next."""
    return int(getattr(part, "every", 1))


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
        self.spent: dict[Stage, list[Clocks]] = defaultdict(list)
        self.outside: list[Clocks] = []  #: of each training step, what is not in a cycle; and its cycles
        self._inner: list[Clocks] = []  # of the stages that are open: what was spent in stages inside of each
        self._player, self._lazy, self._part = "", False, ""
        self._first = 0  # number of the first cycle of this fit
        self._wrapped: list[tuple[Any, str, Any]] = []  # what was replaced: owner, method, and its own one, if any
        self._ended = False
        self._step_begin, self._in_cycles, self._cycles = now(), Clocks(0.0, 0.0), 0

    # ------------------------------------------------------------------ the hooks of a fit

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        gan = as_gan(pl_module)
        self._first = self._cycles = gan.clock.cycles
        self._wrap_cycle(gan)
        for method, name in METHODS.items():
            self._wrap(gan, method, name, of_turn=True)
        self._wrap(gan.discriminator, "forward", FORWARD[1], of_turn=True)  # the loop calls it for a joint batch
        for part in gan.tricks:
            self._wrap(part, "forward", type(part).__name__, of_turn=True, part=True)
            for hook in HOOKS if isinstance(part, Penalty) else ():
                if getattr(type(part), hook) is not getattr(Penalty, hook):
                    self._wrap(part, hook, type(part).__name__, of_turn=True, part=True)
        self._wrap(gan, "_update_ema", "average of the generator")
        self._wrap(gan, "_prepare", "data")
        self._wrap(gan.meter, "add", "logging")
        self._wrap_turn(gan)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for owner, method, own in reversed(self._wrapped):
            del vars(owner)[method]
            if own is not None:
                vars(owner)[method] = own
        self._wrapped.clear()

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        end, cycles = now(), as_gan(pl_module).clock.cycles
        done, counted = cycles - self._cycles, cycles - self._first - self.warm
        if done and counted > 0:
            self.outside += [((end - self._step_begin) - self._in_cycles).per(done)] * done
        if counted >= self.num_cycles:
            trainer.should_stop = self._ended = True  # after one step more, which does not count
        as_gan(pl_module).meter.clear()
        self._step_begin, self._in_cycles, self._cycles = end, Clocks(0.0, 0.0), cycles
        if counted <= 0:
            self.spent.clear()

    # ------------------------------------------------------------------ what was found

    def rows(self, clock: int = 0) -> dict[str, float]:
        """Milliseconds per cycle by stage, in order of size; by CPU time (0) or by the wall clock (1)."""
        found = {str(stage): self._ms(stage, clock) for stage in self.spent}
        found["trainer"] = 1e3 * statistics.fmean(one[clock] for one in self.outside) if self.outside else 0.0
        return dict(sorted(found.items(), key=lambda row: -row[1]))

    def parts(self, clock: int = 0) -> dict[str, float]:
        """Milliseconds per cycle of what every cycle has, in the order in which it comes.

        Penalties are all terms of the players' losses beside the adversarial one: their own time, in all of their
        hooks, and by how much backward passes are longer in turns with lazy terms. That of a term of every turn is in
        ``backward``.
        """
        found = {"data": self._ms(Stage("data"), clock)}
        for player in ("discriminator", "generator"):
            mine = [stage for stage in self.spent if stage.player == player]
            own = sum(self._ms(s, clock) for s in mine if s.part)
            extra = self._longer(player, clock)
            backward = sum(self._ms(s, clock) for s in mine if s.name == BACKWARD) - extra
            found[f"{player[0].upper()} forward"] = sum(
                self._ms(s, clock) for s in mine if s.name in FORWARD and not s.part
            )
            found |= {f"{player[0].upper()} backward": backward, f"{player[0].upper()} penalties": own + extra}
        found["optimizers"] = sum(self._ms(stage, clock) for stage in self.spent if stage.name == OPTIMIZER)
        rows = self.rows(clock)
        found["EMA"], found["logging"] = rows.get("average of the generator", 0.0), rows.get("logging", 0.0)
        return found | {"loop": rows.get("loop", 0.0), "trainer": rows["trainer"]}

    def _ms(self, stage: Stage, clock: int) -> float:
        spent = self.spent.get(stage, [])
        return 1e3 * sum(one[clock] for one in spent) / max(len(self.spent[Stage("loop")]), 1)

    def _longer(self, player: str, clock: int) -> float:
        """Milliseconds per cycle by which backward passes are longer in turns with lazy terms than in the others."""
        lazy, plain = (Stage(BACKWARD, player, due) for due in (True, False))
        if not (self.spent.get(lazy) and self.spent.get(plain)):
            return 0.0
        share = len(self.spent[lazy]) / len(self.spent[plain])
        return max(0.0, self._ms(lazy, clock) - share * self._ms(plain, clock))

    # ------------------------------------------------------------------ how it is taken

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        """Time inside the block counts for the stage, save for that of stages within."""
        self._inner.append(Clocks(0.0, 0.0))
        begin = now()
        try:
            yield
        finally:
            whole = now() - begin
            spent = whole - self._inner.pop()
            if not self._ended:
                self.spent[stage].append(spent)
            if self._inner:
                self._inner[-1] = Clocks(*(a + b for a, b in zip(self._inner[-1], whole, strict=True)))

    def _wrap(self, owner: Any, method: str, name: str, *, of_turn: bool = False, part: bool = False) -> None:
        original = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            outer, self._part = self._part, name if part else self._part
            with self.stage(Stage(name, self._player, self._lazy, self._part) if of_turn else Stage(name)):
                found = original(*args, **kwargs)
            self._part = outer
            return found

        self._replace(owner, method, timed)

    def _replace(self, owner: Any, method: str, function: Any) -> None:
        self._wrapped.append((owner, method, vars(owner).get(method)))
        vars(owner)[method] = function  # for this fit alone

    def _wrap_turn(self, gan: GAN) -> None:
        original = gan._take_turn

        def timed(name: Any, *args: Any) -> None:
            number = gan.clock.d_turns if name == "discriminator" else gan.clock.g_turns
            intervals = [interval(part) for part in gan.tricks if name in part.players]
            self._player, self._lazy = name, any(every > 1 and number % every == 0 for every in intervals)
            original(name, *args)

        self._replace(gan, "_take_turn", timed)

    def _wrap_cycle(self, gan: GAN) -> None:
        original = gan.cycle

        def timed(loader: Iterator[Any]) -> None:
            begin = now()
            with self.stage(Stage("loop")):
                original(self._timed_loader(loader))
            spent = now() - begin
            self._in_cycles = Clocks(*(a + b for a, b in zip(self._in_cycles, spent, strict=True)))

        self._replace(gan, "cycle", timed)

    def _timed_loader(self, loader: Iterator[Any]) -> Iterator[Any]:
        while True:
            with self.stage(Stage("data")):
                batch = next(loader)
            yield batch


def table(rows: dict[str, float]) -> str:
    """In Markdown."""
    whole = sum(rows.values())
    lines = [f"| {stage} | {ms:.2f} | {100 * ms / whole:.1f} % |" for stage, ms in rows.items()]
    return "\n".join(["| where | ms per cycle | share |", "|---|---|---|", *lines])
