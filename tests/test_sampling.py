"""Sample i depends on (seed, i) alone."""

import pytest
import torch

from ganzoo.errors import UserError
from ganzoo.models import DCGAN
from tests.common import fit, normal_batches


@pytest.fixture(scope="module")
def gan() -> DCGAN:
    torch.manual_seed(0)
    gan = DCGAN(8, 1, width=4, num_classes=0)
    fit(gan, normal_batches(16, 1, 8, 8), max_steps=5)  # moves the running statistics
    return gan.train()


def test_batch_size_and_place_do_not_matter(gan) -> None:
    whole = gan.sample(20, seed=3, batch_size=20)
    assert torch.allclose(gan.sample(20, seed=3, batch_size=7), whole, atol=1e-6)
    assert torch.allclose(gan.sample(5, seed=3, first=9), whole[9:14], atol=1e-6)
    latents = [gan.latents.numbered(range(a, b), 100, 3) for a, b in ((0, 20), (9, 14))]
    assert torch.equal(latents[0][9:14], latents[1])


def test_samples_and_seeds_differ(gan) -> None:
    samples = gan.sample(50, seed=3).flatten(1)
    assert len(torch.unique(samples, dim=0)) == 50
    assert not torch.equal(gan.sample(1, seed=3), gan.sample(1, seed=4))


def test_running_statistics_are_used_and_nothing_of_the_model_moves(gan) -> None:
    before = {k: v.clone() for k, v in gan.state_dict().items()}
    state = torch.get_rng_state()
    one = gan.sample(1, averaged=False)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in gan.state_dict().items())
    assert gan.generator.training
    gan.generator.eval()
    by_hand = gan.generator(gan.latents.numbered(range(1), 100, 0))
    gan.generator.train()
    assert torch.allclose(one, by_hand, atol=1e-6)


def test_modules_that_were_in_evaluation_mode_stay_so() -> None:
    gan = DCGAN(8, 1, width=4, ema=None)
    frozen = gan.generator.layers[1].eval()
    gan.sample(1)
    assert not frozen.training
    assert gan.generator.layers[0].training


def test_averaged_weights_are_the_default(gan) -> None:
    gan.generator_ema.layers[-2].bias.data.fill_(9.0)
    assert gan.sample(2).min() > 0.99
    assert gan.sample(2, averaged=False).min() < 0.99


def test_labels_follow_the_seed_and_are_uniform() -> None:
    from ganzoo.sampling import choose_labels

    labels = choose_labels(4, 4000, seed=1, labels=None, first=0)
    assert torch.equal(labels[10:], choose_labels(4, 3990, seed=1, labels=None, first=10))
    assert (labels.bincount(minlength=4) / 4000 - 0.25).abs().max() < 0.03


@pytest.mark.parametrize(("classes", "labels"), [(0, [1]), (3, [3]), (3, [0, 1]), (3, [-1])])
def test_impossible_labels_are_refused(classes, labels) -> None:
    with pytest.raises(UserError, match=r"[Ll]abels"):
        DCGAN(8, 1, width=4, num_classes=classes).sample(1, labels=labels)


def test_no_samples_are_refused() -> None:
    with pytest.raises(UserError, match="both must be 1 or more"):
        DCGAN(8, 1, width=4).sample(0)
