"""A config from a stranger runs no code: planted modules and class paths are refused before anything is imported."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from ganzoo.cli import main, trust
from ganzoo.errors import UserError
from tests.cli.common import TINY, refused

#: A module that leaves a mark when it is imported.
HOSTILE = """
from pathlib import Path
Path({mark!r}).write_text("imported")
from ganzoo.losses import Hinge

class Evil(Hinge):
    '''A loss.'''
"""

BASE = "data: {class_path: Digits}\n"

#: Configs by the setting that carries the class path PATH.
CARRIERS = {
    "model": "model: {class_path: PATH}",
    "model as a word": "model: PATH",
    "part of the model": "model: {class_path: DCGAN, init_args: {loss: {class_path: PATH}}}",
    "part as a word": "model: {class_path: DCGAN, init_args: {loss: PATH}}",
    "in a list": "model: {class_path: DCGAN, init_args: {penalties: [{class_path: PATH}]}}",
    "list of words": "model: {class_path: DCGAN, init_args: {penalties: [PATH]}}",
    "callback": "model: {class_path: DCGAN}\ntrainer: {callbacks: [{class_path: PATH}]}",
    "logger as a word": "model: {class_path: DCGAN}\ntrainer: {logger: PATH}",
    "function of a callback": "model: {class_path: DCGAN}\n"
    "trainer: {callbacks: {class_path: LambdaCallback, init_args: {on_fit_start: PATH}}}",
    "keyword arguments": "model: {class_path: DCGAN, dict_kwargs: {loss: {class_path: PATH}}}",
    "file in a file": "model: other.yaml",
    "its own import": "import: [MODULE]\nmodel: {class_path: DCGAN}",
}


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """Plants the module ``planted`` in the current directory; the path is that of its mark."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))  # as python -m ganzoo does
    monkeypatch.delitem(sys.modules, "planted", raising=False)
    path = tmp_path / "mark"
    (tmp_path / "planted.py").write_text(HOSTILE.format(mark=str(path)))
    return path


@pytest.mark.parametrize("path", ["planted.Evil", "os.system", "builtins.exec", "ganzoo.cli.os.system", "torch.load"])
@pytest.mark.parametrize("carrier", CARRIERS)
def test_new_runs_refuse(carrier: str, path: str, mark: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = BASE + CARRIERS[carrier].replace("PATH", path).replace("MODULE", path.rpartition(".")[0])
    Path("c.yaml").write_text(text)
    Path("other.yaml").write_text(f"class_path: {path}\n")
    sentence = refused(capsys, "fit", "--config", "c.yaml")
    assert not mark.exists()
    assert "planted" not in sys.modules
    assert not Path("runs").exists()
    module = path.rpartition(".")[0]
    if carrier == "its own import":
        assert sentence == f"c.yaml uses the module {module}: if you trust it, add --import {module}."
    elif path != "ganzoo.cli.os.system" and carrier not in ("keyword arguments", "function of a callback"):
        assert path in sentence
        assert sentence.endswith(f"if you trust it, add --import {module}.")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that can be resumed."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["fit", *TINY, "--run_dir", str(folder / "run"), "--trainer.accelerator", "cpu"]) == 0
    return folder / "run"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ganzoo.losses.NonSaturating", "planted.Evil"),
        ("ganzoo.DCGAN", "planted.Evil"),
        ("callbacks: null", "callbacks: [{class_path: planted.Evil}]"),
        ("callbacks: null", "callbacks: planted.Evil"),
        ("import: []", "import: [planted]"),
        ("import: []", "import: [planted]\nunknown: {class_path: planted.Evil}"),
    ],
)
def test_resuming_refuses_what_the_run_says_of_itself(
    old: str, new: str, run: Path, mark: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run, "run")
    text = Path("run/config.yaml").read_text()
    assert old in text
    Path("run/config.yaml").write_text(text.replace(old, new))
    assert "--import planted" in refused(capsys, "fit", "--resume", "run", "--model.total_kimg", "9")
    assert not mark.exists()


def test_a_module_is_imported_when_it_is_named(mark: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("planted.py").rename("trusted.py")  # another name, as what is trusted stays so in this process
    options = [*TINY, "--model.loss", "trusted.Evil", "--run_dir", "own", "--trainer.accelerator", "cpu"]
    assert main(["fit", *options, "--import", "trusted"]) == 0
    assert mark.exists()
    assert "import:\n- trusted\n" in Path("own/config.yaml").read_text()
    # Naming it once is for that command line only.
    capsys.readouterr()
    sentence = "own/config.yaml uses the module trusted: if you trust it, add --import trusted."
    assert refused(capsys, "fit", "--resume", "own") == sentence
    assert main(["fit", "--resume", "own", "--import", "trusted"]) == 0
    assert "is complete" in capsys.readouterr().out


def test_a_module_that_does_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"There is no module nowhere, neither installed nor in {tmp_path}."):
        trust.import_modules(["nowhere"])
    with pytest.raises(UserError, match=r"did you mean mine\?"):
        trust.import_modules(["mine.py"])
    (tmp_path / "needy.py").write_text("import nowhere_else\n")
    with pytest.raises(ModuleNotFoundError, match="nowhere_else"):  # their own fault, with its traceback
        trust.import_modules(["needy"])
