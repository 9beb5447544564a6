"""Compiled networks: the turns' passes are torch's compiled ones, penalties are not, and nothing of it stays."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch import nn

from ganzoo.callbacks import Compile
from ganzoo.errors import UserError
from ganzoo.models import DCGAN, MLPGAN
from ganzoo.optim import SGD
from ganzoo.penalties import R1
from ganzoo.replay import is_compiled
from tests.common import fit, flat, normal_batches


def trained(callbacks: list[Compile], **options) -> MLPGAN:
    torch.manual_seed(0)
    gan = MLPGAN(hidden=8, generator_optimizer=SGD(0.1), discriminator_optimizer=SGD(0.1), **options)
    torch.manual_seed(1)
    fit(gan, normal_batches(8, 2), max_steps=3, callbacks=callbacks)
    return gan


def test_the_turns_run_what_was_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place, with the settings given; here by a stand-in of the compiler that counts."""
    passes: dict[str, int] = {}

    def count(self: nn.Module, *, backend: str, mode: str | None, dynamic: bool) -> None:
        assert (backend, mode, dynamic) == ("aot_eager", "reduce-overhead", False)

        def run(*args, **kwargs):
            passes[type(self).__name__] = passes.get(type(self).__name__, 0) + 1
            return self._call_impl(*args, **kwargs)

        self._compiled_call_impl = run

    monkeypatch.setattr(nn.Module, "compile", count)
    gan = trained([Compile("aot_eager", mode="reduce-overhead")])
    names = type(gan.generator).__name__, type(gan.discriminator).__name__
    assert passes[names[0]] == 3 * 2  # a pass in each turn of three cycles
    assert passes[names[1]] >= 3 * 2
    assert not is_compiled(gan.generator) and not is_compiled(gan.discriminator)


def test_results_are_those_without_it() -> None:
    """With a penalty on a gradient, which a compiled pass would refuse."""
    compiled, plain = (trained(callbacks, penalties=[R1(0.5)]) for callbacks in ([Compile("eager")], []))
    assert torch.allclose(flat(compiled), flat(plain), rtol=1e-5, atol=1e-7)


def test_an_unknown_backend() -> None:
    with pytest.raises(UserError, match=r"The backend was inducter; torch has .*inductor"):
        Compile("inducter")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
def test_images_by_the_real_compiler() -> None:
    found = []
    for callbacks in ([Compile()], []):
        torch.manual_seed(0)
        gan = DCGAN(8, 1, width=4, generator_optimizer=SGD(0.1), discriminator_optimizer=SGD(0.1))
        torch.manual_seed(1)
        fit(gan, normal_batches(8, 1, 8, 8), max_steps=2, callbacks=callbacks)
        found.append(flat(gan))
    assert torch.allclose(*found, rtol=1e-3, atol=1e-5)
