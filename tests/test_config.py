"""Parts remember how they were built; nothing but parts can be built."""

import sys

import pytest

from ganzoo.config import build, default, encode, resolve
from ganzoo.errors import UserError
from ganzoo.losses import Hinge, NonSaturating
from ganzoo.models import DCGAN
from ganzoo.penalties import R1
from ganzoo.schedules import Linear


def test_positional_keyword_and_default_arguments_are_kept() -> None:
    assert Hinge(0.5).config() == {"class_path": "ganzoo.losses.Hinge", "init_args": {"margin": 0.5}}
    assert Hinge().config()["init_args"] == {"margin": 1.0}


def test_nested_parts_come_back_as_equal_parts() -> None:
    penalty = R1(Linear(3.0, 1.0, to_kimg=5.0))
    gan = DCGAN(8, 1, width=4, loss=Hinge(0.25), penalties=[penalty], discriminator_norm="none")
    again = build(gan.config())
    assert again.config() == gan.config()
    assert again.loss.margin == 0.25
    assert again.tricks[0].weight(2.5) == 2.0
    assert [p.shape for p in again.parameters()] == [p.shape for p in gan.parameters()]


def test_public_names_can_be_built_too() -> None:
    assert type(build({"class_path": "ganzoo.MLPGAN", "init_args": {"hidden": 4}})).__name__ == "MLPGAN"


def test_a_default_is_not_shared_between_two_models() -> None:
    first, second = DCGAN(8, 1, width=4), DCGAN(8, 1, width=4)
    assert isinstance(first.loss, NonSaturating)
    assert first.loss is not second.loss


def test_default_is_plain_data() -> None:
    plain = {"class_path": "ganzoo.losses.Hinge", "init_args": {"margin": 2.0}}
    assert default(Hinge, margin=2.0) == plain
    assert type(default(Hinge)) is dict


def test_numbers_of_other_libraries_become_plain_ones() -> None:
    import signal

    import numpy as np

    assert [type(encode(v)) for v in (np.float64(0.5), signal.SIGTERM, True, np.str_("x"))] == [float, int, bool, str]


def test_what_has_no_plain_form_is_refused() -> None:
    with pytest.raises(TypeError, match="no plain form"):
        encode(object())


@pytest.mark.parametrize("path", ["os.system", "builtins.eval", "torch.nn.Linear", "ganzoo.config.build", "NoDots", ""])
def test_only_parts_can_be_built(path: str) -> None:
    with pytest.raises(UserError):
        resolve(path)


def test_a_foreign_module_is_not_imported_unless_named(tmp_path, monkeypatch) -> None:
    (tmp_path / "planted_part.py").write_text(
        "from ganzoo.losses import Hinge\nopen('ran', 'w').close()\nclass Planted(Hinge):\n    '''x'''\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="--import"):
        build({"class_path": "planted_part.Planted"})
    assert not (tmp_path / "ran").exists()
    assert "planted_part" not in sys.modules
    assert type(build({"class_path": "planted_part.Planted"}, ["planted_part"])).__name__ == "Planted"
    assert (tmp_path / "ran").exists()
