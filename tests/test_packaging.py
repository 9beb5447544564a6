"""What an installed package holds, and that what is written down about it is true."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import ganzoo

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built as pip would, but with what is installed here."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    build = f"from hatchling.build import build_wheel; build_wheel({str(folder)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=ROOT, check=True, capture_output=True)
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_the_wheel_holds_the_whole_package_with_recipes_and_weights(wheel: zipfile.ZipFile) -> None:
    names = {name for name in wheel.namelist() if not name.split("/")[0].endswith(".dist-info")}
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "ganzoo").rglob("*.py")}
    recipes = {f"ganzoo/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "configs").rglob("*.yaml")}
    assert "ganzoo/configs/quickstart.yaml" in recipes
    weights = {"ganzoo/metrics/extractors/digits-cnn.pt"}
    assert names == sources | recipes | weights | {"ganzoo/py.typed"}


def test_the_wheel_says_what_it_is(wheel: zipfile.ZipFile) -> None:
    info = next(name for name in wheel.namelist() if name.endswith("METADATA"))
    text = wheel.read(info).decode()
    assert re.search(rf"^Version: {re.escape(ganzoo.__version__)}$", text, re.M)
    assert re.search(r"^License-Expression: MIT$", text, re.M)
    assert "ganzoo = ganzoo.cli:main" in wheel.read(info.replace("METADATA", "entry_points.txt")).decode()


def test_every_dependency_has_a_floor_and_a_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    block = text[text.index("\ndependencies = [") : text.index("\n]", text.index("\ndependencies = ["))]
    lines = block.strip().splitlines()[1:]
    assert len(lines) == len(PROJECT["dependencies"])
    for line in lines:
        assert re.fullmatch(r'    "[\w-]+(\[\w+\])?>=[\d.]+",\s+# \w.+', line), line


def test_every_import_is_a_dependency() -> None:
    """What ganzoo imports is installed by ``pip install .``, and not by chance by something else."""
    names = {"sklearn": "scikit-learn", "PIL": "pillow", "yaml": "pyyaml"}
    declared = {re.split(r"[\[>=]", one)[0].lower() for one in PROJECT["dependencies"]}
    known = {"ganzoo", "lightning_utilities", *sys.stdlib_module_names}  # the second is Lightning's own
    for path in (ROOT / "ganzoo").rglob("*.py"):
        for name in _imported(path) - known:
            assert names.get(name, name).lower().replace("_", "-") in declared, (
                f"{path.relative_to(ROOT)} imports {name}"
            )


def _imported(path: Path) -> set[str]:
    """Top-level names."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    whole = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    parts = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return {name.partition(".")[0] for name in whole | parts}


def test_constraints_are_exact_public_versions_within_the_floors() -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==\d[\w.]*", line) for line in lines)
    versions = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}
    extras = [one for extra in PROJECT["optional-dependencies"].values() for one in extra]
    for text in [*PROJECT["dependencies"], *extras]:
        requirement = Requirement(text)
        if requirement.name != "ganzoo":
            version = versions[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version), f"{text}, but constraints.txt has {version}"


def test_constraints_cover_what_an_installation_pulls_in() -> None:
    """Every distribution that one of ours needs, directly or not, has its line.

    Needs are read from what is installed, as far as it is of the version that the line says.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = [line.partition("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line]
    pinned = {canonicalize_name(name): version for name, _, version in lines}
    to_see, seen = [Requirement(text) for text in PROJECT["dependencies"]], set[str]()
    while to_see:
        requirement = to_see.pop()
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"{name} is missing"
        if (key := f"{name}{sorted(requirement.extras)}") in seen:
            continue
        seen.add(key)
        try:
            if metadata.version(name) != pinned[name]:
                continue
        except metadata.PackageNotFoundError:  # a build of torch without CUDA needs less
            continue
        for need in map(Requirement, metadata.requires(name) or []):
            extras = {"", *requirement.extras}
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras):
                to_see.append(need)
