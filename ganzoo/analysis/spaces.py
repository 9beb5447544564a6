"""Where a generator is searched: the space of its latents, of its styles, or of a style for each layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ganzoo import sampling, streams
from ganzoo.analysis.between import Styled
from ganzoo.analysis.distances import Distance
from ganzoo.errors import UserError

if TYPE_CHECKING:
    from ganzoo.gan import GAN

SpaceName = Literal["z", "w", "w+"]

MEAN_OF = 10_000  #: latents whose styles the mean style is of (Karras 2020, appendix D)
_AT_A_TIME = 64  #: candidates
_AHEAD = 0.01  #: length of a step that tells whether it leads out


class Start(NamedTuple):
    """Where a search begins."""

    points: Tensor  #: (N, ...)
    labels: Tensor | None  #: (N,), of generators that need them
    spread: Tensor  #: (N,), the root of the mean squared distance of points from their mean


class Space:
    """The latents z of a generator."""

    name: SpaceName = "z"

    def __init__(self, gan: GAN, network: nn.Module, *, seed: int, candidates: int) -> None:
        """
        Args:
            gan: The model.
            network: Its generator, in evaluation mode.
            seed: Of what is drawn to begin with.
            candidates: Latents of which the nearest one is a search's beginning.
        """
        self.gan, self.seed, self.candidates = gan, seed, candidates
        self.network: Any = network

    @torch.no_grad()
    def start(self, targets: Tensor, labels: Tensor | None, distance: Distance) -> Start:
        """The nearest of the candidates to each target; without labels those of a conditional model have all classes.

        Args:
            targets: (N, C, H, W), on the model's device.
            labels: (N,), also there.
            distance: What is near.
        """
        gan, num = self.gan, self.candidates
        drawn = gan.latents.numbered(range(num), self.network.latent_dim, self.seed).to(gan.device)
        own = sampling.choose_labels(gan.num_classes, num, seed=self.seed, labels=None, first=0)
        points, found = [], []
        for i, target in enumerate(targets):
            classes = own if labels is None else labels[i].expand(num)
            classes = None if classes is None else classes.to(gan.device)
            nearest = self._nearest(drawn, classes, distance, target[None])
            points.append(drawn[nearest])
            found += [] if classes is None else [classes[nearest]]
        spread = (drawn - drawn.mean(dim=0)).square().sum(dim=1).mean().sqrt().expand(len(targets))
        return Start(torch.stack(points), torch.stack(found) if found else None, spread)

    def images(self, points: Tensor, labels: Tensor | None) -> Tensor:
        """What the generator makes of points, (N, C, H, W)."""
        made: Tensor = self.network(points, labels)
        return made.float()

    def plausible(self, points: Tensor) -> Tensor:
        """The nearest points that may be."""
        return self.gan.latents.plausible(points)

    def inward(self, points: Tensor, gradient: Tensor) -> Tensor:
        """The gradient without the part whose descent leads out of where points may be.

        Without it Adam, which scales each component by itself, would not rest where the border is nearest.
        """
        length = gradient.flatten(1).norm(dim=1).view(-1, *[1] * (points.dim() - 1)).clamp_min(1e-30)
        ahead = points - gradient * (_AHEAD / length)
        allowed: Tensor = gradient - (self.plausible(ahead) - ahead) * (length / _AHEAD)
        return allowed

    def _nearest(self, drawn: Tensor, labels: Tensor | None, distance: Distance, target: Tensor) -> Tensor:
        measure, distances = distance(target), []
        for at in range(0, len(drawn), _AT_A_TIME):
            piece = slice(at, at + _AT_A_TIME)
            classes = None if labels is None else labels[piece]
            with streams.numbered(range(len(drawn))[piece], self.seed, "candidates", device=drawn.device):
                distances.append(measure(self.images(drawn[piece], classes)))
        return torch.cat(distances).argmin()


class Styles(Space):
    """The styles w of a generator, one for all layers, or one for each: searched from the mean style.

    What a label says is in the style: it chooses the mean, and nothing later.
    """

    def __init__(self, gan: GAN, network: nn.Module, *, seed: int, each: bool) -> None:
        """
        Args:
            gan: A model whose generator has styles.
            network: Its generator, in evaluation mode.
            seed: Of what is drawn for the mean.
            each: Whether each layer has a style of its own (W+; Abdal 2019, arXiv 1904.03189).

        Raises:
            UserError: It was to, and the generator does not tell layers apart.
        """
        super().__init__(gan, network, seed=seed, candidates=0)
        shape = self._styles(gan.latents.numbered(range(1), self.network.latent_dim, seed), None).shape
        self.name = "w+" if each else "w"
        self.each, self.num_layers = each, shape[1] if len(shape) == 3 else 0
        if each and not self.num_layers:
            raise UserError(
                f"A style for each layer was to be found, but {type(gan).__name__} has none that differ between "
                "layers: search the space w."
            )

    @torch.no_grad()
    def start(self, targets: Tensor, labels: Tensor | None, distance: Distance) -> Start:
        """The mean style, of a label's where one is given."""
        classes = [None] * len(targets) if labels is None else labels.tolist()
        means = {label: self._mean(label) for label in dict.fromkeys(classes)}
        points = torch.stack([means[label][0] for label in classes])
        return Start(
            self._for_layers(points) if self.each else points,
            labels,
            torch.stack([means[label][1] for label in classes]),
        )

    def images(self, points: Tensor, labels: Tensor | None) -> Tensor:
        """What the generator makes of styles, (N, C, H, W); labels do not matter."""
        made: Tensor = self.network.synthesis(points if self.each else self._for_layers(points))
        return made.float()

    def plausible(self, points: Tensor) -> Tensor:
        """All may be."""
        return points

    def _for_layers(self, points: Tensor) -> Tensor:
        """(N, D) for all layers of the generator: (N, L, D), or as they are where it takes one style."""
        return points[:, None].expand(-1, self.num_layers, -1) if self.num_layers else points

    def _mean(self, label: int | None) -> tuple[Tensor, Tensor]:
        """The mean style (D,), of one label or of all, and the root of the mean squared distance from it."""
        gan, cpu = self.gan, torch.device("cpu")  # drawn there, so that all devices see the same
        with streams.stream(self.seed, "mean style", start=0, num=MEAN_OF, total=MEAN_OF, device=cpu):
            latents = gan.latents.draw(MEAN_OF, self.network.latent_dim, cpu)
            labels = torch.full((MEAN_OF,), label or 0)
            if gan.num_classes and label is None:
                labels = streams.randint(gan.num_classes, MEAN_OF, purpose="label")
        styles = self._styles(latents, labels)
        styles = styles[:, 0] if self.num_layers else styles
        mean = styles.mean(dim=0)
        return mean, (styles - mean).square().sum(dim=1).mean().sqrt()

    @torch.no_grad()
    def _styles(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        """(N, D), or (N, L, D) for L layers, all alike; of class 0 where none is said."""
        gan = self.gan
        labels = torch.zeros(len(latents), dtype=torch.int64) if labels is None else labels
        styles: Tensor = self.network.mapping(
            latents.to(gan.device), labels.to(gan.device) if gan.num_classes else None
        )
        return styles


def space_of(gan: GAN, network: nn.Module, name: SpaceName | None, *, seed: int, candidates: int) -> Space:
    """The space of that name; without one that of styles, where the generator has some.

    Raises:
        UserError: It has none.
    """
    styled = isinstance(network, Styled)
    if name == "z" or (name is None and not styled):
        return Space(gan, network, seed=seed, candidates=candidates)
    if not styled:
        raise UserError(f"The space {name} was to be searched, but {type(gan).__name__} has no styles: search z.")
    return Styles(gan, network, seed=seed, each=name == "w+")
