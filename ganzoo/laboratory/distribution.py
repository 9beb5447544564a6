"""How well a GAN has learned a known distribution: scores and pictures over time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lightning.pytorch as L
from PIL import Image
from torch import Tensor

from ganzoo.callbacks.overtime import When
from ganzoo.callbacks.pictures import Pictures
from ganzoo.data.toy import Toy
from ganzoo.data.toy_distributions import Normals
from ganzoo.errors import UserError
from ganzoo.laboratory import pictures
from ganzoo.laboratory.judge import judge, optimum
from ganzoo.metrics import distribution as metrics

if TYPE_CHECKING:
    from ganzoo.gan import GAN


class Distribution(Pictures):
    """For toys: modes captured, high-quality share and distances in the log, and pictures of both players.

    At the start, at every mark and at the end it draws ``laboratory/kimg-*.png`` in the run directory, and at the end
    ``laboratory.gif``. In the plane: samples over the true density, and the discriminator's landscape with its
    gradient field; on the line: both densities, the discriminator, and the optimal one for what the generator's
    weights draw now. A discriminator that cannot judge one point alone is left out. Scores are ``toy/*`` in the log.
    """

    name, key, subject, max_side = "laboratory", "laboratory/distribution", "The picture of the distribution", 840

    def __init__(
        self,
        every_kimg: float = 50.0,
        num: int = 2500,
        *,
        seed: int = 0,
        averaged: bool = True,
        within: float = 3.0,
        assign_all: bool = True,
        gif: bool = True,
    ) -> None:
        """
        Args:
            every_kimg: Interval in thousands of images; 0: only at the start and at the end.
            num: Samples (2,500 in the protocol of VEEGAN and PacGAN).
            seed: Seed of their latents.
            averaged: Draw from the averaged weights where there are some.
            within: Standard deviations from a mode up to which a sample has high quality.
            assign_all: Whether the histogram of the reverse KL counts low-quality samples, too, at their nearest mode.
            gif: Whether to make the animation.
        """
        super().__init__(every_kimg, gif)
        if num < 2 or not within > 0:
            raise UserError(
                f"{num} samples within {within} standard deviations were asked for; give 2 or more, above 0."
            )
        self.num, self.seed, self.averaged, self.within, self.assign_all = num, seed, averaged, within, assign_all

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        data = getattr(trainer, "datamodule", None)
        if not isinstance(data, Toy):
            raise UserError(
                f"Distribution compares samples with a known distribution, but the data are {type(data).__name__}: "
                "leave the callback out, or train on a toy such as Ring, Grid or Mixture."
            )
        self._data = data
        self._real = data.draw(self.num)
        self._frame = pictures.Frame.around(self._real)
        self._density: Tensor | None = None

    def look(self, trainer: L.Trainer, gan: GAN, when: When) -> None:
        self._samples = gan.sample(self.num, seed=self.seed, averaged=self.averaged, batch_size=self.num)
        self._scores = self.scores(self._samples)
        for name, value in self._scores.items():
            if when != "start":
                gan.meter.score(f"toy/{name}", value, gan.clock, passing=when == "end")

    def scores(self, samples: Tensor) -> dict[str, float]:
        """The scores of samples (N, d) by name."""
        known, found = self._data.distribution, dict[str, float]()
        if isinstance(known, Normals):
            modes = known.means, known.stds
            found["modes"] = float(metrics.modes_captured(samples, *modes, within=self.within))
            found["high_quality"] = metrics.high_quality_share(samples, *modes, within=self.within)
            within = None if self.assign_all else self.within
            found["reverse_kl"] = metrics.reverse_kl(samples, *modes, weights=known.weights, within=within)
        if samples.shape[1] == 1:
            real = known.quantile if isinstance(known, Normals) else self._real[:, 0]
            found["wasserstein"] = metrics.wasserstein(samples[:, 0], real)
        elif samples.shape[1] == 2:
            found["sliced_wasserstein"] = metrics.sliced_wasserstein(samples, self._real)
        return found

    def picture(self, trainer: L.Trainer, gan: GAN) -> Image.Image | None:
        words = {"title": self._title(gan), "note": self._note()}
        if self._samples.shape[1] == 2:
            density = self._log_density(pictures.SIDE)
            judged = lambda points: judge(gan, points)  # noqa: E731
            return pictures.draw_plane(self._frame, self._samples, self._real, density, judged, **words)
        return self._line(gan, **words) if self._samples.shape[1] == 1 else None

    def _line(self, gan: GAN, *, title: str, note: str) -> Image.Image:
        places = self._frame.lattice(pictures.LINE)
        known = self._data.distribution
        # Narrow kernels hardly widen the modes; a rule of thumb for one normal distribution would merge them.
        width = (known.stds.min().item() if isinstance(known, Normals) else self._real.std().item() / 5) / 3
        p_g, density = self._estimate(self._samples, width), self._log_density(pictures.LINE)
        p_data = self._estimate(self._real, width) if density is None else density.exp()
        # The discriminator plays against the weights themselves, not against their average.
        raw = gan.sample(self.num, seed=self.seed, averaged=False, batch_size=self.num)
        judged, best = judge(gan, places), optimum(gan.loss, p_data, self._estimate(raw, width))
        return pictures.draw_line(self._frame, self._samples, p_data, p_g, judged, best, title=title, note=note)

    def _estimate(self, samples: Tensor, width: float) -> Tensor:
        return pictures.density_by_kernels(samples[:, 0], self._frame.lattice(pictures.LINE)[:, 0], width)

    def _log_density(self, num: int) -> Tensor | None:
        if self._density is None:
            self._density = self._data.distribution.log_prob(self._frame.lattice(num))
        return self._density

    def _title(self, gan: GAN) -> str:
        return f"{type(gan).__name__} on {type(self._data).__name__}, {gan.clock.kimg:,.0f} kimg"

    def _note(self) -> str:
        found, words = self._scores, []
        if "modes" in found:
            num = len(self._data.class_names)
            words = [f"{found['modes']:.0f} of {num} modes", f"{100 * found['high_quality']:.1f} % high quality"]
            words += [f"reverse KL {found['reverse_kl']:.3f}"]
        kinds = {"wasserstein": "Wasserstein", "sliced_wasserstein": "sliced Wasserstein"}
        words += [f"{kind} distance {found[name]:.3f}" for name, kind in kinds.items() if name in found]
        outside = self._frame.num_outside(self._samples)
        return ", ".join([*words, *([f"{outside:,} of {self.num:,} samples outside"] if outside else [])])
