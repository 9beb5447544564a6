"""What several devices send: counted in two processes, and equal to the sizes of the networks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.speed.noise import Noise
from benchmarks.speed.scaling import Machine, flop_per_cycle, row, sent, table
from ganzoo.ablation.timing import Subject
from ganzoo.models import DCGAN, MLPGAN
from ganzoo.plan import Play
from tests.common import max_difference
from tests.mutants import kills

ROOT = Path(__file__).resolve().parents[2]
Record = dict[str, Any]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Record]:
    folder = tmp_path_factory.mktemp("traffic")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GANZOO_CACHE": str(folder / "cache")}
    command = [sys.executable, str(ROOT / "tests" / "benchmarks" / "ddp_traffic.py"), str(folder)]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return {path.stem: torch.load(path, weights_only=True) for path in folder.glob("*.pt")}


def size(record: Record, network: str, parts: str = "") -> int:
    """Bytes of all float tensors of a network and of the named part, and of a flag per parameter."""
    names = [name for name in record["state"] if name.startswith((f"{network}.", *([parts] if parts else [])))]
    floats = [record["state"][name] for name in names if record["state"][name].is_floating_point()]
    return 4 * (sum(tensor.numel() for tensor in floats) + record["parameters"][network])


def check_cycles(record: Record, turns: str, micro: int = 1, parts: str = "") -> None:
    """Each turn of ``turns`` (letters d and g): its backward passes, then one reduction of its player and no other."""
    sizes = {"d": size(record, "discriminator", parts), "g": size(record, "generator")}
    one = [event for turn in turns for event in [("backward", 0)] * micro + [("allreduce_", sizes[turn])]]
    assert record["cycles"] == [one] * 4
    assert record["expected"] == [sizes[turn] for turn in turns]


@pytest.mark.parametrize("rank", [0, 1])
def test_gradients_of_the_player_that_moves_once_per_turn(records: dict[str, Record], rank: int) -> None:
    """Two turns of the discriminator and one of the generator: three reductions, whatever penalties are due."""
    check_cycles(records[f"plain-{rank}"], "ddg", parts="parts.2.")  # that is LeCam, with three averages
    kills(lambda name: check_cycles(records[f"{name}-{rank}"], "dg", parts="parts.2."), "both_players")


def test_micro_batches_send_nothing_but_the_last_one(records: dict[str, Record]) -> None:
    check_cycles(records["accumulated-0"], "dg", micro=2, parts="parts.2.")
    kills(lambda name: check_cycles(records[f"{name}-0"], "dg", micro=2, parts="parts.2."), "each_micro_batch")


def test_statistics_of_a_player_travel_with_its_gradients(records: dict[str, Record]) -> None:
    """Running means of batch normalization with the generator's, spectral vectors with the discriminator's."""
    record = records["statistics-0"]
    names = [name for name in record["state"] if name.endswith(("running_mean", "running_var", "._u", "._v"))]
    assert {name.partition(".")[0] for name in names} >= {"generator", "discriminator"}
    check_cycles(record, "dg")
    assert max_difference(record["state"], records["statistics-1"]["state"]) == 0.0
    kills(lambda name: check_cycles(records[f"{name}-0"], "dg"), "no_buffers")


def test_joint_statistics_of_logits_send_a_few_numbers_more(records: dict[str, Record]) -> None:
    """The relativistic average: a mean of real and of fake logits, and the gradient of each, in every turn."""
    record = records["joint-0"]
    reductions = [bytes_ for name, bytes_ in record["cycles"][1] if name == "allreduce_"]
    small, large = [b for b in reductions if b <= 4], [b for b in reductions if b > 4]
    assert large == record["expected"]
    assert 0 < len(small) <= 8


def test_between_cycles_lightning_sends_one_number(records: dict[str, Record]) -> None:
    """Whether a process has received SIGTERM."""
    for found in records["plain-0"]["between"]:
        assert found == [("broadcast_", 8)]


def test_the_batch_size_is_the_total(records: dict[str, Record]) -> None:
    """16 images: 8 per process, and 4 per micro-batch of two."""
    for rank in (0, 1):
        assert set(records[f"plain-{rank}"]["sizes"]) == {8}
        assert records[f"accumulated-{rank}"]["sizes"] == [4] * 8


def test_images_on_the_device_change_nothing(records: dict[str, Record]) -> None:
    """Each process holds all of them, and takes its own rows."""
    for rank in (0, 1):
        assert max_difference(records[f"plain-{rank}"]["state"], records[f"resident-{rank}"]["state"]) == 0.0


# ---------------------------------------------------------------------- arithmetic


def check_ring(function) -> None:
    """By hand: n - 1 steps of a reduce-scatter and n - 1 of an all-gather, each with an n-th of the bytes."""
    for n in (1, 2, 4, 8, 64):
        assert function(1000.0, n) == pytest.approx(sum(1000.0 / n for _ in range(2 * (n - 1))))


def test_ring() -> None:
    check_ring(sent)
    kills(check_ring, lambda size, n: (n - 1) / n * size)
    kills(check_ring, lambda size, n: 2 * (n - 1) * size)
    machine = Machine(devices=4, bandwidth=1e9, latency=1e-5, flops=1e12)
    assert machine.reduction(4e6) == pytest.approx(6 * 1e-5 + 6e6 / 1e9)


def about(batch: int, **options) -> Subject:
    return Subject(DCGAN(8, 1, width=4, **options), Noise([1, 8, 8], batch_size=batch), {"accelerator": "cpu"})


def test_flop_of_few_images_times_the_rest_are_those_of_all() -> None:
    assert flop_per_cycle(about(32), 8) == flop_per_cycle(about(32), 32) == flop_per_cycle(about(32, accumulate=2), 64)


def test_a_row() -> None:
    """A network of one layer by hand: 2 D turns and 1 G turn, 3 backward passes and what each of them needs."""
    gan = MLPGAN((2,), latent_dim=3, hidden=5, num_layers=1, play=Play(2, 1))
    of = {name: sum(p.numel() for p in getattr(gan, name).parameters()) for name in ("generator", "discriminator")}
    tensors = {name: len(list(getattr(gan, name).parameters())) for name in of}
    machine = Machine(devices=2, bandwidth=1e6, latency=0.0, flops=1e6)
    found = row(Subject(gan, Noise([2], batch_size=8), {"accelerator": "cpu"}), machine, images=8, weak=False)
    numbers = 2 * (of["discriminator"] + tensors["discriminator"]) + of["generator"] + tensors["generator"]
    assert found["reductions"] == 3
    assert found["sending_ms"] == pytest.approx(1e3 * 4 * numbers / 1e6, rel=1e-2)
    assert found["computing_ms"] == pytest.approx(1e3 * 1e9 * found["gflop"] / 2 / 1e6, rel=1e-2)
    share = found["sending_ms"] / (found["sending_ms"] + found["computing_ms"])
    assert found["sending_share"] == pytest.approx(share, rel=1e-2)
    header, _, line = table([{"recipe": "x", **found}]).splitlines()
    assert line.count("|") == header.count("|")


def test_each_device_with_a_batch_of_its_own() -> None:
    machine = Machine(devices=4, bandwidth=1e9, latency=0.0, flops=1e12)
    strong, weak = (row(about(8), machine, images=8, weak=weak) for weak in (False, True))
    assert weak["batch"] == 32 and strong["batch"] == 8
    assert weak["computing_ms"] == pytest.approx(4 * strong["computing_ms"], rel=1e-2)
    assert weak["sending_ms"] == strong["sending_ms"]
