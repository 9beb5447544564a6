"""Several machines, as torchrun and SLURM start their processes: here both "machines" are this one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ganzoo.errors import UserError
from ganzoo.strategy import check_trainer
from tests.common import max_difference, quiet_trainer

ROOT = Path(__file__).resolve().parent.parent

#: Four cycles of 16 images; no batch normalization, so that a joint batch equals any split of it.
FIT = [
    *("fit", "--model", "MLPGAN", "--model.hidden", "16", "--model.num_layers", "2", "--model.total_kimg", "0.064"),
    *("--data", "Digits", "--data.image_size", "8", "--data.batch_size", "16", "--seed", "5"),
    *("--trainer.accelerator", "cpu", "--run_dir", "run"),
]
TWO_NODES = ["--trainer.devices", "1", "--trainer.num_nodes", "2"]


def start(folder: Path, command: list[str], **env: str) -> subprocess.Popen:
    """A process in the folder, in which there is one cache for all."""
    shared = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GANZOO_CACHE": str(folder.parent / "cache")}
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([sys.executable, *command], cwd=folder, env={**clean, **shared, **env}, **pipes)


def ended(*processes: subprocess.Popen) -> None:
    """All of them, well."""
    said = [process.communicate(timeout=800)[0] for process in processes]
    for process, text in zip(processes, said, strict=True):
        assert process.returncode == 0, text[-3000:]


def content(folder: Path) -> dict:
    return torch.load(folder / "run" / "checkpoints" / "last.ckpt", weights_only=True)


def free_port() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "slurm"])
def test_two_machines_train_as_one(launcher: str, tmp_path: Path) -> None:
    """``data.batch_size`` is the total: the same number of images, and the same networks."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    ended(start(one, ["-m", "ganzoo", *FIT]))
    port = free_port()
    if launcher == "torchrun":
        shared = ["-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1", "--master_addr=127.0.0.1"]
        nodes = [
            [*shared, f"--master_port={port}", f"--node_rank={rank}", "-m", "ganzoo", *FIT, *TWO_NODES]
            for rank in (0, 1)
        ]
        ended(*(start(two, command) for command in nodes))
    else:
        job = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1", "SLURM_NNODES": "2", "SLURM_JOB_NAME": "gan"}
        job |= {"SLURM_NODELIST": "127.0.0.1", "MASTER_PORT": port}
        tasks = [{"SLURM_PROCID": str(rank), "SLURM_NODEID": str(rank), "SLURM_LOCALID": "0"} for rank in (0, 1)]
        ended(*(start(two, ["-m", "ganzoo", *FIT, *TWO_NODES], **job, **task) for task in tasks))
    single, joint = content(one), content(two)
    assert single["ganzoo"]["clock"] == joint["ganzoo"]["clock"]
    assert single["ganzoo"]["clock"]["images"] == 64
    assert max_difference(single["state_dict"], joint["state_dict"]) < 1e-5


@pytest.mark.parametrize(
    "env",
    [
        {"TORCHELASTIC_RUN_ID": "x", "RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"},
        {"SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_PROCID": "1"},
    ],
    ids=["torchrun", "srun"],
)
def test_a_wrong_number_of_devices_is_refused(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes were started, but each would train alone: the recipe asks for one device."""
    for name in ("RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    check_trainer(quiet_trainer(max_steps=1))
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"^2 processes were started together, but .*num_nodes is 1: set them to the"):
        check_trainer(quiet_trainer(max_steps=1))
