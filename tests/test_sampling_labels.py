"""Labels of samples drawn as the data have them: by known counts, kept with the model, the same in every command."""

from __future__ import annotations

import shutil
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ganzoo import checkpoint, sampling, streams
from ganzoo.analysis.between import Options, interpolate
from ganzoo.checkpoint import load_model
from ganzoo.data import Array, Digits, ImageFolder
from ganzoo.data.toy import Mixture, Ring, Spiral, SwissRoll, TwoMoons
from ganzoo.errors import UserError
from ganzoo.gan import GAN, Generator
from ganzoo.metrics.generation import Samples
from ganzoo.metrics.protocol import Protocol
from ganzoo.models import DCGAN
from tests.analysis.test_between import Styles
from tests.common import Critic, Endless, fit, quiet_trainer
from tests.mutants import kills

COUNTS = [5, 0, 3, 2]
Choose = Callable[..., torch.Tensor]


class Echo(Generator):
    """Its points are their labels."""

    latent_dim = 2

    def __init__(self) -> None:
        super().__init__()
        self.zero = nn.Parameter(torch.zeros(()))

    def forward(self, latents, labels=None):
        return labels[:, None].float() + self.zero


def echo(counts: list[int] = COUNTS) -> GAN:
    gan = GAN(Echo(), Critic(), num_classes=4, ema=None)
    gan.class_counts = counts
    return gan


def as_listed(counts: list[int], numbers: range, seed: int) -> list[int]:
    """The data's labels written out, sorted; sample i has that of the place which its key points to."""
    listed = np.repeat(np.arange(len(counts)), counts)
    return [int(listed[streams.key(seed, "label", i) % len(listed)]) for i in numbers]


def check_labels(choose: Choose) -> None:
    for seed, first, counts in ((0, 0, COUNTS), (7, 1000, COUNTS), (1, 3, [0, 0, 0, 9]), (2, 0, [6000, 1, 0, 3999])):
        found = choose(4, 400, seed=seed, labels="data", first=first, class_counts=counts)
        assert found.dtype == torch.int64
        assert found.tolist() == as_listed(counts, range(first, first + 400), seed)
        assert set(found.tolist()) <= {label for label, count in enumerate(counts) if count}


def test_labels_follow_the_counts() -> None:
    check_labels(sampling.choose_labels)


def uniform(num_classes, num, *, seed, labels, first, class_counts):
    return sampling.choose_labels(num_classes, num, seed=seed, labels=None, first=first)


def upside_down(num_classes, num, *, class_counts, **options):
    return sampling.choose_labels(num_classes, num, class_counts=class_counts[::-1], **options)


def from_zero(num_classes, num, *, first, **options):
    return sampling.choose_labels(num_classes, num, first=0, **options)


def one_place_on(num_classes, num, *, seed, labels, first, class_counts):
    """The other side of a bound: the last image of a class is one of the next, and empty classes are drawn."""
    ends = list(accumulate(class_counts))
    numbers = range(first, first + num)
    return torch.tensor([bisect_left(ends, streams.key(seed, "label", i) % ends[-1]) for i in numbers])


@pytest.mark.parametrize("mutant", [uniform, upside_down, from_zero, one_place_on])
def test_other_labels_are_seen(mutant: Choose) -> None:
    kills(check_labels, mutant)


def test_frequencies_are_the_data_s_shares() -> None:
    """Within 5 standard errors of 20,000 draws."""
    labels = sampling.choose_labels(4, 20_000, seed=3, labels="data", first=0, class_counts=COUNTS)
    for found, count in zip((labels.bincount(minlength=4) / 20_000).tolist(), COUNTS, strict=True):
        share = count / 10
        assert abs(found - share) <= 5 * (share * (1 - share) / 20_000) ** 0.5


def test_a_sample_s_label_depends_on_its_number_and_the_seed_alone() -> None:
    whole = echo().sample(50, seed=3, labels="data", batch_size=50)[:, 0]
    assert whole.tolist() == as_listed(COUNTS, range(50), 3)
    for size in (1, 7, 64):
        assert torch.equal(echo().sample(50, seed=3, labels="data", batch_size=size)[:, 0], whole)
    assert torch.equal(echo().sample(9, seed=3, labels="data", first=30)[:, 0], whole[30:39])
    assert not torch.equal(echo().sample(50, seed=4, labels="data")[:, 0], whole)


def test_uniform_is_the_default_and_given_labels_are_taken() -> None:
    found = echo().sample(60, seed=3)[:, 0].tolist()
    assert found == [streams.key(3, "label", i) % 4 for i in range(60)]
    assert 1 in found  # which the data do not have
    assert echo().sample(3, labels=[1, 3, 0])[:, 0].tolist() == [1, 3, 0]


def test_samples_have_the_labels_that_an_evaluation_draws() -> None:
    protocol = Protocol(num=40, labels="data", seed=5, weights="raw")
    found = Samples(echo(), protocol, class_counts=COUNTS).labels(range(40))
    assert torch.equal(found.float(), echo().sample(40, seed=5, labels="data")[:, 0])


def test_ways_between_samples_take_a_label_of_the_data() -> None:
    """Without styles one class for all of them: that of sample 0."""
    for seed in range(8):
        ways = interpolate(echo(), 3, 1, Options(seed=seed, labels="data"))
        assert set(ways.flatten().tolist()) == set(as_listed(COUNTS, range(1), seed))


def test_styles_have_a_label_each_of_the_data() -> None:
    """A label moves the styles of this generator by 100."""
    gan = GAN(Styles(), Critic(8), num_classes=4, ema=None)
    gan.class_counts = COUNTS
    ways = interpolate(gan, 20, 1, Options(seed=3, labels="data"))
    starts = (ways[:, 0].flatten(1).mean(dim=1) / 100).round()
    assert starts.tolist() == as_listed(COUNTS, range(19), 3)


@pytest.mark.parametrize(
    ("gan", "labels", "words"),
    [
        (lambda: DCGAN(8, 1, width=4), "data", "Labels were given, but this model is unconditional: leave them out."),
        (lambda: echo([]), "data", "how many images of each class there were is not known .* leave them out"),
        (lambda: echo([0, 0]), "data", "how many images of each class there were is not known"),
        (lambda: echo([0, 0, 0, 0, 7]), "data", r"The labels \[4\] were given .* from 0 to 3"),
        (echo, "dota", "labels was 'dota'; give the class of each sample, or 'data'"),
    ],
)
def test_what_cannot_be_drawn_is_refused(gan, labels, words) -> None:
    with pytest.raises(UserError, match=words):
        gan().sample(1, labels=labels)


# ------------------------------------------------------------------ what the model knows of its data


def small(**options) -> DCGAN:
    return DCGAN(8, 1, width=4, num_classes=10, **options)


def trained(folder: Path) -> tuple[DCGAN, Path]:
    """A run of one step on digits, and its checkpoint."""
    gan, trainer = small(), quiet_trainer(max_steps=1)
    trainer.fit(gan, Digits(image_size=8, labels=True, batch_size=8))
    trainer.save_checkpoint(folder / "a.ckpt")
    return gan, folder / "a.ckpt"


def test_a_model_knows_the_classes_of_its_data_without_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.datasets import load_digits

    gan, path = trained(tmp_path)
    counts = np.bincount(load_digits().target).tolist()
    monkeypatch.setenv("GANZOO_CACHE", str(tmp_path / "empty"))
    again = load_model(path)
    assert gan.class_counts == again.class_counts == counts
    wanted = again.sample(6, seed=2, labels=as_listed(counts, range(6), 2))
    assert torch.equal(again.sample(6, seed=2, labels="data"), wanted)
    assert not (tmp_path / "empty").exists()


def test_a_checkpoint_from_before_counts_were_kept(tmp_path: Path) -> None:
    """It is sampled uniformly, refuses the data's labels in a sentence, and knows them once it was trained on."""
    counts = trained(tmp_path)[0].class_counts
    content = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert content[checkpoint.KEY].pop("class_counts") == counts
    torch.save(content, tmp_path / "old.ckpt")
    old = load_model(tmp_path / "old.ckpt")
    assert torch.equal(old.sample(3), load_model(tmp_path / "a.ckpt").sample(3))
    with pytest.raises(UserError, match="its checkpoint is from before that was kept"):
        old.sample(1, labels="data")
    gan, trainer = small(), quiet_trainer(max_steps=2)
    data = Digits(image_size=8, labels=True, batch_size=8)
    trainer.fit(gan, data, ckpt_path=tmp_path / "old.ckpt", weights_only=True)
    assert gan.class_counts == counts


def test_other_data_have_other_counts(tmp_path: Path) -> None:
    """Those of the data that a model was trained on last; a plain loader does not say."""
    gan, _ = trained(tmp_path)
    fit(gan, Endless(lambda k: (torch.randn(4, 1, 8, 8), torch.arange(4))), max_steps=2)
    assert gan.class_counts == []


def test_counts_of_folders_are_those_of_their_pictures(tmp_path: Path) -> None:
    """What cannot be decoded does not count, as nothing is trained on it."""
    rng = np.random.default_rng(0)
    for name, num in (("cat", 4), ("dog", 3), ("eel", 1)):
        (tmp_path / "animals" / name).mkdir(parents=True)
        for i in range(num):
            noise = rng.integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(noise).save(tmp_path / "animals" / name / f"{i}.png")
    (tmp_path / "animals/cat/1.png").write_bytes(b"no picture")
    options = {"image_size": 8, "batch_size": 2, "corrupt": "skip"}
    data = ImageFolder(str(tmp_path / "animals"), labels=True, **options)
    with pytest.warns(UserWarning, match="skipped 1 pictures"):
        assert data.class_counts == [3, 3, 1]
    shutil.rmtree(tmp_path / "animals/cat")
    assert ImageFolder(str(tmp_path / "animals"), labels=True, **options).class_counts == [3, 1]
    assert ImageFolder(str(tmp_path / "animals"), **options).class_counts == []


def test_a_class_without_images_has_a_count(tmp_path: Path) -> None:
    """Labels of arrays are numbers, of which some may be missing."""
    images = np.zeros((5, 8, 8), np.uint8)
    np.savez(tmp_path / "a.npz", images=images, classes=np.array([4, 0, 4, 2, 4]))
    data = Array(str(tmp_path / "a.npz"), array="images", labels_from="classes", labels=True, batch_size=2)
    assert data.class_counts == [1, 0, 1, 0, 3]
    assert all(type(num) is int for num in data.class_counts)


@pytest.mark.parametrize(
    "make", [Mixture, Ring, TwoMoons, Spiral, lambda **o: Mixture(means=[0, 1], stds=[1, 1], weights=[1, 4], **o)]
)
def test_counts_of_toys_are_the_shares_of_what_they_draw(make) -> None:
    """Within 5 standard errors of 20,000 points."""
    data = make(labels=True)
    labels = Counter(data.dataset[np.arange(20_000)].labels.tolist())
    shares = np.array(data.class_counts) / sum(data.class_counts)
    assert len(shares) == data.num_classes
    for label, share in enumerate(shares):
        assert abs(labels[label] / 20_000 - share) <= 5 * (share * (1 - share) / 20_000) ** 0.5
    assert make().class_counts == SwissRoll().class_counts == []
