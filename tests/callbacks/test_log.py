"""The table of scalars: right means, and the same rows whatever happened to the process."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from ganzoo.callbacks import Checkpoint, GracefulStop, Log
from ganzoo.callbacks.log import Table
from ganzoo.models.mlp import MLPGAN
from ganzoo.parts import Part, Turn
from tests.callbacks.common import At, Dies, die, run, tiny

KEYS = [
    *("progress/kimg", "progress/images", "progress/g_turns"),
    *("logits/fake", "logits/real", "loss/d", "loss/g", "lr/g", "lr/d", "ema/decay"),
    *("time/seconds", "time/images_per_second"),
]


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def timeless(folder: Path) -> list[dict[str, str]]:
    """Rows without what the wall clock says."""
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows(folder)]


def recorded(gan: MLPGAN) -> list[tuple[str, int, float]]:
    """Every scalar as it is noted: its name, the images seen before its cycle, its value."""
    found, add = [], gan.meter.add

    def spy(name: str, value: Tensor, turn: int) -> None:
        found.append((name, gan.clock.images, value.item()))
        add(name, value, turn)

    gan.meter.add = spy  # type: ignore[method-assign]
    return found


def test_rows_are_the_means_of_their_intervals(tmp_path: Path) -> None:
    gan = tiny(0.55)
    found = recorded(gan)
    run(gan, tmp_path, [Log(0.2)])
    table = rows(tmp_path)
    assert list(table[0]) == KEYS
    assert [(float(r["progress/kimg"]), int(r["progress/images"]), int(r["progress/g_turns"])) for r in table] == [
        *((0.2, 200, 4), (0.4, 400, 8)),
        (0.55, 550, 11),
    ]
    for row, start, end in zip(table, (0, 200, 400), (200, 400, 550), strict=True):
        for name in ("loss/d", "loss/g", "logits/real", "logits/fake"):
            values = [value for key, images, value in found if key == name and start <= images < end]
            assert len(values) == (end - start) / 50
            assert float(row[name]) == pytest.approx(sum(values) / len(values), rel=1e-12)


def test_rates_decay_and_speed_are_what_the_run_used(tmp_path: Path) -> None:
    run(tiny(0.4), tmp_path, [Log(0.2)])
    for row, images in zip(rows(tmp_path), (200, 400), strict=True):
        assert float(row["lr/g"]) == float(row["lr/d"]) == 1e-3
        assert float(row["ema/decay"]) == pytest.approx(0.5 ** (50 / (0.05 * images)))  # in the ramp of 5 %
    first, last = rows(tmp_path)
    seconds = float(last["time/seconds"]) - float(first["time/seconds"])
    assert seconds > 0
    assert float(last["time/images_per_second"]) == pytest.approx(200 / seconds, rel=0.2)  # times are in ms


def killed_and_resumed(folder: Path, **options: Any) -> None:
    """A run of 1 kimg that dies after the discriminator's 14th turn, of 20, and goes on from 0.5 kimg."""
    callbacks = lambda: [Log(0.1), Checkpoint(0.25)]  # noqa: E731  one line for fresh objects
    parts = options.pop("parts", list)
    with pytest.raises(Dies):
        run(tiny(1.0, parts=[*parts(), At("discriminator", 13, die)], **options), folder, callbacks())
    assert [row["progress/kimg"] for row in rows(folder)][-1] == "0.6"
    run(tiny(1.0, parts=parts(), **options), folder, callbacks(), resume=folder / "checkpoints" / "last.ckpt")


def test_after_a_kill_and_a_resume_the_table_is_that_of_the_run_that_never_stopped(tmp_path: Path) -> None:
    run(tiny(1.0), tmp_path / "whole", [Log(0.1), Checkpoint(0.25)])
    killed_and_resumed(tmp_path / "killed")
    assert len(timeless(tmp_path / "whole")) == 10
    assert timeless(tmp_path / "whole") == timeless(tmp_path / "killed")
    seconds = [float(row["time/seconds"]) for row in rows(tmp_path / "killed")]
    assert seconds == sorted(seconds)


def test_a_checkpoint_between_two_rows_holds_the_scalars_that_were_not_written_yet(tmp_path: Path) -> None:
    """0.25 kimg is inside of the interval from 0.2 to 0.4."""
    folder = tmp_path / "killed"
    run(tiny(0.6), tmp_path / "whole", [Log(0.2), Checkpoint(0.25, keep=0)])
    with pytest.raises(Dies):
        run(tiny(0.6, parts=[At("generator", 5, die)]), folder, [Log(0.2), Checkpoint(0.25, keep=0)])
    run(tiny(0.6), folder, [Log(0.2), Checkpoint(0.25, keep=0)], resume=folder / "checkpoints" / "last.ckpt")
    assert timeless(tmp_path / "whole") == timeless(folder)


def test_a_run_whose_end_is_moved_has_no_trace_of_the_first_end(tmp_path: Path) -> None:
    run(tiny(1.0), tmp_path / "whole", [Log(0.2), Checkpoint(0)])
    folder = tmp_path / "moved"
    run(tiny(0.5), folder, [Log(0.2), Checkpoint(0)])
    assert [row["progress/kimg"] for row in rows(folder)] == ["0.2", "0.4", "0.5"]
    run(tiny(1.0), folder, [Log(0.2), Checkpoint(0)], resume=folder / "checkpoints" / "last.ckpt")
    assert timeless(tmp_path / "whole") == timeless(folder)


def test_a_run_that_a_signal_stopped_writes_no_row_of_a_part(tmp_path: Path) -> None:
    stop = GracefulStop()
    gan = tiny(1.0, parts=[At("generator", 4, lambda: stop._receive(15, None))])
    run(gan, tmp_path / "stopped", [Log(0.2), stop, Checkpoint(0)])
    assert gan.clock.images == 250
    assert [row["progress/kimg"] for row in rows(tmp_path / "stopped")] == ["0.2"]
    run(tiny(1.0), tmp_path / "whole", [Log(0.2), Checkpoint(0)])
    resume = tmp_path / "stopped" / "checkpoints" / "last.ckpt"
    run(tiny(1.0), tmp_path / "stopped", [Log(0.2), Checkpoint(0)], resume=resume)
    assert timeless(tmp_path / "whole") == timeless(tmp_path / "stopped")


class Late(Part):
    """Logs the number of a discriminator turn from the 8th on."""

    players = ("discriminator",)

    def forward(self, turn: Turn) -> None:
        if turn.number >= 8:
            turn.logs["penalty/late"] = torch.tensor(float(turn.number))


def test_a_scalar_that_appears_later_is_a_column_that_older_rows_leave_empty(tmp_path: Path) -> None:
    run(tiny(1.0, parts=[Late()]), tmp_path / "whole", [Log(0.1), Checkpoint(0.25)])
    table = rows(tmp_path / "whole")
    assert list(table[0]) == [*KEYS, "penalty/late"]
    assert [row["penalty/late"] for row in table] == ["", "", "", "", *(f"{n}.5" for n in (8, 10, 12, 14, 16, 18))]
    killed_and_resumed(tmp_path / "killed", parts=lambda: [Late()])
    assert timeless(tmp_path / "whole") == timeless(tmp_path / "killed")


def test_a_table_forgets_rows_beyond_and_a_row_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    head = "progress/kimg,progress/images,loss/d,time/seconds\n"
    path.write_text(f"{head}0.1,100,0.5,1.0\n0.2,200,0.25,2.5\n0.3,300,0.125,4.0\n0.4,40")
    table = Table(path, 200)
    assert path.read_text() == f"{head}0.1,100,0.5,1.0\n0.2,200,0.25,2.5\n"
    assert table.seconds == 2.5
    path.write_text(f"{head}0.1,100,0.5,1.0\n0.2,200,0.25,2.")  # all cells, but the number may go on
    Table(path, 1000)
    assert path.read_text() == f"{head}0.1,100,0.5,1.0\n"


def test_a_new_run_starts_a_new_table(tmp_path: Path) -> None:
    for _ in range(2):
        run(tiny(0.2), tmp_path, [Log(0.1)])
        assert [row["progress/kimg"] for row in rows(tmp_path)] == ["0.1", "0.2"]


def test_loggers_get_the_rows_at_the_number_of_images(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tiny(0.4), tmp_path, [Log(0.2)], logger=TensorBoardLogger(tmp_path, "tensorboard", ""))
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(events.Tags()["scalars"]) == set(KEYS)
    expected = [(int(row["progress/images"]), float(row["loss/d"])) for row in rows(tmp_path)]
    found = [(event.step, event.value) for event in events.Scalars("loss/d")]
    assert found == [(step, pytest.approx(value, rel=1e-6)) for step, value in expected]


def test_means_are_those_of_all_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a second rank had seen the losses 1 and 3 higher."""
    import ganzoo.callbacks.base as base
    import ganzoo.callbacks.log as log

    def two_ranks(trainer: Any, value: Any) -> list[Any]:
        return [value, {name: mean + 3 for name, mean in value.items()}] if isinstance(value, dict) else [value, value]

    run(tiny(0.2), tmp_path / "one", [Log(0.2)])
    monkeypatch.setattr(log, "gather", two_ranks)
    run(tiny(0.2), tmp_path / "two", [Log(0.2)])
    (one,), (two,) = rows(tmp_path / "one"), rows(tmp_path / "two")
    assert float(two["loss/d"]) == pytest.approx(float(one["loss/d"]) + 1.5)
    assert base.gather(SimpleNamespace(world_size=1), 5) == [5]  # type: ignore[arg-type]


def test_a_row_of_the_disk_that_is_full_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ganzoo.errors import TrainingError

    def full(self: Table, row: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Table, "append", full)
    with pytest.raises(TrainingError, match=r"metrics\.csv could not be written"):
        run(tiny(0.2), tmp_path, [Log(0.1)])


def test_no_row_is_written_of_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    from ganzoo.errors import TrainingError

    class Spoil(Part):
        players = ("generator",)

        def forward(self, turn: Turn) -> Tensor | None:
            return torch.tensor(math.nan) if turn.number == 7 else None

    with pytest.raises(TrainingError, match="total/g is not finite since turn 7 of its player"):
        run(tiny(1.0, parts=[Spoil()]), tmp_path, [Log(0.2)])
    assert [row["progress/kimg"] for row in rows(tmp_path)] == ["0.2"]
