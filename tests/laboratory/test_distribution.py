"""The laboratory's callback: right scores in the log, right pictures, exact resumes, and no trace in the training."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from ganzoo.callbacks import Checkpoint, Log
from ganzoo.data import Digits, Grid, Mixture, Ring, SwissRoll, Toy
from ganzoo.errors import UserError
from ganzoo.laboratory import Distribution, pictures
from ganzoo.laboratory.judge import judge
from ganzoo.laboratory.pictures import Frame
from ganzoo.metrics import distribution as metrics
from ganzoo.models import MLPGAN
from ganzoo.penalties import R1
from tests.callbacks.common import At, Dies, die, run, same_state
from tests.mutants import kills


def tiny(data: Toy, total_kimg: float = 0.4, **options: Any) -> MLPGAN:
    torch.manual_seed(0)
    return MLPGAN(data.shape, hidden=8, num_layers=1, total_kimg=total_kimg, **options)


def drawn(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "laboratory").iterdir())}


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "metrics.csv", newline="") as file:
        return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in csv.DictReader(file)]


def scores(folder: Path) -> dict[int, dict[str, float]]:
    """By images, the scores where there are some."""
    return {
        int(row["progress/images"]): {k: float(v) for k, v in row.items() if k.startswith("toy/")}
        for row in rows(folder)
        if row["toy/modes"]
    }


@pytest.mark.parametrize("averaged", [True, False])
def test_scores_in_the_log_are_those_of_the_model_s_samples(tmp_path: Path, averaged: bool) -> None:
    data = Grid(side=2, spacing=1.0, std=0.3, batch_size=50)
    gan = tiny(data, 0.5)
    found: dict[int, dict[str, float]] = {}

    def measure() -> None:
        samples = gan.sample(200, seed=3, averaged=averaged, batch_size=7)
        modes = data.distribution.means, data.distribution.stds
        found[gan.clock.images] = {
            "toy/modes": metrics.modes_captured(samples, *modes, within=2.0),
            "toy/high_quality": metrics.high_quality_share(samples, *modes, within=2.0),
            "toy/reverse_kl": metrics.reverse_kl(samples, *modes),
            "toy/sliced_wasserstein": metrics.sliced_wasserstein(samples, data.draw(200)),
        }

    class Measured(Log):
        """Measures when the log writes."""

        def _write(self, *given: Any) -> None:
            measure()
            super()._write(*given)

    lab = Plain(0.2, 200, seed=3, within=2.0, averaged=averaged)
    run(gan, tmp_path, [Measured(0.1), lab], data=data)
    written = scores(tmp_path)
    assert list(written) == [200, 400, 500]  # at both marks and at the end
    for images, row in written.items():
        assert row == pytest.approx(found[images], abs=1e-6)
    assert [int(row["progress/images"]) for row in rows(tmp_path)] == [100, 200, 300, 400, 500, 500]


def test_low_quality_samples_may_be_left_out_of_the_kl(tmp_path: Path) -> None:
    data = Ring(num_modes=4, std=0.05, batch_size=50)
    samples = torch.cat([data.distribution.means[:2], 1.2 * data.distribution.means[2:]])
    for assign_all, expected in ((True, 0.0), (False, np.log(2))):
        lab = Distribution(0, 10, assign_all=assign_all)
        lab._data, lab._real = data, samples
        assert lab.scores(samples)["reverse_kl"] == pytest.approx(expected, abs=1e-6)


def test_pictures_are_drawn_at_the_start_at_marks_and_at_the_end(tmp_path: Path) -> None:
    run(tiny(data := Mixture(batch_size=50), 0.5, latent_dim=1), tmp_path, [Distribution(0.2, 100)], data=data)
    assert list(drawn(tmp_path)) == [f"kimg-000000.{k}.png" for k in ("000", "200", "400", "500")]
    with Image.open(tmp_path / "laboratory.gif") as animation:
        assert animation.n_frames == 4
    assert all(len(content) < 150_000 for content in drawn(tmp_path).values())
    assert not (tmp_path / "samples").exists()


@pytest.mark.parametrize("toy", [Mixture, pytest.param(Grid, marks=pytest.mark.slow)])
def test_after_a_kill_and_a_resume_everything_is_as_if_the_run_had_not_stopped(
    tmp_path: Path, toy: Callable[..., Toy]
) -> None:
    def callbacks() -> list[Any]:
        return [Log(0.1), Distribution(0.2, 100), Checkpoint(0.25)]

    data = toy(batch_size=50)
    run(tiny(data, 0.5), tmp_path / "whole", callbacks(), data=toy(batch_size=50))
    folder = tmp_path / "killed"
    with pytest.raises(Dies):
        run(tiny(data, 0.5, parts=[At("generator", 8, die)]), folder, callbacks(), data=toy(batch_size=50))
    assert "kimg-000000.400.png" in drawn(folder)
    last = folder / "checkpoints" / "last.ckpt"
    run(tiny(data, 0.5), folder, callbacks(), resume=last, data=toy(batch_size=50))
    assert drawn(folder) == drawn(tmp_path / "whole")
    assert (folder / "laboratory.gif").read_bytes() == (tmp_path / "whole" / "laboratory.gif").read_bytes()
    assert rows(folder) == rows(tmp_path / "whole")


class Plain(Distribution):
    """Scores as they are, but a picture that costs nothing."""

    def picture(self, trainer: Any, gan: Any) -> Image.Image:
        return Image.new("L", (8, 8), gan.clock.images % 251)


def leaves_no_trace_of_a_moved_end(tmp_path: Path, lab: type[Distribution], first_end: float) -> None:
    def callbacks() -> list[Any]:
        return [Log(0.1), lab(0.2, 100), Checkpoint(0)]

    data = Grid(batch_size=50)
    run(tiny(data, 0.6), tmp_path / "whole", callbacks(), data=Grid(batch_size=50))
    folder = tmp_path / "moved"
    run(tiny(data, first_end), folder, callbacks(), data=Grid(batch_size=50))
    assert round(1000 * first_end) in scores(folder)
    last = folder / "checkpoints" / "last.ckpt"
    run(tiny(data, 0.6), folder, callbacks(), resume=last, data=Grid(batch_size=50))
    assert drawn(folder) == drawn(tmp_path / "whole")
    assert rows(folder) == rows(tmp_path / "whole")


@pytest.mark.parametrize("first_end", [0.3, 0.25])  # on a mark of the log alone, and on none
def test_a_moved_end_leaves_no_trace(tmp_path: Path, first_end: float) -> None:
    class Keeps(Plain):
        """Treats the end as a mark."""

        def look(self, trainer: Any, gan: Any, when: Any) -> None:
            super().look(trainer, gan, "mark" if when == "end" else when)

    leaves_no_trace_of_a_moved_end(tmp_path / "right", Plain, first_end)
    if first_end == 0.25:
        kills(lambda lab: leaves_no_trace_of_a_moved_end(tmp_path / "wrong", lab, first_end), Keeps)


def test_drawing_leaves_the_training_as_it_was_bit_by_bit(tmp_path: Path) -> None:
    results = []
    for callbacks in ([], [Distribution(0.15, 50)]):
        data = SwissRoll(batch_size=50)
        gan = tiny(data, 0.3, dropout=0.3, generator_norm="batch", penalties=[R1(0.1)])
        run(gan, tmp_path / str(len(callbacks)), callbacks, data=data)
        assert all(module.training for module in gan.discriminator.modules())
        results.append((gan, torch.random.get_rng_state()))
    (alone, state), (watched, state_after) = results
    assert same_state(alone, watched)
    assert torch.equal(state, state_after)


def test_in_half_precision(tmp_path: Path) -> None:
    data = Ring(batch_size=50)
    gan = tiny(data, 0.2, penalties=[R1(0.1)])
    run(gan, tmp_path, [Log(0.1), Distribution(0.1, 100)], data=data, precision="bf16-mixed")
    assert list(scores(tmp_path)) == [100, 200]


def test_other_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"known distribution, but the data are Digits: leave the callback out"):
        run(
            MLPGAN((1, 8, 8), hidden=8, total_kimg=0.1),
            tmp_path,
            [Distribution()],
            data=Digits(image_size=8, batch_size=50),
        )


@pytest.mark.parametrize("options", [{"num": 1}, {"within": 0.0}])
def test_impossible_options(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="were asked for; give 2 or more, above 0"):
        Distribution(**options)


def test_tensorboard_gets_the_pictures(tmp_path: Path) -> None:
    from lightning.pytorch.loggers import TensorBoardLogger
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    data = Ring(batch_size=50)
    run(tiny(data, 0.1), tmp_path, [Distribution(0.1, 50)], data=data, logger=TensorBoardLogger(tmp_path, "tb", ""))
    events = EventAccumulator(str(tmp_path / "tb")).Reload().Images("laboratory/distribution")
    assert [event.step for event in events] == [0, 100]
    assert (events[0].width, events[0].height) == (840, 455)


def test_frames() -> None:
    frame = Frame.around(torch.tensor([[0.0, 1.0], [4.0, 2.0]]), margin=0.25)
    assert (frame.low, frame.high) == ((-1.0, -1.5), (5.0, 4.5))
    assert frame.num_outside(torch.tensor([[-1.1, 0.0], [0.0, 0.0], [0.0, 4.6], [5.0, 4.5]])) == 2
    assert Frame.around(torch.tensor([[1.0], [3.0]]), margin=0.5).lattice(3).tolist() == [[0.0], [2.0], [4.0]]
    assert Frame((0.0, 10.0), (1.0, 11.0)).lattice(2).tolist() == [[0.0, 10.0], [1.0, 10.0], [0.0, 11.0], [1.0, 11.0]]


def colours(picture: Image.Image) -> np.ndarray[Any, Any]:
    return np.asarray(picture.convert("RGB")).astype(int)


def is_orange(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Orange rather than purple: more red than blue."""
    return pixels[..., 0] - pixels[..., 2] > 40


class Slope(nn.Module):
    """Logits that rise to the right, or upwards."""

    def __init__(self, direction: int) -> None:
        super().__init__()
        self.direction = nn.Parameter(8 * torch.eye(2)[direction])

    def forward(self, data: Tensor, labels: Tensor | None = None) -> Tensor:
        return data @ self.direction


def plane(samples: Tensor, direction: int = 0) -> Image.Image:
    data = Grid(side=2, spacing=2.0, std=0.1)
    frame = Frame((-2.0, -2.0), (2.0, 2.0))
    gan = tiny(data)
    gan.discriminator = Slope(direction)
    density = data.distribution.log_prob(frame.lattice(pictures.SIDE))
    return pictures.draw_plane(
        frame, samples, data.draw(100), density, lambda points: judge(gan, points), title="", note=""
    )


def puts_things_where_they_are(draw: Callable[..., Image.Image]) -> None:
    """Samples in the left panel, and the landscape's purple side, the real one, in the right panel."""
    samples = torch.tensor([1.0, -1.5]) + 0.05 * torch.randn(2000, 2, generator=torch.Generator().manual_seed(0))
    pixels = colours(draw(samples))
    # The panels in pixels, as the picture's layout has them: 840 wide, 455 high.
    left = pixels[int(0.165 * 455) : int(0.925 * 455), int(0.06 * 840) : int(0.46 * 840)]
    height, width = left.shape[:2]
    at_y, at_x = (index.mean() for index in is_orange(left).nonzero())
    assert abs(at_x / width - (1.0 + 2) / 4) < 0.03
    assert abs(at_y / height - (1 - (-1.5 + 2) / 4)) < 0.03
    right = pixels[int(0.165 * 455) : int(0.925 * 455), int(0.52 * 840) : int(0.92 * 840)]
    halves = [is_orange(half).mean() for half in np.array_split(right, 2, axis=1)]
    assert halves[0] > 0.5 and halves[1] < 0.05
    upright = colours(draw(samples, 1))[int(0.165 * 455) : int(0.925 * 455), int(0.52 * 840) : int(0.92 * 840)]
    halves = [is_orange(half).mean() for half in np.array_split(upright, 2, axis=0)]
    assert halves[0] < 0.05 and halves[1] > 0.5


def test_pictures_of_the_plane() -> None:
    puts_things_where_they_are(plane)
    kills(puts_things_where_they_are, lambda samples, direction=0: plane(samples.flip(1), direction))
    kills(puts_things_where_they_are, lambda samples, direction=0: plane(samples, 1 - direction))


def test_a_discriminator_that_cannot_be_shown_leaves_its_panel_out() -> None:
    frame, points = Frame((-1.0,) * 2, (1.0,) * 2), torch.rand(50, 2)
    alone = pictures.draw_plane(frame, points, points, None, lambda points: None, title="", note="")
    assert alone.size == (420, 455)
    line = Frame((-1.0,), (1.0,))
    flat = torch.full((pictures.LINE,), 0.5)
    assert pictures.draw_line(line, points[:, :1], flat, flat, None, None, title="", note="").size == (640, 320)


def test_pictures_of_the_line() -> None:
    """The generator's density stands where its samples are, and the discriminator's panel below."""
    frame, x = Frame((0.0,), (4.0,)), torch.linspace(0, 4, pictures.LINE)
    samples = torch.full((500, 1), 3.0) + 0.1 * torch.randn(500, 1)
    normal = [torch.distributions.Normal(mean, 0.2).log_prob(x).exp() for mean in (1.0, 3.0)]
    gan = tiny(data := Mixture(), latent_dim=1)
    judged = judge(gan, frame.lattice(pictures.LINE))
    picture = pictures.draw_line(frame, samples, *normal, judged, None, title="", note="")
    assert picture.size == (640, 480) and data.shape == (1,)
    pixels = colours(picture)[100 : int(0.58 * 480), int(0.09 * 640) : int(0.97 * 640)]
    orange = is_orange(pixels).nonzero()[1].mean() / pixels.shape[1]
    purple = (pixels[..., 2] - pixels[..., 0] > 30).nonzero()[1].mean() / pixels.shape[1]
    assert abs(orange - 0.75) < 0.05 and abs(purple - 0.25) < 0.1
