"""How well samples cover a distribution of points: pure functions of tensors that return a number.

The first three are the protocol of VEEGAN (Srivastava 2017, sec. 4.1) and PacGAN (Lin 2018, sec. 4.1) for mixtures of
isotropic normal distributions, with 2,500 samples. A perfect sampler is within three standard deviations of its mode in
1 - exp(-4.5) = 98.9 % of all cases in the plane, and in 99.7 % on the line.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def modes_captured(samples: Tensor, means: Tensor, stds: Tensor | float, *, within: float = 3.0) -> int:
    """Number of modes that have at least one sample within ``within`` standard deviations.

    Args:
        samples: (N, d).
        means: Of the modes, (n, d).
        stds: Of the modes in each direction, (n,), or one for all.
        within: Standard deviations.
    """
    _, modes = _assigned(samples, means, stds, within)
    return len(set(modes.tolist()))


def high_quality_share(samples: Tensor, means: Tensor, stds: Tensor | float, *, within: float = 3.0) -> float:
    """Share of the samples that lie within ``within`` standard deviations of a mode; arguments as above."""
    _, modes = _assigned(samples, means, stds, within)
    return len(modes) / len(samples)


def reverse_kl(
    samples: Tensor,
    means: Tensor,
    stds: Tensor | float = 1.0,
    *,
    weights: Tensor | None = None,
    within: float | None = None,
) -> float:
    """KL(generated || real) of the histograms of modes, in nats, with 0 log 0 = 0.

    Every sample is assigned to its nearest mode, low-quality ones too, unless ``within`` leaves them out. Uniform over
    m of n equal modes gives log(n/m), so log n is the worst, and what it is when no sample is left.

    Args:
        samples: (N, d).
        means: Of the modes, (n, d).
        stds: Of the modes, (n,), or one for all: the unit in which the nearest is found.
        weights: Shares of the modes in the data, (n,); none: uniform, as published.
        within: Assign only samples that are within so many standard deviations; none: all of them.
    """
    num, modes = _assigned(samples, means, stds, math.inf if within is None else within)
    if not len(modes):
        return math.log(num)
    generated = torch.bincount(modes.cpu(), minlength=num).double() / len(modes)
    real = torch.ones(num).double() if weights is None else weights.cpu().double()
    real = real / real.sum()
    return float((torch.xlogy(generated, generated) - torch.xlogy(generated, real)).sum())


def wasserstein(samples: Tensor, real: Tensor | Callable[[Tensor], Tensor], *, pieces: int = 8) -> float:
    """The 1-D Wasserstein-1 distance: the mean difference of quantiles.

    Args:
        samples: (N,), on the line.
        real: As many real points (N,), or the exact quantile function: shares in (0, 1), float64, to values.
        pieces: With a quantile function, at so many shares per sample is it compared, in the middle of equal pieces.
    """
    ordered = samples.double().sort().values
    if isinstance(real, Tensor):
        if len(real) != len(samples):
            raise ValueError(f"{len(samples)} samples cannot be sorted against {len(real)} real points")
        return float((ordered - real.double().sort().values).abs().mean())
    num = len(samples) * pieces
    shares = (torch.arange(num, dtype=torch.float64, device=samples.device) + 0.5) / num
    return float((ordered.repeat_interleave(pieces) - real(shares)).abs().mean())


def sliced_wasserstein(samples: Tensor, real: Tensor, *, num_directions: int = 64) -> float:
    """The mean over directions of the 1-D Wasserstein-1 distance of the projections (Bonneel 2015, with p = 1).

    Directions are evenly spaced in the plane, so that the value depends on the points alone. Even two sets of points of
    the same distribution are apart, by about 1/sqrt(N) of its width.

    Args:
        samples: (N, d) with d of 1 or 2.
        real: As many real points, (N, d).
        num_directions: How many.
    """
    if samples.shape != real.shape or samples.shape[1] not in (1, 2):
        raise ValueError(f"samples {tuple(samples.shape)} and real {tuple(real.shape)} must both be (N, 1) or (N, 2)")
    if samples.shape[1] == 1:
        return wasserstein(samples[:, 0], real[:, 0])
    angle = torch.arange(num_directions, dtype=torch.float64, device=samples.device) * (math.pi / num_directions)
    directions = torch.stack([angle.cos(), angle.sin()])
    projected = [(points.double() @ directions).sort(0).values for points in (samples, real)]
    return float((projected[0] - projected[1]).abs().mean())


def _assigned(samples: Tensor, means: Tensor, stds: Tensor | float, within: float) -> tuple[int, Tensor]:
    """The number of modes, and the nearest mode of each sample within so many standard deviations."""
    # Differences: the default computes distances from products, whose rounding is as large as a small mode.
    distances = torch.cdist(samples, means.to(samples), compute_mode="donot_use_mm_for_euclid_dist")
    nearest = (distances / torch.as_tensor(stds).to(samples)).min(1)
    return len(means), nearest.indices[nearest.values <= within]
