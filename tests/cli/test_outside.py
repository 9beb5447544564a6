"""A penalty and a part from a file of the user's, named by class path in a config and by options: both act."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest
import torch
import yaml

from ganzoo import checkpoint
from ganzoo.cli import main
from tests.cli.common import refused

OUTSIDE = '''
import torch
from ganzoo.parts import Part, Penalty


class Pull(Penalty):
    """The sum of all parameters of the discriminator, whose slope is 1 for each."""

    players = ("discriminator",)

    def __init__(self, weight: float = 1.0, *, every: int = 1) -> None:
        """
        Args:
            weight: Factor of the sum.
            every: Apply it on each so many-th turn.
        """
        super().__init__(weight, every=every)

    def value(self, turn):
        return sum(p.sum() for p in turn.gan.discriminator.parameters())


class Fill(Part):
    """All parameters of the discriminator begin at one number."""

    players = ("discriminator",)

    def __init__(self, number: float = 0.0) -> None:
        """
        Args:
            number: Where they begin.
        """
        super().__init__()
        self.number = number

    def rebuild(self, gan):
        for p in gan.discriminator.parameters():
            torch.nn.init.constant_(p, self.number)
'''
#: Six cycles of 64 points, in which nothing else moves the discriminator.
ALONE = (
    "--model MLPGAN --model.hidden 8 --model.adversarial_weight 0 --model.discriminator_optimizer SGD "
    "--model.discriminator_optimizer.lr 0.25 --data Ring --data.batch_size 64 --model.total_kimg 0.384 "
    "--trainer.accelerator cpu --run_dir run"
).split()


def added(way: str, module: str) -> list[str]:
    """The arguments that add both, by a config or by options."""
    if way == "options":
        return (
            f"--model.penalties+={module}.Pull --model.penalties.weight 2 "
            f"--model.parts+={module}.Fill --model.parts.number 4"
        ).split()
    parts = {
        "penalties": [{"class_path": f"{module}.Pull", "init_args": {"weight": 2.0}}],
        "parts": [{"class_path": f"{module}.Fill", "init_args": {"number": 4.0}}],
    }
    Path("mine.yaml").write_text(yaml.safe_dump({"model": {"class_path": "MLPGAN", "init_args": parts}}))
    return ["--config", "mine.yaml"]


@pytest.mark.parametrize("way", ["config", "options"])
def test_a_penalty_and_a_part_of_the_user_s_act(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Parameters begin at 4 and go down by 0.25 * 2 in each of six turns; the logged sum is the mean over these."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = f"outside_by_{way}"
    Path(f"{module}.py").write_text(OUTSIDE)
    arguments = ["fit", *added(way, module), *ALONE]
    assert f"add --import {module}" in refused(capsys, *arguments)
    assert module not in sys.modules
    assert main([*arguments, "--import", module]) == 0
    gan = checkpoint.load_model(tmp_path / "run" / "checkpoints" / "last.ckpt")
    parameters = torch.cat([p.detach().flatten() for p in gan.discriminator.parameters()])
    assert (gan.clock.d_turns, gan.clock.g_turns) == (6, 6)
    assert torch.equal(parameters, torch.full_like(parameters, 4 - 6 * 0.25 * 2))
    with open("run/metrics.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    mean = sum(4 - 0.25 * 2 * turn for turn in range(6)) / 6
    assert float(row["penalty/pull"]) == pytest.approx(len(parameters) * mean)
    assert f"import:\n- {module}\n" in Path("run/config.yaml").read_text()
