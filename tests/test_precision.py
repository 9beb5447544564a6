"""Numbers that a processor is slow with: one sentence, where torch knows it."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Callable

import pytest
import torch

from ganzoo.models import MLPGAN
from ganzoo.precision import lacks_bfloat16_units
from tests.common import fit, normal_batches
from tests.mutants import kills

AVX, AMX = "_is_avx512_bf16_supported", "_is_amx_tile_supported"


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes the processor another one."""

    def become(machine: str, avx512_bf16: bool | None, amx: bool | None) -> None:
        monkeypatch.setattr(platform, "machine", lambda: machine)
        for name, has in ((AVX, avx512_bf16), (AMX, amx)):
            if has is None:  # a torch that cannot say it
                monkeypatch.delattr(torch.cpu, name, raising=False)
            else:
                monkeypatch.setattr(torch.cpu, name, lambda has=has: has, raising=False)

    return become


def test_which_processors_lack_units(processor: Callable[..., None]) -> None:
    def check(lacks: Callable[[], bool]) -> None:
        for machine, avx512_bf16, amx, expected in (
            ("x86_64", False, False, True),
            ("AMD64", False, False, True),
            ("x86_64", True, False, False),
            ("x86_64", False, True, False),
            ("x86_64", False, None, True),
            ("x86_64", None, None, False),
            ("x86_64", None, False, False),
            ("aarch64", False, False, False),
            ("arm64", False, False, False),
        ):
            processor(machine, avx512_bf16, amx)
            assert lacks() == expected, (machine, avx512_bf16, amx)

    check(lacks_bfloat16_units)
    kills(check, lambda: not getattr(torch.cpu, AVX, lambda: True)())
    kills(check, lambda: not any(getattr(torch.cpu, name, lambda: False)() for name in (AVX, AMX)))


@pytest.mark.parametrize(("precision", "has_units"), [("bf16-mixed", False), ("bf16-mixed", True), ("32-true", False)])
def test_a_fit_in_bfloat16_without_units_says_so(
    precision: str, has_units: bool, processor: Callable[..., None]
) -> None:
    processor("x86_64", has_units, False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(MLPGAN(num_layers=1, hidden=4), normal_batches(4, 2), max_steps=1, precision=precision)
    said = [str(one.message) for one in caught if "bfloat16" in str(one.message)]
    assert len(said) == (precision == "bf16-mixed" and not has_units)
    assert all("leave trainer.precision at 32-true" in one and one.count(". ") == 0 for one in said)
