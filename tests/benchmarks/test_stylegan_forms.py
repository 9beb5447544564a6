"""The plain forms of StyleGAN, which the benchmark compares, are the same functions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks.speed import stylegan as speed
from ganzoo import streams
from ganzoo.models import StyleGAN
from ganzoo.parts import Turn
from ganzoo.penalties import PathLength


def outputs(form: str) -> list[Tensor]:
    """Images, path lengths, logits, and the gradient of all of them by the parameters, in float64."""
    torch.manual_seed(0)
    gan = StyleGAN(16, 3, channel_base=64, latent_dim=8, style_dim=8, group=2)
    for name, parameter in gan.named_parameters():
        if name.endswith(("strength", "bias")):
            parameter.data.normal_()
    z = torch.randn(4, 8)
    turn = Turn(gan, "generator", 0, 0.0, latents=z)
    with speed.FORMS[form](), streams.stream(5, start=0, num=4, total=4, device=torch.device("cpu")):
        images = gan.generator(z)
        found = [images, gan.discriminator(images), PathLength(fraction=1.0).lengths(turn)]
    gradients = torch.autograd.grad(
        sum(x.square().mean() for x in found), [p for p in gan.parameters() if p.requires_grad], allow_unused=True
    )
    return [*found, *[g for g in gradients if g is not None]]


@pytest.mark.parametrize("form", [form for form in speed.FORMS if form != "shipped"])
def test_a_form_is_the_same_function(form: str) -> None:
    with speed.FORMS[form]():
        assert any(name in repr(attribute) for name, attribute in patched())
    assert not any(name in repr(attribute) for name, attribute in patched())
    for ours, plain in zip(outputs("shipped"), outputs(form), strict=True):
        assert torch.allclose(ours, plain, rtol=1e-3, atol=1e-4 * max(1.0, ours.abs().max().item()))


def patched() -> list[tuple[str, object]]:
    return [
        ("_grouped", speed.ModulatedConv2d.forward),
        ("_unfused", speed.StyledConv.forward),
        ("_zeros_between", speed.filtered._filter),
    ]


def test_a_row() -> None:
    row = speed.measure("tiny", ["plain"], rounds=1)
    assert row["ratio"].keys() == {"plain"}
    assert row["gflop_per_image"] > 0 and row["ms_per_cycle"] > 0
    assert sum(speed.CYCLES.values()) == 16  # as many as there are from one R1 to the next
