"""Turns as graphs: recorded once, then replayed by the device alone, with no work of Python for their operations.

On a GPU a small network's turn is thousands of short operations, and the host is slower to ask for them than the device
to do them. A turn of each kind runs as usual a few times; then it is recorded, from the first hook of the parts to the
last, and replayed from there on. What differs from turn to turn is put into tensors that the graph reads: the real
batch, every random number (:mod:`ganzoo.tape`), learning rates, and numbers that follow a schedule. So a replayed turn
does what the turn would have done. Whatever else Python would decide is part of the turn's kind, by
:meth:`ganzoo.parts.Part.graph_key`; where that cannot be, turns run as usual, and one sentence says why.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from ganzoo import internals
from ganzoo.batches import Real
from ganzoo.optim import can_be_recorded, rates_in_tensors
from ganzoo.parts import PlayerName, Turn
from ganzoo.replay import has_hooks, is_compiled
from ganzoo.tape import Tape

if TYPE_CHECKING:
    from ganzoo.loop import Loop

WARM_UP = 3  #: turns of a kind that run as usual before one is recorded, for what libraries choose and keep at first


class Recorder(Protocol):
    """What a device must offer."""

    def __init__(self, device: torch.device) -> None: ...

    def aside(self) -> AbstractContextManager[None]:
        """A block in which a turn runs as usual, where a later one will be recorded."""

    def record(self, function: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        """The operations of a function without their execution: a tensor that it makes, and what executes them."""

    def wait(self) -> None:
        """Until what was replayed is done."""


class CUDARecorder:
    """CUDA graphs, which share one pool of memory.

    Nothing in the pool is needed beyond a replay, save for the scalars, which are copied at once; so graphs may be
    replayed in any order.
    """

    def __init__(self, device: torch.device) -> None:
        cuda: Any = torch.cuda  # whose streams have no types
        self.device, self.pool, self.stream = device, cuda.graph_pool_handle(), cuda.Stream(device)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """On the stream that is recorded from: tensors that autograd keeps between turns belong to a stream."""
        usual = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(usual)
        with torch.cuda.stream(self.stream):
            yield
        usual.wait_stream(self.stream)

    def record(self, function: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        """Other threads, such as those of loaders, may go on using the device meanwhile."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"):
            made = function()
        return made, graph.replay

    def wait(self) -> None:
        torch.cuda.synchronize(self.device)


#: By type of device.
RECORDERS: dict[str, type[Recorder]] = {"cuda": CUDARecorder}


#: What Python decides in a turn: whose it is first, then shapes, modes, and the parts' own keys.
Kind = tuple[PlayerName, Hashable]


@dataclass
class _Graph:
    """A recorded turn, and the tensors that it reads."""

    batch: list[Real] | None
    tape: Tape
    rates: list[Tensor]  #: of the optimizer's groups
    names: list[str]  #: of the scalars
    scalars: Tensor
    replay: Callable[[], None]


class Graphs:
    """Those of one fit."""

    def __init__(self, gan: Loop, recorder: Recorder) -> None:
        self.gan, self.recorder = gan, recorder
        self.num_turns = self.num_replayed = 0
        self.stopped_for: str | None = None  #: why turns run as usual after all
        self._graphs: dict[Kind, _Graph] = {}
        self._warm: dict[Kind, tuple[int, Tape]] = {}  # how many ran as usual, and the numbers of the last one
        self._references: dict[PlayerName, Hashable] = {}  # of the graphs of a player

    @classmethod
    def of(cls, gan: Loop, *, is_plain: bool) -> Graphs | None:
        """None, and a sentence, where turns cannot be recorded.

        Args:
            gan: The model in a fit.
            is_plain: Whether Lightning has no part in backward passes and steps.
        """
        why_not = reason(gan, is_plain)
        if why_not is not None:
            _tell(why_not)
            return None
        return cls(gan, RECORDERS[gan.device.type](gan.device))

    @property
    def num_graphs(self) -> int:
        """How many there are now."""
        return len(self._graphs)

    def take(self, turn: Turn, batch: list[Any] | None, size: int) -> None:
        """One update of one player on a joint batch of ``size``: by its graph, or as usual."""
        gan = self.gan
        self.num_turns += 1
        for m in range(gan.accumulate):
            with gan.drawing(turn, m, size):
                if batch is not None:
                    batch[m] = gan._prepare(batch[m])
        kind = _kind(gan, turn, batch, size)
        if kind not in self._graphs:
            if self._warm.get(kind, (0,))[0] < WARM_UP:
                self._run(kind, turn, batch, size)
                return
            if (why_not := self._record(kind, turn, batch, size)) is not None:
                self.stop(why_not)
                gan.update(turn, batch, size)
                return
        self._replay(self._graphs[kind], turn, batch)
        self.num_replayed += 1

    def check(self) -> None:
        """Forget the graphs of a player if a tensor that they refer to was replaced, or a mode or setting changed."""
        for player, known in list(self._references.items()):
            if known != _references(self.gan, player):
                self.recorder.wait()
                del self._references[player]
                for kind in [kind for kind in self._warm if kind[0] == player]:
                    del self._warm[kind]
                    self._graphs.pop(kind, None)

    def stop(self, why: str) -> None:
        """From here on turns run as usual."""
        self.recorder.wait()
        self._graphs.clear()
        self._warm.clear()
        self.gan.graphs, self.stopped_for = None, why
        _tell(why)

    def _run(self, kind: Kind, turn: Turn, batch: list[Any] | None, size: int) -> None:
        """The turn as usual, and its numbers on a tape; then it is known whether it could have been a graph."""
        gan, tape = self.gan, Tape(self.gan.device)
        number = self._warm.get(kind, (0,))[0] + 1
        generators = [torch.default_generator]
        if gan.device.type == "cuda":
            generators.append(torch.cuda.default_generators[gan.device.index or 0])
        foreign = [generator.get_state() for generator in generators]
        before = _references(gan, turn.player)
        turn.scheduled = tape.scheduled
        with self.recorder.aside(), tape.noting(gan.seed, turn.player, turn.number, kimg=turn.kimg):
            gan.update(turn, batch, size)
        self._warm[kind] = number, tape
        if not all(torch.equal(g.get_state(), state) for g, state in zip(generators, foreign, strict=True)):
            self.stop("a network or a part draws from torch's own generator, and not from ganzoo.streams")
        elif number == WARM_UP and before != _references(gan, turn.player):
            self.stop("a network or a part replaces one of its tensors, instead of changing it in place")

    def _record(self, kind: Kind, turn: Turn, batch: list[Any] | None, size: int) -> str | None:
        """Why it failed, or None: the turn itself is still to be done."""
        gan, tape, names = self.gan, self._warm[kind][1], list[str]()
        optimizer = gan.player_optimizers[turn.player]
        ours = None if batch is None else [Real(x.clone(), None if y is None else y.clone()) for x, y in batch]
        # torch's fused Adam reads a rate in single precision on a GPU, and as it is on a CPU.
        dtype = torch.float32 if gan.device.type == "cuda" else torch.float64
        rates = [torch.zeros((), dtype=dtype, device=gan.device) for _ in optimizer.optimizer.param_groups]
        turn.scheduled = tape.scheduled

        def function() -> Tensor:
            apart = internals.uncounted(optimizer), rates_in_tensors(optimizer.optimizer, rates)
            with gan.meter.aside() as scalars, tape.played(), apart[0], apart[1]:
                gan.update(turn, ours, size)
            names[:] = [name for name, _ in scalars]
            return torch.stack([value for _, value in scalars])

        optimizer.zero_grad()  # gradients of the recorded turn are made in the graph's own memory
        try:
            scalars, replay = self.recorder.record(function)
        except RuntimeError as error:
            return f"a turn of the {turn.player} could not be recorded ({str(error).strip().splitlines()[0]})"
        finally:
            turn.scheduled = None
        optimizer.zero_grad()
        self._references.setdefault(turn.player, _references(gan, turn.player))
        self._graphs[kind] = _Graph(ours, tape, rates, names, scalars, replay)
        return None

    def _replay(self, graph: _Graph, turn: Turn, batch: list[Any] | None) -> None:
        gan, optimizer = self.gan, self.gan.player_optimizers[turn.player]
        for ours, given in zip(graph.batch or [], batch or [], strict=True):
            for tensor, now in zip(ours, given, strict=True):
                if tensor is not None:
                    tensor.copy_(now)
        graph.tape.fill(gan.seed, turn.player, turn.number, kimg=turn.kimg)
        for rate, group in zip(graph.rates, optimizer.optimizer.param_groups, strict=True):
            rate.fill_(group["lr"])
        optimizer._on_before_step()
        graph.replay()
        optimizer._on_after_step()
        for name, value in zip(graph.names, graph.scalars.clone().unbind(), strict=True):
            gan.meter.add(name, value, turn.number)


def _kind(gan: Loop, turn: Turn, batch: list[Real] | None, size: int) -> Kind:
    parts = [part for part in gan.tricks if turn.player in part.players]
    shapes = None if batch is None else tuple((x.data.shape, x.data.dtype, x.labels is None) for x in batch)
    decided = tuple(part.graph_key(turn) for part in parts)
    return turn.player, (size, shapes, turn.full_precision, gan.judges_in_groups, decided)


def _references(gan: Loop, player: PlayerName) -> Hashable:
    """The tensors that a turn of a player reads and changes, and what else is as it was when it was recorded."""
    optimizer, networks = gan.player_optimizers[player].optimizer, (gan.generator, gan.discriminator)
    modules = [module for root in (*networks, gan.loss, *gan.tricks) for module in root.modules()]
    tensors = [x for m in modules for x in (*m._parameters.values(), *m._buffers.values()) if x is not None]
    state = [x for of_one in optimizer.state.values() for x in of_one.values() if isinstance(x, Tensor)]
    options = [
        (name, value)
        for group in optimizer.param_groups
        for name, value in group.items()
        if name not in ("params", "lr", "initial_lr")
    ]
    return (
        tuple((x.data_ptr(), x.requires_grad) for x in tensors),
        tuple(module.training for module in modules),
        tuple(x.data_ptr() for x in state),
        tuple(options),
        gan.players[player].dormant,
    )


def reason(gan: Loop, is_plain: bool) -> str | None:
    """Why no turn can be recorded, as far as that is known before the first one."""
    if gan.device.type not in RECORDERS:
        return f"graphs are of {' and '.join(RECORDERS).upper()}, and the model is on {gan.device.type}"
    if not is_plain:
        return (
            "Lightning takes part in backward passes or steps, for several devices, a loss scaler, or the hooks of a "
            "callback or of the model"
        )
    if any(play.shared for play in gan.plan.plays):
        return "a pass of the generator is shared by turns of both players (Play.shared)"
    for part in gan.tricks:
        if part.players and not (vars(type(part)).get("capturable") and part.capturable):
            return f"{type(part).__name__} does not say that its turns can be replayed (Part.capturable)"
    for player, optimizer in gan.player_optimizers.items():
        if not can_be_recorded(optimizer.optimizer):
            name = type(gan.players[player].optimizer).__name__
            return f"the steps of {name}, the {player}'s optimizer, cannot be recorded, while those of Adam can"
    for network in (gan.generator, gan.discriminator):
        if is_compiled(network):
            return f"{type(network).__name__} is compiled, which has graphs of its own"
        if has_hooks(network):
            return f"a layer of {type(network).__name__} has a hook, which a replayed turn would not call"
    return None


def _tell(why: str) -> None:
    rank_zero_warn(f"Turns run as usual, not as graphs: {why}.")
