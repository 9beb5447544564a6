"""``ganzoo list`` reads sources; here it is compared with the imported classes."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import pytest

from ganzoo.cli import listing, main, recipes
from ganzoo.cli.parser import load_parts
from ganzoo.data import GANDataModule
from ganzoo.gan import GAN
from ganzoo.losses import AdversarialLoss
from ganzoo.optim import Optimizer
from ganzoo.parts import Penalty
from ganzoo.schedules import Schedule
from tests.cli.common import refused


def subclasses(cls: type) -> Iterator[type]:
    for child in cls.__subclasses__():
        yield child
        yield from subclasses(child)


@pytest.mark.parametrize(
    ("title", "root"),
    [
        ("models", GAN),
        ("data sets", GANDataModule),
        ("losses", AdversarialLoss),
        ("penalties", Penalty),
        ("schedules", Schedule),
        ("optimizers", Optimizer),
    ],
)
def test_lists_the_classes_that_exist(title: str, root: type) -> None:
    load_parts()
    usable = {
        cls
        for cls in subclasses(root)
        if cls.__module__.startswith("ganzoo.") and not cls.__name__.startswith("_") and not inspect.isabstract(cls)
    }
    documented = {(cls.__name__, inspect.getdoc(cls).split("\n")[0].rstrip(".")) for cls in usable}
    assert set(listing.sections()[title]) == {
        (name, text) for name, text in documented if not text.startswith("Base of")
    }


def test_prints_names_with_their_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "losses"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "losses"
    assert ["Hinge", "Hinge loss (Lim and Ye 2017; Miyato 2018, eq. 16)"] in [line.split(maxsplit=1) for line in lines]


def test_every_recipe_has_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "recipes"]) == 0
    text = capsys.readouterr().out
    names = [recipes.name_of(path) for path in recipes.shipped()]
    assert {"quickstart.yaml", "dcgan.yaml", "wandb.yaml", "ddp.yaml", "fast.yaml"} <= set(names)
    assert all(len(line.split(maxsplit=1)[1]) > 20 for line in text.splitlines()[1:])
    assert [line.split()[0] for line in text.splitlines()[1:]] == names


def test_an_unknown_section(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "list", "modles") == "There is no section modles: did you mean models?"
