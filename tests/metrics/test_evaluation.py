"""Known answers through the one pass: distances of known sets, samples that depend on nothing but their number."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.special
import torch
from torch import Tensor

from ganzoo import sampling, streams
from ganzoo.errors import UserError
from ganzoo.gan import GAN
from ganzoo.metrics import generation
from ganzoo.metrics.evaluation import Evaluation, share
from ganzoo.metrics.generation import Samples
from ganzoo.metrics.protocol import Protocol
from tests.metrics.fakes import Bytes, Corner, linear, normal_bytes
from tests.mutants import kills

SMALL = Protocol(num=100, kid_subsets=5, kid_subset_size=20, is_splits=2)
ALL = ("fd", "kd", "is", "prdc")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANZOO_CACHE", str(tmp_path))


def values(evaluation: Evaluation, collected: Any) -> dict[str, float]:
    return {name: score.value for name, score in evaluation.scores(collected).items()}


def frechet(x: np.ndarray, y: np.ndarray) -> float:
    """Heusel 2017, eq. 6, by the matrix root."""
    root = scipy.linalg.sqrtm(np.cov(x.T) @ np.cov(y.T)).real
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(np.cov(x.T) + np.cov(y.T) - 2 * root))


def test_distance_of_two_normal_distributions_of_bytes() -> None:
    """(120 - 100)^2 + (20 - 10)^2 for each of 3 independent features, within the error of 20,000 samples."""
    real, fake = normal_bytes(20_000, 120, 20), normal_bytes(20_000, 100, 10, seed=1)
    evaluation = Evaluation(SMALL, Corner(), Bytes(real), metrics=("fd",))
    found = values(evaluation, evaluation.collect_images(Bytes(fake)))["fd/corner-3"]
    assert found == pytest.approx(3 * (20**2 + 10**2), rel=0.02)
    features = [x.flatten(1)[:, :3].double().numpy() for x in (fake, real)]
    assert found == pytest.approx(frechet(*features), rel=1e-9)


def test_all_scores_of_one_pass_are_those_of_the_features() -> None:
    real, fake = normal_bytes(60, 120, 20), normal_bytes(50, 110, 30, seed=1)
    extractor = Corner()
    evaluation = Evaluation(SMALL, extractor, Bytes(real), metrics=ALL)
    extractor.seen = 0
    found = values(evaluation, evaluation.collect_images(Bytes(fake)))
    assert extractor.seen == 50
    x, y = (images.flatten(1)[:, :3].double().numpy() for images in (fake, real))
    assert found["fd/corner-3"] == pytest.approx(frechet(x, y), rel=1e-9)
    distances = [np.sqrt(((a[:, None] - b) ** 2).sum(2)) for a, b in ((y, y), (x, x), (y, x))]
    radii = [np.sort(d)[:, 3] for d in distances[:2]]  # the third neighbour; the first entry is the sample itself
    assert found["precision/corner-3"] == (distances[2] <= radii[0][:, None]).any(0).mean()
    assert found["recall/corner-3"] == (distances[2] <= radii[1]).any(1).mean()
    halves = np.array_split(np.random.RandomState(2020).permutation(50), 2)
    predictions = [scipy.special.softmax(x[half, :2] / 100, 1) for half in halves]
    inception = [np.exp((p * np.log(p / p.mean(0))).sum(1).mean()) for p in predictions]
    assert found["is/corner-3"] == pytest.approx(np.mean(inception), rel=1e-6)
    assert set(found) == {
        f"{name}/corner-3" for name in ("fd", "kd", "is", "precision", "recall", "density", "coverage")
    }


def test_a_set_and_itself() -> None:
    evaluation = Evaluation(SMALL, Corner(), Bytes(normal_bytes(60, 120, 20)), metrics=("fd", "prdc"))
    found = values(evaluation, evaluation.collect_images(Bytes(normal_bytes(60, 120, 20))))
    assert found.pop("fd/corner-3") == pytest.approx(0, abs=1e-9)
    assert found.pop("density/corner-3") == pytest.approx(1, abs=0.02)  # balls are open, and some bytes are equal
    assert set(found.values()) == {1.0}


def test_the_protocol_learns_what_it_was_used_with() -> None:
    real = Bytes(normal_bytes(60, 120, 20))
    evaluation = Evaluation(SMALL, Corner(weights_hash="f" * 64, resize="clean"), real, metrics=ALL)
    bound = evaluation.protocol
    assert (bound.extractor, bound.extractor_hash, bound.resize) == ("corner-3", "f" * 64, "clean")
    assert (bound.reference, bound.split, bound.reference_num) == ("Bytes, 2x2", "train", 60)
    assert bound.reference_hash == real.content_hash and bound.extractor_options == "num_features=3"
    evaluation.protocol = replace(bound, truncation=0.5)
    assert evaluation.of_images(40).truncation is None
    given = evaluation.of_images(40)
    assert (given.num, given.weights, given.labels, given.quantization) == (40, "files", "files", "files")


# ------------------------------------------------------------------ samples


def drawn(gan: GAN, protocol: Protocol, numbers: range = range(30), batch_size: int = 64, **options: Any) -> Tensor:
    return torch.cat(list(Samples(gan, protocol, batch_size=batch_size, **options)(numbers)))


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_scores_do_not_depend_on_the_batch_size(batch_size: int) -> None:
    gan, real = linear(norm=True, num_classes=3), Bytes(normal_bytes(60, 120, 20))
    first, second = (
        Evaluation(SMALL, Corner(), real, metrics=ALL, batch_size=size).collect(gan) for size in (100, batch_size)
    )
    assert torch.equal(first.rows, second.rows) and torch.equal(first.logits, second.logits)
    evaluation = Evaluation(SMALL, Corner(), real, metrics=ALL)
    assert values(evaluation, second) == pytest.approx(values(evaluation, first), rel=1e-12)


def covers_everything_once(share: Callable[[int, int, int], range]) -> None:
    for num, world in itertools.product((1, 5, 64, 100), (1, 2, 3, 7)):
        shares = [share(num, rank, world) for rank in range(world)]
        assert list(itertools.chain(*shares)) == list(range(num))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_processes_share_the_samples() -> None:
    covers_everything_once(share)
    kills(covers_everything_once, lambda num, rank, world: range(rank, num, world))
    kills(covers_everything_once, lambda num, rank, world: range(num // world * rank, num // world * (rank + 1)))
    gan, real = linear(), Bytes(normal_bytes(60, 120, 20))
    evaluation = Evaluation(SMALL, Corner(), real, metrics=("kd",))
    parts = [evaluation.collect(gan, rank=rank, world=3).rows for rank in range(3)]
    assert torch.equal(torch.cat(parts), evaluation.collect(gan).rows)


def test_bytes_are_those_of_the_model_s_samples() -> None:
    gan = linear()
    expected = ((gan.sample(30, seed=4) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    assert torch.equal(drawn(gan, replace(SMALL, seed=4)), expected)
    assert not torch.equal(drawn(gan, replace(SMALL, seed=5)), expected)


def test_raw_weights_are_the_trained_ones() -> None:
    gan = linear()
    assert gan.generator_ema is not None
    for parameter in gan.generator_ema.parameters():
        parameter.data.zero_()
    assert (drawn(gan, SMALL) == 128).all()
    assert (drawn(gan, replace(SMALL, weights="raw")) != 128).any()


def follows_the_data(draw: Callable[[GAN, Protocol, list[int]], Tensor]) -> None:
    """Shares of classes are within 5 standard errors of the data's, and one class that is never there never drawn."""
    counts = [600, 0, 300, 100]
    labels = draw(linear(num_classes=4), replace(SMALL, labels="data"), counts)
    found = torch.bincount(labels, minlength=4) / len(labels)
    for share_, count in zip(found.tolist(), counts, strict=True):
        expected = count / 1000
        assert abs(share_ - expected) <= 5 * math.sqrt(expected * (1 - expected) / len(labels))


def labels_of(gan: GAN, protocol: Protocol, counts: list[int]) -> Tensor:
    found = Samples(gan, protocol, class_counts=counts).labels(range(4000))
    assert found is not None
    return found


def test_labels_follow_the_data_where_the_protocol_wants_that() -> None:
    follows_the_data(labels_of)
    kills(follows_the_data, lambda gan, protocol, counts: labels_of(gan, replace(protocol, labels="uniform"), counts))
    kills(follows_the_data, lambda gan, protocol, counts: labels_of(gan, protocol, counts[::-1]))
    gan, protocol = linear(num_classes=4), replace(SMALL, labels="data")
    whole = labels_of(gan, protocol, [1, 2, 3, 4])
    part = Samples(gan, protocol, class_counts=[1, 2, 3, 4]).labels(range(100, 120))
    assert torch.equal(part, whole[100:120])


def test_min_max_takes_the_extremes_of_all_samples() -> None:
    gan, protocol = linear(), replace(SMALL, quantization="min-max")
    floats = gan.sample(100)
    low, high = floats.min(), floats.max()
    expected = ((floats - low) / (high - low + 1e-5) * 255 + 0.5).clamp(0, 255).to(torch.uint8)
    assert torch.equal(drawn(gan, protocol, range(100), 7), expected)
    assert torch.equal(drawn(gan, protocol, range(40, 60)), expected[40:60])


# ------------------------------------------------------------------ batch normalization


def normalized_by_many_batches(samples: Callable[[GAN, Protocol], Samples]) -> None:
    """Standing statistics: the plain means of the batches' means and unbiased variances."""
    gan = linear(norm=True)
    protocol = replace(SMALL, batch_norm="standing", standing_batches=6, standing_size=9, weights="raw")
    found = samples(gan, protocol).network.norm
    seed, start, means, variances = streams.key(protocol.seed, "standing"), 0, [], []
    for number in range(6):
        size = 2 + streams.key(seed, "size", number) % 8
        latents = gan.latents.numbered(range(start, start + size), 4, seed)
        inputs = gan.generator.linear(latents)
        means.append(inputs.mean(0))
        variances.append(inputs.var(0))
        start += size
    assert torch.allclose(found.running_mean, torch.stack(means).mean(0), atol=1e-6)
    assert torch.allclose(found.running_var, torch.stack(variances).mean(0), atol=1e-6)
    assert not found.training


class Forgetful(Samples):
    """Wrong: keeps the momentum of training, so the last batches weigh most."""

    def _gather_statistics(self, network: Any, norms: Any) -> None:
        network.train()
        for norm in norms:
            norm.reset_running_stats()
        seed = streams.key(self.protocol.seed, "standing")
        for _ in sampling.batches(self.gan, network, range(30), None, seed=seed, batch_size=5):
            pass
        network.eval()


class Running(Samples):
    """Wrong: leaves the statistics of training."""

    def _gather_statistics(self, network: Any, norms: Any) -> None:
        pass


def test_standing_statistics() -> None:
    normalized_by_many_batches(lambda gan, protocol: Samples(gan, protocol))
    kills(normalized_by_many_batches, lambda gan, protocol: Forgetful(gan, protocol))
    kills(normalized_by_many_batches, lambda gan, protocol: Running(gan, protocol))


def test_batch_statistics() -> None:
    gan = linear(norm=True)
    found = drawn(gan, replace(SMALL, batch_norm="batch", weights="raw"), range(20), 10)
    inputs = gan.generator.linear(gan.latents.numbered(range(20), 4, 0)).view(2, 10, 4)
    x = (inputs - inputs.mean(1, keepdim=True)) / torch.sqrt(inputs.var(1, keepdim=True, correction=0) + 1e-5)
    expected = ((0.3 * x.view(20, 1, 2, 2) + 1) * 127.5).round().clamp(0, 255)
    assert (found - expected).abs().max() <= 1


def test_the_size_of_a_batch_is_in_the_id_where_samples_depend_on_it() -> None:
    for mode, same in (("running", True), ("batch", False)):
        protocol = replace(SMALL, batch_norm=mode)
        one, two = (
            Evaluation(protocol, Corner(), Bytes(normal_bytes(60, 120, 20)), metrics=("fd",), batch_size=size).protocol
            for size in (10, 20)
        )
        assert (one.id == two.id) == same


def leaves_no_trace(make: type[Samples]) -> None:
    gan = linear(norm=True).train()
    before = {name: value.clone() for name, value in gan.state_dict().items()}
    modes, state = [module.training for module in gan.modules()], torch.get_rng_state()
    flags = [parameter.requires_grad for parameter in gan.parameters()]
    for mode in ("running", "standing", "batch"):
        protocol = replace(SMALL, batch_norm=mode, standing_batches=2, standing_size=4, weights="raw")
        list(make(gan, protocol)(range(10)))
    assert all(torch.equal(value, before[name]) for name, value in gan.state_dict().items())
    assert [module.training for module in gan.modules()] == modes
    assert [parameter.requires_grad for parameter in gan.parameters()] == flags
    assert torch.equal(torch.get_rng_state(), state)


class InPlace(Samples):
    """Wrong: the generator itself instead of a copy."""

    def _prepared(self) -> Any:
        original = generation.copy.deepcopy
        generation.copy.deepcopy = lambda network: network
        try:
            return super()._prepared()
        finally:
            generation.copy.deepcopy = original


def test_the_model_sees_nothing_of_it() -> None:
    leaves_no_trace(Samples)
    kills(leaves_no_trace, InPlace)


# ------------------------------------------------------------------ limits and refusals


def test_time_is_bounded_and_the_record_says_how_many_it_were() -> None:
    evaluation = Evaluation(SMALL, Corner(), Bytes(normal_bytes(60, 120, 20)), metrics=("fd",), batch_size=10)
    gan = linear()
    whole, part = evaluation.collect(gan), evaluation.collect(gan, max_seconds=0)
    assert (whole.num, part.num) == (100, 10)
    assert replace(evaluation.protocol, num=part.num).id != evaluation.protocol.id


def test_progress_is_told() -> None:
    told: list[str] = []
    evaluation = Evaluation(
        SMALL, Corner(), Bytes(normal_bytes(60, 120, 20)), metrics=("fd",), batch_size=50, report=told.append
    )
    evaluation.collect(linear())
    assert told == ["reference 50/60", "reference 60/60", "samples 50/100", "samples 100/100"]


def test_too_few_samples_for_the_features_are_remarked_with_the_rank() -> None:
    images = normal_bytes(40, 120, 20, shape=(1, 8, 8))
    evaluation = Evaluation(SMALL, Corner(50), Bytes(images), metrics=("fd",))
    (remark,) = evaluation.remarks(100)
    assert "50 features from 40 samples has rank 39" in remark
    assert not Evaluation(SMALL, Corner(3), Bytes(images), metrics=("fd",)).remarks(100)
    assert not Evaluation(SMALL, Corner(50), Bytes(images), metrics=("kd",)).remarks(100)


class NoClasses(Corner):
    """Has no classifier."""

    num_logits = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("extractor", "protocol", "metrics", "sentence"),
    [
        (NoClasses(), SMALL, ("is",), "corner-3 has no classes, so it gives no inception score"),
        (Corner(), replace(SMALL, kid_subset_size=80), ("kd",), "subsets of 80 images, but there are 60"),
        (Corner(), replace(SMALL, prdc_k=60), ("prdc",), "60 neighbours, but there are 60"),
        (Corner(), replace(SMALL, num=1), ("is",), "2 splits of 1 samples"),
    ],
)
def test_what_cannot_be_measured_is_refused(extractor: Any, protocol: Protocol, metrics: Any, sentence: str) -> None:
    seen = extractor.seen
    with pytest.raises(UserError, match=sentence):
        Evaluation(protocol, extractor, Bytes(normal_bytes(60, 120, 20)), metrics=metrics)
    assert extractor.seen == seen  # before hours were spent on the reference


def test_truncation_reaches_the_latents() -> None:
    gan = linear()
    found = drawn(gan, replace(SMALL, truncation=0.5, weights="raw"), range(20), 7)
    latents = gan.latents.truncated(gan.latents.numbered(range(20), 4, 0), 0.5)
    with torch.no_grad():
        expected = ((gan.generator(latents) + 1) * 127.5).round().clamp(0, 255)
    assert (found - expected).abs().max() <= 1
    assert (found - drawn(gan, replace(SMALL, weights="raw"), range(20), 7)).abs().max() > 9


def test_what_cannot_be_sampled_is_refused() -> None:
    with pytest.raises(UserError, match="the reference has none"):
        Samples(linear(num_classes=3), replace(SMALL, labels="data"))
    loud = linear()
    assert loud.generator_ema is not None
    loud.generator_ema.linear.weight.data.mul_(1000)  # as a generator of values from 0 to 255 would be
    with pytest.raises(UserError, match="not of the range -1 to 1"):
        drawn(loud, SMALL)
    from ganzoo.models import MLPGAN

    with pytest.raises(UserError, match="MLPGAN makes points of shape"):
        drawn(MLPGAN(), SMALL)
