"""What a command loads, and when: heavy packages wait until somebody needs them."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ganzoo.cli import importing
from tests.mutants import kills

ROOT = Path(__file__).resolve().parents[2]
HEAVY = (
    "torchmetrics",
    "matplotlib",
    "scipy",
    "sklearn",
    "wandb",
    "torch_fidelity",
    "torchvision",
    "pandas",
    "datasets",
)

PROGRAM = """
import gc, json, os, sys
import ganzoo.cli
told = {"cli": sorted(sys.modules)}
if sys.argv[1] == "plain":
    import lightning.pytorch
    told["all"] = sorted(sys.modules)
    print(json.dumps(told))
    sys.exit()
from ganzoo.cli import fit
import ganzoo.cli.importing
frozen = gc.get_freeze_count()

def first(self, loader):
    told["all"] = sorted(sys.modules)
    told["gc"] = [gc.isenabled(), frozen, gc.get_freeze_count()]
    print("\\n" + json.dumps(told), flush=True)
    os._exit(0)

imported = ganzoo.cli.trust.import_modules

def patch(names):
    sys.modules["ganzoo.gan"].GAN.cycle = first  # the command has loaded it by now
    imported(names)

ganzoo.cli.trust.import_modules = patch
ganzoo.cli.main(sys.argv[1:])
"""


def told(folder: Path, *arguments: str) -> dict:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GANZOO_CACHE": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], env=env, cwd=folder, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """Modules after ``import ganzoo.cli``, and of a run of the quickstart when its first cycle begins."""
    folder = tmp_path_factory.mktemp("loaded")
    fit = ("fit", "--config", "quickstart.yaml", "--trainer.accelerator", "cpu", "--run_dir")
    told(folder, *fit, "fill")  # the digits are decoded
    return {"plain": told(folder, "plain"), "fit": told(folder, *fit, "run")}


def packages(modules: list[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


def check_light(modules: list[str]) -> None:
    """So that help and a mistyped command answer at once."""
    assert not packages(modules) & {*HEAVY, "torch", "lightning", "numpy", "PIL", "jsonargparse", "rich"}


def test_the_command_line_alone_loads_nothing_heavy(loaded: dict[str, dict]) -> None:
    check_light(loaded["fit"]["cli"])
    kills(check_light, [*loaded["fit"]["cli"], "torch"])


def check_lazy(loaded: dict[str, dict]) -> None:
    """Of the heavy packages a run has loaded what Lightning itself loads, and no module more."""
    more = set(loaded["fit"]["all"]) - set(loaded["plain"]["all"])
    assert not [name for name in more if name.partition(".")[0] in HEAVY]


def test_a_run_begins_without_what_it_may_need_later(loaded: dict[str, dict]) -> None:
    assert "lightning.pytorch" in loaded["fit"]["all"] and "ganzoo.callbacks.evaluate" in loaded["fit"]["all"]
    check_lazy(loaded)
    for module in ("sklearn.more", "scipy.more", "wandb.more"):
        kills(check_lazy, {**loaded, "fit": {"all": [*loaded["fit"]["all"], module]}})


def test_imports_are_not_interrupted_and_not_looked_through_again(loaded: dict[str, dict]) -> None:
    """The collector is on again when training begins, and what it need not look at is most of all there is."""
    enabled, before, after = loaded["fit"]["gc"]
    assert enabled
    assert before < 10_000 and after > 100_000


def check_collector(block) -> None:
    """Off inside, on behind, also after an error; as it was where it was off before, or Lightning is there already."""
    with pytest.MonkeyPatch.context() as patch:
        calls: list[str] = []
        patch.setattr(gc, "freeze", lambda: calls.append("freeze"))
        patch.setitem(sys.modules, "lightning", None)
        with block():
            assert gc.isenabled()
        assert not calls
        patch.delitem(sys.modules, "lightning")
        with block():
            assert not gc.isenabled()
        assert gc.isenabled() and calls == ["freeze"]
        with pytest.raises(ImportError), block():
            raise ImportError("missing")
        assert gc.isenabled() and calls == ["freeze"]
        gc.disable()
        try:
            with block():
                assert not gc.isenabled()
            assert not gc.isenabled()
        finally:
            gc.enable()
        assert calls == ["freeze"]


def test_the_collector_is_left_as_it_was() -> None:
    check_collector(importing.uncollected)


def test_a_block_that_forgets_is_caught() -> None:
    from contextlib import contextmanager, nullcontext

    @contextmanager
    def forgets():
        gc.disable()
        yield
        gc.freeze()
        gc.enable()

    kills(check_collector, nullcontext)
    try:
        kills(check_collector, forgets)
    finally:
        gc.enable()
