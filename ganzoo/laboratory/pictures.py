"""Pictures of a GAN on points: samples over the true density, and what the discriminator says.

Figures are made without pyplot, so that nothing global is changed; matplotlib is imported when the first one is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ganzoo.laboratory.judge import Judgement, Optimum

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Purple and orange are told apart by everybody; so are the two ends of the landscape, which say the same.
REAL, FAKE, INK, FAINT = "#5e3c99", "#e66101", "#222222", "#888888"
LANDSCAPE = "PuOr"

Judge = Callable[[Tensor], Judgement | None]


@dataclass(frozen=True)
class Frame:
    """The part of the line or plane that a picture shows: the same for all pictures of a run."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def around(cls, points: Tensor, margin: float = 0.2) -> Frame:
        """A square, or an interval, around points (N, d), wider by ``margin`` on each side."""
        low, high = points.min(0).values, points.max(0).values
        half = (high - low).max().item() * (0.5 + margin)
        centre = ((low + high) / 2).tolist()
        return cls(tuple(c - half for c in centre), tuple(c + half for c in centre))

    def lattice(self, num: int) -> Tensor:
        """``num`` points per direction, (num ** d, d); in the plane row by row, the first coordinate along a row."""
        axes = [torch.linspace(low, high, num) for low, high in zip(self.low, self.high, strict=True)]
        return torch.stack(torch.meshgrid(*axes, indexing="xy"), dim=-1).reshape(-1, len(axes))

    def num_outside(self, points: Tensor) -> int:
        """How many points it does not show."""
        inside = (points >= torch.tensor(self.low)) & (points <= torch.tensor(self.high))
        return int((~inside.all(1)).sum())


def draw_plane(
    frame: Frame, samples: Tensor, real: Tensor, density: Tensor | None, judge: Judge, *, title: str, note: str
) -> Image.Image:
    """Samples (N, 2) over the true density, beside the discriminator's landscape and gradient field.

    Args:
        frame: What is shown.
        samples: Of the generator.
        real: Points of the data, shown where there is no density.
        density: Logarithm of it at ``frame.lattice(SIDE)``, or None.
        judge: What the discriminator says of points; without an answer that panel is left out.
        title: Headline.
        note: Second line.
    """
    judged = judge(frame.lattice(_LANDSCAPE_SIDE))
    figure = _figure(8.4 if judged else 4.2, 4.55, title, note)
    left = figure.add_axes((0.055, 0.075, 0.41, 0.76) if judged else (0.11, 0.075, 0.82, 0.76))
    _draw_density(left, frame, real, density)
    left.scatter(samples[:, 0].numpy(), samples[:, 1].numpy(), s=3, c=FAKE, alpha=0.5, linewidths=0, zorder=3)
    _dress(left, frame)
    _explain(left, "data: density, and a line at $3\\sigma$" if density is not None else "data")
    if judged:
        right = figure.add_axes((0.515, 0.075, 0.41, 0.76))
        shown = _draw_landscape(right, frame, judged)
        arrows = judge(frame.lattice(_ARROWS))
        if arrows is not None:
            _draw_arrows(right, frame, arrows.directions)
        _dress(right, frame)
        right.tick_params(labelleft=False)
        bar = figure.colorbar(shown, cax=figure.add_axes((0.937, 0.075, 0.014, 0.76)))
        bar.ax.tick_params(labelsize=7, length=2)
        bar.set_ticks(shown.levels[:: _LEVELS // 4], labels=[f"{level:.2g}" for level in shown.levels[:: _LEVELS // 4]])
        label = "D(x)" if judged.is_probability else "critic, its median at 0"
        right.set_title(f"{label}, and arrows along its gradient", fontsize=8.5, color=INK, loc="left")
    return _rendered(figure)


def draw_line(
    frame: Frame,
    samples: Tensor,
    p_data: Tensor,
    p_g: Tensor,
    judged: Judgement | None,
    best: Optimum | None,
    *,
    title: str,
    note: str,
) -> Image.Image:
    """Densities of data and generator on the line, above the discriminator and the optimal one.

    Args:
        frame: What is shown.
        samples: Of the generator, (N, 1), shown as a histogram.
        p_data: Density of the data at ``frame.lattice(LINE)``, (LINE,).
        p_g: The same of the generator, estimated.
        judged: The discriminator there; None: that panel is left out.
        best: The optimal discriminator for these two densities, if it has a form.
        title: Headline.
        note: Second line.
    """
    x = frame.lattice(LINE)[:, 0].numpy()
    figure = _figure(6.4, 4.8 if judged else 3.2, title, note)
    top = figure.add_axes((0.085, 0.42, 0.89, 0.44) if judged else (0.085, 0.13, 0.89, 0.66))
    top.hist(samples[:, 0].numpy(), bins=90, range=(x[0], x[-1]), density=True, color=FAKE, alpha=0.3, label="samples")
    top.plot(x, p_g.numpy(), color=FAKE, lw=1.6, label="$p_g$")
    top.plot(x, p_data.numpy(), color=REAL, lw=1.6, label="$p_{data}$")
    top.set_ylim(0, 1.6 * float(p_data.max()))
    top.legend(loc="upper right", ncols=3, fontsize=8, frameon=False)
    top.set_ylabel("density", fontsize=8)
    panels = [top]
    if judged:
        top.tick_params(labelbottom=False)
        panels.append(_draw_judgement(figure, x, judged, best))
    for axes in panels:
        axes.set_xlim(x[0], x[-1])
        axes.tick_params(labelsize=7, length=2)
        axes.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel("x", fontsize=8)
    return _rendered(figure)


def draw_points(samples: Tensor) -> Image.Image:
    """Samples alone: (N, 2) as points in the plane, (N, 1) as a histogram."""
    frame, dim = Frame.around(samples), samples.shape[1]
    figure = _figure(4.2 if dim == 2 else 6.4, 4.2 if dim == 2 else 3.2, f"{len(samples):,} samples", "")
    axes = figure.add_axes((0.11, 0.075, 0.82, 0.82) if dim == 2 else (0.085, 0.13, 0.89, 0.74))
    if dim == 2:
        axes.scatter(samples[:, 0].numpy(), samples[:, 1].numpy(), s=3, c=FAKE, alpha=0.5, linewidths=0)
        _dress(axes, frame)
    else:
        axes.hist(samples[:, 0].numpy(), bins=90, range=(frame.low[0], frame.high[0]), density=True, color=FAKE)
        axes.tick_params(labelsize=7, length=2)
        axes.set_xlabel("x", fontsize=8)
    return _rendered(figure)


def density_by_kernels(samples: Tensor, at: Tensor, bandwidth: float) -> Tensor:
    """A kernel density estimate with normal kernels: of samples (N,), at places (k,)."""
    z = (at[:, None] - samples) / bandwidth
    density: Tensor = (-z.square() / 2).exp().mean(1) / (bandwidth * math.sqrt(2 * math.pi))
    return density


SIDE = 400  #: of the lattice on which a density in the plane is drawn
LINE = 600  #: points on which functions on the line are drawn
_LANDSCAPE_SIDE, _ARROWS = 100, 19
_LEVELS = 16


def _draw_density(axes: Axes, frame: Frame, real: Tensor, density: Tensor | None) -> None:
    if density is None:
        axes.scatter(real[:, 0].numpy(), real[:, 1].numpy(), s=3, c=REAL, alpha=0.25, linewidths=0, zorder=2)
        return
    # From the peak down to four standard deviations of a normal distribution, and a line at three.
    relative = (density.view(SIDE, SIDE) - density.max()).numpy()
    x, y = _coordinates(frame, SIDE)
    axes.contourf(x, y, relative, levels=np.linspace(-8, 0, 9), cmap="Purples", vmin=-9, vmax=2, zorder=1)
    axes.contour(x, y, relative, levels=[-4.5], colors=REAL, linewidths=0.8, linestyles="solid", zorder=4)


def _draw_landscape(axes: Axes, frame: Frame, judged: Judgement) -> Any:
    """The filled contours, for a colour bar."""
    values = judged.values.view(_LANDSCAPE_SIDE, _LANDSCAPE_SIDE).numpy()
    middle, least = (0.5, 0.05) if judged.is_probability else (0.0, 1e-6)
    reach = max(float(np.abs(values - middle).max()), least)
    levels = np.linspace(middle - reach, middle + reach, _LEVELS + 1)
    return axes.contourf(*_coordinates(frame, _LANDSCAPE_SIDE), values, levels=levels, cmap=LANDSCAPE)


def _draw_arrows(axes: Axes, frame: Frame, directions: Tensor) -> None:
    """Arrows whose length is the square root of the gradient's, so that small ones are seen beside large ones."""
    norms = directions.norm(dim=1, keepdim=True)
    arrows = directions / norms.clamp_min(1e-12).sqrt() / norms.max().clamp_min(1e-12).sqrt()
    places = frame.lattice(_ARROWS)
    step = (frame.high[0] - frame.low[0]) / (_ARROWS - 1)
    u, v = (0.95 * step * arrows).T.numpy()
    axes.quiver(*places.T.numpy(), u, v, angles="xy", scale_units="xy", scale=1, width=0.0035, color=INK, alpha=0.75)


def _draw_judgement(figure: Figure, x: Any, judged: Judgement, best: Optimum | None) -> Axes:
    axes = figure.add_axes((0.085, 0.1, 0.89, 0.28))
    axes.plot(x, judged.values.numpy(), color=INK, lw=1.6, label="D(x)" if judged.is_probability else "critic")
    if best is not None:
        label = f"$D^*(x) = {best.formula}$"
        axes.plot(x, best.values.numpy(), color=FAINT, lw=1.2, ls="--", label=label)
    if judged.is_probability:
        axes.axhline(0.5, color=FAINT, lw=0.6, zorder=0)
        axes.set_ylim(-0.05, 1.35)
        axes.set_yticks([0, 0.5, 1])
    axes.legend(loc="upper right", ncols=2, fontsize=8, frameon=False)
    axes.set_ylabel("D" if judged.is_probability else "critic", fontsize=8)
    return axes


def _dress(axes: Axes, frame: Frame) -> None:
    axes.set_xlim(frame.low[0], frame.high[0])
    axes.set_ylim(frame.low[1], frame.high[1])
    axes.set_aspect("equal")
    axes.tick_params(labelsize=7, length=2)


def _explain(axes: Axes, data: str) -> None:
    """A legend in the panel's title, where it hides no point."""
    axes.set_title("samples", fontsize=8.5, color=FAKE, loc="left", weight="bold")
    axes.set_title(data, fontsize=8.5, color=REAL, loc="right", weight="bold")


def _coordinates(frame: Frame, num: int) -> tuple[Any, Any]:
    return np.linspace(frame.low[0], frame.high[0], num), np.linspace(frame.low[1], frame.high[1], num)


def _figure(width: float, height: float, title: str, note: str) -> Figure:
    """A figure of so many hundred pixels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, facecolor="white")
    left = 0.055 * 8.4 / width
    figure.text(left, 1 - 0.12 / height, title, fontsize=11, weight="bold", color=INK, va="top")
    size = min(8.5, 8.5 * 15 * (width - 0.5) / max(1, len(note)))  # 15 letters of that size are an inch wide
    figure.text(left, 1 - 0.345 / height, note, fontsize=size, color=INK, va="top")
    return figure


def _rendered(figure: Figure) -> Image.Image:
    """The figure as a picture, in few colours: a quarter of the size, and the eye sees no difference."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)  # not typed
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())[:, :, :3])
    return picture.quantize(128, dither=Image.Dither.NONE).convert("RGB")
