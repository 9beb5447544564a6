"""What a run shows: right numbers, at most now and then."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import ganzoo.callbacks.progress as module
from ganzoo.callbacks import Checkpoint, Log, Progress
from ganzoo.callbacks.progress import Speed, duration
from tests.callbacks.common import At, Dies, die, run, tiny


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if "kimg" in line]


def test_speed_and_time_left_are_those_of_the_last_minute() -> None:
    speed = Speed(window_seconds=60)
    speed.note(0, 0, 0.0)
    assert speed.images_per_second() is None and speed.seconds_left() is None
    speed.note(0, 0, 0.0)  # no time has passed
    assert speed.images_per_second() is None and speed.seconds_left() is None
    speed.note(10, 1000, 0.1)
    assert speed.images_per_second() == 100 and speed.seconds_left() == pytest.approx(90)
    for second in range(11, 100):  # five times as fast
        speed.note(second, 1000 + 500 * (second - 10), 0.1 + 0.005 * (second - 10))
    assert speed.images_per_second() == pytest.approx(500)
    assert speed.seconds_left() == pytest.approx((1 - 0.545) / 0.005)


def test_a_run_without_a_known_end_has_no_time_left() -> None:
    speed = Speed()
    speed.note(0, 0, None)
    speed.note(1, 100, None)
    assert speed.seconds_left() is None and speed.images_per_second() == 100


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (7.4, "0:07"), (59.6, "1:00"), (754, "12:34"), (11045, "3:04:05")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_where_there_is_no_terminal_a_line_is_written_now_and_then(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tiny(0.5), tmp_path, [Log(0.1), Progress(line_seconds=1000)])
    start, end = lines(capsys)
    assert start == "0.0/0.5 kimg | - images/s | 0%"
    row = (tmp_path / "metrics.csv").read_text().splitlines()
    last = dict(zip(row[0].split(","), row[-1].split(","), strict=True))
    losses = f"D {float(last['loss/d']):.3f} | G {float(last['loss/g']):.3f}"
    assert re.fullmatch(rf"0\.5/0\.5 kimg \| \d+ images/s \| {re.escape(losses)} \| 100% \| 0:00 left", end)


def test_losses_are_there_without_a_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tiny(0.5), tmp_path, [Progress(line_seconds=1000)])
    assert re.search(r"\| D \d\.\d{3} \| G \d\.\d{3} \|", lines(capsys)[-1])


def test_a_run_that_ends_by_steps_shows_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tiny(None), tmp_path, [Progress(line_seconds=1000)], max_steps=8)
    start, end = lines(capsys)
    assert start == "0.0 kimg | step 0/8 | - images/s | 0%"
    assert end.startswith("0.4 kimg | step 8/8 | ") and "| 100% |" in end


def test_a_resumed_run_measures_its_own_speed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tiny(0.2), tmp_path, [Checkpoint(0)])
    last = tmp_path / "checkpoints" / "last.ckpt"
    run(tiny(0.4), tmp_path, [Progress(line_seconds=1000)], resume=last)
    start, _ = lines(capsys)
    assert start.startswith("0.2/0.4 kimg | - images/s") and start.endswith(" | 50%")


def test_the_device_is_not_asked_in_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gan, asked = tiny(1.0), []
    gan.step_seconds = 0.0  # one cycle per step, so 20 steps
    means = gan.meter.means
    monkeypatch.setattr(gan.meter, "means", lambda: (asked.append(1), means())[1])
    run(gan, tmp_path, [Progress(line_seconds=1000)])
    assert len(asked) == 2  # at the start and at the end


def shown_bar(monkeypatch: pytest.MonkeyPatch, width: int) -> io.StringIO:
    """Makes the bar believe in a terminal of this width, and returns what it is sent."""
    from rich.console import Console

    screen, make = io.StringIO(), module._bar

    def bar() -> Any:
        made = make()
        console = Console(file=screen, force_terminal=True, width=width, color_system=None, legacy_windows=False)
        made.live.console = console
        return made

    monkeypatch.setattr(module, "_bar", bar)
    monkeypatch.setattr(module, "_is_terminal", lambda: True)
    return screen


@pytest.mark.parametrize("width", [60, 80, 140])
def test_a_terminal_gets_a_bar_of_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    screen = shown_bar(monkeypatch, width)
    run(tiny(0.5), tmp_path, [Log(0.1), Progress(refresh_seconds=0)])
    text = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", screen.getvalue())
    states = [state for state in re.split(r"[\r\n]+", text) if state.strip()]
    assert all(len(state) <= width for state in states)
    assert states[-1].startswith("0.5/0.5 kimg") and "100%" in states[-1]
    assert "\x1b[1A" not in screen.getvalue()  # the cursor never goes up: one line


def test_the_cursor_comes_back_after_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = shown_bar(monkeypatch, 80)
    with pytest.raises(Dies):
        run(tiny(0.5, parts=[At("generator", 3, die)]), tmp_path, [Progress(refresh_seconds=0)])
    assert screen.getvalue().rindex("\x1b[?25h") > screen.getvalue().rindex("\x1b[?25l")


def test_a_bar_that_is_off_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bar = Progress(line_seconds=0)
    bar.disable()
    run(tiny(0.2), tmp_path, [bar])
    assert lines(capsys) == []


def test_the_generators_alone_never_divide_by_zero(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A plan without turns of the discriminator: images stand still."""
    from ganzoo.plan import Play

    torch.manual_seed(0)
    run(tiny(None, play=Play(0, 1)), tmp_path, [Log(0.1), Progress(line_seconds=0)], max_steps=3)
    assert lines(capsys)[-1].startswith("0.0 kimg | step 3/3 | - images/s | G ")
