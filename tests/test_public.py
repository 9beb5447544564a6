"""The public names, and what importing them costs."""

import subprocess
import sys

import pytest

import ganzoo
import ganzoo.models


def test_every_public_name_is_there() -> None:
    assert {name: getattr(ganzoo, name).__name__ for name in ganzoo.__all__ if name != "__version__"} == {
        name: name for name in ganzoo.__all__ if name != "__version__"
    }


def test_every_model_is_public() -> None:
    assert set(ganzoo.models.__all__) < set(ganzoo.__all__)


def test_importing_the_package_loads_no_torch() -> None:
    code = "import ganzoo, sys; print(ganzoo.__version__, sorted({'torch', 'lightning', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{ganzoo.__version__} []\n"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'StyleGAN9'"):
        _ = ganzoo.StyleGAN9
