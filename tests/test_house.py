"""The rules of the house that a machine can keep: who imports whom, what is documented, what must not be written."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import shlex
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docstring_parser
import pytest
import torch

import ganzoo
from ganzoo import models
from ganzoo.config import Configurable
from ganzoo.models import MLPGAN
from ganzoo.parts import Turn

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "ganzoo").rglob("*.py"))
BASE = {"errors", "config", "streams", "files", "joint", "precision", "replay"}
PARTS = {"schedules", "losses", "latents", "optim", "ema", "plan", "parts", "players", "layers"}

#: What each part of the house may import from the others when it is loaded. For types alone, anything but cli.
MAY_IMPORT = {
    "errors": set(),
    "generator": set(),
    "config": {"errors"},
    "streams": {"errors"},
    "joint": set(),
    "precision": set(),
    "replay": {"streams"},
    "files": {"errors"},
    "images": {"errors", "files"},
    "schedules": BASE,
    "losses": BASE,
    "latents": BASE,
    "optim": BASE,
    "ema": BASE,
    "plan": BASE,
    "meter": BASE,
    "layers": BASE | {"generator"},
    "parts": BASE | {"schedules"},
    "augment": BASE | {"parts", "schedules"},
    "tricks": BASE | {"parts", "schedules", "layers", "losses", "latents"},
    "laboratory": BASE | PARTS | {"images", "data", "callbacks", "metrics", "loop"},
    "health": BASE | {"parts"},
    "players": BASE | {"parts", "optim", "schedules"},
    "penalties": BASE | {"parts", "schedules", "layers", "augment", "losses"},
    "sampling": BASE,
    "internals": set(),
    "judging": BASE | {"parts", "layers"},
    "fakes": BASE | {"parts"},
    "tape": BASE | {"schedules"},
    "batches": BASE,
    "graphs": BASE | {"batches", "internals", "optim", "parts", "tape"},
    "loop": BASE | PARTS | {"batches", "fakes", "generator", "graphs", "internals", "judging", "meter"},
    "strategy": BASE,
    "checkpoint": BASE | {"__version__"},
    "analysis": BASE | {"latents", "metrics", "sampling"},
    "transfer": BASE | {"checkpoint"},
    "gan": BASE | PARTS | {"generator", "internals", "loop", "memory", "sampling", "strategy", "checkpoint"},
    "models": BASE | PARTS | {"gan", "penalties", "tricks"},
    "data": BASE,
    "metrics": BASE | {"images", "latents", "sampling", "__version__"},
    "callbacks": BASE | {"images", "internals", "metrics", "schedules", "checkpoint", "batches", "parts"},
    "loggers": BASE | {"images"},
    "trainer": BASE | {"strategy", "callbacks"},
    "ablation": BASE | {"__version__", "trainer", "analysis"},
}
WITHOUT_LIGHTNING = (
    BASE | PARTS | {*("images", "meter", "augment", "penalties", "tricks", "sampling", "metrics", "models", "health")}
)


def unit(path: Path) -> str:
    """The part of the house that a file belongs to."""
    inside = path.relative_to(ROOT / "ganzoo").with_suffix("")
    return inside.parts[0]


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Dotted names that a file imports, anywhere in it, and whether only for types."""
    tree = ast.parse(path.read_text())
    guarded = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in guarded) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{path} has a relative import"
            yield node.module, id(node) in guarded
            if node.module == "ganzoo":
                yield from ((f"ganzoo.{alias.name}", id(node) in guarded) for alias in node.names)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_who_imports_whom(path: Path) -> None:
    here = unit(path)
    for name, for_types in imports(path):
        top, _, rest = name.partition(".")
        if top in ("lightning", "pytorch_lightning"):
            assert for_types or here not in WITHOUT_LIGHTNING, f"{here} must not import Lightning"
        if top != "ganzoo" or not rest or here in ("cli", "__main__"):
            continue
        there = rest.partition(".")[0]
        assert there != "cli", f"{here} imports the command line"
        assert for_types or there == here or there in MAY_IMPORT.get(here, set()), f"{here} imports {there}"


def test_a_model_stands_alone() -> None:
    """A reader puts one file beside one paper: what two of them share is a layer."""
    models = {path.stem for path in (ROOT / "ganzoo/models").glob("*.py")} - {"__init__"}
    for name in models:
        path = ROOT / f"ganzoo/models/{name}.py"
        others = {f"ganzoo.models.{other}" for other in models - {name}} | {"ganzoo.models"}
        assert not others & {imported for imported, _ in imports(path)}


def test_the_loop_names_no_trick() -> None:
    """What differs between papers is a part: names, comments and docstrings of the loop know none of them."""
    tricks = (
        "r1|r2|wgan|lsgan|hinge|gradient_penalty|dragan|unroll|unrolled|topk|top_k|pack|packing|pacgan|weight_clip|"
        "diffaugment|ada|apa|lecam|consistency|contrastive|path_length|minibatch_std|feature_matching|auxiliary|"
        "dcgan|sngan|sagan|biggan|progressive|stylegan|r3gan|d2gan|pix2pix|cyclegan"
    )
    pattern = re.compile(rf"(?<![a-z])({tricks})(?![a-z])", re.I)
    for name in ("gan.py", "loop.py"):
        path = ROOT / "ganzoo" / name
        with tokenize.open(path) as file:
            tokens = list(tokenize.generate_tokens(file.readline))
        words = [t.string for t in tokens if t.type in (tokenize.NAME, tokenize.COMMENT)]
        words += [
            ast.get_docstring(node) or "" for node in ast.walk(ast.parse(path.read_text())) if _has_docstring(node)
        ]
        found = {match for text in words for match in pattern.findall(text)}
        assert not found, f"{name} names {found}"


def test_sizes() -> None:
    """A file is read in one sitting, a function in one glance."""
    long_files = {str(p.relative_to(ROOT)): n for p in SOURCES if (n := len(p.read_text().splitlines())) > 340}
    long_functions = {
        f"{path.relative_to(ROOT)}:{node.name}": lines
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if (lines := _body_lines(node)) > 60
    }
    assert not long_files
    assert not long_functions


def test_everything_public_has_a_docstring() -> None:
    missing = [
        f"{path.relative_to(ROOT)}:{getattr(node, 'name', 'the module')}"
        for path in SOURCES
        for tree in [ast.parse(path.read_text())]
        for node in [tree, *tree.body]
        if _has_docstring(node)
        if not getattr(node, "name", "").startswith("_")
        if ast.get_docstring(node) is None
        if path.name != "__main__.py" or node is not tree
    ]
    assert not missing


def test_every_option_is_explained() -> None:
    """What --help and ganzoo list show: a summary of each part, and a line for each of its arguments."""
    for cls in parts():
        assert (inspect.getdoc(cls) or "").splitlines(), f"{cls.__name__} has no summary"
        first = (cls.__doc__ or "").strip().splitlines()[:1]
        assert first and first[0].rstrip().endswith((".", ":")), f"the summary of {cls.__name__} is no sentence"
        if "__init__" not in vars(cls):
            continue
        explained = {p.arg_name.lstrip("*") for p in docstring_parser.parse(cls.__init__.__doc__ or "").params}
        options = set(inspect.signature(cls.__init__).parameters) - {"self"}
        assert options == explained, f"{cls.__name__}: {options ^ explained}"


def test_suppressions_name_their_code_and_reason() -> None:
    """mypy is strict; where it must be quiet, the line says which rule and why. They are counted."""
    lines = [
        (p, n, line) for p in SOURCES for n, line in enumerate(p.read_text().splitlines(), 1) if "type: ignore" in line
    ]
    for path, number, line in lines:
        assert re.search(r"# type: ignore\[[\w, -]+\]  # \S", line), f"{path.relative_to(ROOT)}:{number}"
    assert len(lines) <= 20


def test_no_empty_promises() -> None:
    """Nothing that only looks like a test or like the handling of an error."""
    weak = re.compile(
        r"^\s*assert True\b|pytest\.skip\(\)|except( Exception)?:\s*(pass|continue)\s*$|\b(TODO|FIXME|XXX)\b"
    )
    for path in tracked():
        if path.suffix == ".py" and path != Path(__file__):
            for number, line in enumerate(path.read_text().splitlines(), 1):
                assert not weak.search(line), f"{path.relative_to(ROOT)}:{number}: {line}"


def test_nothing_names_one_machine() -> None:
    """No path of somebody's disk, no package index, no file that is too large for a repository."""
    paths = re.compile(r"(^|[\s=:\"'(`])/(home|root|work|farm|Users|mnt)/[\w.]")
    index = re.compile(r"https?://\S*/simple\b|--(extra-)?index-url|--find-links")
    inside_a_container = {"Dockerfile"}
    for path in tracked():
        assert path.stat().st_size < 500_000, f"{path.relative_to(ROOT)} is large"
        if path == Path(__file__) or b"\0" in path.read_bytes():  # the second: no text
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            where = f"{path.relative_to(ROOT)}:{number}: {line}"
            assert not index.search(line), where
            assert path.name in inside_a_container or not paths.search(line), where


def documented_commands() -> list[str]:
    """Every command of ganzoo in the documents and in the heads of recipes."""
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    blocks = [b for path in documents for b in re.findall(r"^```(?:bash|sh)\n(.*?)^```", path.read_text(), re.M | re.S)]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += [
        line.removeprefix("#") for path in (ROOT / "configs").rglob("*.yaml") for line in path.read_text().splitlines()
    ]
    found = [match for line in lines for match in re.findall(r"(?:^|&& )\s*(ganzoo \w[^#]*?)\s*(?:$|&&|#)", line)]
    return sorted(set(found))


@pytest.mark.parametrize("command", documented_commands())
def test_documented_commands_exist(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command is one, its recipes are shipped, and ``fit`` accepts all of its options."""
    from ganzoo.cli import COMMANDS
    from ganzoo.cli.arguments import read
    from ganzoo.cli.parser import FitCLI
    from ganzoo.cli.trust import import_modules, restrict_parser

    _, name, *arguments = shlex.split(command)
    assert name in COMMANDS
    monkeypatch.chdir(tmp_path)
    if name != "fit" or {"--resume", "--print_config", "--help"} & set(arguments):
        return
    if own := "my_parts" in arguments:
        (tmp_path / "my_parts.py").write_text(python_block("CONTRIBUTING.md"))
        monkeypatch.syspath_prepend(tmp_path)
    request = read(arguments)
    import_modules(request.imports)
    restrict_parser(request.imports)
    cli = FitCLI(request)
    cli.parse()
    if own:
        cli.build()
        assert "LogitDrift" in {type(part).__name__ for part in cli.model.tricks}


def test_the_example_of_a_penalty() -> None:
    """It is what its docstring says: the mean square of the logits of real data."""
    names: dict[str, Any] = {}
    exec(python_block("CONTRIBUTING.md"), names)
    turn = Turn(MLPGAN(), "discriminator", 0, 0.0, real_logits=torch.tensor([1.0, -3.0]))
    term = names["LogitDrift"](weight=0.5)(turn)
    assert term.item() == 0.5 * (1 + 9) / 2


def test_the_example_in_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The README's program runs, with a smaller budget, and gives what it says."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    program, budgets = re.subn(r"total_kimg=\d+", "total_kimg=0.128", python_block("README.md"))
    assert budgets == 1
    exec(program, names)
    assert names["gan"].clock.images == 128
    assert names["images"].shape == (16, 1, 32, 32)
    assert names["images"].abs().max() <= 1
    assert names["images"].std() > 0


def parts() -> list[type[Configurable]]:
    """All public classes of ganzoo that a recipe can name."""
    for found in pkgutil.walk_packages(ganzoo.__path__, "ganzoo."):
        if found.name != "ganzoo.__main__":
            importlib.import_module(found.name)
    to_see, seen = [Configurable], list[type[Configurable]]()
    while to_see:
        for cls in to_see.pop().__subclasses__():
            to_see.append(cls)
            if cls.__module__.startswith("ganzoo.") and not cls.__name__.startswith("_") and cls not in seen:
                seen.append(cls)
    return seen


def python_block(document: str) -> str:
    """The program in a document."""
    (program,) = re.findall(r"^```python\n(.*?)^```", (ROOT / document).read_text(), re.M | re.S)
    return str(program)


def tracked() -> list[Path]:
    """The files of the repository."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this copy of the sources is no git repository")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def _has_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)


def _body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function after its signature and docstring."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("name", models.__all__)
def test_every_model_is_in_the_readme_and_on_its_page(name: str) -> None:
    """A row of the README's table; a section under the number of its paper, with commands and what differs from it."""
    readme, page = ((ROOT / path).read_text() for path in ("README.md", "docs/models.md"))
    assert f"| `{name}` | [" in readme
    paper = re.search(r"\b\d{4}\.\d{4,5}\b", inspect.getmodule(getattr(models, name)).__doc__)[0]
    sections = [one for one in page.split("\n## ")[1:] if f"arxiv.org/abs/{paper})" in one.partition("```")[0]]
    whole = [one for one in sections if re.search(r"\*\*Differences from the papers?\.\*\*", one)]
    assert len(whole) == 1
    assert "```bash\nganzoo fit" in whole[0]
