"""Two gloo processes through the shipped code equal one process with the joint batch."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from ganzoo.data import Digits
from ganzoo.errors import UserError
from ganzoo.models import DCGAN
from tests.common import max_difference, quiet_trainer

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[str, dict]:
    folder = tmp_path_factory.mktemp("ddp")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GANZOO_CACHE": str(folder / "cache")}
    for devices in (1, 2):
        command = [sys.executable, str(ROOT / "tests" / "ddp_scenarios.py"), str(folder), str(devices)]
        done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr[-3000:]
    return {path.stem: torch.load(path, weights_only=True) for path in folder.glob("*.pt")}


def test_strategy_is_chosen_by_itself(results) -> None:
    assert results["plain-2-0"]["strategy"] == "GANDDPStrategy"
    assert results["plain-1-0"]["strategy"] == "SingleDeviceStrategy"


@pytest.mark.parametrize("name", ["plain", "accumulated"])
def test_two_processes_equal_one(results, name) -> None:
    """R1 on every other turn, WGAN-GP, dropout, noise, two passes in a turn, two D turns per cycle, EMA."""
    one, first, second = results[f"{name}-1-0"], results[f"{name}-2-0"], results[f"{name}-2-1"]
    assert one["images"] == first["images"] == 4 * 2 * 16
    assert max_difference(first["state"], second["state"]) == 0.0
    assert max_difference(one["state"], first["state"]) < 1e-5


def test_the_comparison_fails_when_nothing_is_averaged(results) -> None:
    assert max_difference(results["not_averaged-1-0"]["state"], results["not_averaged-2-0"]["state"]) > 1e-3
    assert max_difference(results["not_averaged-2-0"]["state"], results["not_averaged-2-1"]["state"]) > 1e-3


def test_running_statistics_agree_over_ranks_with_batch_norm(results) -> None:
    first, second = results["batch_norm-2-0"]["state"], results["batch_norm-2-1"]["state"]
    assert max_difference(first, second) == 0.0
    one = results["batch_norm-1-0"]["state"]
    means = [k for k in one if k.endswith("running_mean")]
    assert means
    # Each rank normalizes its own half, so weights differ from one process; the first layer's mean hardly does.
    assert (one[means[0]] - first[means[0]]).abs().max() < 1e-2


def test_a_gradient_missing_on_one_rank_counts_as_zero_and_hangs_nothing(results) -> None:
    assert max_difference(results["unequal-2-0"]["state"], results["unequal-2-1"]["state"]) == 0.0


@pytest.mark.parametrize("name", ["fsdp", "deepspeed"])
def test_sharding_strategies_are_refused(name, monkeypatch) -> None:
    from lightning.pytorch import strategies

    from ganzoo.strategy import check_trainer

    cls = {"fsdp": strategies.FSDPStrategy, "deepspeed": strategies.DeepSpeedStrategy}[name]
    trainer = quiet_trainer(max_steps=1)
    monkeypatch.setattr(trainer.strategy, "__class__", cls, raising=False)
    with pytest.raises(UserError, match="cannot train a GAN"):
        check_trainer(trainer)


def test_plain_ddp_is_refused_with_the_way_out() -> None:
    from lightning.pytorch import Trainer
    from lightning.pytorch.strategies import DDPStrategy

    trainer = Trainer(accelerator="cpu", devices=2, strategy=DDPStrategy(), logger=False, enable_checkpointing=False)
    from ganzoo.strategy import check_trainer

    with pytest.raises(UserError, match="gan_ddp"):
        check_trainer(trainer)


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "16-true"])
def test_other_precisions_are_refused(precision) -> None:
    with pytest.raises(UserError, match="must be one of 32-true, bf16-mixed, 16-mixed"):
        quiet_trainer(precision=precision).fit(DCGAN(8, 1, width=4, total_kimg=1), Digits(image_size=8))


def test_an_indivisible_batch_is_refused_with_the_numbers() -> None:
    gan = DCGAN(8, 1, width=4, accumulate=3, total_kimg=1)
    with pytest.raises(UserError, match=r"16.*3"):
        quiet_trainer().fit(gan, Digits(image_size=8, batch_size=16))


LEAVES = """
import atexit, glob, os, sys, time

import torch
import torch.distributed as dist
from ganzoo.data import Digits
from ganzoo.models import MLPGAN
from tests.common import quiet_trainer

folder, how = sys.argv[1:]


@atexit.register  # before the strategy's, so it runs after it
def left() -> None:
    threads = [open(path).read() for path in glob.glob("/proc/self/task/*/comm")]
    with open(f"{folder}/{os.environ.get('LOCAL_RANK', 0)}", "w") as file:
        file.write(f"{dist.is_initialized()} {sum('gloo' in name for name in threads)}")


trainer = quiet_trainer(devices=2, max_steps=2)
trainer.fit(MLPGAN((1, 8, 8), hidden=8, num_layers=1), Digits(image_size=8, batch_size=16))
if how == "fails":  # this rank has begun something that the other one never will
    end = time.monotonic() + 180
    while trainer.global_rank == 1 and time.monotonic() < end and not os.path.exists(f"{folder}/0"):
        time.sleep(0.1)
    pending = dist.all_reduce(torch.ones(1), async_op=True)
    trainer.strategy.on_exception(RuntimeError())
    raise RuntimeError("the first rank fails")
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")
def test_processes_leave_the_group_before_they_end(tmp_path: Path) -> None:
    """A thread of gloo that lives on aborts the process in some of its ends ("terminate called ...", code -6)."""
    code, _ = _leave(tmp_path, "well")
    assert code == 0
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["False 0", "False 0"]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")
def test_a_failed_process_does_not_wait_for_the_others(tmp_path: Path) -> None:
    code, seconds = _leave(tmp_path, "fails")
    assert code != 0
    assert seconds < 120  # the other one waits for 180
    assert (tmp_path / "0").read_text().startswith("True")


def _leave(folder: Path, how: str) -> tuple[int, float]:
    (folder / "leaves.py").write_text(LEAVES)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GANZOO_CACHE": str(folder / "cache")}
    begin = time.monotonic()
    command = [sys.executable, str(folder / "leaves.py"), str(folder), how]
    with open(folder / "said", "w") as said:  # no pipe, which the second process would hold open
        done = subprocess.run(command, env=env, cwd=ROOT, stdout=said, stderr=said, timeout=240)
    return done.returncode, time.monotonic() - begin
