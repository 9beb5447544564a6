"""Numbers on a tape are those that a turn draws, and then those that another one would have drawn."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ganzoo import streams
from ganzoo.schedules import Linear
from ganzoo.tape import NotOnTape, Tape
from tests.mutants import kills

CPU = torch.device("cpu")


def draws() -> list[Tensor]:
    """What a turn may do: several draws of a purpose, of a part of the samples, of all together, and once more."""
    found = [streams.randn(6, 2, purpose="a"), streams.rand(6, purpose="b"), streams.randn(12, purpose="a")]
    mark = streams.mark()
    found += [streams.randint(9, 6, purpose="a"), streams.rand(5, purpose="odd")]
    with streams.replay(mark):
        found += [streams.randint(9, 6, purpose="a")]
    for _ in range(2):
        with streams.thinned(3, "thin"):
            found += [streams.randn(2, 3, purpose="a")]
    values: dict[str, Tensor] = {}
    for _ in range(2):
        with streams.kept(values):
            found += [streams.randn(6, purpose="kept")]
    return [*found, streams.rand(6, purpose="b")]


def turn(number: int, start: int = 0) -> list[Tensor]:
    with streams.stream(3, "turn", number, start=start, num=6, total=12, device=CPU):
        return draws()


def check(kind: type[Tape]) -> None:
    """With the rows of a second process, too."""
    for start in (0, 6):
        tape, plain = kind(CPU), [turn(number, start) for number in range(3)]
        with tape.noting(3, "turn", 0, kimg=0.0):
            noted = turn(0, start)
        assert all(map(torch.equal, noted, plain[0]))
        for number in (2, 1):
            tape.fill(3, "turn", number, kimg=0.0)
            with tape.played():
                played = turn(0, start)  # whatever the parts are now
            assert all(map(torch.equal, played, plain[number]))


class Stale(Tape):
    def fill(self, *parts: int | str, kimg: float) -> None:
        pass


class OneGenerator(Tape):
    """Draws of one purpose do not follow each other."""

    def _stream(self, source, parts):
        stream = super()._stream(source, parts)
        inner = stream.draw

        def draw(*arguments):
            stream.generators.clear()
            return inner(*arguments)

        stream.draw = draw
        return stream


class ForgetsThinning(Tape):
    def source(self, stream, purpose):
        return super().source(stream, purpose)._replace(behind=())


class JointRows(Tape):
    """The first process's rows for all."""

    def source(self, stream, purpose):
        return super().source(stream, purpose)._replace(start=0)


def test_it_draws_what_the_turn_would() -> None:
    check(Tape)
    for mutant in (Stale, OneGenerator, ForgetsThinning, JointRows):
        kills(check, mutant)


def test_numbers_that_follow_a_schedule() -> None:
    tape, schedule = Tape(CPU), Linear(1.0, 0.0, to_kimg=10.0)
    with tape.noting("turn", kimg=2.0):
        value = tape.scheduled(schedule, 4.0)
        assert value.item() == pytest.approx(3.2) and value.dtype == torch.float32
    tape.fill("turn", kimg=5.0)
    assert tape.scheduled(schedule, 4.0) is value and value.item() == 2.0


@pytest.mark.parametrize(
    "asks",
    [
        lambda tape: streams.rand(6, purpose="other"),
        lambda tape: streams.rand(6, 2, purpose="a"),
        lambda tape: [streams.rand(6, purpose="a") for _ in range(2)],
        lambda tape: tape.scheduled(Linear(1.0, 0.0, to_kimg=1.0), 1.0),
    ],
)
def test_what_was_not_noted_is_refused(asks: Callable[[Tape], object]) -> None:
    """It would be the same in each turn."""
    tape = Tape(CPU)
    with tape.noting("turn", kimg=0.0), streams.stream("turn", start=0, num=6, total=6, device=CPU):
        streams.rand(6, purpose="a")
    with tape.played(), streams.stream("turn", start=0, num=6, total=6, device=CPU), pytest.raises(NotOnTape):
        asks(tape)


def test_torch_s_own_generator_is_left_alone() -> None:
    tape = Tape(CPU)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with tape.noting("turn", kimg=0.0), streams.stream("turn", start=0, num=6, total=6, device=CPU):
        streams.seed_global(CPU, 7)
        with streams.replay(streams.mark()):
            streams.rand(6, purpose="a")
    assert torch.equal(torch.get_rng_state(), before)
