"""Sliced Wasserstein distance, MS-SSIM, path length and intra-class distance through the one pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ganzoo import streams
from ganzoo.errors import UserError
from ganzoo.gan import GAN
from ganzoo.latents import Uniform
from ganzoo.metrics import measures, sliced, walks
from ganzoo.metrics.collecting import collect
from ganzoo.metrics.diversity import mean_similarity
from ganzoo.metrics.evaluation import Evaluation
from ganzoo.metrics.generation import Samples
from ganzoo.metrics.protocol import Protocol
from ganzoo.metrics.walks import Walks
from tests.common import Critic
from tests.metrics.fakes import Bytes, Corner, Linear, linear, normal_bytes
from tests.metrics.test_evaluation import drawn, values
from tests.mutants import kills

SMALL = Protocol(num=100, swd_images=30, swd_patches=8, swd_directions=16, ssim_pairs=25)
LARGE = (1, 16, 16)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANZOO_CACHE", str(tmp_path))


class Wide(Linear):
    """Images of 16x16 pixels: the four values of a sample, each in a quarter, with noise of its own where wanted."""

    def __init__(self, *, noise: float = 0.0, num_classes: int = 0) -> None:
        super().__init__(num_classes=num_classes)
        self.noise = noise

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        x = super().forward(latents, labels)
        if self.noise:
            x = x + self.noise * streams.randn(len(x), 1, 2, 2, purpose="noise", device=x.device)
        return x.repeat_interleave(8, 2).repeat_interleave(8, 3)


def wide(*, noise: float = 0.0, num_classes: int = 0, **options: Any) -> GAN:
    torch.manual_seed(0)
    generator = Wide(noise=noise, num_classes=num_classes)
    return GAN(generator, Critic(256), num_classes=num_classes, **options).eval()


# ------------------------------------------------------------------ pixels alone


def of_pixels(real: Bytes, protocol: Protocol = SMALL, **options: Any) -> Evaluation:
    return Evaluation(protocol, None, real, metrics=("swd", "ms-ssim"), **options)


def test_scores_of_pixels_need_no_network_and_no_pass_over_the_reference() -> None:
    real, gan = Bytes(normal_bytes(80, 120, 20, shape=LARGE)), wide()
    told: list[str] = []
    evaluation = of_pixels(real, report=told.append)
    found = values(evaluation, evaluation.collect(gan))
    assert told == ["samples 50/50"]  # two for each of 25 pairs, and no more than are looked at
    protocol = evaluation.protocol
    assert (protocol.extractor, protocol.num, protocol.reference_num) == ("", 50, 80)
    fake = drawn(gan, SMALL, range(50))
    sides = [sliced.Patches(per_image=8) for _ in range(2)]
    sides[0].update(fake[:30])
    order = np.argsort(sliced.keyed(streams.key(0, "pixels"), np.arange(80)))[:30]
    sides[1].update(real.images[order])
    (expected,) = sliced.sliced_distance(*sides, directions=16).values()
    assert found["swd/16"] == found["swd"] == pytest.approx(expected, rel=1e-9)
    assert found["ms-ssim"] == pytest.approx(mean_similarity(fake, num_pairs=25), rel=1e-9)


def test_of_several_levels_there_is_the_mean() -> None:
    real = Bytes(normal_bytes(40, 120, 20, shape=(3, 32, 32)))
    evaluation = of_pixels(real)
    found = values(evaluation, evaluation.collect_images(Bytes(normal_bytes(50, 100, 30, seed=1, shape=(3, 32, 32)))))
    assert found["swd"] == pytest.approx((found["swd/32"] + found["swd/16"]) / 2)
    assert evaluation.of_images(50).num == 50


def test_a_set_and_itself_and_equal_images() -> None:
    images = normal_bytes(40, 120, 20, shape=LARGE)
    evaluation = of_pixels(Bytes(images))
    assert values(evaluation, evaluation.collect_images(Bytes(images)))["swd"] == 0
    same = images[:1].repeat(30, 1, 1, 1)
    assert values(evaluation, evaluation.collect_images(Bytes(same)))["ms-ssim"] == pytest.approx(1, abs=1e-6)


def test_sorted_folders_are_looked_at_from_everywhere() -> None:
    """The first images of a folder may be all of one class: here the darker half."""
    images = torch.cat([normal_bytes(200, 60, 20, shape=LARGE), normal_bytes(200, 200, 20, seed=1, shape=LARGE)])
    reversed_, darker = Bytes(images.flip(0)), Bytes(images[:200])
    evaluation = of_pixels(Bytes(images), replace(SMALL, swd_images=60))
    same, half = (values(evaluation, evaluation.collect_images(x))["swd"] for x in (reversed_, darker))
    assert same < half / 3


def test_pixels_do_not_depend_on_what_else_is_measured() -> None:
    real, gan = Bytes(normal_bytes(80, 120, 20, shape=LARGE)), wide()
    alone = of_pixels(real)
    both = Evaluation(replace(SMALL, is_splits=2), Corner(), real, metrics=("fd", "swd", "is", "ms-ssim"))
    first, second = values(alone, alone.collect(gan)), values(both, both.collect(gan))
    assert both.protocol.num == 100
    assert {name: second[name] for name in first} == first
    assert {"fd/corner-3", "is/corner-3"} < second.keys()


# ------------------------------------------------------------------ within classes

LABELS = torch.arange(240) % 3


def by_eigenvalues(x: np.ndarray, y: np.ndarray) -> float:
    """Heusel 2017, eq. 6: the trace of a root is the sum of the roots of eigenvalues; a class has a constant pixel."""
    a, b = np.cov(x.T), np.cov(y.T)
    root = np.sqrt(np.maximum(np.linalg.eigvals(a @ b).real, 0)).sum()
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a + b) - 2 * root)


def of_each_class(evaluate: Callable[[Evaluation, GAN], float]) -> None:
    """The mean over classes of the textbook's distance; one class of the reference lies far off."""
    gan = linear(num_classes=3)
    real = normal_bytes(240, 120, 30)
    real[LABELS == 2] //= 2
    evaluation = Evaluation(SMALL, Corner(), Bytes(real, LABELS), metrics=("intra-fd",))
    fake, labels = drawn(gan, SMALL, range(100)), Samples(gan, SMALL).labels(range(100))
    x, y = (images.flatten(1)[:, :3].double().numpy() for images in (fake, real))
    expected = np.mean([by_eigenvalues(x[labels == c], y[c == LABELS]) for c in range(3)])
    assert evaluate(evaluation, gan) == pytest.approx(expected, rel=1e-6)


def measured(evaluation: Evaluation, gan: GAN) -> float:
    return values(evaluation, evaluation.collect(gan))["intra-fd/corner-3"]


def with_other_labels(evaluation: Evaluation, gan: GAN) -> float:
    """Wrong: labels of other samples."""
    collected = evaluation.collect(gan)
    assert collected.labels is not None
    return values(evaluation, replace(collected, labels=collected.labels.roll(1)))["intra-fd/corner-3"]


def of_all_at_once(evaluation: Evaluation, gan: GAN) -> float:
    whole = Evaluation(SMALL, Corner(), evaluation.data, metrics=("fd",))
    return values(whole, whole.collect(gan))["fd/corner-3"]


def test_distance_within_classes() -> None:
    of_each_class(measured)
    kills(of_each_class, with_other_labels)
    kills(of_each_class, of_all_at_once)


def test_too_few_samples_of_a_class_are_remarked() -> None:
    images = normal_bytes(240, 120, 20, shape=(1, 8, 8))
    evaluation = Evaluation(SMALL, Corner(50), Bytes(images, LABELS), metrics=("fd", "intra-fd"))
    (remark,) = evaluation.remarks(120)
    assert remark.startswith("Of each class: A covariance of 50 features from 40 samples has rank 39")
    values(evaluation, evaluation.collect(wide(num_classes=3)))  # and nothing is warned of besides
    assert not Evaluation(SMALL, Corner(3), Bytes(images, LABELS), metrics=("intra-fd",)).remarks(120)


def test_distance_within_classes_of_images() -> None:
    images = normal_bytes(240, 120, 30)
    evaluation = Evaluation(SMALL, Corner(), Bytes(images, LABELS), metrics=("intra-fd",))
    same, mixed = (
        values(evaluation, evaluation.collect_images(Bytes(images, labels)))["intra-fd/corner-3"]
        for labels in (LABELS, LABELS.sort().values)
    )
    assert same == pytest.approx(0, abs=1e-9) and mixed > 1
    other = Bytes(images, LABELS)
    other.class_names = ["cat", "dog", "frog", "horse"]
    with pytest.raises(UserError, match=r"have the classes cat, dog, frog, \.\.\. and the reference class 0, class 1"):
        evaluation.collect_images(other)


# ------------------------------------------------------------------ paths


def lengths(gan: GAN, protocol: Protocol = SMALL, numbers: range = range(40), **options: Any) -> Tensor:
    """By the network alone, in float64."""
    protocol = replace(protocol, weights="raw")
    ends = [torch.cat(side) for side in zip(*Walks(Samples(gan, protocol, **options))(numbers), strict=True)]
    return (ends[0].double() - ends[1].double()).square().flatten(1).sum(1) / protocol.ppl_epsilon**2


def straight(make: Callable[..., Tensor]) -> None:
    """Uniform latents, hence straight paths, and a linear network: |127.5 x 0.3 W (b - a)|^2 wherever on the path."""
    gan, protocol = linear(latents=Uniform()), replace(SMALL, ppl_epsilon=0.01, seed=3)
    start, end = (gan.latents.numbered(range(40), 4, streams.key(3, "path", side)) for side in ("start", "end"))
    moved = (end - start).double() @ gan.generator.linear.weight.double().T
    expected = (127.5 * 0.3 * moved).square().sum(1)
    for stretch in ("full", "end"):
        assert torch.allclose(make(gan, replace(protocol, ppl_sampling=stretch)), expected, rtol=1e-3)
        short = make(gan, replace(protocol, ppl_epsilon=1e-4))  # of which rounding takes some digits
        assert short.mean().item() == pytest.approx(expected.mean().item(), rel=0.01)


def test_straight_paths_of_a_linear_generator() -> None:
    straight(lengths)
    kills(straight, lambda gan, protocol: lengths(gan, replace(protocol, seed=4)))
    kills(straight, lambda gan, protocol: lengths(gan, protocol).sqrt())


def test_great_circles_of_normal_latents() -> None:
    """At the end of a path: latents at the angle epsilon w from the start, of a length that changes evenly."""
    gan, protocol = linear(), replace(SMALL, ppl_sampling="end", ppl_epsilon=0.01)
    start, end = (
        gan.latents.numbered(range(40), 4, streams.key(0, "path", side)).double() for side in ("start", "end")
    )
    long, longer = (x.norm(dim=1, keepdim=True) for x in (start, end))
    angle = ((start * end).sum(1, keepdim=True) / long / longer).acos()
    further = (0.99 * angle).sin() / angle.sin() * start / long + (0.01 * angle).sin() / angle.sin() * end / longer
    moved = (further * (0.99 * long + 0.01 * longer) - start) @ gan.generator.linear.weight.double().T
    assert torch.allclose(lengths(gan, protocol), (38.25 * moved / 0.01).square().sum(1), rtol=1e-3)


def keeps_the_noise(walks_: type[Walks], monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise that a generator adds to a sample is the same at both ends, so it changes no length."""
    monkeypatch.setattr("tests.metrics.test_measures.Walks", walks_)
    quiet, loud = (lengths(wide(noise=noise), replace(SMALL, ppl_epsilon=1e-3)) for noise in (0.0, 0.2))
    assert torch.allclose(quiet, loud, rtol=0.05)


class Restless(Walks):
    """Wrong: draws anew at the other end."""

    def _image(self, place: Tensor, piece: range, labels: Tensor | None) -> Tensor:
        self.ends = getattr(self, "ends", 0) + 1
        return super()._image(place, range(piece.start + self.ends, piece.stop + self.ends), labels)


def test_both_ends_share_the_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    keeps_the_noise(Walks, monkeypatch)
    kills(lambda mutant: keeps_the_noise(mutant, monkeypatch), Restless)


def test_paths_depend_on_their_number_alone() -> None:
    gan = wide(noise=0.1, num_classes=3)
    whole = lengths(gan)
    assert torch.allclose(lengths(gan, batch_size=7), whole, rtol=1e-3)
    assert torch.allclose(lengths(gan, numbers=range(11, 25)), whole[11:25], rtol=1e-3)


def test_path_length_is_trimmed_and_of_the_extractor_s_features() -> None:
    gan = linear(latents=Uniform())
    protocol = replace(SMALL, ppl_epsilon=0.01, weights="raw")
    evaluation = Evaluation(protocol, Corner(), Bytes(normal_bytes(60, 120, 20)), metrics=("ppl",))
    extractor = evaluation.extractor
    assert extractor is not None
    found = values(evaluation, evaluation.collect(gan))
    assert extractor.seen == 200  # both ends of 100 paths: no reference, and no samples besides
    start, end = (gan.latents.numbered(range(100), 4, streams.key(0, "path", side)) for side in ("start", "end"))
    moved = ((end - start).double() @ gan.generator.linear.weight.double().T)[:, :3]
    expected = np.sort((38.25 * moved).square().sum(1).detach().numpy())
    kept = expected[np.searchsorted(expected, np.quantile(expected, 0.01, method="lower")) :]
    kept = kept[kept <= np.quantile(expected, 0.99, method="higher")]
    assert found == {"ppl/corner-3": pytest.approx(kept.mean(), rel=1e-3)}


class Styled(Linear):
    """A generator in two parts, the first of which bends its latents."""

    def mapping(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        return latents**3

    def synthesis(self, w: Tensor) -> Tensor:
        return 0.3 * self.linear(w).view(-1, 1, 2, 2)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.synthesis(self.mapping(latents, labels))


def test_paths_between_styles() -> None:
    """They are straight there: the second part is linear."""
    torch.manual_seed(0)
    gan = GAN(Styled(), Critic(4)).eval()
    start, end = (gan.latents.numbered(range(40), 4, streams.key(0, "path", side)) ** 3 for side in ("start", "end"))
    moved = (end - start).double() @ gan.generator.linear.weight.double().T
    protocol = replace(SMALL, ppl_space="w", ppl_epsilon=0.01)
    expected = (38.25 * moved).square().sum(1)
    assert torch.allclose(lengths(gan, protocol), expected, rtol=1e-3, atol=1e-2)
    assert not torch.allclose(lengths(gan, replace(protocol, ppl_space="z")), expected, rtol=0.1)
    with pytest.raises(UserError, match="measured without truncation"):
        walks.check(gan, replace(protocol, truncation=0.5))
    with pytest.raises(UserError, match="but GAN has none: set ppl_space to z"):
        walks.check(linear(), protocol)


# ------------------------------------------------------------------ processes, time, refusals

EVERYTHING = ("fd", "intra-fd", "ppl", "swd", "ms-ssim")


def test_processes_share_all_of_it() -> None:
    gan, real = wide(num_classes=3), Bytes(normal_bytes(240, 120, 20, shape=LARGE), LABELS)
    evaluation = Evaluation(SMALL, Corner(), real, metrics=EVERYTHING)
    whole = evaluation.collect(gan)
    for world in (2, 3):  # the pixels of 50 samples: of one process and a part, or of two
        parts = [evaluation.collect(gan, rank=rank, world=world) for rank in range(world)]
        for name in ("labels", "pixels", "rows"):
            assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name)), name
        assert torch.allclose(torch.cat([part.steps for part in parts]), whole.steps, rtol=1e-3)


def test_time_is_bounded_for_all_of_it() -> None:
    gan, real = wide(num_classes=3), Bytes(normal_bytes(240, 120, 20, shape=LARGE), LABELS)
    evaluation = Evaluation(SMALL, Corner(), real, metrics=EVERYTHING, batch_size=40)
    part = evaluation.collect(gan, max_seconds=0)
    assert part.num == len(part.steps) == len(part.labels) == len(part.pixels) == 40
    assert all(np.isfinite(value) for value in values(evaluation, part).values())


def test_nothing_is_kept_that_nobody_needs() -> None:
    kept = collect([normal_bytes(5, 100, 9)], Corner(), measures.needs(("fd",), SMALL), limit=5)
    assert kept.rows is kept.logits is kept.pixels is kept.steps is None and kept.moments is not None


def test_the_seed_reaches_subsets_and_splits() -> None:
    """Seed 0 draws as torch-fidelity's default does, and seed s as its rng_seed of 2020 + s."""
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric

    real, fake = normal_bytes(60, 120, 20), normal_bytes(50, 110, 30, seed=1)
    x, y = (images.flatten(1)[:, :3].float() for images in (fake, real))
    found = {}
    for seed in (0, 5):
        protocol = Protocol(num=50, seed=seed, kid_subsets=5, kid_subset_size=20, is_splits=2)
        evaluation = Evaluation(protocol, Corner(), Bytes(real), metrics=("kd", "is"))
        found[seed] = values(evaluation, evaluation.collect_images(Bytes(fake)))
        options: dict[str, Any] = {"rng_seed": 2020 + seed, "verbose": False}
        kernel = kid_features_to_metric(x, y, kid_subsets=5, kid_subset_size=20, **options)
        inception = isc_features_to_metric(x[:, :2] / 100, splits=2, shuffle=True, rng_seed=2020 + seed)
        assert found[seed]["kd/corner-3"] == pytest.approx(kernel["kernel_inception_distance_mean"], rel=1e-4)
        assert found[seed]["is/corner-3"] == pytest.approx(inception["inception_score_mean"], rel=1e-6)
    assert found[0] != found[5]


@pytest.mark.parametrize(
    ("shape", "labels", "metrics", "sentence"),
    [
        ((1, 6, 9), None, ("swd",), "6x9 pixels are smaller than a patch"),
        ((1, 8, 8), None, ("ms-ssim",), "8x8 pixels are smaller than the window of MS-SSIM"),
        ((1, 8, 8), None, ("intra-fd",), "intra-fd compares class by class, but Bytes has no labels"),
    ],
)
def test_data_that_cannot_be_measured(shape: Any, labels: Any, metrics: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        Evaluation(SMALL, Corner(), Bytes(normal_bytes(60, 120, 20, shape=shape), labels), metrics=metrics)


def test_models_and_images_that_cannot_be_measured() -> None:
    evaluation = Evaluation(SMALL, Corner(), Bytes(normal_bytes(240, 120, 20), LABELS), metrics=("intra-fd",))
    with pytest.raises(UserError, match="3 classes, but GAN is unconditional: it has none"):
        evaluation.collect(linear())
    with pytest.raises(UserError, match="3 classes, but GAN has 5"):
        evaluation.collect(linear(num_classes=5))
    with pytest.raises(UserError, match="path length is of a model, and these are images"):
        data = Bytes(normal_bytes(60, 120, 20))
        Evaluation(SMALL, Corner(), data, metrics=("ppl",)).collect_images(data)
    large = of_pixels(Bytes(normal_bytes(40, 120, 20, shape=(1, 32, 32))))
    with pytest.raises(UserError, match="images of the same size"):
        large.scores(large.collect(wide()))
