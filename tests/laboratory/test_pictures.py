"""Where the optimal discriminator and the gradient's arrows are drawn, and what the legend says of the curve."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ganzoo.data import Mixture
from ganzoo.laboratory import Distribution, pictures
from ganzoo.laboratory.judge import Judgement, Optimum, optimum
from ganzoo.laboratory.pictures import Frame
from ganzoo.losses import AdversarialLoss, LeastSquares, NonSaturating
from ganzoo.models import MLPGAN
from tests.mutants import kills

FRAME = Frame((-4.0,), (4.0,))
X = np.linspace(-4, 4, pictures.LINE)
#: Of the lower panel of a picture of 640 x 480 pixels: its sides, and the values at its ends.
LEFT, RIGHT, TOP, BOTTOM = 0.085 * 640, (0.085 + 0.89) * 640, (1 - 0.1 - 0.28) * 480, (1 - 0.1) * 480
LOW, HIGH = -0.05, 1.35
Best = Callable[[AdversarialLoss, Tensor, Tensor], Optimum | None]


def normal(mean: float, std: float) -> Tensor:
    return torch.tensor(np.exp(-((X - mean) ** 2) / (2 * std**2)) / (std * np.sqrt(2 * np.pi)))


P_DATA, P_G = normal(1.0, 1.2), normal(-1.0, 1.2)


def line(best: Optimum | None) -> np.ndarray[Any, Any]:
    """The picture's brightness, (rows, columns); the discriminator has no value, so that it hides no curve."""
    judged = Judgement(torch.full((pictures.LINE,), torch.nan), torch.zeros(pictures.LINE, 1), True)
    samples = torch.zeros(2, 1)
    picture = pictures.draw_line(FRAME, samples, P_DATA, P_G, judged, best, title="", note="")
    assert picture.size == (640, 480)
    return np.asarray(picture.convert("L")).astype(float)


@cache
def without_curve() -> np.ndarray[Any, Any]:
    return line(None)


def drawn(best: Optimum | None) -> np.ndarray[Any, Any]:
    """(pixels, 2): x and value of all pixels that the curve has darkened; the legend, above 1.1, is left out."""
    changed = without_curve() - line(best) > 60
    rows, columns = changed.nonzero()
    x = -4 + 8 * (columns + 0.5 - LEFT) / (RIGHT - LEFT)
    value = LOW + (HIGH - LOW) * (BOTTOM - rows - 0.5) / (BOTTOM - TOP)
    inside = (value > LOW) & (value < 1.1)
    return np.stack([x, value], 1)[inside]


def lies_where_the_closed_form_says(best: Best, real: float = 1.0, fake: float = 0.0) -> None:
    """For N(1, s^2) against N(-1, s^2) it is the logistic function of 2 x / s^2, between the two targets."""
    points = drawn(best(NonSaturating(real, fake), P_DATA, P_G))
    exact = fake + (real - fake) / (1 + np.exp(-2 * X / 1.2**2))
    # Distances in pixels: the line is a pixel wide, and blurred by one.
    pixel = np.array([8 / (RIGHT - LEFT), (HIGH - LOW) / (BOTTOM - TOP)])
    apart = (points[:, None] - np.stack([X, exact], 1)) / pixel
    assert np.sqrt((apart**2).sum(2)).min(1).max() < 2
    assert (np.histogram(points[:, 0], bins=16, range=(-4, 4))[0] > 5).all()  # along the whole line


def test_the_optimal_discriminator_lies_where_the_closed_form_says() -> None:
    lies_where_the_closed_form_says(optimum)
    lies_where_the_closed_form_says(optimum, 0.9, 0.1)
    for wrong in (
        lambda loss, p_data, p_g: optimum(loss, p_g, p_data),
        lambda loss, p_data, p_g: optimum(loss, p_data, 2 * p_g),
        lambda loss, p_data, p_g: Optimum(p_data / p_data.max(), ""),
        lambda loss, p_data, p_g: Optimum((p_data / p_g).log().sigmoid().roll(20), ""),
        lambda loss, p_data, p_g: optimum(NonSaturating(0.9), p_data, p_g),
    ):
        kills(lies_where_the_closed_form_says, wrong)
    kills(lambda best: lies_where_the_closed_form_says(best, 0.9, 0.1), lambda loss, *p: optimum(NonSaturating(), *p))


def labels(loss: AdversarialLoss, patch: pytest.MonkeyPatch) -> list[str]:
    """What the legends of the picture say."""
    from matplotlib.figure import Figure

    figures: list[Figure] = []

    def kept(*given: Any) -> Figure:
        figures.append(make(*given))
        return figures[-1]

    make = pictures._figure
    with patch.context() as inside:
        inside.setattr(pictures, "_figure", kept)
        line(optimum(loss, P_DATA, P_G))
    (figure,) = figures
    return [text.get_text() for axes in figure.axes for text in axes.get_legend().get_texts()]


@pytest.mark.parametrize(
    ("loss", "label"),
    [
        (NonSaturating(), r"$D^*(x) = p_{data} / (p_{data} + p_g)$"),
        (LeastSquares(), r"$D^*(x) = p_{data} / (p_{data} + p_g)$"),
        (NonSaturating(0.9), r"$D^*(x) = 0.9 p_{data} / (p_{data} + p_g)$"),
        (NonSaturating(0.9, 0.1), r"$D^*(x) = (0.9 p_{data} + 0.1 p_g) / (p_{data} + p_g)$"),
    ],
)
def test_the_legend_says_which_curve_is_drawn(
    loss: AdversarialLoss, label: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert labels(loss, monkeypatch)[-2:] == ["D(x)", label]


def check_curve_of_a_run(cls: type[Distribution], patch: pytest.MonkeyPatch) -> None:
    """Of the true density, and a kernel density of what the generator's own weights draw, not its averaged ones."""
    torch.manual_seed(0)
    data = Mixture(means=[-2.0, 1.5], stds=[0.6, 0.3])
    gan = MLPGAN((1,), latent_dim=1, hidden=8, num_layers=1, loss=NonSaturating(0.9, 0.1))
    for p in gan.generator.parameters():
        p.data += 0.5  # away from the averaged weights
    lab = cls(0, 200, seed=3)
    lab._data, lab._real, lab._density = data, data.draw(200), None
    lab._frame, lab._samples = FRAME, gan.sample(200, seed=3)
    given: list[Any] = []
    with patch.context() as inside:
        inside.setattr(pictures, "draw_line", lambda *arguments, **words: given.extend(arguments))
        lab._line(gan, title="", note="")
    best = given[5]
    width = 0.3 / 3
    p_g = np.mean([normal(x, width) for x in gan.sample(200, seed=3, averaged=False)[:, 0].tolist()], axis=0)
    p_data = (normal(-2.0, 0.6) + normal(1.5, 0.3)).numpy() / 2
    seen = p_data + p_g > 1e-6
    exact = ((0.9 * p_data + 0.1 * p_g) / (p_data + p_g))[seen]
    assert seen.sum() > 200 and np.abs(best.values.numpy()[seen] - exact).max() < 1e-3


def test_the_curve_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    class OfTheAverage(Distribution):
        def _line(self, gan: Any, *, title: str, note: str) -> Any:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(gan, "sample", lambda *given, **options: self._samples)
                return super()._line(gan, title=title, note=note)

    check_curve_of_a_run(Distribution, monkeypatch)
    kills(lambda cls: check_curve_of_a_run(cls, monkeypatch), OfTheAverage)


# ---------------------------------------------------------------------- arrows

PLANE = Frame((-2.0, -1.0), (2.0, 3.0))


def saddle(points: Tensor) -> Judgement:
    """D with logits x + x^2 y / 2, whose gradient (1 + x y, x^2 / 2) has no symmetry to hide an exchange behind."""
    x, y = points.T
    directions = torch.stack([1 + x * y, x.square() / 2], 1)
    return Judgement((x + x.square() * y / 2).sigmoid(), directions, True)


def arrows_point_along_the_gradient(draw: Callable[..., None], patch: pytest.MonkeyPatch) -> None:
    """Tails on a lattice over the whole frame, each arrow by the gradient there, the longest of nearly one step."""
    from matplotlib.axes import Axes

    seen: list[tuple[Any, ...]] = []

    def quiver(self: Any, *given: Any, **options: Any) -> None:
        assert options["angles"] == options["scale_units"] == "xy" and options["scale"] == 1  # in units of the data
        seen.append(given)

    with patch.context() as inside:
        inside.setattr(Axes, "quiver", quiver)
        inside.setattr(pictures, "_draw_arrows", draw)
        pictures.draw_plane(PLANE, torch.zeros(3, 2), torch.zeros(3, 2), None, saddle, title="", note="")
    ((x, y, u, v),) = seen
    assert len({*zip(x.tolist(), y.tolist(), strict=True)}) == 19**2
    assert (x.min(), x.max(), y.min(), y.max()) == (-2, 2, -1, 3)
    along, across = 1 + x * y, x**2 / 2
    norm, length = np.hypot(along, across), np.hypot(u, v)
    assert np.allclose(u * norm, along * length, atol=1e-5) and np.allclose(v * norm, across * length, atol=1e-5)
    step = 4 / 18
    assert np.allclose(length, 0.95 * step * np.sqrt(norm / norm.max()), atol=1e-5)


def test_arrows_point_along_the_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = pictures._draw_arrows

    def column_by_column(axes: Any, frame: Frame, directions: Tensor) -> None:
        draw(axes, frame, directions.view(19, 19, 2).transpose(0, 1).reshape(-1, 2))

    arrows_point_along_the_gradient(draw, monkeypatch)
    for wrong in (
        column_by_column,
        lambda axes, frame, directions: draw(axes, frame, -directions),  # downhill
        lambda axes, frame, directions: draw(axes, frame, directions.flip(1)),
        lambda axes, frame, directions: draw(axes, frame, directions.flip(0)),  # from the top
        lambda axes, frame, directions: draw(axes, frame, torch.stack([-directions[:, 1], directions[:, 0]], 1)),
    ):
        kills(lambda drawing: arrows_point_along_the_gradient(drawing, monkeypatch), wrong)
