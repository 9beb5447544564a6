"""One plan per directory: it may grow, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from ganzoo.ablation import plan as plans
from ganzoo.ablation.plan import Run
from ganzoo.errors import UserError
from tests.ablation.common import plan_of


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_plan_comes_back_from_its_directory(tmp_path: Path) -> None:
    plan = plan_of("R1", "slow", seeds=[3, 7])
    plans.save(plan, tmp_path)
    again = plans.load(tmp_path)
    assert again == plan
    assert again.variation("R1").config == "model: {x: 1}\n"
    assert plans.load(tmp_path / "R1") is None


def test_every_variation_has_every_seed(tmp_path: Path) -> None:
    runs = plan_of("R1", seeds=[3, 7]).runs(tmp_path)
    assert [(run.variation, run.seed) for run in runs] == [("base", 3), ("R1", 3), ("base", 7), ("R1", 7)]
    assert runs[1] == Run("R1", 3, tmp_path / "R1" / "seed-3")
    assert len({path for run in runs for path in (run.folder, run.log, run.record)}) == 12


def test_variations_and_seeds_may_be_added(tmp_path: Path) -> None:
    old, new = plan_of("R1", seeds=[0, 1]), plan_of("R1", "slow", seeds=[1, 2])
    both = plans.merge(old, new, tmp_path)
    assert [v.name for v in both.variations] == ["base", "R1", "slow"]
    assert both.seeds == [0, 1, 2]
    fewer = plans.merge(both, plan_of(seeds=[0]), tmp_path)
    assert fewer == both


def test_another_plan_is_refused_with_what_differs() -> None:
    old, new = plan_of("R1", lr=0.1, width=4), plan_of("R1", lr=0.2, height=5)
    with pytest.raises(UserError) as error:
        plans.merge(old, new, Path("here"))
    assert str(error.value) == (
        "here holds another plan, in which base differs (height: None -> 5, lr: 0.1 -> 0.2, width: 4 -> None): give "
        "another --out, or the options that it was begun with."
    )


def test_many_differences_are_cut() -> None:
    changed = plans.differences({str(i): "a" * 500 for i in range(6)}, {str(i): 1 for i in range(6)})
    assert changed.endswith("-> 1, and 2 more")
    assert len(changed) < 500
    assert plans.differences({"a": 1}, {"a": 1}) == ""


def test_the_hash_is_of_the_settings() -> None:
    one, same, other = plan_of(lr=0.1), plan_of(lr=0.1), plan_of(lr=0.2)
    assert one.variations[0].config_hash == same.variations[0].config_hash != other.variations[0].config_hash


def test_the_same_plan_finds_its_directory_and_another_one_gets_a_new_one() -> None:
    plan, other = plan_of("R1"), plan_of("slow")
    assert plans.choose_directory(plan) == Path("ablations/toy-1")
    plans.save(plan, Path("ablations/toy-1"))
    assert plans.choose_directory(plan) == Path("ablations/toy-1")
    assert plans.choose_directory(other) == Path("ablations/toy-2")
    plans.save(other, Path("ablations/toy-2"))
    assert plans.choose_directory(plan_of("slow", seeds=[1, 0])) == Path("ablations/toy-2")
    assert plans.choose_directory(plan_of("slow", seeds=[1, 2])) == Path("ablations/toy-3")


def test_directories_that_hold_something_else_are_refused(tmp_path: Path) -> None:
    plans.check_directory(tmp_path / "new")
    plans.check_directory(tmp_path)
    (tmp_path / "file").write_text("text")
    with pytest.raises(UserError, match="is not empty and holds no ablation"):
        plans.check_directory(tmp_path)
    with pytest.raises(UserError, match="is a file"):
        plans.check_directory(tmp_path / "file")
    (tmp_path / "plan.json").write_text("{")
    plans.check_directory(tmp_path)
    with pytest.raises(UserError, match=r"plan\.json cannot be read"):
        plans.load(tmp_path)
