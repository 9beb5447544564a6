"""The benchmark of the residual networks' levers switches what it says, and leaves the model as it was."""

import math

import pytest
import torch

from benchmarks.speed import resnet
from benchmarks.speed.clocks import Clocks
from ganzoo.layers.folded import ConvPool2d, UpConv2d
from ganzoo.models import SNGAN
from ganzoo.players import Player
from tests.common import fit, normal_batches


def state(gan: SNGAN) -> dict[str, object]:
    """Whether each lever is on."""
    layers = [m for m in gan.modules() if isinstance(m, UpConv2d | ConvPool2d)]
    kernel = gan.discriminator.blocks[1].conv1.parametrizations.weight.original
    return {
        "folds": {m.folded for m in layers if m.kernel_size == (3, 3)},
        "shortcuts": {m.folded for m in layers if m.kernel_size == (1, 1)},
        "together": gan.judges_together,
        "iteration": Player.moving.__name__ if hasattr(Player.moving, "__name__") else "patched",
        "channels_last": kernel.is_contiguous(memory_format=torch.channels_last),
    }


@pytest.mark.parametrize("name", resnet.LEVERS)
def test_each_lever_is_what_it_says(name: str) -> None:
    widths = {"generator_width": 4, "generator_max_width": 4, "discriminator_width": 4, "discriminator_max_width": 4}
    gan = SNGAN(**widths)
    fit(gan, normal_batches(4, 3, 32, 32), max_steps=1)
    before = state(gan)
    assert before["together"] and before["channels_last"] and before["folds"] == {True}
    with resnet.LEVERS[name](gan):
        inside = state(gan)
        changed = {key for key in before if before[key] != inside[key]}
        assert changed == (set(before) if name == "all" else {name})
        assert gan.discriminator(torch.randn(2, 3, 32, 32)).isfinite().all()
    assert state(gan) == before


def test_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine of 1 TFLOP/s the index is images/s; the bound on FLOPs is counted by hand."""
    monkeypatch.setattr(resnet, "ceiling", lambda device: Clocks(1e12, 1e12))
    row = resnet.measure(["all"], 1, d=1, batch=2, width=2)
    (gain,) = row["gain"].values()
    assert 0 < gain["least"] == gain["median"] == gain["most"] < math.inf
    assert row["index"] == pytest.approx(1000 * 2 / row["ms_per_cycle"], rel=0.01)
    # The largest part, the generator's second 3x3 convolution at 32x32: two forward passes, and two backward products.
    assert row["gflop_per_image"] > 1e-9 * 4 * 2 * 32 * 32 * 4 * 4 * 9
