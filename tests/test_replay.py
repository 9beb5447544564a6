"""A pass made again draws and normalizes as it did, and no trace of it is left."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ganzoo import replay, streams
from tests.mutants import kills

CPU = torch.device("cpu")


class Restless(nn.Module):
    """Draws keyed and global numbers, moves a running mean, a count and spectral vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3))
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("scale", torch.ones(3))

    def forward(self, x):
        self.scale.mul_(1.5)  # in place
        self.norm.num_batches_tracked = self.norm.num_batches_tracked + 1  # by another tensor
        noise = streams.randn(len(x), 3, purpose="noise") + torch.randn(len(x), 3)
        return self.norm(self.linear(x)) * self.scale.clone() + noise


def stream():
    return streams.stream(1, start=0, num=4, total=4, device=CPU)


def network() -> Restless:
    torch.manual_seed(0)
    return Restless()


def buffers(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: buffer.clone() for name, buffer in module.named_buffers()}


def check_again(snapshot) -> None:
    net, x = network(), torch.randn(4, 3)
    with stream():
        streams.randn(4, purpose="noise")  # numbers were drawn before
        before = snapshot(net)
        first = net(x)
        second = net(x)
        moved = buffers(net)
        for _ in range(2):  # as often as one likes
            with before.restored():
                again = net(x)
            assert torch.equal(again, first)
        assert all(torch.equal(moved[k], b) for k, b in buffers(net).items())
    assert not torch.equal(first, second)


def test_a_pass_is_made_again_as_it_was() -> None:
    class NoNumbers(replay.Snapshot):
        def restored(self):
            return replay._lent(self.network, self.buffers)

    class NoStatistics(replay.Snapshot):
        def restored(self):
            return streams.replay(self.mark)

    check_again(replay.Snapshot)
    kills(check_again, NoNumbers)
    kills(check_again, NoStatistics)


def test_draws_go_on_after_a_replay_as_if_there_had_been_none() -> None:
    def draws(replayed: bool) -> list[torch.Tensor]:
        torch.manual_seed(3)
        with stream():
            mark = streams.mark()
            found = [streams.randn(4, purpose="a"), torch.randn(2)]
            if replayed:
                with streams.replay(mark):
                    again = [streams.randn(4, purpose="a"), torch.randn(2)]
                    streams.rand(4, purpose="new")
                assert all(torch.equal(x, y) for x, y in zip(found, again, strict=True))
            return [*found, streams.randn(4, purpose="a"), torch.randn(2), streams.rand(4, purpose="new")]

    assert all(torch.equal(x, y) for x, y in zip(draws(True), draws(False), strict=True))


def test_an_error_inside_leaves_no_trace() -> None:
    net, x = network(), torch.randn(4, 3)
    kept = buffers(net)
    own = {name: id(buffer) for name, buffer in net.named_buffers()}
    with stream():
        for block in (replay.untouched(net), replay.Snapshot(net).restored()):
            with pytest.raises(ZeroDivisionError), block:
                net(x)
                raise ZeroDivisionError
    assert all(torch.equal(kept[k], b) for k, b in net.named_buffers())
    assert {name: id(buffer) for name, buffer in net.named_buffers()} == own  # the same tensors, not copies


def test_a_graph_of_a_pass_without_trace_can_be_differentiated() -> None:
    """Two passes in a block, whose buffers move in place: autograd refuses tensors that changed after their use."""
    net, x = network(), torch.randn(4, 3, requires_grad=True)
    with replay.untouched(net):
        output = net(x)
    (g,) = torch.autograd.grad(output.square().sum(), x, create_graph=True)
    net(x)
    g.square().sum().backward()
    assert x.grad is not None and torch.isfinite(x.grad).all()


@pytest.mark.slow
def test_what_is_compiled_is_noticed() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assert not replay.is_compiled(net)
    net[1].compile(backend="eager")
    assert replay.is_compiled(net)
    assert replay.is_compiled(torch.compile(nn.Linear(2, 2), backend="eager"))


@pytest.mark.parametrize("step", [1, 2, 4])
def test_thinned_draws_of_two_ranks_are_those_of_one(step) -> None:
    def draw(start: int, num: int) -> torch.Tensor:
        with streams.stream(3, start=start, num=num, total=16, device=CPU):
            streams.randn(num, purpose="a")
            with streams.thinned(step, "part"):
                inside = streams.randn(num // step, 5, purpose="a")
            assert streams.randn(num, purpose="a").shape == (num,)
        return inside

    whole = draw(0, 16)
    assert whole.shape == (16 // step, 5)
    assert torch.equal(torch.cat([draw(0, 8), draw(8, 8)]), whole)
    assert len({tuple(row.tolist()) for row in whole}) == len(whole)
