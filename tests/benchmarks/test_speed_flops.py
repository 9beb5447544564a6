"""What the counter of FLOPs says of convolutions with groups, and of a whole cycle of R3GAN, against counts by hand."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.speed.cases import CASES, Case
from benchmarks.speed.cycles import counter, drive
from benchmarks.speed.peers import PEERS
from ganzoo.layers import pieces
from ganzoo.models import R3GAN
from tests.mutants import kills


def check_counter(make) -> None:
    """Forward: 2 per multiply-add. Backward for the input or for the weight: as many each, also of a derivative.

    The derivative of the squared gradient goes back through the gradient's own pass, once for what came in and once for
    the weight, and through the pass itself, again for both.
    """
    for groups in (1, 2, 4):
        x = torch.randn(2, 8, 6, 6, requires_grad=True)
        weight = torch.randn(12, 8 // groups, 3, 3, requires_grad=True)
        forward = 2 * (2 * 12 * 6 * 6) * (8 // groups * 9)
        with make() as first:
            y = F.conv2d(x, weight, padding=1, groups=groups)
        with make() as second:
            (gradient,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        with make() as third:
            gradient.square().sum().backward()
        assert [m.get_total_flops() / forward for m in (first, second, third)] == [1, 1, 4]


def test_convolutions_with_groups() -> None:
    def without_ours() -> FlopCounterMode:
        found = counter()
        found.flop_registry = FlopCounterMode(display=False).flop_registry
        return found

    check_counter(counter)
    kills(check_counter, without_ours)


def forward_of_blocks(width: int, sides: list[int], blocks: int = 2) -> int:
    """FLOPs per image of a network's blocks: 1x1 to twice the channels, 3x3 in groups of 16, 1x1 back."""
    inside = 2 * width
    products = width * inside + inside * 16 * 9 + inside * width
    return 2 * blocks * products * sum(side**2 for side in sides)


def test_a_cycle_of_r3gan() -> None:
    """15 forward passes of the blocks. D turn: G; D of real and fake, their gradients by images; then both gradients
    backward, for what came in and for the weights, the adversarial loss with the penalties: 1 + 2 + 2 + 4. G turn: G,
    D of real and fake, D backward for the fake, G backward for both: 1 + 2 + 1 + 2. The rest, filters and ends, is
    small. When the loss goes back through the passes themselves, for both again, there are 4 more.
    """

    def passes() -> float:
        case = Case("narrow", lambda: R3GAN(32, width=16, max_width=16), 2)
        found = drive(case.subject("cpu"), lambda cycles: cycles.flop() / cycles.images)
        return found / forward_of_blocks(16, [4, 8, 16, 32])

    assert passes() == pytest.approx(15, rel=0.01)
    with mock.patch.object(pieces, "unit_for", return_value=None):
        assert passes() == pytest.approx(19, rel=0.01)


def test_r3gan_has_no_more_flops_than_its_peer() -> None:
    """Which goes back through the passes, too."""
    full = 19 * forward_of_blocks(768, [4, 8, 16, 32])
    assert full / 1e9 == pytest.approx(PEERS["r3gan-32"].gflop_per_image, rel=0.002)
    with torch.device("meta"):
        gan = CASES["r3gan-32"].make()
    assert [stage.width for stage in gan.generator.stages] == [768] * 4
